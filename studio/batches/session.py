"""The batches as a page sees them: past ones, the queue, and the batch that this page shows. No torch.

It keeps no state of a batch: all is read from batches' folders and the queue, so a page that was killed finds it again.
Nor does it keep which batch is shown: every page names its own.
"""

import math
from collections.abc import Sequence
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
from studio.jobs.folder import BUSY_STATES, RunRequest, RunStatus, read_status
from studio.jobs.listing import JobLine, job_lines
from studio.jobs.queue import JobQueue
from studio.jobs.steering import Steering, has_work, is_in_line

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


class BatchSession:
    """Looks at batches, and steers their jobs. Any thread may ask."""

    def __init__(self, user_data: UserData) -> None:
        self.user_data = user_data
        self.queue = JobQueue(user_data)
        self._steering = Steering(user_data, "batch")
        self._opened = lru_cache(KEPT_BATCHES)(_OpenBatch)

    def view(self, name: str = "") -> BatchView:
        """The state now, with the batch of that name; without a name with one that is being made, else the newest.

        The name may come from a page: it is never taken for a path.
        """
        batches = BatchFolder.all_in(self.user_data.batches)
        names = tuple(batch.name for batch in batches)
        past = tuple(_past(batch) for batch in batches[:MAX_PAST])
        jobs: tuple[JobLine, ...] = ()
        batch = None
        try:
            jobs = job_lines(self.queue) if self.user_data.database.is_file() else ()
            batch = _batch_to_show(name, batches, past)
            if batch is None:
                return BatchView(names, past, jobs, active=has_work(jobs))
            status, opened = read_status(batch), self._opened(batch)
            busy = status.state in BUSY_STATES
            progress = opened.ledgers.look(running=status.state == "running")
            latest = opened.pictures(progress)
        except (RunError, BatchError) as error:
            return BatchView(names, past, jobs, batch, active=has_work(jobs), problem=str(error))
        active = busy or has_work(jobs)
        return BatchView(names, past, jobs, batch, status, progress, latest, opened.events.look(), active)

    def batch_named(self, name: str) -> BatchFolder:
        """A batch by its whole name, which may come from a page: it is never taken for a path.

        Raises:
            BatchError: where there is none of that name.
        """
        return _batch_named(name, BatchFolder.all_in(self.user_data.batches))

    def queue_batch(self, batch: BatchFolder) -> None:
        """Put a new batch into the queue, and see to it that someone works on that.

        Raises:
            RunError: where it is there already, or the queue cannot be written.
            OSError: where the worker cannot be started.
        """
        self._steering.start(batch)

    def ask(self, batch: BatchFolder, request: RunRequest) -> None:
        """Ask a batch to pause or to stop, through its job where it has one.

        Raises:
            RunError: where it cannot be asked.
            OSError: where it cannot be written.
        """
        self._steering.ask(batch, request)

    def resume(self, batch: BatchFolder) -> None:
        """Go on with a batch that was paused, stopped or failed.

        Raises:
            RunError: where it cannot be resumed.
            OSError: where the worker cannot be started.
        """
        self._steering.resume(batch)


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


def _batch_named(name: str, batches: Sequence[BatchFolder]) -> BatchFolder:
    if not name:
        raise BatchError("No batch is chosen. Choose one under “Batch”.")
    found = next((batch for batch in batches if batch.name == name), None)
    if found is None:
        raise BatchError(f"There is no batch {name} any more: it was deleted or renamed. Choose another under “Batch”.")
    return found


def _batch_to_show(name: str, batches: Sequence[BatchFolder], past: Sequence[PastBatch]) -> BatchFolder | None:
    """The named one; without a name one that is being made, else the newest."""
    if not batches or name:
        return _batch_named(name, batches) if batches else None
    busy = (one.name for one in past if one.status.state in BUSY_STATES)
    return _batch_named(next(busy, batches[0].name), batches)


def _past(batch: BatchFolder) -> PastBatch:
    try:
        begun_at = datetime.strptime(batch.name[:15], "%Y%m%d-%H%M%S")
    except ValueError:
        begun_at = None
    try:
        return PastBatch(batch.name, begun_at, read_status(batch))
    except RunError as error:
        return PastBatch(batch.name, begun_at, RunStatus(state="failed", message=str(error)))
