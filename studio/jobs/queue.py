"""The queue of jobs: rows in SQLite which the page, the command line and the worker read and change. No torch.

A job that waits is changed at once. One that runs is asked through its run's folder, and its row follows when its
process has ended. Nothing here starts or ends a process: that is the worker's.
"""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from studio.core.errors import RunError
from studio.core.files import write_atomically
from studio.core.language import N_, _, language
from studio.core.paths import UserData
from studio.core.records import Record
from studio.jobs.database import change_job, changing, reading, set_line
from studio.jobs.folder import JobFolder, RunRequest, ask, write_halt
from studio.jobs.words import refusal, short_title

JobKind = Literal["train", "batch", "caption"]
JobState = Literal["queued", "running", "paused", "stopped", "finished", "failed"]
Asked = Literal["", "pause", "stop"]
MAX_ATTEMPTS = 3  # a job that kills its own process every time must not hold up the others for ever


class Job(Record):
    """One job, a copy of its row.

    Attributes:
        position: its place in the line, from 1; 0 where it does not wait.
        asked: what a running job was asked and has not yet done.
        attempts: how often its process was started since it was added or resumed.
        pid: of its process; 0 where it has none.
        process_start_time: what psutil says of that process, so that another one with its number is not taken for it.
        message: the last thing to say; of a failed job why, with the end of its log where that tells more.
    """

    id: int
    kind: JobKind
    run_folder: Path
    title: str
    position: int
    state: JobState
    asked: Asked
    attempts: int
    pid: int
    process_start_time: float
    message: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def run(self) -> JobFolder:
        return JobFolder(self.run_folder)

    @property
    def short_title(self) -> str:
        """What people call its run: `shoes-white`."""
        return short_title(self.run)

    def __str__(self) -> str:
        return _("Job {id} ({title})", id=self.id, title=self.short_title)


_UNFINISHED: tuple[JobState, ...] = ("queued", "running", "paused", "stopped", "failed")
_ORDER = "order by case state when 'running' then 0 when 'queued' then 1 else 2 end, position, ended_at desc, id desc"
_RESUMABLE: tuple[JobState, ...] = ("paused", "stopped", "failed")


