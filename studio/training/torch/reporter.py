"""How long the work between steps will still take: images with their scores, held-out losses, checkpoints.

TensorBoard, and Weights & Biases where it is asked for: the events once more, for tools that people know.
What a run says while it works: events, status, boards and the terminal, from one place.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from studio.core.errors import TrainingError
from studio.core.files import write_atomically
from studio.core.text import duration
from studio.jobs.events import EventWriter, MemoryEvent, NoteEvent, ProblemEvent, StateEvent, first_step_taken_back
from studio.jobs.folder import RunState, RunStatus
from studio.training.events import AnyEvent, CheckpointEvent, EffectEvent, HeldOutEvent, StepEvent
from studio.training.folder import RunFolder
from studio.training.settings import TrainingSettings

Work = Literal["pictures", "held-out losses", "checkpoint"]


@dataclass
class BetweenSteps:
    """What a run does beside its steps, each kind as long as it took the last time.

    Attributes:
        num_steps: of the whole run.
        every: after how many steps each kind is due; it is due at the last step too.
    """

    num_steps: int
    every: Mapping[Work, int]
    _seconds: dict[Work, float] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: TrainingSettings) -> "BetweenSteps":
        """The work that a run with these settings has."""
        every: dict[Work, int] = {
            "pictures": settings.validation_steps,
            "held-out losses": settings.held_out_steps,
            "checkpoint": settings.checkpointing_steps,
        }
        return cls(settings.max_train_steps, every)

    def took(self, work: Work, seconds: float) -> None:
        """Note how long it took this time."""
        self._seconds[work] = seconds

    def seconds_left(self, step: int) -> float:
        """Seconds of all that is due after `step`; kinds that were not done yet count nothing."""
        return sum(seconds * self._times_left(work, step) for work, seconds in self._seconds.items())

    def _times_left(self, work: Work, step: int) -> int:
        every = self.every[work]
        at_the_last = self.num_steps % every != 0 and step < self.num_steps
        return self.num_steps // every - step // every + at_the_last


class Board(Protocol):
    """Takes numbers and images of a step."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Numbers by name."""

    def picture(self, step: int, name: str, picture_HWC: np.ndarray) -> None:
        """A (height, width, 3) uint8 image."""

    def close(self) -> None:
        """Write out what waits."""


class TensorBoard:
    """Event files for `tensorboard --logdir`."""

    def __init__(self, folder: Path, *, purge_after: int | None) -> None:
        """`purge_after`: the step from which a run is resumed; what was written of later ones no longer counts."""
        self._writer = SummaryWriter(
            str(folder), purge_step=None if purge_after is None else first_step_taken_back(purge_after)
        )

    def scalars(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture_HWC: np.ndarray) -> None:
        self._writer.add_image(name, picture_HWC, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WandbBoard:
    """Weights & Biases, an extra. Not run here: it needs an account or its offline mode."""

    def __init__(self, folder: Path, settings: TrainingSettings) -> None:
        try:
            import wandb
        except ImportError as error:
            raise TrainingError(
                "wandb is switched on, but not installed. Install it with `pip install wandb` in the studio's .venv, "
                "or leave it off: TensorBoard's files are written in any case."
            ) from error
        self._image = wandb.Image
        self._run = wandb.init(
            project="lora-studio",
            id=folder.name,
            name=folder.name,
            dir=folder,
            resume="allow",
            config=settings.model_dump(),
        )

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def picture(self, step: int, name: str, picture_HWC: np.ndarray) -> None:
        self._run.log({name: self._image(picture_HWC)}, step=step)

    def close(self) -> None:
        self._run.finish()


def open_boards(
    run: Path, tensorboard: Path, settings: TrainingSettings, *, resumed_from: int | None
) -> tuple[Board, ...]:
    """Those that the settings ask for.

    Raises:
        TrainingError: where wandb is asked for and not installed.
    """
    boards: tuple[Board, ...] = (TensorBoard(tensorboard, purge_after=resumed_from),)
    return (*boards, WandbBoard(run, settings)) if settings.wandb else boards


STATUS_EVERY_SECONDS = 0.5
SPEED_STEPS = 20  # the forecast follows the last few steps: a machine that does other things too is slower for a while


@dataclass
class Reporter:
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
        self.report(StateEvent(state=state, message=message))
        self._write_status()
        print(f"{state}: {message}" if message else state, file=sys.stderr, flush=True)

    def report(self, event: AnyEvent) -> None:
        """Write an event; numbers go to the boards too."""
        started = time.perf_counter()
        self._events.report(event)
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
        self.report(ProblemEvent(step=self._step, message=message))
        print(message, file=sys.stderr, flush=True)

    def note(self, message: str) -> None:
        """Something that was decided or done."""
        self.report(NoteEvent(message=message))
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
        """A validation image, for the boards."""
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
