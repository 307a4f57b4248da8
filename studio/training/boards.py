"""TensorBoard, and Weights & Biases where it is asked for: the events once more, for tools that people know."""

from pathlib import Path
from typing import Protocol

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from studio.errors import TrainingError
from studio.training_settings import TrainingSettings


class Board(Protocol):
    """Takes numbers and pictures of a step."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Numbers by name."""

    def picture(self, step: int, name: str, picture_HWC: np.ndarray) -> None:
        """A (height, width, 3) uint8 picture."""

    def close(self) -> None:
        """Write out what waits."""


class TensorBoard:
    """Event files for `tensorboard --logdir`."""

    def __init__(self, folder: Path, *, purge_after: int | None) -> None:
        """`purge_after`: the step from which a run is resumed; what was written of later ones no longer counts."""
        self._writer = SummaryWriter(str(folder), purge_step=None if purge_after is None else purge_after + 1)

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