class JobQueue:
    """The jobs of one `user_data/`. It holds no connection: any thread and any process may call."""

    def __init__(self, user_data: UserData) -> None:
        self._database = user_data.database

    def add(self, kind: JobKind, run_folder: Path, title: str) -> Job:
        """Put a run at the end of the line.

        Raises:
            RunError: where its folder is not there, or the run has a job already.
            OSError: where an old request in its folder cannot be taken back.
        """
        folder = run_folder.resolve()
        _require_folder(folder, _("Make the run first."))
        with changing(self._database) as connection:
            for other in _jobs(connection, "where run_folder = ?", str(folder)):
                if other.state in _UNFINISHED:
                    already = N_("The run {name} is in the queue already as job {id}, which is {state}. {advice}")
                    raise refusal(already, other, name=other.short_title, id=str(other.id))
            _keep_language(JobFolder(folder))
            _take_back(JobFolder(folder), "stop", "pause")  # of an earlier job, which ended before it heard them
            added = connection.execute(
                "insert into jobs (kind, run_folder, title, created_at) values (?, ?, ?, ?)",
                (kind, str(folder), title, _now()),
            )
            assert added.lastrowid is not None
            set_line(connection, [*_waiting(connection, but=added.lastrowid), added.lastrowid])
            return _job(connection, added.lastrowid)

    def jobs(self, *, num_ended: int | None = None) -> tuple[Job, ...]:
        """All jobs: what runs, then the line in its order, then the others, the last to end first.

        Args:
            num_ended: so many at most of those that ended and are not paused; None for all.

        Raises:
            RunError: where the queue cannot be read.
        """
        ended = "select id from jobs where state in ('stopped', 'finished', 'failed') order by ended_at desc, id desc"
        return self._read(
            f"where state in ('running', 'queued', 'paused') or id in ({ended} limit ?) {_ORDER}",
            -1 if num_ended is None else num_ended,
        )

    def _read(self, clause: str, *values: str | int) -> tuple[Job, ...]:
        if not self._database.is_file():
            return ()
        with reading(self._database) as connection:
            return _jobs(connection, clause, *values)

    def job(self, job_id: int) -> Job:
        """One job.

        Raises:
            RunError: where there is none of this number.
        """
        with reading(self._database) as connection:
            return _job(connection, job_id)

    def job_of(self, run_folder: Path) -> Job | None:
        """The latest job of a run; None where it has none.

        Raises:
            RunError: where the queue cannot be read.
        """
        return next(iter(self._read(f"where run_folder = ? {_ORDER} limit 1", str(run_folder.resolve()))), None)

    def move(self, job_id: int, position: int) -> Job:
        """Give a waiting job another place in the line: 1 is the next to start; beyond the end means the end.

        Raises:
            RunError: where it does not wait, or the place is below 1.
        """
        if position < 1:
            raise RunError(
                _(
                    "The position in the queue must be 1 or more, got {position}. 1 is the next to start.",
                    position=position,
                )
            )
        with changing(self._database) as connection:
            job = _job(connection, job_id)
            if job.state != "queued":
                raise refusal(N_("{job} is {state}, so it has no position in the queue. {advice}"), job)
            line = _waiting(connection, but=job_id)
            line.insert(position - 1, job_id)
            set_line(connection, line)
            return _job(connection, job_id)

    def pause(self, job_id: int) -> Job:
        """Pause a job: at once where it waits; where it runs, it saves after the current step and then ends.

        Raises:
            RunError: where it neither waits nor runs.
            OSError: where its run's folder cannot be written.
        """
        return self._halt(job_id, "pause", from_states=("queued",))

    def stop(self, job_id: int) -> Job:
        """Stop a job: at once where it waits or is paused; where it runs, it saves first.

        Raises:
            RunError: where it has ended.
            OSError: where its run's folder cannot be written.
        """
        return self._halt(job_id, "stop", from_states=("queued", "paused"))

    def resume(self, job_id: int) -> Job:
        """Put a paused, stopped or failed job at the end of the line, with all its attempts; a waiting one stays.

        Raises:
            RunError: where it runs or is finished, or its folder is gone.
            OSError: where a request in its folder cannot be taken back.
        """
        with changing(self._database) as connection:
            job = _job(connection, job_id)
            if job.state == "queued":
                return job
            if job.state not in _RESUMABLE:
                raise refusal(N_("{job} is {state}, so it cannot be resumed. {advice}"), job)
            _require_folder(job.run_folder, _("Remove job {id} from the queue.", id=job.id))
            _keep_language(job.run)
            _take_back(job.run, "stop", "pause")
            change_job(connection, job_id, state="queued", attempts=0, message="", ended_at=None)
            set_line(connection, [*_waiting(connection, but=job_id), job_id])
            return _job(connection, job_id)

    def remove(self, job_id: int) -> Job:
        """Take a job out of the queue; its run's folder is kept.

        Raises:
            RunError: where it is running.
        """
        with changing(self._database) as connection:
            job = _job(connection, job_id)
            if job.state == "running":
                raise refusal(N_("{job} is running, so it cannot be removed. {advice}"), job)
            connection.execute("delete from jobs where id = ?", (job_id,))
            set_line(connection, _waiting(connection))
            return job

    def has_work(self) -> bool:
        """Whether a job waits or runs.

        Raises:
            RunError: where the queue cannot be read.
        """
        return any(job.state in ("queued", "running") for job in self._read("where state in ('queued', 'running')"))

    def running(self) -> tuple[Job, ...]:
        """The jobs whose process was started and whose ending is not known yet.

        Raises:
            RunError: where the queue cannot be read.
        """
        return tuple(job for job in self._read(f"where state = 'running' {_ORDER}") if job.state == "running")

    def next_job(self) -> Job | None:
        """The job that is first in the line.

        Raises:
            RunError: where the queue cannot be read.
        """
        return next((job for job in self._read(f"where state = 'queued' {_ORDER}") if job.state == "queued"), None)

    def begin(self, job_id: int, *, pid: int, process_start_time: float) -> Job | None:
        """Note the process of a job that waits; None where it was paused, stopped, moved away or removed meanwhile.

        Raises:
            RunError: where the queue cannot be written.
        """
        with changing(self._database) as connection:
            line = _waiting(connection)
            if line[:1] != [job_id]:
                return None
            begun = _job(connection, job_id)
            change_job(
                connection,
                job_id,
                state="running",
                asked="",
                attempts=begun.attempts + 1,
                pid=pid,
                process_start_time=process_start_time,
                started_at=_now(),
                ended_at=None,
            )
            set_line(connection, line[1:])
            return _job(connection, job_id)

    def finish_job(self, job_id: int, state: JobState, message: str) -> None:
        """Note how a job ended; `queued` puts it at the front of the line, for its next attempt.

        Raises:
            RunError: where the queue cannot be written.
        """
        with changing(self._database) as connection:
            where = "where id = ? and state in ('queued', 'running')"  # what the user did with a waiting one stands
            if not _jobs(connection, where, job_id):
                return
            ended_at = None if state == "queued" else _now()
            change_job(connection, job_id, state=state, asked="", pid=0, message=message, ended_at=ended_at)
            front = [job_id] if state == "queued" else []
            set_line(connection, [*front, *_waiting(connection, but=job_id)])

    def _halt(self, job_id: int, request: Literal["pause", "stop"], *, from_states: tuple[JobState, ...]) -> Job:
        state: Literal["paused", "stopped"] = "paused" if request == "pause" else "stopped"
        with changing(self._database) as connection:
            job = _job(connection, job_id)
            if job.state == "running":
                # One wish at a time: the last one counts.
                _take_back(job.run, "pause" if request == "stop" else "stop")
                ask(job.run, request)
                change_job(connection, job_id, asked=request)
            elif job.state in from_states:
                message = _("It was {state} while it waited.", state=_(state))
                change_job(connection, job_id, state=state, ended_at=_now(), message=message)
                set_line(connection, _waiting(connection))
                write_halt(job.run, state)
            else:
                already = N_("{job} is {state} already, so it cannot be {wanted}. {advice}")
                raise refusal(already, job, wanted=_(state))
            return _job(connection, job_id)


