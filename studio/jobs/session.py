"""The jobs of the queue, and those of one kind as a page sees them.

The jobs of the queue, each with how far its run is.

The jobs of one kind as a page sees them: their folders by name, and steering them. No torch.

It keeps no state of a job: all is read from folders and the queue, so a page that was killed finds it again. Nor does
it keep which one is shown: every page names its own.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

from filelock import FileLock, Timeout

from studio.core.files import move_to_trash
from studio.core.language import _, language
from studio.core.paths import UserData
from studio.core.records import Label, Record, label_or_none
from studio.jobs.folder import BUSY_STATES, JobFolder, RunRequest, RunState, ask, set_label, status_or, write_halt
from studio.jobs.queue import Job, JobKind, JobQueue
from studio.jobs.words import short_title, title, titles
from studio.jobs.worker import ensure_worker


class JobLine(Record):
    """A job with how far its run is: what one line of the list shows.

    Attributes:
        name: what a person calls its run; "" where nobody named it.
    """

    job: Job
    name: str = ""
    run_state: RunState
    step: int
    num_steps: int
    remaining_seconds: float | None
    message: str

    @property
    def short_title(self) -> str:
        """What people call it: `White shoes`."""
        return short_title(self.job.run, Label(name=self.name))


def job_lines(queue: JobQueue, *, num_ended: int | None = None) -> tuple[JobLine, ...]:
    """The queue's jobs in its order, each with where its run stands; see `JobQueue.jobs`.

    Raises:
        RunError: where the queue cannot be read.
    """
    return tuple(_line(job) for job in queue.jobs(num_ended=num_ended))


def _line(job: Job) -> JobLine:
    status = status_or("new", job.run)
    runs = job.state == "running"
    return JobLine(
        job=job,
        name=label_or_none(job.run.label).name,
        run_state=status.state,
        step=status.step,
        num_steps=status.num_steps,
        remaining_seconds=status.remaining_seconds if runs else None,
        message=status.message if runs else job.message,
    )


def has_work(jobs: Iterable[JobLine]) -> bool:
    """Whether any job waits or runs."""
    return any(line.job.state in ("queued", "running") for line in jobs)


def is_in_line(folder: JobFolder, jobs: Iterable[JobLine]) -> bool:
    """Whether a folder's job waits or runs. A folder says that it ended a moment before its job does."""
    return has_work(line for line in jobs if line.job.run == folder)


JOB_REQUESTS: tuple[RunRequest, ...] = ("pause", "stop")
MAX_ENDED = 50  # of the queue's lines that a page is shown
MAX_LOOKED_AT = 20  # of the newest, for one that is being worked on
FolderT = TypeVar("FolderT", bound=JobFolder)


