"""A batch's folder: its places, and beginning one.

A batch's folder: the places that only batches have. No torch: the page reads it.

Beginning a batch: a folder with its settings and its plan, fixed. Nothing is computed yet.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from studio.batches.plan import BatchPlan, make_plan
from studio.batches.settings import BatchSettings
from studio.core.errors import BatchError, LoraError, StudioError, about
from studio.core.files import read_file, write_atomically
from studio.core.language import N_, _
from studio.core.paths import UserData, typed_path
from studio.core.settings import SHIPPED_MODEL, parse_settings
from studio.datasets.library import DatasetLibrary, safe_name
from studio.engine.model_files import assert_model_there
from studio.images.prompts import take_lora_tags
from studio.jobs.folder import JobFolder, RunStatus, write_status
from studio.loras.library import LoraLibrary


class BatchFolder(JobFolder):
    """The places of a batch. Naming one does not make it."""

    noun: ClassVar[str] = N_("batch")
    activity: ClassVar[str] = N_("batch")
    begin_command: ClassVar[str] = "python -m studio batch FILE"
    error: ClassVar[type[StudioError]] = BatchError

    @property
    def plan(self) -> Path:
        """The plan as it was fixed when the batch began."""
        return self.root / "plan"

    @property
    def ledgers(self) -> Path:
        """What was made: one file for each process that ever worked on the batch."""
        return self.root / "ledgers"

    @property
    def dataset(self) -> Path:
        """The images and their captions, and nothing else: an imagefolder."""
        return self.root / "dataset"

    @property
    def metadata(self) -> Path:
        return self.dataset / "metadata.jsonl"

    @property
    def rejected(self) -> Path:
        return self.root / "rejected"

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    @property
    def provenance(self) -> Path:
        return self.root / "lineage.json"

    @property
    def report(self) -> Path:
        return self.root / "report.md"

    @property
    def contact_sheet(self) -> Path:
        return self.root / "contact-sheet.jpg"

    @property
    def grid(self) -> Path:
        return self.root / "grid.png"

    def picture(self, index: int, picture_format: str) -> Path:
        """Where the image of an item lies; a thousand to a folder, so that a file manager can open them."""
        ending = {"png": "png", "jpeg": "jpg", "webp": "webp"}[picture_format]
        return self.dataset / f"{index // 1000:04}" / f"{index:07}.{ending}"


MAX_LOOKED_AT = 5_000


def plan_of(settings: BatchSettings, user_data: UserData) -> BatchPlan:
    """The plan that settings make, to look at before it is begun.

    Raises:
        BatchError: where it cannot be planned.
    """
    return make_plan(settings, wildcards=user_data.wildcards)


def begin_batch(settings: BatchSettings, user_data: UserData, *, out: Path | None = None) -> BatchFolder:
    """Make a batch's folder with its settings and its plan; nothing is computed yet.

    Args:
        out: the folder, which must not be there or be empty; None for one of its own in `user_data`.

    Raises:
        BatchError: where it cannot be planned, names a LoRA that is not there, or the folder is taken.
        ModelError: where the model is not there, or cannot be loaded, as far as that is known without loading it.
        OSError: where the folder cannot be written.
    """
    settings = _with_whole_paths(settings, user_data)
    plan = plan_of(settings, user_data)
    with about("model"):
        assert_model_there(settings.model)
    assert_loras(plan, LoraLibrary(user_data.loras))
    folder = _new_folder(settings, user_data, out)
    plan.store(folder.plan)
    write_status(folder, RunStatus(state="new", num_steps=plan.num_items))
    # Last: a folder without settings is no batch.
    write_atomically(folder.settings, settings.model_dump_json(indent=2).encode() + b"\n")
    return folder


def read_batch_settings(folder: BatchFolder) -> BatchSettings:
    """The settings of a batch.

    Raises:
        BatchError: where they cannot be read.
    """
    return read_settings_file(folder.settings)


def read_settings_file(file: Path) -> BatchSettings:
    """The settings in a batch's settings.json.

    Raises:
        BatchError: where the file cannot be read.
        SettingsError: where it breaks a rule.
    """
    try:
        values = json.loads(read_file(file))
    except (OSError, ValueError) as error:
        raise BatchError(_("{file} cannot be read as a batch's settings ({error}).", file=file, error=error)) from error
    if not isinstance(values, dict):
        raise BatchError(_("{file} must hold a batch's settings, got a {kind}.", file=file, kind=type(values).__name__))
    return parse_settings(BatchSettings, values)


def assert_loras(plan: BatchPlan, library: LoraLibrary) -> None:
    """Every LoRA that the items name can be found; of more than 5,000 items that many are looked at, spread over all.

    Raises:
        BatchError: naming the item and the LoRA.
    """
    found: set[str] = set()
    for index in range(0, plan.num_items, max(1, plan.num_items // MAX_LOOKED_AT)):
        generation = plan.item(index).generation
        __, tagged = take_lora_tags(generation.prompt)
        for choice in (*generation.loras, *tagged):
            if choice.name not in found:
                try:
                    library.find(choice.name)
                except LoraError as error:
                    raise BatchError(_("Item {index:,} cannot be made: {error}", index=index, error=error)) from error
                found.add(choice.name)


def _new_folder(settings: BatchSettings, user_data: UserData, out: Path | None) -> BatchFolder:
    if out is None:
        return BatchFolder.new(user_data.batches, safe_name(settings.name), now=datetime.now())
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BatchError(
            _("--out must be a new or an empty folder, got {out}. Give the folder alone to resume it.", out=out)
        )
    out.mkdir(parents=True, exist_ok=True)
    return BatchFolder(out.resolve())


def _with_whole_paths(settings: BatchSettings, user_data: UserData) -> BatchSettings:
    """A relative path is meant from here; the queue, and whoever resumes the batch, work elsewhere."""
    known = {"model": {SHIPPED_MODEL}, "nearest_to": set(DatasetLibrary(user_data.datasets).names())}
    given = {name: getattr(settings, name) for name in ("model", "prompt_file", "wildcards", "nearest_to")}
    places = {name: typed_path(value) for name, value in given.items() if value and value not in known.get(name, ())}
    whole = {name: str(path.resolve()) for name, path in places.items() if path.exists()}
    return settings.model_copy(update=whole)
