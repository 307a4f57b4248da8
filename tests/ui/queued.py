"""Lines of the queue as the page is given them."""

from datetime import UTC, datetime

from studio.jobs.folder import RunState
from studio.jobs.queue import Job, JobKind, JobState
from studio.jobs.session import JobLine
from studio.training.folder import RunFolder


def job_line(
    run: RunFolder,
    *,
    job_id: int = 1,
    title: str = "",
    state: JobState = "queued",
    position: int = 0,
    step: int = 0,
    kind: JobKind = "train",
) -> JobLine:
    """A job of 1,000 steps."""
    job = Job(
        id=job_id,
        kind=kind,
        run_folder=run.root,
        title=title or run.name,
        position=position,
        state=state,
        asked="",
        attempts=0,
        pid=0,
        process_start_time=0,
        message="",
        created_at=datetime(2026, 11, 25, tzinfo=UTC),
        started_at=None,
        ended_at=None,
    )
    run_state: RunState = "running" if step else "new"
    return JobLine(
        job=job, run_state=run_state, step=step, num_steps=1000, remaining_seconds=90 if step else None, message=""
    )
