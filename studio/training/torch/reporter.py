"""What a training reports: events, boards, status, and the time that is left.

How long the work between steps will still take: images with their scores, held-out losses, checkpoints.

TensorBoard, and Weights & Biases where it is asked for: the events once more, for tools that people know.
What a run reports beside what every job does: numbers and images for the boards.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from studio.core.errors import TrainingError
from studio.core.language import _
from studio.jobs.events import JobEvent, first_step_taken_back
from studio.jobs.folder import pending_requests
from studio.jobs.reporter import JobReporter, retry_until_disk_space
from studio.training.events import CheckpointEvent, EffectEvent, HeldOutEvent, StepEvent
from studio.training.folder import RunFolder
from studio.training.settings import TrainingSettings

T = TypeVar("T")
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
                _(
                    "wandb is switched on, but not installed. Install it with `pip install wandb` in the studio's "
                    ".venv, or leave it off: TensorBoard's files are written in any case."
                )
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


class Reporter(JobReporter):
    """Reports on one run; numbers and images go to the boards too."""

    def __init__(self, run: RunFolder, between_steps: BetweenSteps) -> None:
        super().__init__(run, num_steps=between_steps.num_steps, beside_steps=between_steps.seconds_left)
        self.between_steps = between_steps
        self.boards: tuple[Board, ...] = ()

    def report(self, event: JobEvent) -> None:
        """Write an event; numbers go to the boards too."""
        super().report(event)
        values = _board_values(event)
        if values:
            step = getattr(event, "step", self.current_step)
            for board in self.boards:
                self._guarded(partial(board.scalars, step, values))
        if isinstance(event, StepEvent):
            label = _(
                "step {step:,} of {all:,}  loss {loss:.4f}  {seconds:.2f} s/step",
                step=event.step,
                all=self.num_steps,
                loss=event.loss,
                seconds=event.seconds,
            )
            self.stepped(event.step, event.seconds, lambda _mean: label)
        elif isinstance(event, HeldOutEvent | CheckpointEvent):
            self.print_line(f"{_label(event)}{' ' * 40}")

    def picture(self, step: int, name: str, picture_HWC: np.ndarray) -> None:
        """A validation image, for the boards."""
        for board in self.boards:
            self._guarded(partial(board.picture, step, name, picture_HWC))

    def close(self) -> None:
        """Write out what boards still hold."""
        for board in self.boards:
            self._guarded(board.close)

    def _guarded(self, act: Callable[[], None]) -> None:
        """A board that fails (a full disk) ends no run: events.jsonl has the same."""
        try:
            act()
        except OSError as error:
            self.boards = ()
            self.problem(
                _(
                    "TensorBoard's files can no longer be written ({error}). The run continues without them.",
                    error=error,
                )
            )


def save_step(act: Callable[[], T], *, step: int, reporter: JobReporter, stop_signal: Callable[[], bool]) -> T:
    """Do what writes something of `step`, waiting for room where the disk is full.

    A pause is heard when the step is saved: the steps since the last checkpoint would be lost.

    Raises:
        TrainingError: where a stop is asked for meanwhile.
        OSError: where it cannot be written for another reason.
    """
    return retry_until_disk_space(
        act,
        what=_("step {step:,}", step=step),
        reporter=reporter,
        should_stop=lambda: stop_signal() or "stop" in pending_requests(reporter.folder),
        stopped=TrainingError(
            _(
                "Stopped while the disk was full: step {step:,} could not be saved. The last checkpoint is whole; "
                "free some space and resume.",
                step=step,
            )
        ),
    )


def _board_values(event: JobEvent) -> dict[str, float]:
    """What boards show of an event, by name."""
    if isinstance(event, StepEvent):
        return {"loss": event.loss, "learning rate": event.learning_rate, "gradient norm": event.grad_norm}
    if isinstance(event, HeldOutEvent):
        held_out = {} if event.held_out_loss is None else {"loss/held out": event.held_out_loss}
        return {**held_out, "loss/trained": event.trained_loss}
    if isinstance(event, EffectEvent):
        return {f"effect/{group}": value for group, value in event.groups.items()}
    return {}


def _label(event: HeldOutEvent | CheckpointEvent) -> str:
    if isinstance(event, CheckpointEvent):
        return _("checkpoint of step {step:,} saved ({seconds:.2f} s)", step=event.step, seconds=event.seconds)
    if event.held_out_loss is None:
        return _(
            "step {step:,}: loss of fixed noise: none held out, trained {trained:.4f}",
            step=event.step,
            trained=event.trained_loss,
        )
    return _(
        "step {step:,}: loss of fixed noise: held out {held_out:.4f}, trained {trained:.4f}",
        step=event.step,
        held_out=event.held_out_loss,
        trained=event.trained_loss,
    )
