"""A batch's folder: its places, and finding one by its name."""

from dataclasses import dataclass
from pathlib import Path

from studio.core.errors import BatchError
from studio.core.paths import typed_path
from studio.jobs.folder import RunFolder, list_runs

SETTINGS = "settings.json"


@dataclass(frozen=True)
class BatchFolder:
    """The places of a batch. Naming one does not make it."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def job(self) -> RunFolder:
        """Its state, its log and what it is asked: as the queue knows them of every job."""
        return RunFolder(self.root)

    @property
    def settings(self) -> Path:
        return self.root / SETTINGS

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


def list_batches(batches: Path) -> tuple[BatchFolder, ...]:
    """Every batch, newest first."""
    return tuple(BatchFolder(run.root) for run in list_runs(batches))


def find_batch(name: str, batches: Path) -> BatchFolder:
    """A batch by its path, by its name below `batches`, or by the end of its name where only one ends so.

    Raises:
        BatchError: where there is none, or more than one.
    """
    path = typed_path(name)
    if (path / SETTINGS).is_file():
        return BatchFolder(path.resolve())
    known = list_batches(batches)
    found = [b for b in known if b.name == name] or [b for b in known if b.name.endswith(f"-{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise BatchError(f"{name} is not one batch but {len(found)}: {', '.join(b.name for b in found)}.")
    names = ", ".join(batch.name for batch in known[:8]) or "none"
    raise BatchError(f"There is no batch {name}. There are: {names}. `python -m studio batch FILE` begins one.")
