"""The subject's colour against the one that the prompt asks for."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from studio.results import Fact
from studio.scoring.colour_words import lab_of, rivals_of
from studio.scoring.lab import SHADED, ciede2000

BANDWIDTH = 8.0
"""How far apart shades of one material are, in CIELAB with lightness halved."""
_MAX_PIXELS = 500
_LIGHTNESS_WEIGHT = np.array([1 / SHADED, 1, 1], np.float32)


class ColourScore(Fact):
    """The subject's colour beside the word's.

    Attributes:
        asked: the word; of several, the nearest one.
        difference: CIEDE2000 (2:1:1), lightness halved as shading changes it: under 10 is that colour, over 20 another.
        nearest_word: the word that names the subject's colour.
        lab: the subject's colour, CIELAB.
    """

    asked: str
    difference: Annotated[float, Field(ge=0)]
    nearest_word: str
    lab: tuple[float, float, float]

    @property
    def is_named_right(self) -> bool:
        """Whether the word that was asked for is the nearest."""
        return self.asked == self.nearest_word


def subject_colour(lab_HWC: NDArray[np.float32], mask_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(3,) CIELAB: the colour with the most of its kind around it among the subject's pixels.

    Soles, laces, highlights and shadows are other colours, and do not shift it as they would a mean.
    """
    inner_HW = ndimage.binary_erosion(mask_HW, border_value=1)
    if inner_HW.sum() >= 0.4 * mask_HW.sum():  # edges are mixed with the ground
        mask_HW = inner_HW
    pixels_NC = lab_HWC[mask_HW]
    pixels_NC = pixels_NC[:: -(-len(pixels_NC) // _MAX_PIXELS)]
    scaled_NC = pixels_NC * _LIGHTNESS_WEIGHT
    squares_N = (scaled_NC**2).sum(axis=1)
    apart_NN = squares_N[:, None] + squares_N[None] - 2 * (scaled_NC @ scaled_NC.T)
    density_N = np.exp(apart_NN / -(2 * BANDWIDTH**2)).sum(axis=1)
    alike_N = apart_NN[density_N.argmax()] < (1.5 * BANDWIDTH) ** 2
    return np.asarray(np.median(pixels_NC[alike_N], axis=0), np.float32)


def score_colour(lab_C: NDArray[np.float32], asked: Sequence[str]) -> ColourScore:
    """Compare a colour with the words of a prompt, of which there is at least one."""
    differences = [float(ciede2000(lab_C, lab_of(word), k_lightness=SHADED)) for word in asked]
    word = asked[int(np.argmin(differences))]
    rivals = rivals_of(word)
    rival_labs = np.stack([lab_of(rival) for rival in rivals])
    nearest = rivals[int(ciede2000(lab_C, rival_labs, k_lightness=SHADED).argmin())]
    lightness, a, b = (round(float(value), 2) for value in lab_C)
    return ColourScore(asked=word, difference=min(differences), nearest_word=nearest, lab=(lightness, a, b))
