"""Lines of the queue as the page is given them, made of a real queue and runs' folders."""

from studio.core.paths import UserData
from studio.jobs.folder import RunStatus, write_status
from studio.jobs.queue import JobQueue
from studio.jobs.session import JobLine, job_lines
from studio.training.folder import RunFolder
from tests.training.told_runs import BEGAN

RUNNING = RunStatus(state="running", step=312, num_steps=3000, remaining_seconds=4320, message="All is well.")


def queued_run(user_data: UserData, name: str, status: RunStatus | None = None) -> int:
    """A run that waits in the queue; its job's number."""
    run = RunFolder.new(user_data.runs, name, now=BEGAN)
    run.settings.write_text("{}", encoding="utf-8")
    if status is not None:
        write_status(run, status)
    return JobQueue(user_data).add("train", run.root, run.name).id


def running_run(user_data: UserData, name: str, status: RunStatus = RUNNING) -> int:
    """A run that is the first of the queue and runs; its process is this one."""
    number = queued_run(user_data, name, status)
    queue = JobQueue(user_data)
    queue.move(number, 1)
    assert queue.begin(number, pid=1, process_start_time=0) is not None
    return number


def lines_of(user_data: UserData) -> tuple[JobLine, ...]:
    """The queue's lines now."""
    return job_lines(JobQueue(user_data))
