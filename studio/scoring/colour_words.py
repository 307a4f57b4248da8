"""The colours that words mean, as sRGB; close words may mean nearly the same."""

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from studio.scoring.lab import SHADED, ciede2000, rgb_to_lab

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
