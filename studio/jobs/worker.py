"""The worker: a light process that starts the queue's jobs one after the other, and ends when none waits.

It may be killed at any moment. A job's process runs on; the next worker finds it by its number and start time, and
waits for it. One worker a `user_data/`, by a lock file that the system frees when its holder ends, however it ends.
"""

import argparse
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

import psutil
from filelock import FileLock, Timeout

from studio.core.errors import RunError, system_error_message
from studio.core.language import _, language, speaking
from studio.core.paths import UserData
from studio.jobs.database import QueueBusyError
from studio.jobs.folder import BUSY_STATES, JobFolder, RunStatus, status_or, write_status
from studio.jobs.launcher import (
    PendingProcess,
    classify_exit,
    end_of_log,
    is_alive,
    kept_awake,
    language_of_job,
    start_detached,
)
from studio.jobs.queue import MAX_ATTEMPTS, Job, JobKind, JobQueue

logger = logging.getLogger(__name__)

JobCommand = Callable[[Job], Sequence[str]]
Answer = TypeVar("Answer")

_COMMANDS: Mapping[JobKind, tuple[str, ...]] = {
    "train": ("train",),
    "batch": ("batch",),
    "caption": ("dataset", "caption"),
}
_POLL_SECONDS = 0.5
_DATABASE_RETRY_SECONDS = 5.0
_MAX_RETRY_SECONDS = 24 * 3600.0
_LOCK_TRIES = 10  # `worker_runs` holds the lock for a moment, to see whether it is free
_LOCK_RETRY_SECONDS = 0.1
_LOG_LINES = 15
_LOG_LIMIT_BYTES = 2**20


def job_command(job: Job, user_data: UserData, *, cpu_only: bool = False) -> list[str]:
    """The command line of a job, by its kind."""
    # -P: modules come from where the studio is installed, never from the folder that it works in.
    command = [sys.executable, "-P", "-m", "studio", *_COMMANDS[job.kind], str(job.run_folder), "--job"]
    command += ["--user-data", str(user_data.root)]
    return [*command, "--cpu"] if cpu_only else command


def ensure_worker(user_data: UserData, cpu_only: bool = False, *, worker_command: Sequence[str] | None = None) -> bool:
    """Start the worker where there is work and none runs; whether it was started. Call it as often as you like.

    Two callers at once may both start one: the second finds the lock taken, and ends at once. A worker that runs
    keeps the `cpu_only` that it was started with.

    Raises:
        RunError: where the queue cannot be read.
        OSError: where the worker cannot be started.
    """
    if not JobQueue(user_data).has_work() or worker_runs(user_data):
        return False
    command = [sys.executable, "-P", "-m", "studio.jobs.worker", "--user-data", str(user_data.root)]
    command += ["--cpu"] if cpu_only else []
    with _open_log(user_data) as output:
        process = start_detached(worker_command or command, cwd=user_data.root, output=output)
    # Somebody has to take note of its end, or it stays in the system's table as long as we live.
    threading.Thread(target=process.wait, name="job-worker", daemon=True).start()
    return True


def worker_runs(user_data: UserData) -> bool:
    """Whether a worker goes through this queue."""
    if not _lock_path(user_data).is_file():
        return False
    lock = FileLock(_lock_path(user_data))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def work(user_data: UserData, *, command: JobCommand) -> None:
    """Do all that waits, then return; return at once where another worker does it.

    Raises:
        RunError: where the queue cannot be used.
        OSError: where the lock cannot be made.
    """
    queue = JobQueue(user_data)
    lock = FileLock(_lock_path(user_data))
    # Looked at again after the lock is let go: who added a job just before that saw a worker, and started none.
    while queue.has_work() and _take(lock):
        try:
            Worker(queue, user_data, command=command).work_through()
        finally:
            lock.release()


