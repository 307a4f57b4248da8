"""The jobs of the queue, each with how far its run is."""

from studio.core.errors import RunError
from studio.core.results import Record
from studio.jobs.folder import RunState, RunStatus, read_status
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
    try:
        status = read_status(job.run)
    except RunError as error:
        status = RunStatus(state="new", message=str(error))
    runs = job.state == "running"
    return JobLine(
        job=job,
        run_state=status.state,
        step=status.step,
        num_steps=status.num_steps,
        remaining_seconds=status.remaining_seconds if runs else None,
        message=status.message if runs else job.message,
    )
