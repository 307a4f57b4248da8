"""Painting one shoe, on a transparent square."""

import random
from collections.abc import Sequence

import numpy as np
from attributes import PALETTE, Kind, Material, Rgb, ShoeAttributes
from numpy.typing import NDArray
from outlines import SOLE_HEIGHTS, Curve, Point, ShoeOutline, make_outline, smooth_curve
from PIL import Image, ImageDraw

SOLE_COLOURS: tuple[Rgb, ...] = ((245, 245, 242), (235, 228, 214), (60, 52, 46), (30, 30, 32))
STRIPE_COLOURS: tuple[Rgb | None, ...] = (None, (245, 245, 245), (25, 25, 25), (200, 40, 40))
LACE_COLOURS: tuple[Rgb, ...] = ((245, 245, 245), (40, 38, 36))
SANDAL_INSOLE: tuple[Point, ...] = ((0.06, 0.07), (0.3, 0.10), (0.5, 0.085), (0.75, 0.09), (0.93, 0.085))


class Pen:
    """Draws on a square picture in the shoe units of `outlines`, leaving a margin around the shoe."""

    def __init__(self, picture: Image.Image) -> None:
        self._canvas = ImageDraw.Draw(picture)
        self.side = picture.width
        self.hairline_width = max(1, picture.width // 120)

    def polygon(self, points: Curve, *, fill: Rgb | int) -> None:
        """Fill a closed shape; fill is a colour, or a grey level (0 to 255) on a one-channel picture."""
        self._canvas.polygon(self._to_pixels(points), fill=fill)

    def line(self, points: Curve, *, fill: Rgb, width: int | None = None) -> None:
        """Draw an open line, `hairline_width` pixels wide unless told."""
        self._canvas.line(self._to_pixels(points), fill=fill, width=width or self.hairline_width)

    def _to_pixels(self, points: Curve) -> list[Point]:
        side = self.side
        return [(x * side * 0.92 + side * 0.04, side * 0.80 - y * side * 0.92) for x, y in points]


def draw_shoe(attributes: ShoeAttributes, *, side: int, rng: random.Random) -> Image.Image:
    """Return an RGBA square of side pixels with the shoe, toe to the right, on nothing."""
    kind, base = attributes.kind, PALETTE[attributes.colour]
    sole_colour = _choose_sole_colour(kind, base=base, rng=rng)
    outline = make_outline(kind, rng)
    below = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    _draw_below_the_upper(Pen(below), kind, outline=outline, base=base, sole_colour=sole_colour)
    upper = _draw_upper(outline, base=base, material=attributes.material, side=side, rng=rng)
    shoe = Image.alpha_composite(below, upper)
    pen = Pen(shoe)
    _draw_details(pen, kind, outline=outline, base=base, rng=rng)
    if kind in SOLE_HEIGHTS:
        _draw_sole(pen, outline.sole, height=SOLE_HEIGHTS[kind], colour=sole_colour)
    return shoe


def tint(colour: Rgb, factor: float) -> Rgb:
    """Darken towards black by a factor up to 1, or lighten towards white by a factor above 1."""
    red, green, blue = (
        int(max(0, min(255, value * factor if factor <= 1 else 255 - (255 - value) / factor))) for value in colour
    )
    return red, green, blue


def _choose_sole_colour(kind: Kind, *, base: Rgb, rng: random.Random) -> Rgb:
    if kind == "heels":
        return tint(base, 0.75)
    sole_colour = rng.choice(SOLE_COLOURS)
    if kind in ("boots", "loafers"):
        return rng.choice([(60, 44, 34), (30, 30, 32), tint(base, 0.5)])
    return sole_colour


def _draw_below_the_upper(pen: Pen, kind: Kind, *, outline: ShoeOutline, base: Rgb, sole_colour: Rgb) -> None:
    if kind == "sandals":
        pen.polygon(outline.sole, fill=sole_colour)
        pen.polygon([*smooth_curve(SANDAL_INSOLE), (0.93, 0.07), (0.06, 0.06)], fill=tint(base, 0.8))
    elif kind == "heels":
        pen.polygon(outline.heel_post, fill=sole_colour)
        pen.line(outline.sole, fill=sole_colour, width=max(2, pen.side // 60))


def _draw_upper(outline: ShoeOutline, *, base: Rgb, material: Material, side: int, rng: random.Random) -> Image.Image:
    mask = Image.new("L", (side, side), 0)
    pen = Pen(mask)
    for part in outline.upper_parts:
        pen.polygon(part, fill=255)
    noise = np.random.RandomState(rng.randrange(1 << 30))
    texture = _material_texture(base, material, side=side, noise=noise)
    upper = Image.fromarray(np.clip(texture, 0, 255).astype(np.uint8)).convert("RGBA")
    upper.putalpha(mask)
    return upper


def _material_texture(base: Rgb, material: Material, *, side: int, noise: np.random.RandomState) -> NDArray[np.float64]:
    """Return (side, side, 3) colours around base, lit from above, not clipped to 0..255."""
    y = np.linspace(0, 1, side)[:, None, None]
    x = np.linspace(0, 1, side)[None, :, None]
    texture = np.full((side, side, 3), base, np.float64) * (1.28 - 0.62 * np.clip((y - 0.25) / 0.55, 0, 1))
    if material == "leather":
        toe_gloss = np.exp(-((x - 0.72) ** 2 / 0.012 + (y - 0.60) ** 2 / 0.004))
        heel_gloss = np.exp(-((x - 0.15) ** 2 / 0.006 + (y - 0.58) ** 2 / 0.02))
        return texture + (toe_gloss + 0.7 * heel_gloss) * (95 if sum(base) < 600 else 25)
    if material == "canvas":
        thread = (np.arange(side) // max(2, side // 110)) % 2
        weave = (thread[:, None] ^ thread[None, :])[:, :, None]
        return texture * (1 + 0.10 * (weave - 0.5) * 2)
    nap = noise.randn(side // 3 + 1, side // 3 + 1, 1).repeat(3, 0).repeat(3, 1)[:side, :side]
    return texture * 0.93 + nap * 9


def _draw_details(pen: Pen, kind: Kind, *, outline: ShoeOutline, base: Rgb, rng: random.Random) -> None:
    seam_colour = tint(base, 0.62) if sum(base) > 150 else tint(base, 2.2 / 1.6)
    if outline.top_line:
        pen.line(outline.top_line, fill=seam_colour)
    if kind == "sneakers":
        _draw_stripes(pen, base=base, rng=rng)
        pen.line(smooth_curve([(0.74, 0.07), (0.735, 0.13), (0.77, 0.19)]), fill=seam_colour)
        pen.line(smooth_curve([(0.04, 0.17), (0.13, 0.17), (0.17, 0.07)]), fill=seam_colour)
        _draw_laces(pen, [_sneaker_eyelet(index / 3) for index in range(4)], rng=rng)
    elif kind == "boots":
        pen.line(smooth_curve([(0.05, 0.30), (0.2, 0.30), (0.40, 0.48)]), fill=seam_colour)
        _draw_laces(pen, [_boot_eyelet(index / 5) for index in range(6)], rng=rng)
    elif kind == "loafers":
        apron = smooth_curve([(0.40, 0.215), (0.50, 0.14), (0.62, 0.12), (0.64, 0.19)])
        pen.line(apron, fill=seam_colour, width=pen.hairline_width * 2)
        pen.line([(0.44, 0.20), (0.58, 0.15)], fill=tint(base, 0.55), width=pen.hairline_width * 3)


def _draw_stripes(pen: Pen, *, base: Rgb, rng: random.Random) -> None:
    colour = rng.choice(STRIPE_COLOURS)
    # A stripe nearly the shoe's own colour would only look like dirt.
    if colour is None or sum(abs(ours - theirs) for ours, theirs in zip(colour, base, strict=True)) <= 120:
        return
    for index in range(3):
        x = 0.40 + 0.055 * index
        stripe = [(x, 0.09), (x + 0.045, 0.235 - 0.03 * index)]
        pen.line(stripe, fill=colour, width=pen.hairline_width * 3)


def _sneaker_eyelet(fraction: float) -> Point:
    return 0.37 + 0.25 * fraction, 0.335 - 0.115 * fraction


def _boot_eyelet(fraction: float) -> Point:
    return 0.40 + 0.14 * fraction**1.6, 0.575 - 0.285 * fraction


def _draw_laces(pen: Pen, eyelets: Sequence[Point], *, rng: random.Random) -> None:
    colour = rng.choice(LACE_COLOURS)
    for x, y in eyelets:
        pen.line([(x - 0.05, y - 0.045), (x + 0.015, y + 0.008)], fill=colour, width=pen.hairline_width * 2)


def _draw_sole(pen: Pen, sole: Curve, *, height: float, colour: Rgb) -> None:
    pen.polygon(sole, fill=colour)
    pen.line([(0.02, height * 0.45), (0.985, height * 0.45)], fill=tint(colour, 0.8))