class JobSession(Generic[FolderT]):
    """Finds and steers the jobs of one kind in one `user_data/`. Any thread may ask."""

    def __init__(self, user_data: UserData, kind: JobKind, *, folder: type[FolderT], parent: Path) -> None:
        """`parent` is where the kind's folders lie."""
        self.user_data = user_data
        self.queue = JobQueue(user_data)
        self._kind: JobKind = kind
        self._folder = folder
        self._parent = parent
        self._known: Mapping[str, FolderT] = {}
        self._labels: Mapping[str, Label] = {}
        self._labels_of: tuple[int, int] = (-1, -1)
        self._titles: dict[str, tuple[object, Mapping[str, str]]] = {}

    def jobs(self) -> tuple[JobLine, ...]:
        """The queue's lines, of all kinds; of jobs that ended the last ones.

        Raises:
            RunError: where the queue cannot be read.
        """
        return job_lines(self.queue, num_ended=MAX_ENDED)

    def folders(self) -> tuple[FolderT, ...]:
        """Every one of the kind, newest first; only those that were not there before are looked into."""
        folders = self._folder.all_in(self._parent, known=self._known)
        self._known = {folder.name: folder for folder in folders}
        return folders

    def labels(self, folders: Sequence[FolderT]) -> Mapping[str, Label]:
        """What people call them, by the names of the folders that have a label.

        Thousands of folders are not looked into at each look of a page: `set_label` touches their parent.
        """
        try:
            changed_at = self._parent.stat().st_mtime_ns
        except OSError:
            return {}
        if (changed_at, len(folders)) != self._labels_of:
            labels = {folder.name: label_or_none(folder.label) for folder in folders if os.path.lexists(folder.label)}
            self._labels, self._labels_of = labels, (changed_at, len(folders))
        return self._labels

    def titles(self, folders: Sequence[FolderT]) -> Mapping[str, str]:
        """What lists call them, by their names, in the language that is spoken; made anew where one of them changed."""
        labels, today = self.labels(folders), datetime.now().date()
        key, kept = (self._labels_of, today), self._titles.get(language())
        if kept is None or kept[0] != key:
            kept = self._titles[language()] = key, titles(folders, labels)
        return kept[1]

    def set_label(self, folder: FolderT, label: Label) -> None:
        """Name a folder, and note on it, in its report too; it may be being worked on.

        Raises:
            OSError: where it cannot be written.
        """
        set_label(folder, label, listed_in=self._parent)

    def named(self, name: str) -> FolderT:
        """One by its whole name, which may come from a page: it is never taken for a path.

        Raises:
            RunError, BatchError: by the kind, where there is none of that name.
        """
        return self._named(name, self.folders())

    def to_show(self, name: str, folders: Sequence[FolderT]) -> FolderT | None:
        """The named one; without a name one that is being worked on, else the newest; None where there is none at all.

        Raises:
            RunError, BatchError: by the kind, where there is none of that name.
        """
        if not folders:
            return None
        if name:
            return self._named(name, folders)
        newest = folders[:MAX_LOOKED_AT]
        return next((one for one in newest if status_or("new", one).state in BUSY_STATES), folders[0])

    def enqueue(self, folder: FolderT) -> None:
        """Put a new one into the queue, and see to it that someone works on that.

        Raises:
            RunError: where it is there already, or the queue cannot be written.
            OSError: where the worker cannot be started.
        """
        self.queue.add(self._kind, folder.root, folder.name)
        ensure_worker(self.user_data)

    def ask(self, folder: FolderT, request: RunRequest) -> None:
        """Ask for something, through its job where it has one that a pause or a stop concerns.

        Raises:
            RunError: where it cannot be asked.
            OSError: where it cannot be written.
        """
        job = self._job(folder)
        if request not in JOB_REQUESTS or job is None or job.state not in ("queued", "running", "paused"):
            if request == "stop" and status_or("new", folder).state == "paused":
                write_halt(folder, "stopped")  # it was begun without the queue
            else:
                ask(folder, request)
        elif request == "pause":
            self.queue.pause(job.id)
        else:
            self.queue.stop(job.id)

    def resume(self, folder: FolderT) -> None:
        """Go on with one that was paused, stopped or failed.

        Raises:
            RunError: where it cannot be resumed.
            OSError: where the worker cannot be started.
        """
        job = self._job(folder)
        if job is None:
            self.queue.add(self._kind, folder.root, folder.name)
        else:
            self.queue.resume(job.id)
        ensure_worker(self.user_data)

    def delete(self, folder: FolderT) -> str:
        """Move a folder to the trash, and take its job out of the queue; where it is now, in words.

        Raises:
            RunError: where it is being worked on or waits for that, or the queue cannot be written.
            OSError: where it cannot be moved.
        """
        job = self._job(folder)
        lock = FileLock(folder.lock)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise self._folder.error(_("{name} is being worked on. Stop it first.", name=title(folder))) from None
        lock.release()
        if job is not None:
            if job.state == "queued":
                raise self._folder.error(_("{name} waits in the queue. Stop it first.", name=title(folder)))
            self.queue.remove(job.id)
        return move_to_trash(folder.root, without_trash=self.user_data.trash)

    def move_job(self, job_id: int, *, by: int) -> None:
        """Move a waiting job so many places down the line; up with a negative number, to the first place at most.

        Raises:
            RunError: where it does not wait.
        """
        self.queue.move(job_id, max(1, self.queue.job(job_id).position + by))

    def _job(self, folder: FolderT) -> Job | None:
        return self.queue.job_of(folder.root)

    def _named(self, name: str, folders: Sequence[FolderT]) -> FolderT:
        noun, error = _(self._folder.noun), self._folder.error
        if not name:
            raise error(_("No {noun} is chosen. Choose a {noun}.", noun=noun))
        found = next((one for one in folders if one.name == name), None)
        if found is None:
            gone = _(
                "There is no {noun} {name} any more: it was deleted or renamed. Choose another {noun}.",
                noun=noun,
                name=titles([self._folder(self._parent / Path(name).name)], {})[Path(name).name],
            )
            raise error(gone)
        return found
