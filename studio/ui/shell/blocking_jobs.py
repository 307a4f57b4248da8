"""The jobs that the page's engine waits for, paused or stopped together: else the next one would take the device."""

import threading
from collections.abc import Collection, Sequence

from studio.core.errors import RunError
from studio.core.paths import UserData
from studio.jobs.listing import JobLine, job_lines
from studio.jobs.queue import JobQueue
from studio.jobs.worker import ensure_worker


def list_blocking_jobs(jobs: Sequence[JobLine]) -> tuple[JobLine, ...]:
    """The job that runs, then those that wait, in the order in which the queue goes through them."""
    return tuple(line for line in jobs if line.job.state in ("running", "queued"))


class BlockingJobs:
    """Pauses, stops and resumes them, and remembers which ones it paused. Any thread may ask."""

    def __init__(self, user_data: UserData) -> None:
        self._user_data = user_data
        self._queue = JobQueue(user_data)
        self._lock = threading.Lock()
        self._paused: tuple[int, ...] = ()

    def paused(self, jobs: Sequence[JobLine]) -> tuple[JobLine, ...]:
        """Those of the queue that were paused here and have not gone on since, in their order."""
        by_id = {line.job.id: line for line in jobs}
        found = (by_id[number] for number in self._paused if number in by_id)
        # One that waited for the device when it was asked to pause has stopped: it had nothing to save.
        return tuple(line for line in found if line.job.state in ("paused", "stopped"))

    def pause(self, named: Collection[int]) -> None:
        """Pause those of them that are named, and no other one, should the queue have gone on meanwhile.

        Those that wait are paused at once, the one that runs after the current step, when it has saved.

        Raises:
            RunError: where none of these is ahead, or the queue cannot be written.
            OSError: where a run's folder cannot be written.
        """
        with self._lock:
            blocking_jobs = self._blocking_jobs(named)
            for line in reversed(blocking_jobs):  # the last first: no other begins when the one that runs ends
                self._queue.pause(line.job.id)
            self._paused = tuple(line.job.id for line in blocking_jobs)

    def stop(self, named: Collection[int]) -> None:
        """Stop those of them that are named, in the same way.

        Raises:
            RunError: where none of these is ahead, or the queue cannot be written.
            OSError: where a run's folder cannot be written.
        """
        with self._lock:
            for line in reversed(self._blocking_jobs(named)):
                self._queue.stop(line.job.id)

    def resume(self, named: Collection[int]) -> None:
        """Put those of the named ones that were paused here into the line again, in the order that they had.

        Raises:
            RunError: where there is none, or one cannot be resumed.
            OSError: where the worker cannot be started.
        """
        with self._lock:
            paused = [line for line in self.paused(job_lines(self._queue)) if line.job.id in named]
            if not paused:
                raise RunError(
                    "No job paused here is waiting to be resumed. The Training and Batch tabs list all jobs."
                )
            for line in paused:
                self._queue.resume(line.job.id)
            self._paused = ()
        ensure_worker(self._user_data)

    def _blocking_jobs(self, named: Collection[int]) -> list[JobLine]:
        blocking_jobs = list_blocking_jobs(job_lines(self._queue))
        if not blocking_jobs:
            raise RunError("No job is using the device any more.")
        found = [line for line in blocking_jobs if line.job.id in named]
        if not found:
            raise RunError("That job has ended. Another job is using the device now.")
        return found
