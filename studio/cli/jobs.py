"""`python -m studio jobs`: the queue from the command line."""

import json
from pathlib import Path
from typing import Annotated

import typer

from studio.core.errors import RunError
from studio.core.paths import UserData, locate_user_data
from studio.core.settings import ServerSettings
from studio.jobs.launcher import end_of_log
from studio.jobs.listing import JobLine, job_lines
from studio.jobs.queue import Job, JobQueue
from studio.jobs.worker import ensure_worker, worker_runs

_LOG_LINES = 40
_HEADINGS = ("place", "job", "title", "state", "steps", "time left", "message")


def list_jobs(user_data: UserData, *, as_json: bool) -> None:
    """Print all jobs.

    Raises:
        RunError: where the queue cannot be read.
    """
    lines = job_lines(JobQueue(user_data))
    if as_json:
        print(json.dumps([line.model_dump(mode="json") for line in lines], indent=2))
        return
    if not lines:
        print("The queue is empty. `python -m studio train --dataset …` begins a run.")
        return
    print(jobs_table(lines))
    if any(line.job.state in ("queued", "running") for line in lines) and not worker_runs(user_data):
        print("\nNo process goes through the queue now. `python -m studio jobs work` starts one.")


def jobs_table(lines: tuple[JobLine, ...]) -> str:
    """The list for a terminal, its columns under each other."""
    rows = [_HEADINGS, *map(_cells, lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def time_left(seconds: float | None) -> str:
    """`1 h 12 min`, `12 min`, `40 s`; empty where it is unknown."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def pause_job(user_data: UserData, job_id: int) -> str:
    """Pause a job; what to tell the user.

    Raises:
        RunError: where it neither waits nor runs.
        OSError: where its run's folder cannot be written.
    """
    job = JobQueue(user_data).pause(job_id)
    return _asked(job) if job.state == "running" else f"{job} is paused."


def stop_job(user_data: UserData, job_id: int) -> str:
    """Stop a job; what to tell the user.

    Raises:
        RunError: where it has ended.
        OSError: where its run's folder cannot be written.
    """
    job = JobQueue(user_data).stop(job_id)
    return _asked(job) if job.state == "running" else f"{job} is stopped."


def resume_job(user_data: UserData, job_id: int, *, cpu_only: bool = False) -> str:
    """Put a job into the line again and see that somebody goes through it; what to tell the user.

    Raises:
        RunError: where it runs or is finished, or its folder is gone.
        OSError: where the worker cannot be started.
    """
    job = JobQueue(user_data).resume(job_id)
    ensure_worker(user_data, cpu_only)
    return f"{job} is number {job.position} in the line."


def move_job(user_data: UserData, job_id: int, position: int) -> str:
    """Give a waiting job another place; what to tell the user.

    Raises:
        RunError: where it does not wait, or the place is below 1.
    """
    job = JobQueue(user_data).move(job_id, position)
    return f"{job} is number {job.position} in the line."


def remove_job(user_data: UserData, job_id: int) -> str:
    """Take a job out of the queue; what to tell the user.

    Raises:
        RunError: where it is running.
    """
    job = JobQueue(user_data).remove(job_id)
    return f"{job} is out of the queue. Its run is kept in {job.run_folder}."


def start_work(user_data: UserData, *, cpu_only: bool = False) -> str:
    """See that somebody goes through the queue; what to tell the user.

    Raises:
        RunError: where the queue cannot be read.
        OSError: where the worker cannot be started.
    """
    if ensure_worker(user_data, cpu_only):
        return "A process goes through the queue now. It works on when this terminal is closed."
    if worker_runs(user_data):
        return "A process goes through the queue already."
    return "No job waits. `python -m studio jobs` lists all."


def log_of_job(user_data: UserData, job_id: int) -> str:
    """The end of a job's log.

    Raises:
        RunError: where there is no such job, or it has not printed anything yet.
    """
    job = JobQueue(user_data).job(job_id)
    text = end_of_log(job.run.log, num_lines=_LOG_LINES)
    if not text:
        raise RunError(f"{job} has no log yet. It is {job.state}; its log will be {job.run.log}.")
    return text


def _cells(line: JobLine) -> tuple[str, ...]:
    job = line.job
    first_line, _, more = line.message.partition("\n")
    return (
        str(job.position) if job.position else "–",
        str(job.id),
        job.title,
        f"{job.state}, asked to {job.asked}" if job.asked else job.state,
        f"{line.step:,} of {line.num_steps:,}" if line.num_steps else "",
        time_left(line.remaining_seconds),
        f"{first_line} `python -m studio jobs log {job.id}` shows it." if more else first_line,
    )


def _asked(job: Job) -> str:
    return f"{job} was asked to {job.asked}. It saves after the step in work, then ends."


jobs_app = typer.Typer(help="The queue: list the jobs, or steer one of them.")

UserDataOption = Annotated[
    Path | None, typer.Option("--user-data", help="Where models, images and runs are kept.", show_default="user_data")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
CpuOption = Annotated[bool, typer.Option("--cpu", help=str(ServerSettings.model_fields["cpu"].description))]
JobArgument = Annotated[int, typer.Argument(metavar="ID", help="The job's number, from the list.")]


@jobs_app.callback(invoke_without_command=True)
def jobs(context: typer.Context, json: JsonOption = False, user_data: UserDataOption = None) -> None:
    """The queue: list the jobs, or steer one of them."""
    context.obj = user_data
    if context.invoked_subcommand is None:
        list_jobs(locate_user_data(user_data), as_json=json)


@jobs_app.command("pause")
def _pause(context: typer.Context, job: JobArgument, user_data: UserDataOption = None) -> None:
    """Pause a job; one that runs saves first."""
    typer.echo(pause_job(locate_user_data(user_data or context.obj), job))


@jobs_app.command("stop")
def _stop(context: typer.Context, job: JobArgument, user_data: UserDataOption = None) -> None:
    """Stop a job; one that runs saves first."""
    typer.echo(stop_job(locate_user_data(user_data or context.obj), job))


@jobs_app.command("resume")
def _resume(context: typer.Context, job: JobArgument, cpu: CpuOption = False, user_data: UserDataOption = None) -> None:
    """Put a paused, stopped or failed job into the line again."""
    typer.echo(resume_job(locate_user_data(user_data or context.obj), job, cpu_only=cpu))


@jobs_app.command("move")
def _move(
    context: typer.Context,
    job: JobArgument,
    position: Annotated[int, typer.Argument(help="Its new place: 1 is the next to start.")],
    user_data: UserDataOption = None,
) -> None:
    """Give a waiting job another place in the line."""
    typer.echo(move_job(locate_user_data(user_data or context.obj), job, position))


@jobs_app.command("remove")
def _remove(context: typer.Context, job: JobArgument, user_data: UserDataOption = None) -> None:
    """Take a job out of the queue; its run is kept."""
    typer.echo(remove_job(locate_user_data(user_data or context.obj), job))


@jobs_app.command("log")
def _log(context: typer.Context, job: JobArgument, user_data: UserDataOption = None) -> None:
    """Print the end of a job's log."""
    typer.echo(log_of_job(locate_user_data(user_data or context.obj), job))


@jobs_app.command("work")
def _work(context: typer.Context, cpu: CpuOption = False, user_data: UserDataOption = None) -> None:
    """Start the process that goes through the queue, where none runs."""
    typer.echo(start_work(locate_user_data(user_data or context.obj), cpu_only=cpu))
