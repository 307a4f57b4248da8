"""Whatever ends a job's process is in its run's status before it goes on up: nothing is `running` for ever."""

import sys

from studio.core.errors import RunError, system_error_message
from studio.jobs.events import EventWriter, StateEvent
from studio.jobs.folder import JobFolder, RunState, RunStatus, read_status, write_status

_INTERRUPTED = "It was interrupted; resume to go on."


def report_failure(run: JobFolder, error: BaseException, message: str) -> None:
    """Write that a run has failed, and why, as its event and its status. For the process that works on the run alone.

    An interrupt is no failure: the run is stopped then. Where the disk is full the terminal is told.
    """
    state: RunState = "failed"
    if isinstance(error, KeyboardInterrupt):
        state, message = "stopped", _INTERRUPTED
    try:
        status = read_status(run)
    except RunError:
        status = RunStatus(state=state)
    closed = {"state": state, "message": message, "pid": 0, "remaining_seconds": None}
    EventWriter(run.events).report(StateEvent(state=state, message=message))
    print(f"\r{state}: {message}", file=sys.stderr, flush=True)
    try:
        write_status(run, status.model_copy(update=closed))
    except OSError as problem:
        print(f"The status cannot be written: {system_error_message(problem)}", file=sys.stderr, flush=True)
