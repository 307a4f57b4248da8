"""A picture at the size at which it is looked at: 128 pixels on its shorter side, so that the size does not matter."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studio.scoring.lab import rgb_to_lab

WORKING_SIDE = 128


@dataclass(frozen=True)
class WorkingPicture:
    """A picture made small; one that is smaller stays as it is.

    Attributes:
        rgb_HWC: uint8.
        lab_HWC: float32 CIELAB.
    """

    rgb_HWC: NDArray[np.uint8]
    lab_HWC: NDArray[np.float32]


def make_working(picture_HWC: NDArray[np.uint8]) -> WorkingPicture:
    """Average a uint8 RGB picture down."""
    height, width, _ = picture_HWC.shape
    scale = WORKING_SIDE / min(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture_HWC = np.asarray(Image.fromarray(picture_HWC).resize(size, Image.Resampling.BOX))
    return WorkingPicture(picture_HWC, rgb_to_lab(picture_HWC))
