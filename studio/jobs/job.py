"""A job of the queue, as it is read. No torch, no gradio."""

import re
from datetime import datetime
from pathlib import Path
from typing import Literal

from studio.results import Fact
from studio.runs.folder import RunFolder

JobKind = Literal["train", "batch"]
JobState = Literal["queued", "running", "paused", "stopped", "finished", "failed"]
Asked = Literal["", "pause", "stop"]
_MOMENT = re.compile(r"^\d{8}-\d{6}-")
MAX_ATTEMPTS = 3  # a job that kills its own process every time must not hold up the others for ever


class Job(Fact):
    """One job, a copy of its row.

    Attributes:
        position: its place in the line, from 1; 0 where it does not wait.
        asked: what a running job was asked and has not yet done.
        attempts: how often its process was started since it was added or resumed.
        pid: of its process; 0 where it has none.
        process_start_time: what psutil says of that process, so that another one with its number is not taken for it.
        message: the last thing to say; of a failed job why, with the end of its log where that tells more.
    """

    id: int
    kind: JobKind
    run_folder: Path
    title: str
    position: int
    state: JobState
    asked: Asked
    attempts: int
    pid: int
    process_start_time: float
    message: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.run_folder)

    @property
    def short_title(self) -> str:
        """The title without the moment that names of runs begin with: `shoes-white`."""
        return _MOMENT.sub("", self.title) or self.title

    def __str__(self) -> str:
        return f"Job {self.id} ({self.title})"
