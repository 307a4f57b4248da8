"""Beginning a run: settings from a preset and changes, a snapshot of the dataset, a folder. Nothing is computed yet.
Its settings are read again from its folder. No torch: the page reads them too.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from studio.core.errors import DatasetError, FieldProblem, LoraError, RunError, SettingsError, about
from studio.core.files import read_file, write_atomically
from studio.core.language import N_, _
from studio.core.paths import UserData, assets_folder, typed_path
from studio.core.settings import SHIPPED_DATASET, SHIPPED_MODEL, parse_settings
from studio.datasets.checker import PictureChecker
from studio.datasets.library import DatasetLibrary, safe_name
from studio.datasets.opened import OpenedDataset
from studio.datasets.snapshot import Snapshot, make_snapshot, with_masks, write_snapshot
from studio.datasets.source import DatasetRecipe
from studio.engine.model_files import assert_model_there
from studio.images.prompts import take_lora_tags
from studio.images.tokens import TokenCounter, tokenizer_of
from studio.jobs.folder import RunStatus, write_status
from studio.loras.library import NAME_LIMIT_BYTES, LoraLibrary
from studio.training.folder import RunFolder
from studio.training.presets import parse_assignments, speed_settings, unfit_for_speed
from studio.training.settings import TrainingSettings

MAX_LOST = 20  # of a table that names thousands of missing images, as many are named


@dataclass(frozen=True)
class TakenSnapshot:
    """A snapshot, and a sentence for every image of the dataset that is not in it, and for files lost to it."""

    snapshot: Snapshot
    left_out: tuple[str, ...]


def checked_dataset(name: str, user_data: UserData) -> OpenedDataset:
    """A dataset of the Dataset tab by its name, else a folder by its path, with every image looked at.

    Raises:
        DatasetError, OSError: where there is neither, or the cache of checks cannot be written.
    """
    dataset, cache = _open(name, user_data), user_data.cache
    checker = PictureChecker(cache / "picture-checks.db", cache / "dataset-thumbnails")
    try:
        dataset.check(checker)
    finally:
        checker.close()
    if dataset.progress.problem:
        raise DatasetError(_("{name} could not be checked: {problem}", name=name, problem=dataset.progress.problem))
    return dataset


def take_snapshot(name: str, user_data: UserData) -> TakenSnapshot:
    """Look at every image of a dataset (`checked_dataset`) and keep which are good, with sha256 and caption.

    Raises:
        DatasetError, OSError: as `checked_dataset`, and where nothing in it can be trained on.
    """
    dataset = checked_dataset(name, user_data)
    left_out = [_("{key} is left out: you excluded it.", key=row.key) for row in dataset.rows if row.excluded]
    for row in dataset.rows:
        if row.is_rejected and not row.excluded:
            reason = next(problem.sentence for problem in row.problems if problem.severity == "reject")
            left_out.append(_("{key} is left out: {reason}", key=row.key, reason=reason))
    lost = [file for file in dataset.skipped_files if file.problem.severity == "reject"]
    left_out += [_("{name} is not used: {why}", name=file.name, why=file.problem.sentence) for file in lost[:MAX_LOST]]
    if (more := len(lost) - MAX_LOST) > 0:
        left_out.append(_("{more:,} more files and rows are not used. Check the dataset for their list.", more=more))
    return TakenSnapshot(make_snapshot(dataset.name, dataset.recipe, dataset.rows), tuple(left_out))


def dataset_folder(name: str) -> Path:
    """The folder that `TrainingSettings.dataset` names, where it is no dataset of the Dataset tab."""
    return assets_folder() / "casual-shoes" if name == SHIPPED_DATASET else typed_path(name)


def _open(name: str, user_data: UserData) -> OpenedDataset:
    count_tokens = TokenCounter(tokenizer_of()).count_plain
    library = DatasetLibrary(user_data.datasets)
    if known_name := library.known_name(name):
        return library.open(known_name, count_tokens=count_tokens)
    folder = dataset_folder(name)
    if not folder.is_dir():
        missing, advice = _("There is no dataset and no folder {name}.", name=name), _("Give the path of a folder.")
        if known := ", ".join(library.names()):
            advice = _("Choose one of {known}, or give the path of a folder.", known=known)
        raise DatasetError(f"{missing} {advice}")
    source = folder.resolve()
    if known_name := library.name_of_source(source):  # with the edits that were made on the Dataset tab
        return library.open(known_name, count_tokens=count_tokens)
    nowhere = user_data.cache / "no-edits"
    return OpenedDataset(source.name, nowhere, DatasetRecipe(source=str(source)), count_tokens=count_tokens)


def read_run_settings(run: RunFolder) -> TrainingSettings:
    """The settings of a run.

    Raises:
        RunError: where they cannot be read.
        SettingsError: where one breaks its rule.
    """
    try:
        values = json.loads(read_file(run.settings))
    except (OSError, ValueError) as error:
        words = _("{file} cannot be read ({error}). Start a new run.", file=run.settings, error=error)
        raise RunError(words) from error
    return parse_settings(TrainingSettings, values)


def read_settings_file(file: Path) -> TrainingSettings:
    """The settings in a run's settings.json, or in a file that the page saved.

    Raises:
        SettingsError: where the file cannot be read, or breaks a rule.
    """
    file = typed_path(file)
    try:
        values = json.loads(read_file(file))
    except (OSError, ValueError) as error:
        words = _(
            "{file} is no file of a training's settings ({error}). Choose another one.", file=file.name, error=error
        )
        raise SettingsError(words) from error
    if not isinstance(values, dict):
        words = _("{name} must have the settings of a training by their names, got no names.", name=file.name)
        raise SettingsError(words)
    return parse_settings(TrainingSettings, values)


DIFFUSERS_STEM = "pytorch_lora_weights"


def assert_consistent(settings: TrainingSettings) -> None:
    """See that values which are legal one by one make a training together.

    New runs keep these rules; a run that was begun before there was one is read and goes on.

    Raises:
        SettingsError: one sentence for each rule that is broken, naming both settings.
    """
    unfit, left = ", ".join(unfit_for_speed(settings)), settings.max_train_steps - settings.lr_warmup_steps
    values = {**settings.model_dump(), "steps_left": left, "unfit": unfit}
    problems = [FieldProblem(_(text, **values), fields) for is_broken, text, fields in _rules(settings) if is_broken]
    if problems:
        error = SettingsError(" ".join(problem.text for problem in problems))
        error.problems = tuple(problems)
        raise error


def _rules(settings: TrainingSettings) -> Iterator[tuple[bool, str, tuple[str, ...]]]:
    """(whether it is broken, what is wrong then with the settings as values, their names) of each."""
    steps, warmup, cycles = settings.max_train_steps, settings.lr_warmup_steps, settings.lr_num_cycles
    yield (
        warmup > steps,
        N_(
            "Warm-up (lr_warmup_steps) must be at most Steps (max_train_steps), which is {max_train_steps:,}, got "
            "{lr_warmup_steps:,}: the learning rate would never reach its full value. Lower the warm-up, or train for "
            "more steps."
        ),
        ("lr_warmup_steps", "max_train_steps"),
    )
    yield (
        settings.lr_scheduler == "cosine with restarts" and warmup <= steps and cycles > max(1, (steps - warmup) // 2),
        N_(
            "Restarts (lr_num_cycles) must leave two steps or more to each cycle of the Schedule (lr_scheduler); there "
            "are {steps_left:,} steps after the warm-up, got {lr_num_cycles}. Lower the restarts, or train for more "
            "steps."
        ),
        ("lr_num_cycles", "lr_scheduler", "max_train_steps"),
    )
    yield (
        settings.caption_dropout == 1 and bool(settings.trigger_word.strip()),
        N_(
            "Caption dropout (caption_dropout) must be below 1 with a Trigger word (trigger_word), got "
            "{trigger_word!r}: no image would be trained with the word. Lower the dropout, or clear the word."
        ),
        ("caption_dropout", "trigger_word"),
    )
    yield (
        settings.caption_dropout == 1 and settings.train_text_encoder,
        N_(
            "Caption dropout (caption_dropout) must be below 1 with Train the text encoder (train_text_encoder): it "
            "would see no caption. Lower the dropout, or train the U-Net alone."
        ),
        ("caption_dropout", "train_text_encoder"),
    )
    yield from _rules_of_images(settings)
    yield (
        bool(unfit := unfit_for_speed(settings)),
        N_(
            "A Speed LoRA (objective) learns from the model's own images of whole captions, in float32: {unfit} must "
            "stay at the default. Put it back, or choose the objective “images”."
        ),
        ("objective", *unfit),
    )
    yield (
        bool(settings.teacher_lora) and not settings.makes_speed_lora,
        N_(
            "Teacher's LoRA (teacher_lora) acts only with the objective “few steps”. Choose it, or clear the "
            "teacher's LoRA."
        ),
        ("teacher_lora", "objective"),
    )


def _rules_of_images(settings: TrainingSettings) -> Iterator[tuple[bool, str, tuple[str, ...]]]:
    """Likewise, of regularisation images and masks."""
    yield (
        bool(settings.prior_dataset) and settings.prior_loss_weight == 0,
        N_(
            "Regularisation weight (prior_loss_weight) must be above 0 with Regularisation images (prior_dataset), got "
            "0: they would take half of the time and change nothing. Raise the weight, or clear the images."
        ),
        ("prior_loss_weight", "prior_dataset"),
    )
    yield (
        bool(settings.mask_folder) and settings.unmasked_weight == 1,
        N_(
            "Weight outside masks (unmasked_weight) must be below 1 with Masks (mask_folder), got 1: the masks would "
            "change nothing. Lower the weight, or clear the masks."
        ),
        ("unmasked_weight", "mask_folder"),
    )
    masks = typed_path(settings.mask_folder).resolve() if settings.mask_folder else None
    yield (
        masks == dataset_folder(settings.dataset).resolve(),
        N_(
            "Masks (mask_folder) must be another folder than the Dataset (dataset), got {mask_folder!r} for both: each "
            "image would be its own mask. Choose the folder of the grey images."
        ),
        ("mask_folder", "dataset"),
    )


def begin_run(settings: TrainingSettings, user_data: UserData) -> RunFolder:
    """Make a run's folder with its settings and its snapshot; nothing is computed yet.

    Raises:
        SettingsError: where settings do not fit together, no file can have the LoRA's name, a validation prompt has a
            tag that cannot be followed, or the regularisation images are the dataset itself.
        ModelError: where the model is not there, or cannot be loaded, as far as that is known without loading it.
        DatasetError: where the dataset cannot be read, nothing of it can be trained on, or no mask fits.
        OSError: where the folder cannot be written.
    """
    assert_consistent(settings)
    with about("name"):
        _assert_name_is_free(settings.name)
    with about("validation_prompts"):
        _assert_prompts(settings.validation_prompts, LoraLibrary(user_data.loras))
    with about("model"):
        assert_model_there(settings.model)
    with about("prior_dataset", "dataset"):
        settings = _with_whole_paths(settings, user_data)
    with about("teacher_lora"):
        for choice in settings.teacher_loras:
            LoraLibrary(user_data.loras).find(choice.name)
    with about("dataset"):
        taken = take_snapshot(settings.dataset, user_data)
    with about("prior_dataset"):
        prior = take_snapshot(settings.prior_dataset, user_data) if settings.prior_dataset else None
    with about("mask_folder"):
        snapshot = with_masks(taken.snapshot, settings.mask_folder)
    run = RunFolder.new(user_data.runs, safe_name(settings.name), now=datetime.now())
    write_snapshot(run.dataset, snapshot)
    if prior is not None:
        write_snapshot(run.prior_dataset, prior.snapshot)
    for sentence in (*taken.left_out, *(prior.left_out if prior else ())):
        print(sentence, file=sys.stderr)
    write_status(run, RunStatus(state="new", num_steps=settings.max_train_steps))
    # Last: a folder without settings is no run.
    write_atomically(run.settings, settings.model_dump_json(indent=2).encode() + b"\n")
    return run


def _assert_name_is_free(name: str) -> None:
    """The file beside it, and the temporary one that is written first, have names too."""
    size = {"limit": NAME_LIMIT_BYTES, "num_bytes": len(name.encode())}
    if size["num_bytes"] > NAME_LIMIT_BYTES:
        said = _(
            "Name must be at most {limit} bytes long as a file's name, got {name!r} with {num_bytes}.",
            **size,
            name=name,
        )
        raise SettingsError(said)
    if name.casefold() == DIFFUSERS_STEM:
        words = _(
            "Name must not be {stem}: diffusers' file beside it is called so, got {name!r}.",
            stem=DIFFUSERS_STEM,
            name=name,
        )
        raise SettingsError(words)


def _assert_prompts(prompts: Sequence[str], library: LoraLibrary) -> None:
    """Every LoRA tag can be followed; whether the LoRA fits the model is seen when that is loaded."""
    for prompt in prompts:
        try:
            for choice in take_lora_tags(prompt)[1]:
                library.find(choice.name)
        except (SettingsError, LoraError) as error:
            words = _("validation_prompts: {prompt!r} cannot be used. {error}", prompt=prompt, error=error)
            raise SettingsError(words) from error


def _with_whole_paths(settings: TrainingSettings, user_data: UserData) -> TrainingSettings:
    """A relative path is meant from here; the queue, and whoever resumes the run, work elsewhere."""
    names = {"model": {SHIPPED_MODEL}, "dataset": DatasetLibrary(user_data.datasets).names()}
    loras = LoraLibrary(user_data.loras).names()
    known = {**names, "prior_dataset": names["dataset"], "mask_folder": (), "teacher_lora": loras}
    given = {name: str(getattr(settings, name)) for name in known}
    places = {name: typed_path(value) for name, value in given.items() if value and value not in known[name]}
    whole = settings.model_copy(update={name: str(path.resolve()) for name, path in places.items() if path.exists()})
    if whole.prior_dataset and whole.prior_dataset == whole.dataset:
        raise SettingsError(
            _(
                "Regularisation images (prior_dataset) must be other images than the dataset's, got {given!r}.",
                given=settings.prior_dataset,
            )
        )
    return whole


def duplicate_run(run: RunFolder, user_data: UserData, assignments: Sequence[str]) -> RunFolder:
    """A new run with the settings of another and some changes; its dataset is read anew.

    Raises:
        SettingsError, DatasetError: where a change breaks its rule, or the dataset cannot be read.
        RunError: where the other's settings cannot be read.
    """
    before = read_run_settings(run).model_dump()
    return begin_run(parse_settings(TrainingSettings, {**before, **parse_assignments(assignments)}), user_data)


def begin_making_fast(run: RunFolder, lora: str, user_data: UserData, assignments: Sequence[str] = ()) -> RunFolder:
    """A new run that distils a Speed LoRA from the model of another, and a LoRA that came of it.

    Args:
        lora: its name in the library, or its file.
        assignments: changes of the new run's settings.

    Raises:
        SettingsError, DatasetError, RunError: as `duplicate_run`.
    """
    return begin_run(speed_settings(read_run_settings(run), lora, assignments), user_data)
