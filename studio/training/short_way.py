"""The short way: what follows from a folder, what is to be taught and the machine; settings, and a sentence for each.

The rules of thumb, and where they come from, are in docs/training.md.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from studio.core.errors import DatasetError
from studio.core.files import read_file, write_atomically
from studio.core.language import _
from studio.core.paths import UserData
from studio.core.settings import SHIPPED_MODEL, parse_settings
from studio.core.text import counted, duration, gigabytes
from studio.datasets import captioning
from studio.datasets.generation import lineage_words
from studio.datasets.grounds import on_other_grounds, put_on_white
from studio.datasets.snapshot import write_snapshot
from studio.datasets.source import DatasetRow, MadeFrom
from studio.jobs.folder import status_or
from studio.training.begin import begin_run, checked_dataset, read_run_settings, take_snapshot
from studio.training.folder import Preparation, RunFolder, read_plan
from studio.training.presets import BY_MEASURE, BY_MODEL, KINDS, NO_CAPTIONS, PRESETS, Kind, ShortWay
from studio.training.settings import TrainingSettings

DeviceKind = Literal["cpu", "cuda", "mps"]

FEW_IMAGES, MAX_NAME = 10, 76  # a name has at most 80 characters: room for a number
MIN_VIEWS, MAX_VIEWS = 1500, 20_000
MAX_SECONDS = 8 * 3600.0  # a night: a training that would take longer is made shorter
IMAGES_PER_STEP = 4
ROOM_FOR_FOUR_BYTES = 10 * 1024**3
NUM_LOOKS = 4  # how often images are made on the way


@dataclass(frozen=True)
class DatasetFacts:
    """Of the images that can be trained on: how many there are, have a caption, have another background than white.

    Of `num_unchecked` the background is not known yet. `lineage` says who made them.
    """

    name: str
    num_images: int
    num_captioned: int
    num_unusable: int = 0
    num_coloured: int = 0
    num_unchecked: int = 0
    lineage: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """What there is to train with.

    Attributes:
        memory_bytes: of the device; None where that is not known.
        image_seconds: that an image takes in training with this model, as it was measured last; None before.
    """

    device: DeviceKind = "cpu"
    memory_bytes: int | None = None
    image_seconds: float | None = None


@dataclass(frozen=True)
class PlanSentence:
    """What was decided; `about` names the setting, or the control of the short way, that changes it."""

    about: str
    text: str


@dataclass(frozen=True)
class ShortPlan:
    """What the short way trains.

    Attributes:
        settings: of the training.
        caption_model: that writes the missing captions first; "" where none does.
        template: of what is measured, for images that have no caption then; "" for none.
        on_white: whether images with another background, which may not be known yet, are put on white first.
    """

    settings: TrainingSettings
    caption_model: str
    template: str
    on_white: bool
    sentences: tuple[PlanSentence, ...]


def facts_of(name: str, rows: Sequence[DatasetRow], made_from: MadeFrom | None = None) -> DatasetFacts:
    """What counts of a dataset; of an image that was not checked yet nothing bad is assumed."""
    usable = [row for row in rows if not row.excluded and not row.is_rejected]
    captioned = sum(bool(row.caption) for row in usable)
    unusable = sum(row.is_rejected and not row.excluded for row in rows)
    coloured, unchecked = len(on_other_grounds(usable)), sum(row.facts is None for row in usable)
    return DatasetFacts(
        name,
        len(usable),
        captioned,
        unusable,
        coloured,
        unchecked,
        tuple(lineage_words(made_from) if made_from else ()),
    )


def plan_short_way(
    wanted: ShortWay,
    images: DatasetFacts,
    machine: Machine,
    *,
    model: str = SHIPPED_MODEL,
    captioner: str = "",
    taken: Collection[str] = (),
) -> ShortPlan:
    """What follows from what is asked, the images and the machine.

    Args:
        model: the base model.
        captioner, taken: a caption model that is at hand, or ""; names of LoRAs in the library.

    Raises:
        DatasetError, SettingsError: where there is nothing to train on; where a name cannot be used.
    """
    if not images.num_images:
        raise DatasetError(
            _("No image of {name} can be trained on. The Dataset tab says why.", name=images.name)
        ).about("dataset")
    kind = KINDS[wanted.kind]
    is_small = model == SHIPPED_MODEL
    preset = "quick-try" if is_small else kind.preset
    changes = {**PRESETS[preset].changes, **({} if is_small else kind.changes)}
    name = _free_name(wanted.name or images.name, taken)
    trigger = wanted.trigger_word.strip() or re.sub(r"\W+", "", (wanted.name or images.name).casefold())[:MAX_NAME]
    wish = wanted.captions.strip() or BY_MODEL
    lacking = images.num_captioned < images.num_images
    caption_model = "" if not lacking or wish in (BY_MEASURE, NO_CAPTIONS) else captioner if wish == BY_MODEL else wish
    template = "" if not lacking or wish == NO_CAPTIONS else kind.template
    on_white = wanted.background == "white" and images.num_coloured + images.num_unchecked > 0
    if all_replaced := on_white and images.num_coloured == images.num_images:
        caption_model = ""  # it would describe grounds that are not trained on
    changes |= _per_step(machine, changes, is_small=is_small)
    per_step = int(str(changes["train_batch_size"])) * int(str(changes["gradient_accumulation_steps"]))
    views, full_views = _views(kind, images, machine)
    steps = max(1, round(views / per_step))
    changes |= _over_steps(steps)
    own = {"dataset": images.name, "name": name, "model": model, "trigger_word": trigger}
    settings = parse_settings(TrainingSettings, {**changes, **own, "cpu": False})
    sentences = (
        *_of_images(images),
        *_of_name(name, wanted.name or images.name),
        _of_captions(images, caption_model, template, by_choice=wish != BY_MODEL or all_replaced),
        *_of_background(images, wanted, on_white=on_white, model=caption_model),
        PlanSentence("trigger_word", _("“{word}” in a prompt brings it out.", word=trigger)),
        _of_kind(settings, preset),
        *_of_time(settings, machine, full_views=full_views, num_images=images.num_images),
    )
    return ShortPlan(settings, caption_model, template, on_white, sentences)


def _free_name(wanted: str, taken: Collection[str]) -> str:
    plain = re.sub(r"^\W+|[^\w .()+-]", "", wanted)[:MAX_NAME].rstrip() or "LoRA"
    names = {other.casefold() for other in taken}
    numbered = (f"{plain} {number}" for number in range(2, len(names) + 3))
    return next(name for name in (plain, *numbered) if name.casefold() not in names)


def _per_step(machine: Machine, changes: Mapping[str, object], *, is_small: bool) -> dict[str, object]:
    """How many images a step has, and at once: the small model's preset keeps its own."""
    if is_small:
        return {name: changes[name] for name in ("train_batch_size", "gradient_accumulation_steps")}
    has_room = machine.device == "cuda" and (machine.memory_bytes or 0) >= ROOM_FOR_FOUR_BYTES
    at_once = IMAGES_PER_STEP if has_room else 1
    precision = {"mixed_precision": "fp16"} if machine.device == "cuda" else {}
    return {"train_batch_size": at_once, "gradient_accumulation_steps": IMAGES_PER_STEP // at_once, **precision}


def _views(kind: Kind, images: DatasetFacts, machine: Machine) -> tuple[int, int]:
    """How many images are seen in all, and how many would be where time did not matter."""
    full = min(max(kind.views * images.num_images, MIN_VIEWS), MAX_VIEWS)
    if machine.image_seconds is None:
        return full, full
    return max(min(full, int(MAX_SECONDS / machine.image_seconds)), min(full, MIN_VIEWS // 3)), full


def _over_steps(steps: int) -> dict[str, object]:
    """What is counted in steps, in proportion."""
    look = max(1, -(-steps // NUM_LOOKS))
    return {
        "max_train_steps": steps,
        "lr_warmup_steps": min(100, steps // 20),
        "validation_steps": look,
        "held_out_steps": max(1, look // 2),
        "checkpointing_steps": max(1, look // 2),
        "keep_every_steps": look,
    }


def _of_images(images: DatasetFacts) -> Iterator[PlanSentence]:
    num = counted(images.num_images, "image", "images")
    yield PlanSentence("", _("{images} of {name} are trained on.", images=num, name=images.name))
    if images.num_unusable:
        bad = counted(images.num_unusable, "image", "images")
        yield PlanSentence("", _("{images} cannot be used: the Dataset tab says why.", images=bad))
    yield from (PlanSentence("", sentence) for sentence in images.lineage)
    if images.num_images < FEW_IMAGES:
        yield PlanSentence("", _("That is few: 15 to 30 different images teach better."))


def _of_captions(images: DatasetFacts, model: str, template: str, *, by_choice: bool) -> PlanSentence:
    missing = counted(images.num_images - images.num_captioned, "image", "images")
    if images.num_captioned == images.num_images:
        text = _("Every image has a caption; captions stay as they are.")
    elif model:
        text = _("{images} without a caption: {model} writes captions first.", images=missing, model=model)
    elif not template:
        text = _("{images} without a caption: the trigger word alone stands for them.", images=missing)
    elif by_choice:
        text = _("{images} without a caption: colour and background are measured and named.", images=missing)
    else:
        text = _(
            "{images} without a caption: colour and background are measured and named, as no caption model is on this "
            "machine.",
            images=missing,
        )
    return PlanSentence("captions", text)


def _of_background(images: DatasetFacts, wanted: ShortWay, *, on_white: bool, model: str) -> Iterator[PlanSentence]:
    num = counted(images.num_coloured, "image", "images")
    if on_white and images.num_unchecked:
        text = _("The backgrounds are being checked: what is not white is put on pure white first.")
    elif on_white:
        text = _("{images} on another background are put on pure white first.", images=num)
    elif wanted.background == "white":
        text = _("Every background is white.")
    else:
        text = _("Backgrounds stay as they are; {images} on another one than white.", images=num)
    if wanted.background == "white" or (wanted.kind == "product" and images.num_coloured):
        yield PlanSentence("background", text)
    if on_white and model:
        text = _("Of those without a caption, colour and background are measured and named.")
        yield PlanSentence("captions", text)


def _of_name(name: str, wanted: str) -> Iterator[PlanSentence]:
    if name != wanted:
        text = _("The library has a LoRA {taken} already: this one is called {name}.", taken=wanted, name=name)
        yield PlanSentence("name", text)


def _of_kind(settings: TrainingSettings, preset: str) -> PlanSentence:
    text = _(
        "It is trained on {model} as in “{preset}”, with rank {rank}.",
        model=settings.model,
        preset=_(PRESETS[preset].title),
        rank=settings.rank,
    )
    return PlanSentence("model", text)


def _of_time(
    settings: TrainingSettings, machine: Machine, *, full_views: int, num_images: int
) -> Iterator[PlanSentence]:
    per_step = settings.train_batch_size * settings.gradient_accumulation_steps
    views = settings.max_train_steps * per_step
    times = max(1, round(views / num_images))
    steps = {"steps": settings.max_train_steps, "per_step": per_step, "times": times}
    text = _("{steps:,} steps of {per_step} images, so each image is seen about {times:,} times.", **steps)
    yield PlanSentence("max_train_steps", text)
    if machine.image_seconds is None:
        time = _("How long it takes shows after the first steps: it was not measured here yet.")
    elif views < full_views - per_step:
        whole, night = duration(full_views * machine.image_seconds), duration(views * machine.image_seconds)
        time = _("It takes about {time}; the usual number of steps would take {whole}.", time=night, whole=whole)
    else:
        time = _("It takes about {time}.", time=duration(views * machine.image_seconds))
    yield PlanSentence("train_batch_size", f"{_device_words(machine, settings)} {time}")


def _device_words(machine: Machine, settings: TrainingSettings) -> str:
    at_once = counted(settings.train_batch_size, "image", "images")
    if machine.device == "cpu":
        return _("The CPU computes {images} at once.", images=at_once)
    if machine.device == "mps":
        return _("The Mac's GPU computes {images} at once.", images=at_once)
    told = {"images": at_once, "memory": gigabytes(machine.memory_bytes), "precision": settings.mixed_precision}
    return _("The GPU with {memory} computes {images} at once, in {precision}.", **told)


def begin_short_way(
    plan: ShortPlan, user_data: UserData, *, cpu: bool
) -> tuple[RunFolder, captioning.CaptionFolder | None]:
    """Make the run's folder, and that of the job that writes its captions first; nothing is computed yet.

    Raises:
        StudioError, OSError: as `begin_run` and `begin_captioning`; where a folder cannot be written.
    """
    settings = plan.settings.model_copy(update={"cpu": cpu})
    run = begin_run(settings, user_data)
    captions = None
    if plan.caption_model:
        asked = {"dataset": settings.dataset, "model": plan.caption_model, "cpu": cpu}
        captions = captioning.begin_captioning(parse_settings(captioning.CaptionSettings, asked), user_data)
    if captions is not None or plan.template or plan.on_white:
        job = captions.name if captions else ""
        needs = Preparation(captions_from=job, template=plan.template, on_white=plan.on_white)
        write_atomically(run.preparation, needs.model_dump_json(indent=2).encode() + b"\n")
    return run, captions


def prepare_dataset(run: RunFolder, user_data: UserData) -> None:
    """Give the dataset of a run its captions and white backgrounds, and take its snapshot anew; once.

    Raises:
        DatasetError, OSError: where captions are not written yet, or the dataset cannot be read or written.
    """
    if read_plan(run) is not None or not run.preparation.is_file():
        return
    needs = Preparation.model_validate_json(read_file(run.preparation))
    dataset = checked_dataset(read_run_settings(run).dataset, user_data)
    if needs.captions_from:
        folder = captioning.CaptionFolder(user_data.captions / needs.captions_from)
        if status_or("failed", folder).state != "finished":
            raise DatasetError(
                _(
                    "The captions of {name} are not written yet. Resume their job on the Dataset tab, then resume "
                    "this run.",
                    name=dataset.name,
                )
            )
        replaced = (
            {*on_other_grounds(dataset.rows)} if needs.on_white else set()
        )  # a caption would tell of their ground
        written = [
            key for key, made in captioning.read_captions(folder).items() if made.candidates and dataset.has(key)
        ]
        if lacking := [key for key in written if key not in replaced and not dataset.row(key).caption]:
            captioning.take_captions(dataset, folder, keys=lacking)
    if needs.on_white and put_on_white(dataset, user_data.cache):
        dataset = checked_dataset(dataset.name, user_data)  # of a copy nothing is known yet
    if needs.template and (captions := captioning.measured_captions(dataset.rows, needs.template)):
        dataset.set_captions(captions, what=_("captions from what is measured"))
    write_snapshot(run.dataset, take_snapshot(dataset.name, user_data).snapshot)
    run.preparation.unlink()
