"""The batches as a page sees them: past ones, the queue, and the batch that this page shows. No torch."""

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

from PIL import Image

from studio.batches.folder import BatchFolder
from studio.batches.follower import BatchFollower, BatchProgress
from studio.batches.plan import BatchPlan, open_plan
from studio.core.errors import BatchError, RunError
from studio.core.paths import UserData
from studio.jobs.events import JOB_EVENTS, EventFollower, JobHistory
from studio.jobs.folder import BUSY_STATES, RunStatus, read_status, status_or
from studio.jobs.listing import JobLine, has_work, is_in_line
from studio.jobs.session import JobSession

MAX_PAST = 30
KEPT_BATCHES = 8


@dataclass(frozen=True)
class LatestPicture:
    """An image that was made of late.

    Attributes:
        attempts: how often it was made until it was taken.
    """

    item: int
    path: Path
    caption: str
    seed: int
    attempts: int
    seconds: float


@dataclass(frozen=True)
class PastBatch:
    """One line of the table of batches."""

    name: str
    begun_at: datetime | None
    status: RunStatus


@dataclass(frozen=True)
class BatchView:
    """What a page shows of batches, at one moment.

    Attributes:
        names: of all batches, newest first.
        past: the newest of them, each with its state.
        jobs: the queue's lines.
        batch: the one that the page shows; None where there is none.
        status: of that batch.
        progress: what its ledgers tell.
        latest: its last images, newest first.
        history: what it told of memory, and its notes.
        active: whether anything runs or is about to, so that the page must follow.
        problem: why queue or batch could not be read, or that the batch is gone, in a sentence.
    """

    names: tuple[str, ...] = ()
    past: tuple[PastBatch, ...] = ()
    jobs: tuple[JobLine, ...] = ()
    batch: BatchFolder | None = None
    status: RunStatus | None = None
    progress: BatchProgress = field(default_factory=BatchProgress)
    latest: tuple[LatestPicture, ...] = ()
    history: JobHistory | None = None
    active: bool = False
    problem: str = ""

    @property
    def busy(self) -> bool:
        """Whether the batch that is shown is being worked on."""
        return self.status is not None and self.status.state in BUSY_STATES

    @property
    def in_line(self) -> bool:
        """Whether its job waits or runs."""
        return self.batch is not None and is_in_line(self.batch, self.jobs)

    @property
    def ready_at(self) -> datetime | None:
        """When it will be done, as it looks now."""
        if not self.busy or self.status is None or self.status.remaining_seconds is None:
            return None
        return datetime.now() + timedelta(seconds=self.status.remaining_seconds)


class BatchSession(JobSession[BatchFolder]):
    """Looks at batches, and steers their jobs. Any thread may ask."""

    def __init__(self, user_data: UserData) -> None:
        super().__init__(user_data, "batch", folder=BatchFolder, parent=user_data.batches)
        self._opened = lru_cache(KEPT_BATCHES)(_OpenBatch)

    def view(self, name: str = "") -> BatchView:
        """The state now, with the batch of that name; without a name with one that is being made, else the newest.

        The name may come from a page: it is never taken for a path.
        """
        batches = self.folders()
        names = tuple(batch.name for batch in batches)
        past = tuple(map(_past, batches[:MAX_PAST]))
        jobs: tuple[JobLine, ...] = ()
        batch = None
        try:
            jobs = self.jobs()
            batch = self.to_show(name, batches)
            if batch is None:
                return BatchView(names, past, jobs, active=has_work(jobs))
            status, opened = read_status(batch), self._opened(batch)
            progress = opened.ledgers.look(running=status.state == "running")
            latest = opened.pictures(progress)
        except (RunError, BatchError) as error:
            return BatchView(names, past, jobs, batch, active=has_work(jobs), problem=str(error))
        active = status.state in BUSY_STATES or has_work(jobs)
        return BatchView(names, past, jobs, batch, status, progress, latest, opened.events.look(), active)


class _OpenBatch:
    """What follows one batch."""

    def __init__(self, folder: BatchFolder) -> None:
        self.folder = folder
        self.ledgers = BatchFollower(folder.ledgers)
        self.events = EventFollower(folder.events, parse=JOB_EVENTS.validate_json, history=JobHistory)
        self._plan: BatchPlan | None = None

    def pictures(self, progress: BatchProgress) -> tuple[LatestPicture, ...]:
        """The last images with their captions, which only the plan knows."""
        if progress.latest and self._plan is None:
            self._plan = open_plan(self.folder.plan)
        return tuple(
            LatestPicture(
                item=row.item,
                path=self.folder.root / row.file,
                caption=self._plan.item(row.item).caption if self._plan else "",
                seed=row.seed,
                attempts=row.attempts,
                seconds=row.seconds,
            )
            for row in progress.latest
        )


def training_side(batch: BatchFolder) -> int | None:
    """The side of the square that has an image's area, as a dataset's resolution; None where there is no image."""
    for path in batch.dataset.glob("[0-9]*/[0-9]*.*"):
        if path.suffix != ".txt":
            with Image.open(path, formats=["PNG", "JPEG", "WEBP"]) as image:
                return max(64, round(math.sqrt(image.width * image.height) / 8) * 8)
    return None


def _past(batch: BatchFolder) -> PastBatch:
    try:
        begun_at = datetime.strptime(batch.name[:15], "%Y%m%d-%H%M%S")
    except ValueError:
        begun_at = None
    return PastBatch(batch.name, begun_at, status_or("failed", batch))
