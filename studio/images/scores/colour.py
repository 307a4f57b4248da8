"""Colour of a subject: CIELAB, colour words, distance to the word that was asked for.

CIELAB, and the difference of two colours as people see it.

sRGB: IEC 61966-2-1, white point D65. CIEDE2000: Sharma, Wu, Dalal, "The CIEDE2000 Color-Difference Formula:
Implementation Notes, Supplementary Test Data, and Mathematical Observations", Color Research & Application 30 (2005).

The colours that words mean, as sRGB; close words may mean nearly the same.
The subject's colour against the one that the prompt asks for.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy import ndimage

from studio.core.records import Record

_LEVELS = np.arange(256) / 255
_LINEAR = np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4).astype(np.float32)
_WHITE = np.array([0.95047, 1.0, 1.08883])
# Columns of X, Y, Z, each as a share of the white point's.
_TO_XYZ = (
    np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    ).T
    / _WHITE
).astype(np.float32)
_EPSILON, _KAPPA = 216 / 24389, 24389 / 27

SHADED = 2.0
"""kL for things in uneven light: lightness counts half, as CIEDE2000 (2:1:1) has it for textiles."""


def rgb_to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(..., 3) uint8 sRGB to (..., 3) float32 L* (0 to 100), a*, b*."""
    xyz = _LINEAR[rgb] @ _TO_XYZ
    f = np.where(xyz > _EPSILON, np.cbrt(xyz), (_KAPPA * xyz + 16) / 116)
    lab = np.empty_like(f)
    lab[..., 0] = 116 * f[..., 1] - 16
    lab[..., 1] = 500 * (f[..., 0] - f[..., 1])
    lab[..., 2] = 200 * (f[..., 1] - f[..., 2])
    return np.asarray(lab, np.float32)


def ciede2000(first: ArrayLike, second: ArrayLike, *, k_lightness: float = 1.0) -> NDArray[np.float64]:
    """ΔE₀₀ between (..., 3) CIELAB colours, broadcast: about 1 is just noticeable, 10 and more another colour."""
    l1, a1, b1 = np.moveaxis(np.asarray(first, np.float64), -1, 0)
    l2, a2, b2 = np.moveaxis(np.asarray(second, np.float64), -1, 0)
    mean_chroma7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(mean_chroma7 / (mean_chroma7 + 25.0**7))
    c1, c2 = np.hypot(a1 * stretch, b1), np.hypot(a2 * stretch, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a * stretch)) % 360 for a, b in ((a1, b1), (a2, b2)))
    is_grey = c1 * c2 == 0
    turn = np.where(is_grey, 0, (h2 - h1 + 180) % 360 - 180)
    # Exactly opposite hues: the formula takes +180 where h2 is the larger one.
    turn = np.where((np.abs(turn) == 180) & (h2 > h1), 180, turn)
    total = h1 + h2
    far = np.abs(h1 - h2) > 180
    mean_hue = np.where(far, np.where(total < 360, total + 360, total - 360), total) / 2
    mean_hue = np.where(is_grey, total, mean_hue)

    delta_l, delta_c = l2 - l1, c2 - c1
    delta_h = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    weight_l = 1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2)
    weight_c = 1 + 0.045 * mean_c
    hue_part = 1 - 0.17 * _cosine(mean_hue - 30) + 0.24 * _cosine(2 * mean_hue)
    hue_part += 0.32 * _cosine(3 * mean_hue + 6) - 0.20 * _cosine(4 * mean_hue - 63)
    weight_h = 1 + 0.015 * mean_c * hue_part
    rotation = np.radians(60 * np.exp(-(((mean_hue - 275) / 25) ** 2)))
    rotation = -2 * np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7)) * np.sin(rotation)
    lightness, chroma, hue = delta_l / (k_lightness * weight_l), delta_c / weight_c, delta_h / weight_h
    squared = lightness**2 + chroma**2 + hue**2 + rotation * chroma * hue
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


def _cosine(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.cos(np.radians(degrees)))


Rgb = tuple[int, int, int]

BASIC: Mapping[str, Rgb] = {
    "black": (28, 28, 30),
    "white": (240, 240, 238),
    "grey": (128, 130, 134),
    "brown": (112, 68, 38),
    "tan": (196, 154, 108),
    "beige": (222, 206, 178),
    "navy": (30, 44, 92),
    "blue": (48, 104, 190),
    "green": (52, 120, 66),
    "red": (190, 36, 40),
    "pink": (232, 140, 170),
    "yellow": (232, 190, 50),
    "purple": (112, 58, 140),
    "orange": (232, 120, 40),
}
"""Words that a subject's colour is named with: far enough apart for anyone to tell. The first twelve are those of
the dataset inside."""

