"""What a batch says while it works: its state for the queue and the page, memory for the gauge, a line for a terminal.

Only the first process of several tells.
"""

import os
import sys
import time
from collections import deque
from dataclasses import dataclass, field

from studio.batches.folder import BatchFolder
from studio.core.errors import system_error_message
from studio.core.text import duration
from studio.jobs.events import EventWriter, JobEvent, NoteEvent, StateEvent
from studio.jobs.folder import BUSY_STATES, RunState, RunStatus, write_status

STATUS_EVERY_SECONDS = 0.5
SPEED_PICTURES = 20  # the forecast follows the last few: a machine that does other things too is slower for a while


@dataclass
class BatchReporter:
    """Tells of one batch. Any thread may tell of memory; all else comes from the thread that computes."""

    folder: BatchFolder
    num_items: int
    num_processes: int
    num_known: int = 0
    _state: RunState = "new"
    _message: str = ""
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=SPEED_PICTURES))
    _written_at: float = -1e9
    _events: EventWriter = field(init=False)

    def __post_init__(self) -> None:
        self._events = EventWriter(self.folder.events)

    def state(self, state: RunState, message: str = "") -> None:
        """The state from now on; on the disk when this returns, where the disk has room."""
        if (state, message) == (self._state, self._message):
            return
        self._state, self._message = state, message
        self.report(StateEvent(state=state, message=message))
        self._write_status()
        print(f"\r{state}: {message}" if message else f"\r{state}", file=sys.stderr, flush=True)

    def progress(self, message: str) -> None:
        """How far the preparation is: in the status alone."""
        self._message = message
        if time.monotonic() - self._written_at >= STATUS_EVERY_SECONDS:
            self._write_status()

    def report(self, event: JobEvent) -> None:
        """Write an event."""
        self._events.report(event)

    def note(self, message: str) -> None:
        """Something that the user should know; the batch goes on."""
        self.report(NoteEvent(message=message))
        print(f"\r{message}", file=sys.stderr, flush=True)

    def finished_item(self, num_known: int, seconds: float) -> None:
        """An item more is done or failed.

        Args:
            num_known: of all processes together.
            seconds: that it took.
        """
        self.num_known = num_known
        self._seconds.append(seconds)
        if time.monotonic() - self._written_at >= STATUS_EVERY_SECONDS:
            self._write_status()
        left = self._remaining()
        words = f"{num_known:,} of {self.num_items:,} images  {self._mean():.2f} s each"
        print(f"\r{words}  {duration(left)} left   " if left else f"\r{words}   ", end="", file=sys.stderr)

    def _mean(self) -> float:
        return sum(self._seconds) / len(self._seconds)

    def _remaining(self) -> float | None:
        if not self._seconds:
            return None
        return (self.num_items - self.num_known) * self._mean() / self.num_processes

    def _write_status(self) -> None:
        self._written_at = time.monotonic()
        busy = self._state in BUSY_STATES
        status = RunStatus(
            state=self._state,
            step=self.num_known,
            num_steps=self.num_items,
            seconds_per_step=self._mean() if self._seconds else None,
            remaining_seconds=self._remaining() if busy else None,
            pid=os.getpid() if busy else 0,
            message=self._message,
        )
        try:
            write_status(self.folder, status)
        except OSError as error:  # a full disk: what must not be lost is an image, and that waits for room
            print(f"\nThe status cannot be written: {system_error_message(error)}", file=sys.stderr, flush=True)