def _require_folder(folder: Path, advice: str) -> None:
    if not folder.is_dir():
        raise RunError(_("The run's folder {folder} is not there. {advice}", folder=folder, advice=advice))


def _keep_language(run: JobFolder) -> None:
    write_atomically(run.language, language().encode())


def _take_back(run: JobFolder, *requests: RunRequest) -> None:
    for request in requests:
        (run.requests / request).unlink(missing_ok=True)


def _now() -> str:
    return datetime.now().astimezone().isoformat()


def _jobs(connection: sqlite3.Connection, clause: str, *values: str | int) -> tuple[Job, ...]:
    rows = connection.execute(f"select * from jobs {clause}", values)
    return tuple(map(_read, rows))


_DAMAGED = {
    **{"kind": "train", "state": "failed", "asked": "", "position": 0, "attempts": 0, "pid": 0},
    **{"process_start_time": 0.0, "created_at": datetime.fromtimestamp(0, UTC), "started_at": None, "ended_at": None},
}


def _read(row: sqlite3.Row) -> Job:
    """A job of its row; one that was damaged is a failed job, which can be removed and holds up no other."""
    try:
        return Job.model_validate(dict(row))
    except ValidationError:
        known = {"id": row["id"], "run_folder": str(row["run_folder"]), "title": str(row["title"])}
        message = _("Its row in the queue is damaged. `python -m studio jobs remove {id}` removes it.", id=row["id"])
        return Job.model_validate({**_DAMAGED, **known, "message": message})


def _job(connection: sqlite3.Connection, job_id: int) -> Job:
    found = _jobs(connection, "where id = ?", job_id)
    if not found:
        raise RunError(_("There is no job {id} in the queue. `python -m studio jobs` lists them.", id=job_id))
    return found[0]


def _waiting(connection: sqlite3.Connection, *, but: int = 0) -> list[int]:
    found = _jobs(connection, "where state = 'queued' and id != ? order by position, id", but)
    return [job.id for job in found if job.state == "queued"]