_FURTHER: Mapping[str, Rgb] = {
    "olive": (107, 112, 52),
    "burgundy": (110, 25, 45),
    "maroon": (115, 22, 34),
    "gold": (200, 160, 70),
    "silver": (190, 192, 196),
    "cream": (245, 236, 215),
    "khaki": (180, 165, 120),
    "teal": (20, 125, 125),
    "light blue": (150, 190, 225),
    "turquoise": (60, 185, 190),
    "charcoal": (60, 62, 66),
    "off white": (244, 240, 230),
    "lavender": (190, 170, 220),
    "magenta": (200, 40, 130),
    "peach": (245, 190, 160),
    "skin": (225, 185, 155),
    "mustard": (205, 155, 40),
    "bronze": (140, 105, 60),
    "copper": (175, 100, 65),
    "rust": (165, 75, 35),
    "mauve": (165, 120, 150),
    "rose": (225, 120, 140),
    "rose gold": (215, 165, 150),
    "sea green": (60, 140, 110),
    "taupe": (150, 132, 118),
    "lime": (150, 205, 60),
    "steel": (125, 135, 145),
    "coffee brown": (85, 60, 45),
    "camel": (190, 145, 90),
    "coral": (240, 120, 100),
    "mint": (170, 220, 190),
}
_SAME: Mapping[str, str] = {
    "gray": "grey",
    "grey melange": "grey",
    "gray melange": "grey",
    "navy blue": "navy",
    "dark blue": "navy",
    "sky blue": "light blue",
    "baby blue": "light blue",
    "turquoise blue": "turquoise",
    "ivory": "cream",
    "violet": "purple",
    "nude": "skin",
    "coffee": "coffee brown",
    "mushroom brown": "taupe",
    "lime green": "lime",
    "fluorescent green": "lime",
    "olive green": "olive",
    "crimson": "red",
    "cognac": "brown",
}
_SHADES: Mapping[str, tuple[int, float]] = {"light": (255, 0.4), "pale": (255, 0.5), "dark": (0, 0.4), "deep": (0, 0.3)}
"""A word before a colour's: the grey level that it is mixed with, and how much of that."""

MAX_WORDS = 2
NOT_TOLD_APART = 10.0
"""ΔE (2:1:1) within which a basic word does not count against the one that was asked for: silver is grey."""


def rgb_of(phrase: str) -> Rgb | None:
    """What one or two lower-case words mean: `navy blue`, `dark green`. None where they name no colour."""
    name = _SAME.get(phrase, phrase)
    if rgb := BASIC.get(name) or _FURTHER.get(name):
        return rgb
    shade, _, rest = phrase.partition(" ")
    plain = rgb_of(rest) if shade in _SHADES and rest and " " not in rest else None
    if plain is None:
        return None
    level, share = _SHADES[shade]
    red, green, blue = (round(value * (1 - share) + level * share) for value in plain)
    return red, green, blue


def lab_of(phrase: str) -> NDArray[np.float32]:
    """(3,) CIELAB of a phrase that `rgb_of` knows."""
    rgb = rgb_of(phrase)
    assert rgb is not None
    return rgb_to_lab(np.array(rgb, np.uint8))


@cache
def rivals_of(phrase: str) -> tuple[str, ...]:
    """The words among which the nearest is looked for: the one asked for, and all basic ones that differ from it."""
    name = _SAME.get(phrase, phrase)
    if name in BASIC:
        return tuple(BASIC)
    asked = lab_of(name)
    apart = [word for word in BASIC if float(ciede2000(asked, lab_of(word), k_lightness=SHADED)) >= NOT_TOLD_APART]
    return (name, *apart)


def plain_name(phrase: str) -> str:
    """One name for words that mean the same: `navy` for `navy blue`."""
    return _SAME.get(phrase, phrase)


BANDWIDTH = 8.0
"""How far apart shades of one material are, in CIELAB with lightness halved."""
_MAX_PIXELS = 500
_LIGHTNESS_WEIGHT = np.array([1 / SHADED, 1, 1], np.float32)


class ColourScore(Record):
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


def name_colour(lab_C: NDArray[np.float32]) -> str:
    """The basic word that is nearest to a colour."""
    labs = np.stack([lab_of(word) for word in BASIC])
    return tuple(BASIC)[int(ciede2000(lab_C, labs, k_lightness=SHADED).argmin())]


def score_colour(lab_C: NDArray[np.float32], asked: Sequence[str]) -> ColourScore:
    """Compare a colour with the words of a prompt, of which there is at least one."""
    differences = [float(ciede2000(lab_C, lab_of(word), k_lightness=SHADED)) for word in asked]
    word = asked[int(np.argmin(differences))]
    rivals = rivals_of(word)
    rival_labs = np.stack([lab_of(rival) for rival in rivals])
    nearest = rivals[int(ciede2000(lab_C, rival_labs, k_lightness=SHADED).argmin())]
    lightness, a, b = (round(float(value), 2) for value in lab_C)
    return ColourScore(asked=word, difference=min(differences), nearest_word=nearest, lab=(lightness, a, b))
