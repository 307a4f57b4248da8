"""Steering what a run's folder stands for, through its job where it has one: queueing, asking, resuming."""

from collections.abc import Iterable

from studio.core.paths import UserData
from studio.jobs.folder import JobFolder, RunRequest, ask
from studio.jobs.listing import JobLine
from studio.jobs.queue import Job, JobKind, JobQueue
from studio.jobs.worker import ensure_worker

JOB_REQUESTS: tuple[RunRequest, ...] = ("pause", "stop")


class Steering:
    """Steers the runs of one kind in one `user_data/`. Any thread may ask."""

    def __init__(self, user_data: UserData, kind: JobKind) -> None:
        self._queue = JobQueue(user_data)
        self._user_data = user_data
        self._kind: JobKind = kind

    def start(self, run: JobFolder) -> None:
        """Put a new run into the queue, and see to it that someone works on that.

        Raises:
            RunError: where it is there already, or the queue cannot be written.
            OSError: where the worker cannot be started.
        """
        self._queue.add(self._kind, run.root, run.name)
        ensure_worker(self._user_data)

    def ask(self, run: JobFolder, request: RunRequest) -> None:
        """Ask a run for something, through its job where it has one that a pause or a stop concerns.

        Raises:
            RunError: where it cannot be asked.
            OSError: where it cannot be written.
        """
        job = self._job(run)
        if request not in JOB_REQUESTS or job is None or job.state not in ("queued", "running"):
            ask(run, request)
        elif request == "pause":
            self._queue.pause(job.id)
        else:
            self._queue.stop(job.id)

    def resume(self, run: JobFolder) -> None:
        """Go on with a run that was paused, stopped or failed.

        Raises:
            RunError: where it cannot be resumed.
            OSError: where the worker cannot be started.
        """
        job = self._job(run)
        if job is None:
            self._queue.add(self._kind, run.root, run.name)
        else:
            self._queue.resume(job.id)
        ensure_worker(self._user_data)

    def _job(self, run: JobFolder) -> Job | None:
        root = run.root.resolve()
        return next((job for job in self._queue.jobs() if job.run_folder == root), None)


def has_work(jobs: Iterable[JobLine]) -> bool:
    """Whether any job waits or runs."""
    return any(line.job.state in ("queued", "running") for line in jobs)


def is_in_line(run: JobFolder, jobs: Iterable[JobLine]) -> bool:
    """Whether a run's job waits or runs. A run says that it ended a moment before its job does."""
    return has_work(line for line in jobs if line.job.run == run)
