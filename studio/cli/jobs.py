"""`python -m studio jobs`: the queue from the command line."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.cli.options import CpuOption, JsonOption, UserDataOption
from studio.core.errors import RunError
from studio.core.language import N_, _
from studio.core.paths import UserData, locate_user_data
from studio.core.records import Label

if TYPE_CHECKING:
    from studio.jobs.queue import Job, JobKind, JobQueue, JobState
    from studio.jobs.session import JobLine

_LOG_LINES = 40
_HEADINGS = (N_("place"), N_("job"), N_("title"), N_("state"), N_("steps"), N_("time left"), N_("message"))
_STATES: "dict[JobState, str]" = {
    "queued": N_("queued"),
    "running": N_("running"),
    "paused": N_("paused"),
    "stopped": N_("stopped"),
    "finished": N_("finished"),
    "failed": N_("failed"),
}


def list_jobs(user_data: UserData, *, as_json: bool) -> None:
    """Print all jobs.

    Raises:
        RunError: where the queue cannot be read.
    """
    from studio.jobs.session import job_lines
    from studio.jobs.worker import worker_runs

    lines = job_lines(_queue(user_data))
    if as_json:
        print(json.dumps([line.model_dump(mode="json") for line in lines], indent=2))
        return
    if not lines:
        print(_("The queue is empty. `python -m studio train --dataset …` starts a run."))
        return
    print(jobs_table(lines))
    if any(line.job.state in ("queued", "running") for line in lines) and not worker_runs(user_data):
        print()
        print(_("No worker is processing the queue. `python -m studio jobs work` starts one."))


def jobs_table(lines: "tuple[JobLine, ...]") -> str:
    """The list for a terminal, its columns under each other."""
    rows = [tuple(map(_, _HEADINGS)), *map(_cells, lines)]
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


def queue_job(kind: "JobKind", folder: Path, user_data: UserData) -> None:
    """Put a run or a batch into the queue, see that somebody goes through it, and say so.

    Raises:
        RunError: where it has a job already.
        OSError: where the worker cannot be started.
    """
    from studio.jobs.worker import ensure_worker

    job = _queue(user_data).add(kind, folder, folder.name)
    ensure_worker(user_data)
    print(_("Queued as job {id}: {folder}. `python -m studio jobs` shows the queue.", id=job.id, folder=folder))


def _queue(user_data: UserData) -> "JobQueue":
    from studio.jobs.queue import JobQueue

    return JobQueue(user_data)


def _cells(line: "JobLine") -> tuple[str, ...]:
    job = line.job
    first_line, __, more = line.message.partition("\n")
    state = _(_STATES[job.state])
    if job.asked:
        pauses = job.asked == "pause"
        state = _("{state}, asked to pause", state=state) if pauses else _("{state}, asked to stop", state=state)
    return (
        str(job.position) if job.position else "–",
        str(job.id),
        Label(name=line.name).over(job.title),  # the folder's name, by which other commands find it
        state,
        _("{step:,} of {num_steps:,}", step=line.step, num_steps=line.num_steps) if line.num_steps else "",
        time_left(line.remaining_seconds),
        _("{first_line} `python -m studio jobs log {id}` shows it.", first_line=first_line, id=job.id)
        if more
        else first_line,
    )


def _asked(job: "Job") -> str:
    if job.state == "running" and job.asked == "pause":
        return _("{job} was asked to pause. It saves after the current step, then ends.", job=job)
    if job.state == "running":
        return _("{job} was asked to stop. It saves after the current step, then ends.", job=job)
    return _("{job} is paused.", job=job) if job.state == "paused" else _("{job} is stopped.", job=job)


jobs_app = typer.Typer(help=_("The queue: list the jobs, or control one."))

JobArgument = Annotated[int, typer.Argument(metavar="ID", help=_("The job's number, from the list."))]


@jobs_app.callback(invoke_without_command=True)
def jobs(context: typer.Context, json: JsonOption = False, user_data: UserDataOption = None) -> None:
    """List the jobs, where no other command follows."""
    context.obj = user_data
    if context.invoked_subcommand is None:
        list_jobs(locate_user_data(user_data), as_json=json)


@jobs_app.command(help=_("Pause a job; one that runs saves first."))
def pause(context: typer.Context, job: JobArgument, user_data: UserDataOption = None) -> None:
    """Pause it."""
    typer.echo(_asked(_queue(_place(context, user_data)).pause(job)))


@jobs_app.command(help=_("Stop a job; one that runs saves first."))
def stop(context: typer.Context, job: JobArgument, user_data: UserDataOption = None) -> None:
    """Stop it."""
    typer.echo(_asked(_queue(_place(context, user_data)).stop(job)))


@jobs_app.command(help=_("Put a paused, stopped or failed job back into the queue."))
def resume(context: typer.Context, job: JobArgument, cpu: CpuOption = False, user_data: UserDataOption = None) -> None:
    """Queue it again."""
    from studio.jobs.worker import ensure_worker

    place = _place(context, user_data)
    resumed = _queue(place).resume(job)
    ensure_worker(place, cpu)
    typer.echo(_("{job} is number {position} in the line.", job=resumed, position=resumed.position))


@jobs_app.command(help=_("Give a waiting job another place in the line."))
def move(
    context: typer.Context,
    job: JobArgument,
    position: Annotated[int, typer.Argument(help=_("Its new position; 1 is the next to start."))],
    user_data: UserDataOption = None,
) -> None:
    """Move it in the line."""
    moved = _queue(_place(context, user_data)).move(job, position)
    typer.echo(_("{job} is number {position} in the line.", job=moved, position=moved.position))


@jobs_app.command(help=_("Take a job out of the queue; its run is kept."))
def remove(context: typer.Context, job: JobArgument, user_data: UserDataOption = None) -> None:
    """Take it out of the queue."""
    removed = _queue(_place(context, user_data)).remove(job)
    typer.echo(
        _(
            "{job} was removed from the queue. Its run is kept in {folder}.",
            job=removed,
            folder=removed.run_folder,
        )
    )


@jobs_app.command(help=_("Print the end of a job's log."))
def log(context: typer.Context, job: JobArgument, user_data: UserDataOption = None) -> None:
    """Print the end of its log."""
    from studio.jobs.launcher import end_of_log

    found = _queue(_place(context, user_data)).job(job)
    text = end_of_log(found.run.log, num_lines=_LOG_LINES)
    if not text:
        raise RunError(
            _(
                "{job} has no log yet. It is {state}; its log will be {log}.",
                job=found,
                state=_(_STATES[found.state]),
                log=found.run.log,
            )
        )
    typer.echo(text)


@jobs_app.command(help=_("Start the process that goes through the queue, where none runs."))
def work(context: typer.Context, cpu: CpuOption = False, user_data: UserDataOption = None) -> None:
    """Start a worker, where none runs."""
    from studio.jobs.worker import ensure_worker, worker_runs

    place = _place(context, user_data)
    if ensure_worker(place, cpu):
        typer.echo(_("A worker has started on the queue. It keeps running when this terminal is closed."))
    elif worker_runs(place):
        typer.echo(_("A worker is already processing the queue."))
    else:
        typer.echo(_("No jobs are waiting. `python -m studio jobs` lists all."))


@jobs_app.command(help=_("Queue a new run with another's settings and some changes; the other stays as it is."))
def duplicate(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help=_("The run to copy the settings from: its folder or name."))],
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help=_("A setting to change; repeatable.")),
    ] = None,
    user_data: UserDataOption = None,
) -> None:
    """Queue a copy of a run with some changes."""
    from studio.training.begin import duplicate_run
    from studio.training.folder import RunFolder

    place = _place(context, user_data)
    queue_job("train", duplicate_run(RunFolder.find(run, place.runs), place, assignments or ()).root, place)


def _place(context: typer.Context, user_data: Path | None) -> UserData:
    """The folder may be named before the command too."""
    return locate_user_data(user_data or context.obj)
