"""What a shoe picture shows: its kind, colour, material and ground."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["sneakers", "boots", "loafers", "sandals", "heels"]
Colour: TypeAlias = Literal[
    "black", "white", "brown", "tan", "red", "navy", "blue", "green", "grey", "pink", "yellow", "beige"
]
Material: TypeAlias = Literal["leather", "canvas", "suede"]
Ground: TypeAlias = Literal["grey", "wood", "grass", "street", "studio", "white"]
Rgb: TypeAlias = tuple[int, int, int]

# The order of these tables is part of the drawing: a seed picks from them by position.
KINDS: tuple[Kind, ...] = ("sneakers", "boots", "loafers", "sandals", "heels")
MATERIALS: tuple[Material, ...] = ("leather", "canvas", "suede")
GROUNDS: tuple[Ground, ...] = ("grey", "wood", "grass", "street", "studio", "white")
PALETTE: dict[Colour, Rgb] = {
    "black": (28, 28, 30),
    "white": (240, 240, 238),
    "brown": (112, 68, 38),
    "tan": (196, 154, 108),
    "red": (190, 36, 40),
    "navy": (30, 44, 92),
    "blue": (48, 104, 190),
    "green": (52, 120, 66),
    "grey": (128, 130, 134),
    "pink": (232, 140, 170),
    "yellow": (232, 190, 50),
    "beige": (222, 206, 178),
}


@dataclass(frozen=True, kw_only=True)
class ShoeAttributes:
    """Everything a caption may say about one picture."""

    kind: Kind
    colour: Colour
    material: Material
    ground: Ground
