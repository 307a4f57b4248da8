"""A job's process: started, kept awake, and how its exit is classified.

How a job ended: what its exit code and its run's status mean for its place in the queue.

Processes that outlive who started them: starting one, telling whether it lives, keeping the machine awake for it.
"""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, cast

import psutil

from studio.core.errors import says_no_memory
from studio.core.files import open_file, read_text
from studio.core.language import LANGUAGE_NAME, N_, _
from studio.jobs import gate
from studio.jobs.folder import RunState, RunStatus
from studio.jobs.queue import MAX_ATTEMPTS, Job, JobState

# A job's exit codes. Every other ending was not its own choice.
DONE = 0
REFUSED = 1  # with a sentence in its status: trying again would find the same. Python's own crashes are 1 without one
_SAID_WHEN_DONE: tuple[RunState, ...] = ("finished", "stopped", "paused")
_SAID_AT_THE_END: tuple[RunState, ...] = (*_SAID_WHEN_DONE, "failed")
_KILLED = (-9, 137)  # SIGKILL, as we see it and as shells and containers tell it
_LOWER = N_("lower the batch size or the resolution, or turn gradient checkpointing on")


@dataclass(frozen=True)
class ExitOutcome:
    """What becomes of a job; `queued` is its next attempt."""

    state: JobState
    message: str


def classify_exit(job: Job, *, exit_code: int | None, status: RunStatus, log_end: str) -> ExitOutcome:
    """What becomes of a job whose process has ended.

    Args:
        job: as it was while it ran, the attempt that has ended counted.
        exit_code: of its process; None where nobody was there to hear it.
        status: its run's, read after the end.
        log_end: the last lines of its log.
    """
    if exit_code == DONE:
        if status.state in _SAID_WHEN_DONE:
            return ExitOutcome(cast(JobState, status.state), status.message)
        words = _("Its process ended normally, but its run is {state}.", state=_(status.state))
        return ExitOutcome("failed", _with_log(words, log_end))
    if exit_code == REFUSED and status.state == "failed":
        return ExitOutcome("failed", status.message or _with_log(_("It did not say why."), log_end))
    if exit_code is None and status.state in _SAID_AT_THE_END:
        return ExitOutcome(cast(JobState, status.state), status.message)
    return _judge_accident(job, _cause(exit_code, log_end), log_end)


def _judge_accident(job: Job, cause: str, log_end: str) -> ExitOutcome:
    if job.asked:
        state: JobState = "stopped" if job.asked == "stop" else "paused"
        message = _(
            "It ended unexpectedly: {cause} It had been asked to {asked}; resumed, it continues from its last "
            "checkpoint.",
            cause=cause,
            asked=_(job.asked),
        )
        return ExitOutcome(state, message)
    if job.attempts < MAX_ATTEMPTS:
        again = _(
            "Attempt {attempt} of {most} ended unexpectedly: {cause} It is tried again.",
            attempt=job.attempts,
            most=MAX_ATTEMPTS,
            cause=cause,
        )
        return ExitOutcome("queued", again)
    words = _("All {num} attempts ended unexpectedly: {cause}", num=MAX_ATTEMPTS, cause=cause)
    return ExitOutcome("failed", _with_log(words, log_end))


def _cause(exit_code: int | None, log_end: str) -> str:
    if says_no_memory(log_end):
        return _("its log shows that memory ran out. Before a retry, {advice}.", advice=_(_LOWER))
    if exit_code is None:
        return _("its process was killed, or the machine went down, while no worker was watching it.")
    if exit_code in _KILLED:
        return _("its process was killed, probably because memory ran out. Before a retry, {advice}.", advice=_(_LOWER))
    if exit_code < 0:
        return _("its process crashed ({signal}).", signal=_signal_name(-exit_code))
    return _("its process ended with code {code}.", code=exit_code)


def _signal_name(number: int) -> str:
    names = {known.value: known.name for known in signal.Signals}
    return names.get(number) or _("signal {number}", number=number)


def _with_log(words: str, log_end: str) -> str:
    log = "\n".join((_("The end of its log:"), log_end)) if log_end else _("Its log is empty.")
    return f"{words} {log}"


logger = logging.getLogger(__name__)

# A machine's start, which process times are counted from, is told in whole seconds and moves a little.
_SAME_START_SECONDS = 2.0
_TAIL_BYTES = 16_384
_HEADING = "\n--- attempt "  # begins the line that tells in the log where an attempt starts