class Worker:
    """Goes through the queue; the caller holds the lock."""

    def __init__(self, queue: JobQueue, user_data: UserData, *, command: JobCommand) -> None:
        self._queue = queue
        self._user_data = user_data
        self._command = command

    def work_through(self) -> None:
        """Wait for what runs already, then start what waits, until nothing does.

        Raises:
            RunError: where the queue can no longer be used. The next worker finds the jobs as this one left them.
        """
        for left_over in _retry(self._queue.running):
            self._wait_for(left_over)
        while (job := _retry(self._queue.next_job)) is not None:
            with speaking(language_of_job(job) or language()):
                self._carry_out(job)

    def _wait_for(self, job: Job) -> None:
        """Wait for a job that a worker before us started; its exit code will not be known."""
        logger.info("%s runs already as process %d.", job, job.pid)
        with kept_awake(job.pid):
            while is_alive(job):
                time.sleep(_POLL_SECONDS)
        self._finish_job(job.id, None)

    def _carry_out(self, job: Job) -> None:
        if not job.run_folder.is_dir():
            message = _("The run's folder {folder} is gone. Remove the job from the queue.", folder=job.run_folder)
            _retry(lambda: self._queue.finish_job(job.id, "failed", message))
            return
        attempt = f"{job.attempts + 1} of {MAX_ATTEMPTS}"
        try:
            held = PendingProcess(
                self._command(job), cwd=self._user_data.root, log=job.run.log, attempt=attempt, language=language()
            )
        except OSError as error:
            message = _("It cannot be started: {reason}", reason=system_error_message(error))
            _retry(lambda: self._queue.finish_job(job.id, "failed", message))
            return
        try:
            begun = _retry(lambda: self._queue.begin(job.id, pid=held.pid, process_start_time=held.start_time))
        except RunError:
            held.abort()
            raise
        if begun is None:
            held.abort()
            return
        _say_that_it_starts(begun)
        held.release()
        logger.info("%s: attempt %s, process %d.", begun, attempt, held.pid)
        with kept_awake(held.pid):
            exit_code = held.wait()
        self._finish_job(job.id, exit_code)

    def _finish_job(self, job_id: int, exit_code: int | None) -> None:
        # Read again: it may have been asked something meanwhile.
        job = next((job for job in _retry(self._queue.running) if job.id == job_id), None)
        if job is None:
            return  # somebody deleted the database
        status = status_or("new", job.run)
        log_end = end_of_log(job.run.log, num_lines=_LOG_LINES, of_last_attempt=True)
        ending = classify_exit(job, exit_code=exit_code, status=status, log_end=log_end)
        if ending.state != "queued" and status.state in BUSY_STATES and not _is_of_another(status, job):
            closed = {"state": ending.state, "message": ending.message, "pid": 0, "remaining_seconds": None}
            _try_to_write(job.run, status.model_copy(update=closed))
        _retry(lambda: self._queue.finish_job(job_id, ending.state, ending.message))
        logger.info("%s ended with code %s: %s. %s", job, exit_code, ending.state, ending.message)


def _say_that_it_starts(job: Job) -> None:
    """So that what the run said before, `paused` perhaps, is not taken for this attempt's ending."""
    status = status_or("new", job.run)
    if _is_of_another(status, job):
        return  # this attempt will find that, and say so
    starting = {"state": "waiting", "message": _("Its process is starting."), "pid": job.pid, "remaining_seconds": None}
    _try_to_write(job.run, status.model_copy(update=starting))


def _is_of_another(status: RunStatus, job: Job) -> bool:
    """Whether a living process that is not the job's works on the run, from a terminal perhaps."""
    return status.state in BUSY_STATES and status.pid not in (0, job.pid) and psutil.pid_exists(status.pid)


def _try_to_write(run: JobFolder, status: RunStatus) -> None:
    try:
        write_status(run, status)
    except OSError as error:
        logger.warning("%s cannot be written: %s", run.status, system_error_message(error))


def _retry(action: Callable[[], Answer]) -> Answer:
    """Do something with the queue: a full disk, or a queue that others hold, must not cost a job's ending.

    Raises:
        QueueBusyError: where that has lasted for a day.
        RunError: at once, where trying again would find the same.
    """
    end, said = time.monotonic() + _MAX_RETRY_SECONDS, ""
    while True:
        try:
            return action()
        except QueueBusyError as error:
            if time.monotonic() >= end:
                raise
            if said != str(error):
                said = str(error)
                logger.warning("%s", said)
            time.sleep(_DATABASE_RETRY_SECONDS)


def _take(lock: FileLock) -> bool:
    for __ in range(_LOCK_TRIES):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            time.sleep(_LOCK_RETRY_SECONDS)
        else:
            return True
    return False


def _lock_path(user_data: UserData) -> Path:
    return user_data.root / "worker.lock"


def _open_log(user_data: UserData) -> IO[bytes]:
    log = user_data.logs / "worker.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.is_file() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".old.log"))
    return log.open("ab")


def main() -> None:
    """Go through the queue of a `user_data/`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--user-data", type=Path, required=True)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    user_data = UserData(options.user_data.resolve())
    try:
        work(user_data, command=lambda job: job_command(job, user_data, cpu_only=options.cpu))
    except RunError as error:
        logger.error("%s", error)
        sys.exit(2)


if __name__ == "__main__":
    main()
