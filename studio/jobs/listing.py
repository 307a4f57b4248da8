"""The jobs of the queue, each with how far its run is."""

from collections.abc import Iterable

from studio.core.results import Record
from studio.jobs.folder import JobFolder, RunState, status_or
from studio.jobs.queue import Job, JobQueue


class JobLine(Record):
    """A job with how far its run is: what one line of the list shows."""

    job: Job
    run_state: RunState
    step: int
    num_steps: int
    remaining_seconds: float | None
    message: str


def job_lines(queue: JobQueue) -> tuple[JobLine, ...]:
    """All jobs in the queue's order, each with where its run stands.

    Raises:
        RunError: where the queue cannot be read.
    """
    return tuple(_line(job) for job in queue.jobs())


def _line(job: Job) -> JobLine:
    status = status_or("new", job.run)
    runs = job.state == "running"
    return JobLine(
        job=job,
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
