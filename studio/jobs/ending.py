"""How a job ended: what its exit code and its run's status mean for its place in the queue."""

import signal
from dataclasses import dataclass
from typing import cast

from studio.errors import says_no_memory
from studio.jobs.job import MAX_ATTEMPTS, Job, JobState
from studio.runs.folder import RunState, RunStatus

# A job's exit codes. Every other ending was not its own choice.
DONE = 0
REFUSED = 1  # with a sentence in its status: trying again would find the same. Python's own crashes are 1 without one
_SAID_WHEN_DONE: tuple[RunState, ...] = ("finished", "stopped", "paused")
_SAID_AT_THE_END: tuple[RunState, ...] = (*_SAID_WHEN_DONE, "failed")
_KILLED = (-9, 137)  # SIGKILL, as we see it and as shells and containers tell it
_LOWER = "lower the batch size or the resolution, or turn gradient checkpointing on"


@dataclass(frozen=True)
class Ending:
    """What becomes of a job; `queued` is its next attempt."""

    state: JobState
    message: str


def judge(job: Job, *, exit_code: int | None, status: RunStatus, log_end: str) -> Ending:
    """What becomes of a job whose process has ended.

    Args:
        job: as it was while it ran, the attempt that has ended counted.
        exit_code: of its process; None where nobody was there to hear it.
        status: its run's, read after the end.
        log_end: the last lines of its log.
    """
    if exit_code == DONE:
        if status.state in _SAID_WHEN_DONE:
            return Ending(cast(JobState, status.state), status.message)
        return Ending("failed", f"Its process ended as if all went well, but its run is {status.state}.{_log(log_end)}")
    if exit_code == REFUSED and status.state == "failed":
        return Ending("failed", status.message or f"It did not say why.{_log(log_end)}")
    if exit_code is None and status.state in _SAID_AT_THE_END:
        return Ending(cast(JobState, status.state), status.message)
    return _judge_accident(job, _cause(exit_code, log_end), log_end)


def _judge_accident(job: Job, cause: str, log_end: str) -> Ending:
    if job.asked:
        state: JobState = "stopped" if job.asked == "stop" else "paused"
        asked = f"It had been asked to {job.asked}; resumed, it goes on from its last checkpoint."
        return Ending(state, f"It ended too early: {cause} {asked}")
    if job.attempts < MAX_ATTEMPTS:
        return Ending("queued", f"Attempt {job.attempts} of {MAX_ATTEMPTS} ended too early: {cause} It is tried again.")
    return Ending("failed", f"All {MAX_ATTEMPTS} attempts ended too early: {cause}{_log(log_end)}")


def _cause(exit_code: int | None, log_end: str) -> str:
    if says_no_memory(log_end):
        return f"memory ran out, by its log. Before a retry, {_LOWER}."
    if exit_code is None:
        return "its process was killed, or the machine went down, while nobody waited for it."
    if exit_code in _KILLED:
        return f"its process was killed, probably because memory ran out. Before a retry, {_LOWER}."
    if exit_code < 0:
        return f"its process crashed ({_signal_name(-exit_code)})."
    return f"its process ended with code {exit_code}."


def _signal_name(number: int) -> str:
    names = {known.value: known.name for known in signal.Signals}
    return names.get(number, f"signal {number}")


def _log(log_end: str) -> str:
    return f" The end of its log:\n{log_end}" if log_end else " Its log is empty."
