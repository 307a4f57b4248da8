"""The grounds a shoe can stand on."""

import random

import numpy as np
from attributes import Ground
from numpy.typing import NDArray
from PIL import Image

STUDIO_COLOURS = ((150, 175, 195), (200, 165, 140), (165, 190, 165), (190, 170, 200))


def draw_ground(ground: Ground, *, side: int, rng: random.Random) -> Image.Image:
    """Return an RGB square of side pixels. The sizes of patterns follow side; no random state is shared."""
    noise = np.random.RandomState(rng.randrange(1 << 30))
    if ground == "white":
        return Image.new("RGB", (side, side), (255, 255, 255))
    if ground == "grey":
        pixels = _grey(side, rng, noise)
    elif ground == "wood":
        pixels = _wood(side, rng, noise)
    elif ground == "grass":
        pixels = _grass(side, noise)
    elif ground == "street":
        pixels = _street(side, rng, noise)
    else:
        pixels = _studio(side, rng)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _rows(side: int) -> NDArray[np.float64]:
    """Return (side, 1, 1): 0 at the top of the picture, 1 at the bottom."""
    return np.linspace(0, 1, side)[:, None, None]


def _plain(colour: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    return np.broadcast_to(colour, (side, side, 3)).copy()


def _enlarged(pattern: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Smoothly enlarge a (height, width) pattern to (side, side, 1)."""
    small = Image.fromarray(pattern.astype(np.float32))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), np.float64)[:, :, None]


def _speckle(side: int, grain: int, noise: np.random.RandomState) -> NDArray[np.float64]:
    """Return (side, side, 1) normal noise in squares of grain pixels; side is a multiple of grain."""
    coarse = noise.randn(side // grain, side // grain, 1)
    return coarse.repeat(grain, 0).repeat(grain, 1)


def _grey(side: int, rng: random.Random, noise: np.random.RandomState) -> NDArray[np.float64]:
    level = rng.randint(95, 165)
    cast = np.array([rng.randint(-6, 6) for _ in range(3)])
    shaded = _plain(np.array([level] * 3, np.float64) + cast, side) * (1.12 - 0.3 * _rows(side))
    clouds = _enlarged(noise.randn(side // 16, side // 16, 1)[:, :, 0] * 4, side)
    return shaded + clouds + noise.randn(side, side, 1)


def _wood(side: int, rng: random.Random, noise: np.random.RandomState) -> NDArray[np.float64]:
    colour = [150 + rng.randint(-25, 20), 104 + rng.randint(-20, 15), 66 + rng.randint(-15, 15)]
    pixels = _plain(np.array(colour, np.float64), side)
    num_planks = rng.randint(4, 6)
    gap_height = max(2, side // 90)
    for plank in range(num_planks):
        top, bottom = side * plank // num_planks, side * (plank + 1) // num_planks
        pixels[top:bottom] *= rng.uniform(0.86, 1.1)
        pixels[bottom - gap_height : bottom] *= 0.6
    grain = noise.randn(side, side // 32, 1).cumsum(0)[:, :, 0]
    grain = (grain - grain.mean()) / (grain.std() + 1e-6) * 6
    return pixels + _enlarged(grain, side)


def _grass(side: int, noise: np.random.RandomState) -> NDArray[np.float64]:
    shaded = _plain(np.array([78, 128, 56], np.float64), side) * (0.8 + 0.4 * _rows(side))
    return shaded + _speckle(side, 4, noise) * 4


def _street(side: int, rng: random.Random, noise: np.random.RandomState) -> NDArray[np.float64]:
    rows = _rows(side)
    pixels = _plain(np.array([92, 92, 96], np.float64), side) * (1.3 - 0.5 * rows)
    pixels += _speckle(side, 2, noise) * 3
    horizon = int(side * rng.uniform(0.25, 0.4))
    pixels[:horizon] = np.array([150, 160, 172]) * (0.8 + 0.3 * rows[:horizon] / 0.4)
    return pixels


def _studio(side: int, rng: random.Random) -> NDArray[np.float64]:
    colour = np.array(rng.choice(STUDIO_COLOURS), np.float64)
    columns = np.linspace(-1, 1, side)[None, :, None]
    distance = np.sqrt(columns**2 + (2 * _rows(side) - 1.1) ** 2)
    return colour * (1.12 - 0.32 * distance)
