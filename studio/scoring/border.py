"""How white a picture's border is."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from studio.results import Fact

BORDER_SHARE = 6 / 128
"""The border's width as a share of the shorter side."""
WHITE_LEVEL = 245


class Border(Fact):
    """The border of a picture, 4.7 % of its shorter side wide, at least a pixel.

    Attributes:
        whiteness: share of its pixels whose every channel is at least 245.
        mean: of all its channels, 0 to 255.
    """

    whiteness: Annotated[float, Field(ge=0, le=1)]
    mean: Annotated[float, Field(ge=0, le=255)]


def border_width(height: int, width: int) -> int:
    """In pixels."""
    return max(1, round(min(height, width) * BORDER_SHARE))


def border_mask(height: int, width: int) -> NDArray[np.bool_]:
    """(height, width): True in the border."""
    edge = border_width(height, width)
    mask = np.ones((height, width), np.bool_)
    mask[edge:-edge, edge:-edge] = False
    return mask


def measure_border(picture_HWC: NDArray[np.uint8]) -> Border:
    """Look at the border of a uint8 RGB picture, at its full size."""
    height, width, _ = picture_HWC.shape
    edge = border_width(height, width)
    middle = picture_HWC[edge:-edge]
    strips = (picture_HWC[:edge], picture_HWC[-edge:], middle[:, :edge], middle[:, -edge:])
    pixels_NC = np.concatenate([strip.reshape(-1, 3) for strip in strips])
    return Border(
        whiteness=float((pixels_NC.min(axis=1) >= WHITE_LEVEL).mean()),
        mean=float(pixels_NC.mean()),
    )
