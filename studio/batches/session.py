"""Batches as a page sees them; a batch's ledgers followed as they are written.

Following a batch's ledgers as they are written: each look reads only what is new. No torch: the page does it.

The batches as a page sees them: past ones, the queue, and the batch that this page shows. No torch.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from studio.batches.folder import BatchFolder, read_batch_settings
from studio.batches.ledger import ItemState, count_rows_rejected, ledger_files, states_since
from studio.batches.outputs import write_sheets
from studio.batches.plan import BatchPlan, open_plan
from studio.batches.report import rename_report
from studio.batches.review import ReviewPage, ReviewQuery, decide, review
from studio.core.errors import BatchError, RunError, StudioError, error_message
from studio.core.files import open_file
from studio.core.paths import UserData
from studio.core.records import Label
from studio.jobs.events import JOB_EVENTS, EventFollower, JobHistory
from studio.jobs.folder import BUSY_STATES, RunRequest, RunStatus, pending_requests, status_or
from studio.jobs.session import JobLine, JobSession, has_work, is_in_line
from studio.jobs.words import begun_at, short_title

logger = logging.getLogger(__name__)

_RATE_SECONDS = 60.0  # what came before says little of how fast it goes now
_STATE_NUMBERS: Mapping[ItemState, int] = {"done": 1, "failed": 2, "rejected": 3, "again": 4}


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        num_rejected: images that were made and not taken; their items were tried again.
        num_set_aside, num_to_remake: items that a person rejected, and those that are to be made again.
        pictures_per_second: of late, of all processes together; None where that is not known.
    """

    num_done: int = 0
    num_failed: int = 0
    num_rejected: int = 0
    num_set_aside: int = 0
    num_to_remake: int = 0
    pictures_per_second: float | None = None


@dataclass
class _Followed:
    """What was read of one ledger."""

    stamp: tuple[int, int] = (0, 0)
    seq: int = 0
    num_rejected: int = 0