def start_detached(
    command: Sequence[str], *, cwd: Path, output: IO[bytes], stdin: int = subprocess.DEVNULL, language: str = ""
) -> "subprocess.Popen[bytes]":
    """Start a process in a session of its own: no terminal's Ctrl+C and no ending of ours reaches it.

    Args:
        language: the tag of what it speaks; that of this process where it is empty.

    Raises:
        OSError: where it cannot be started.
    """
    spoken = {LANGUAGE_NAME: language} if language else {}
    windows = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(subprocess, "DETACHED_PROCESS", 0)
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env={**os.environ, "TRANSFORMERS_VERBOSITY": "error", "PYTHONUNBUFFERED": "1", **spoken},
        start_new_session=True,
        creationflags=windows,
    )


class PendingProcess:
    """A job's process that waits at the gate: it is there, and does nothing before `let_go`."""

    def __init__(self, command: Sequence[str], *, cwd: Path, log: Path, attempt: str, language: str = "") -> None:
        """Start it, with what it prints appended to the log.

        Raises:
            OSError: where it cannot be started, or its log cannot be opened.
        """
        with log.open("ab") as output:
            with suppress(OSError):  # a full disk: the job itself knows to wait for room
                output.write(f"{_HEADING}{attempt}, {datetime.now():%Y-%m-%d %H:%M:%S}\n".encode())
                output.flush()
            held = [sys.executable, "-I", "-S", gate.__file__, *command]
            self._process = start_detached(held, cwd=cwd, output=output, stdin=subprocess.PIPE, language=language)
        self.pid = self._process.pid
        self.start_time = psutil.Process(self.pid).create_time()

    def release(self) -> None:
        """Let it become the job."""
        self._close(gate.GO)

    def abort(self) -> None:
        """End it before it has begun."""
        self._close(b"")
        self._process.wait()

    def wait(self) -> int:
        """Its exit code, when it has ended; minus the signal's number where one ended it."""
        return self._process.wait()

    def _close(self, word: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead already: its exit code tells
            self._process.stdin.write(word)
            self._process.stdin.flush()
        with suppress(BrokenPipeError):
            self._process.stdin.close()


def is_alive(job: Job) -> bool:
    """Whether the job's process is there still, and not another one with its number.

    Start times move with the system's clock, so where they differ the command line decides: a process with this
    number that was started for this run's folder is the job's.
    """
    if job.pid <= 0:
        return False
    try:
        process = psutil.Process(job.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if abs(process.create_time() - job.process_start_time) < _SAME_START_SECONDS:
            return True
        return str(job.run_folder) in process.cmdline()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's, so not ours
        return False


def awake_command(pid: int, *, platform: str) -> tuple[str, ...]:
    """What keeps a machine awake while a process lives; empty where nothing is needed.

    A Mac sleeps in the middle of a training. `-i` and `-s` hold off idle and system sleep; the display may go dark
    (`-d` would keep it lit for hours), and a closed lid sleeps anyway. It was not run on a Mac: the logic alone is
    tested, with a stand-in for `caffeinate`.
    """
    return ("caffeinate", "-is", "-w", str(pid)) if platform == "darwin" else ()


@contextmanager
def kept_awake(pid: int, *, platform: str = sys.platform) -> Iterator[None]:
    """Keep the machine awake while the block runs, and for as long as the process lives where we are killed."""
    command = awake_command(pid, platform=platform)
    keeper = None
    if command:
        try:
            keeper = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            logger.warning("The machine may fall asleep: %s cannot be started (%s).", command[0], error)
    try:
        yield
    finally:
        if keeper is not None:
            keeper.terminate()
            keeper.wait()


def language_of_job(job: Job) -> str:
    """The tag of what whoever queued it speaks; "" where that is not known, as of jobs of an older studio."""
    try:
        return read_text(job.run.language).strip()
    except OSError:
        return ""


def end_of_log(log: Path, *, num_lines: int, of_last_attempt: bool = False) -> str:
    """The last lines of a log; empty where there is none. Bars that overwrite themselves count as lines."""
    try:
        with open_file(log) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    if of_last_attempt:
        text = text.rpartition(_HEADING)[2].partition("\n")[2] if _HEADING in text else text
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-num_lines:])
