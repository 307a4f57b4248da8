"""What a job reports: events, status, terminal, its failure; waiting for disk space.

A full disk costs nothing but time: what cannot be written is written as soon as there is room.

What a job says while it works, from one place: its events, its status, and lines for a terminal. No torch.

Whatever ends its process is in its status before it goes on up: nothing is `running` for ever.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from studio.core.errors import RunError, StudioError, is_disk_full, system_error_message
from studio.core.language import N_, _, said
from studio.core.records import MOST_SECONDS
from studio.core.text import duration
from studio.jobs.events import EventWriter, JobEvent, NoteEvent, ProblemEvent, StateEvent
from studio.jobs.folder import BUSY_STATES, JobFolder, RunState, RunStatus, read_status, write_status

T = TypeVar("T")
LOOK_FOR_ROOM_SECONDS = 2.0


def retry_until_disk_space(
    act: Callable[[], T], *, what: str, reporter: "JobReporter", should_stop: Callable[[], bool], stopped: StudioError
) -> T:
    """Do what writes something; where the disk is full, say so, and do it again when there is room.

    Args:
        act: leaves nothing half written behind where it raises, and may be done again.
        what: it saves, in a few words, as the user reads it.
        should_stop: asked again and again while it waits.
        stopped: raised where it should.

    Raises:
        StudioError: `stopped`.
        OSError: where it cannot be written for another reason.
    """
    before = reporter.current_state
    waiting = False
    activity = _(reporter.folder.activity)
    while True:
        try:
            result = act()
        except OSError as error:
            if not is_disk_full(error):
                raise
        else:
            if waiting:
                before = before if before in BUSY_STATES else "running"
                reporter.state(before, _("There is space again; the {activity} continues.", activity=activity))
            return result
        if not waiting:
            waiting = True
            reporter.state(
                "waiting",
                _(
                    "The disk is full: {what} cannot be saved. Free some space; the {activity} waits and "
                    "goes on by itself. Nothing is lost while it waits.",
                    what=what,
                    activity=activity,
                ),
            )
        time.sleep(LOOK_FOR_ROOM_SECONDS)
        if should_stop():
            raise stopped


STATUS_EVERY_SECONDS = 0.5
SPEED_STEPS = 20  # the forecast follows the last few: a machine that does other things too is slower for a while


def _no_seconds(_step: int) -> float:
    return 0.0


class JobReporter:
    """Reports on one job. Any thread may report memory; all else comes from the thread that computes."""

    def __init__(
        self,
        folder: JobFolder,
        *,
        num_steps: int,
        num_processes: int = 1,
        beside_steps: Callable[[int], float] = _no_seconds,
        silent: bool = False,
    ) -> None:
        """Nothing is written yet.

        Args:
            num_steps: optimizer steps of a training, items of a batch.
            num_processes: that do steps side by side.
            beside_steps: seconds of what is still to be done after a step beside the steps themselves.
            silent: say and write nothing: of the processes of a launch only the first one reports.
        """
        self.folder = folder
        self.num_steps = num_steps
        self._num_processes = num_processes
        self._beside_steps = beside_steps
        self._silent = silent
        self._events = EventWriter(folder.events)
        self._state: RunState = "new"
        self._message = ""
        self._step = 0
        self._seconds: deque[float] = deque(maxlen=SPEED_STEPS)
        self._written_at = -1e9

    @property
    def current_state(self) -> RunState:
        """The last one that was reported."""
        return self._state

    @property
    def current_step(self) -> int:
        """How many are done."""
        return self._step

    def state(self, state: RunState, message: str = "", *, step: int | None = None) -> None:
        """The state from now on; on the disk when this returns, where the disk has room. Said again it is not told."""
        step = self._step if step is None else step
        if (state, message, step) == (self._state, self._message, self._step):
            return
        self._state, self._message, self._step = state, message, step
        self.report(StateEvent(state=state, message=message))
        self._write_status()
        word = _(state)
        self.print_line(f"{word}: {message}" if message else word)

    def waits_for_device(self, owner: str) -> None:
        """Somebody else has the device."""
        message = _(
            "The device is in use by {owner}. The {activity} starts when it is free.",
            owner=owner,
            activity=_(self.folder.activity),
        )
        self.state("waiting", message)

    def report(self, event: JobEvent) -> None:
        """Write an event."""
        if not self._silent:
            self._events.report(event)

    def problem(self, message: str) -> None:
        """Something the user should know; the job goes on."""
        self.report(ProblemEvent(step=self._step, message=message))
        self.print_line(said(message))

    def note(self, message: str) -> None:
        """Something that was decided or done."""
        self.report(NoteEvent(message=message))
        self.print_line(said(message))

    def progress(self, message: str) -> None:
        """How far the preparation is: in the status alone."""
        self._message = message
        self._write_status_if_due()

    def stepped(self, step: int, seconds: float, line: Callable[[float], str]) -> None:
        """Steps are done.

        Args:
            step: how many there are now, of all processes together.
            seconds: that the last one took.
            line: for a terminal, by the mean seconds of the last steps; how long the rest will take is added.
        """
        self._step = step
        self._seconds.append(seconds)
        self._write_status_if_due()
        left = self._remaining_seconds()
        said = line(sum(self._seconds) / len(self._seconds))
        rest = _("{time} left", time=duration(left)) if left else ""
        self.print_line(f"{said}  {rest}   " if rest else f"{said}   ", end="")

    def _remaining_seconds(self) -> float | None:
        if not self._seconds:
            return None
        steps = (self.num_steps - self._step) * sum(self._seconds) / len(self._seconds)
        seconds = steps / self._num_processes + self._beside_steps(self._step)
        return seconds if seconds <= MOST_SECONDS else None

    def _write_status_if_due(self) -> None:
        if time.monotonic() - self._written_at >= STATUS_EVERY_SECONDS:
            self._write_status()

    def _write_status(self) -> None:
        if self._silent:
            return
        self._written_at = time.monotonic()
        busy = self._state in BUSY_STATES
        status = RunStatus(
            state=self._state,
            step=self._step,
            num_steps=self.num_steps,
            seconds_per_step=sum(self._seconds) / len(self._seconds) if self._seconds else None,
            remaining_seconds=self._remaining_seconds() if busy else None,
            pid=os.getpid() if busy else 0,
            message=self._message,
        )
        try:
            write_status(self.folder, status)
        except OSError as error:  # a full disk: what must not be lost is the work, and that waits for room
            self.print_line(_("The status cannot be written: {reason}", reason=system_error_message(error)))

    def print_line(self, line: str, *, end: str = "\n") -> None:
        """To the terminal, over the line that tells how far it is."""
        if not self._silent:
            print(f"\r{line}", end=end, file=sys.stderr, flush=True)


_INTERRUPTED = N_("It was interrupted; resume to continue.")


def report_failure(folder: JobFolder, error: BaseException, message: str) -> None:
    """Write that a job has failed, and why, as its event and its status. For the process that works on it alone.

    An interrupt is no failure: the job is stopped then. Where the disk is full the terminal is told.
    """
    state: RunState = "failed"
    if isinstance(error, KeyboardInterrupt):
        state, message = "stopped", _(_INTERRUPTED)
    try:
        status = read_status(folder)
    except RunError:
        status = RunStatus(state=state)
    closed = {"state": state, "message": message, "pid": 0, "remaining_seconds": None}
    EventWriter(folder.events).report(StateEvent(state=state, message=message))
    print(f"\r{_(state)}: {message}", file=sys.stderr, flush=True)
    try:
        write_status(folder, status.model_copy(update=closed))
    except OSError as problem:
        said = _("The status cannot be written: {reason}", reason=system_error_message(problem))
        print(said, file=sys.stderr, flush=True)