class BatchFollower:
    """Reads a batch's ledgers on from where it stopped. Any thread may look."""

    def __init__(self, ledgers: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = ledgers
        self._clock = clock
        self._lock = threading.Lock()
        self._followed: dict[Path, _Followed] = {}
        self._states = bytearray()  # by item: an item that is made again, or that two ledgers have, counts once
        self._seen: deque[tuple[float, int]] = deque()

    def look(self, *, running: bool) -> BatchProgress:
        """How far it is now.

        Args:
            running: whether images are being made; the pace of before a pause is not that of after it.

        Raises:
            BatchError: where a ledger cannot be read.
        """
        with self._lock:
            for path in ledger_files(self._folder):
                self._read(path, self._followed.setdefault(path, _Followed()))
            done, failed = self._states.count(1), self._states.count(2)
            return BatchProgress(
                num_done=done,
                num_failed=failed,
                num_rejected=sum(one.num_rejected for one in self._followed.values()),
                num_set_aside=self._states.count(3),
                num_to_remake=self._states.count(4),
                pictures_per_second=self._pace(done + failed, running=running),
            )

    def _read(self, path: Path, followed: _Followed) -> None:
        stat = path.stat()
        if (stat.st_mtime_ns, stat.st_size) == followed.stamp:
            return
        for seq, item, state in states_since(path, followed.seq):
            if item >= len(self._states):
                self._states.extend(bytes(item + 1 - len(self._states)))
            self._states[item] = _STATE_NUMBERS[state]
            followed.seq = seq
        followed.num_rejected = count_rows_rejected(path)
        followed.stamp = stat.st_mtime_ns, stat.st_size  # as it was before: what came meanwhile is read the next time

    def _pace(self, number: int, *, running: bool) -> float | None:
        """From the moments at which the number was seen to change."""
        now, seen = self._clock(), self._seen
        if not running:
            seen.clear()
            return None
        if not seen or seen[-1][1] != number:
            seen.append((now, number))
        while len(seen) > 2 and now - seen[0][0] > _RATE_SECONDS:
            seen.popleft()
        (first_time, first), (last_time, last) = seen[0], seen[-1]
        return (last - first) / (last_time - first_time) if last_time > first_time and last > first else None


SETTLED_SECONDS = 1.5  # people go through many images at once
MAX_PAST = 30
KEPT_BATCHES = 8


@dataclass(frozen=True)
class PastBatch:
    """One line of the table of batches; `title` is what people call it."""

    name: str
    begun_at: datetime | None
    status: RunStatus
    title: str


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
        history: what it told of memory, and its notes.
        active: whether anything runs or is about to, so that the page must follow.
        asked: what the batch was asked for and has not taken up yet.
        problem: why queue or batch could not be read, or that the batch is gone, in a sentence.
        labels: what people call batches, by their names.
        titles: what lists call them, likewise.
    """

    names: tuple[str, ...] = ()
    past: tuple[PastBatch, ...] = ()
    jobs: tuple[JobLine, ...] = ()
    batch: BatchFolder | None = None
    status: RunStatus | None = None
    progress: BatchProgress = field(default_factory=BatchProgress)
    history: JobHistory | None = None
    active: bool = False
    asked: frozenset[RunRequest] = frozenset()
    problem: str = ""
    labels: Mapping[str, Label] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)

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


class SheetMaker:
    """Makes the sheets of batches that were reviewed anew, apart: hundreds of images take seconds. Any thread may ask.

    It waits until nothing was decided for a moment. What a kill leaves undone, the batch's next run makes.
    """

    def __init__(self, settled_seconds: float = SETTLED_SECONDS) -> None:
        self._settled_seconds = settled_seconds
        self._lock = threading.Lock()
        self._making = threading.Lock()  # one after another: what was decided last is what stays
        self._timers: dict[BatchFolder, threading.Timer] = {}

    def ask(self, folder: BatchFolder, plan: BatchPlan) -> None:
        """Make them soon."""
        with self._lock:
            if earlier := self._timers.get(folder):
                earlier.cancel()
            timer = threading.Timer(self._settled_seconds, lambda: self._make(folder, plan, timer))
            timer.daemon = True
            self._timers[folder] = timer
            timer.start()

    def is_making(self, folder: BatchFolder) -> bool:
        """Whether they are about to be others."""
        with self._lock:
            return folder in self._timers

    def _make(self, folder: BatchFolder, plan: BatchPlan, timer: threading.Timer) -> None:
        try:
            with self._making:
                if status_or("failed", folder).state not in BUSY_STATES:  # its run makes them when it ends
                    write_sheets(folder, read_batch_settings(folder), plan)
        except (StudioError, OSError) as error:
            logger.warning("The sheets of %s are those of before: %s", folder.root, error_message(error))
        finally:
            with self._lock:
                if self._timers.get(folder) is timer:
                    del self._timers[folder]


class BatchSession(JobSession[BatchFolder]):
    """Looks at batches, and steers their jobs. Any thread may ask."""

    def __init__(self, user_data: UserData) -> None:
        super().__init__(user_data, "batch", folder=BatchFolder, parent=user_data.batches)
        self._opened = lru_cache(KEPT_BATCHES)(_OpenBatch)
        self._deciding = threading.Lock()
        self.sheets = SheetMaker()
        self.thumbnails = user_data.run_thumbnails

    def view(self, name: str = "") -> BatchView:
        """The state now, with the batch of that name; without a name with one that is being made, else the newest.

        The name may come from a page: it is never taken for a path.
        """
        batches = self.folders()
        names, titles = tuple(batch.name for batch in batches), self.titles(batches)
        called: dict[str, Any] = {"labels": self.labels(batches), "titles": titles}
        past = tuple(_past(batch, called["labels"]) for batch in batches[:MAX_PAST])
        jobs: tuple[JobLine, ...] = ()
        batch = None
        try:
            jobs = self.jobs()
            batch = self.to_show(name, batches)
            if batch is None:
                return BatchView(names, past, jobs, active=has_work(jobs), **called)
            status, opened = status_or("failed", batch), self._opened(batch)
            progress = opened.ledgers.look(running=status.state == "running")
        except (RunError, BatchError) as error:
            problem = str(error)
            return BatchView(names, past, jobs, batch, active=has_work(jobs), problem=problem, **called)
        busy = status.state in BUSY_STATES
        asked = pending_requests(batch) if busy else frozenset()
        history = opened.events.look()
        active = busy or has_work(jobs) or self.sheets.is_making(batch)
        return BatchView(names, past, jobs, batch, status, progress, history, active, asked, **called)

    def review(self, folder: BatchFolder, query: ReviewQuery) -> ReviewPage:
        """Some of a batch's images, as they were asked for.

        Raises:
            BatchError: where a ledger or the plan cannot be read.
        """
        return review(folder, self._opened(folder).plan, query)

    def decide(self, folder: BatchFolder, item: int, decision: str) -> None:
        """Keep an image, reject it, or ask for another one; see `studio.batches.review.decide`.

        Raises:
            BatchError: where it cannot be decided.
            OSError: where a file cannot be moved or written.
        """
        with self._deciding:
            plan = self._opened(folder).plan()
            decide(folder, plan, item, decision)
            self.sheets.ask(folder, plan)

    def remake(self, folder: BatchFolder) -> None:
        """Go on with a batch of which other images were asked for, also where it was finished; one that runs goes on.

        Raises:
            RunError: where it cannot go on.
            OSError: where the worker cannot be started.
        """
        job = self._job(folder)
        if job is not None and job.state == "finished":
            self.enqueue(folder)
        elif job is None or job.state != "running":  # the button may be pressed twice
            self.resume(folder)

    def set_label(self, folder: BatchFolder, label: Label) -> None:
        super().set_label(folder, label)
        rename_report(folder)


class _OpenBatch:
    """What follows one batch."""

    def __init__(self, folder: BatchFolder) -> None:
        self.folder = folder
        self.ledgers = BatchFollower(folder.ledgers)
        self.events = EventFollower(folder.events, parse=JOB_EVENTS.validate_json, history=JobHistory)
        self._plan: BatchPlan | None = None

    def plan(self) -> BatchPlan:
        """What was planned.

        Raises:
            BatchError: where it is gone, or damaged.
        """
        if self._plan is None:
            self._plan = open_plan(self.folder.plan)
        return self._plan


def training_side(batch: BatchFolder) -> int | None:
    """The side of the square that has an image's area, as a dataset's resolution; None where none can be read."""
    for path in batch.dataset.glob("[0-9]*/[0-9]*.*"):
        if path.suffix != ".txt":
            try:
                with open_file(path) as file, Image.open(file, formats=["PNG", "JPEG", "WEBP"]) as image:
                    return max(64, round(math.sqrt(image.width * image.height) / 8) * 8)
            except (OSError, Image.DecompressionBombError):
                continue  # damaged or gone: the dataset tells of it by its name
    return None


def _past(batch: BatchFolder, labels: Mapping[str, Label]) -> PastBatch:
    called = short_title(batch, labels.get(batch.name, Label()))
    return PastBatch(batch.name, begun_at(batch), status_or("failed", batch), called)
