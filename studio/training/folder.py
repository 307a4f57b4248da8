"""A training's run folder: the places that only trainings have. No torch: the page reads it."""

from pathlib import Path
from typing import ClassVar

from studio.jobs.folder import JobFolder


class RunFolder(JobFolder):
    """The places of a run. Naming one does not make it."""

    noun: ClassVar[str] = "run"
    activity: ClassVar[str] = "training"
    begin_command: ClassVar[str] = "python -m studio train --dataset …"

    @property
    def dataset(self) -> Path:
        """The snapshot of what is trained on."""
        return self.root / "dataset.jsonl"

    @property
    def prior_dataset(self) -> Path:
        return self.root / "prior-dataset.jsonl"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def samples(self) -> Path:
        return self.root / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"
