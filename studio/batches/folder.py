"""A batch's folder: the places that only batches have. No torch: the page reads it."""

from pathlib import Path
from typing import ClassVar

from studio.core.errors import BatchError, StudioError
from studio.jobs.folder import JobFolder


class BatchFolder(JobFolder):
    """The places of a batch. Naming one does not make it."""

    noun: ClassVar[str] = "batch"
    activity: ClassVar[str] = "batch"
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
