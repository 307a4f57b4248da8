"""What a run says while it works: events, status, boards and the terminal, from one place."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from studio.core.text import duration
from studio.files import write_atomically
from studio.runs.events import (
    AnyEvent,
    CheckpointEvent,
    EffectEvent,
    EventWriter,
    HeldOutEvent,
    MemoryEvent,
    NoteEvent,
    ProblemEvent,
    StateEvent,
    StepEvent,
)
from studio.runs.folder import RunFolder, RunState, RunStatus
from studio.training.between_steps import BetweenSteps
from studio.training.boards import Board

STATUS_EVERY_SECONDS = 0.5
SPEED_STEPS = 20  # the forecast follows the last few steps: a machine that does other things too is slower for a while


@dataclass
class Teller:
    """Tells of one run. Any thread may tell of memory; all else comes from the thread that computes."""

    run: RunFolder
    between_steps: BetweenSteps
    pid: int
    boards: tuple[Board, ...] = ()
    _events: EventWriter = field(init=False)
    _state: RunState = "preparing"
    _step: int = 0
    _message: str = ""
    _seconds: list[float] = field(default_factory=list)
    _written_at: float = -1e9
    seconds: float = 0.0  # that telling took

    def __post_init__(self) -> None:
        self._events = EventWriter(self.run.events)

    def state(self, state: RunState, message: str = "", *, step: int | None = None) -> None:
        """The run's state from now on; on the disk when this returns, where the disk has room."""
        self._state, self._message = state, message
        self._step = self._step if step is None else step
        self.tell(StateEvent(state=state, message=message))
        self._write_status()
        print(f"{state}: {message}" if message else state, file=sys.stderr, flush=True)

    def tell(self, event: AnyEvent) -> None:
        """Write an event; numbers go to the boards too."""
        started = time.perf_counter()
        self._events.tell(event)
        if isinstance(event, StepEvent):
            self._step = event.step
            self._seconds = [*self._seconds[-SPEED_STEPS + 1 :], event.seconds]
            if time.monotonic() - self._written_at >= STATUS_EVERY_SECONDS:
                self._write_status()
        self._show(event)
        if not isinstance(event, MemoryEvent):
            self.seconds += time.perf_counter() - started

    def problem(self, message: str) -> None:
        """Something the user should know; the run goes on."""
        self.tell(ProblemEvent(step=self._step, message=message))
        print(message, file=sys.stderr, flush=True)

    def note(self, message: str) -> None:
        """Something that was decided or done."""
        self.tell(NoteEvent(message=message))
        print(message, file=sys.stderr, flush=True)

    def progress(self, message: str) -> None:
        """How far the preparation is: in the status alone."""
        self._message = message
        if time.monotonic() - self._written_at >= STATUS_EVERY_SECONDS:
            self._write_status()

    @property
    def num_steps(self) -> int:
        """Of the whole run."""
        return self.between_steps.num_steps

    def picture(self, step: int, name: str, picture_HWC: np.ndarray) -> None:
        """A validation picture, for the boards."""
        for board in self.boards:
            self._guarded(partial(board.picture, step, name, picture_HWC))

    def close(self) -> None:
        """Write out what boards still hold."""
        for board in self.boards:
            self._guarded(board.close)

    def _show(self, event: AnyEvent) -> None:
        values = _board_values(event)
        if values:
            step = getattr(event, "step", self._step)
            for board in self.boards:
                self._guarded(partial(board.scalars, step, values))
        if isinstance(event, StepEvent):
            words = f"step {event.step:,} of {self.num_steps:,}  loss {event.loss:.4f}  {event.seconds:.2f} s/step"
            left = self._remaining()
            print(f"\r{words}  {duration(left)} left   " if left else f"\r{words}   ", end="", file=sys.stderr)
        elif isinstance(event, HeldOutEvent | CheckpointEvent):
            print(f"\r{_words(event)}{' ' * 40}", file=sys.stderr, flush=True)

    def _guarded(self, act: Callable[[], None]) -> None:
        """A board that fails (a full disk) ends no run: events.jsonl has the same."""
        try:
            act()
        except OSError as error:
            self.boards = ()
            self.problem(f"TensorBoard's files can no longer be written ({error}). The run goes on without them.")

    def _remaining(self) -> float | None:
        if not self._seconds:
            return None
        steps_left = self.num_steps - self._step
        mean_seconds = sum(self._seconds) / len(self._seconds)
        return steps_left * mean_seconds + self.between_steps.seconds_left(self._step)

    def _write_status(self) -> None:
        self._written_at = time.monotonic()
        status = RunStatus(
            state=self._state,
            step=self._step,
            num_steps=self.num_steps,
            seconds_per_step=sum(self._seconds) / len(self._seconds) if self._seconds else None,
            remaining_seconds=self._remaining(),
            pid=self.pid if self._state not in ("finished", "failed", "stopped", "paused") else 0,
            message=self._message,
        )
        try:
            write_atomically(self.run.status, status.model_dump_json().encode() + b"\n")
        except OSError as error:  # a full disk: what must not be lost is a checkpoint, and that waits for room
            print(f"\nThe status cannot be written: {error}", file=sys.stderr, flush=True)


def _board_values(event: AnyEvent) -> dict[str, float]:
    """What boards show of an event, by name."""
    if isinstance(event, StepEvent):
        return {"loss": event.loss, "learning rate": event.learning_rate, "gradient norm": event.grad_norm}
    if isinstance(event, HeldOutEvent):
        held_out = {} if event.held_out_loss is None else {"loss/held out": event.held_out_loss}
        return {**held_out, "loss/trained": event.trained_loss}
    if isinstance(event, EffectEvent):
        return {f"effect/{group}": value for group, value in event.groups.items()}
    return {}


def _words(event: HeldOutEvent | CheckpointEvent) -> str:
    if isinstance(event, CheckpointEvent):
        return f"checkpoint of step {event.step:,} saved ({event.seconds:.2f} s)"
    held_out = "none held out" if event.held_out_loss is None else f"held out {event.held_out_loss:.4f}"
    return f"step {event.step:,}: loss of fixed noise: {held_out}, trained {event.trained_loss:.4f}"
