"""The outlines of the five kinds of shoe, seen from the side.

Points are in shoe units: x runs from the heel (0) to the toe (1), y from the ground (0) upwards, one unit being the
length of the shoe.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from attributes import Kind

Point: TypeAlias = tuple[float, float]
Curve: TypeAlias = list[Point]

# Upper edge of each closed shoe, from the heel over the opening to the toe.
SNEAKER_TOP: tuple[Point, ...] = (
    (0.05, 0.07),
    (0.04, 0.22),
    (0.07, 0.36),
    (0.16, 0.345),
    (0.26, 0.31),
    (0.36, 0.34),
    (0.50, 0.285),
    (0.64, 0.215),
    (0.78, 0.185),
    (0.90, 0.16),
    (0.96, 0.10),
    (0.965, 0.07),
)
BOOT_TOP: tuple[Point, ...] = (
    (0.06, 0.07),
    (0.05, 0.25),
    (0.07, 0.45),
    (0.06, 0.62),
    (0.22, 0.635),
    (0.39, 0.61),
    (0.41, 0.45),
    (0.46, 0.33),
    (0.60, 0.255),
    (0.76, 0.215),
    (0.90, 0.18),
    (0.965, 0.11),
    (0.965, 0.07),
)
LOAFER_TOP: tuple[Point, ...] = (
    (0.05, 0.05),
    (0.04, 0.17),
    (0.08, 0.27),
    (0.20, 0.235),
    (0.34, 0.20),
    (0.46, 0.235),
    (0.56, 0.225),
    (0.70, 0.17),
    (0.84, 0.15),
    (0.94, 0.115),
    (0.975, 0.06),
    (0.975, 0.05),
)
HEEL_TOP: tuple[Point, ...] = (
    (0.05, 0.30),
    (0.045, 0.38),
    (0.08, 0.46),
    (0.17, 0.40),
    (0.30, 0.30),
    (0.46, 0.19),
    (0.60, 0.12),
    (0.72, 0.12),
    (0.84, 0.10),
    (0.94, 0.07),
    (0.985, 0.03),
    (0.985, 0.02),
)
HEEL_BOTTOM: tuple[Point, ...] = (
    (0.985, 0.0),
    (0.80, 0.0),
    (0.62, 0.0),
    (0.46, 0.07),
    (0.30, 0.19),
    (0.16, 0.28),
    (0.05, 0.30),
)
SANDAL_SOLE: tuple[Point, ...] = (
    (0.04, 0.0),
    (0.03, 0.05),
    (0.08, 0.085),
    (0.3, 0.08),
    (0.5, 0.065),
    (0.75, 0.07),
    (0.93, 0.075),
    (0.97, 0.04),
    (0.94, 0.0),
)
SANDAL_HEEL_STRAP: tuple[Point, ...] = (
    (0.07, 0.06),
    (0.055, 0.2),
    (0.10, 0.31),
    (0.14, 0.31),
    (0.12, 0.2),
    (0.13, 0.06),
)
SANDAL_ANKLE_STRAP: tuple[Point, ...] = (
    (0.10, 0.30),
    (0.25, 0.28),
    (0.42, 0.20),
    (0.44, 0.23),
    (0.26, 0.33),
    (0.11, 0.335),
)
# (start x, end x, height) of the two straps over the foot.
SANDAL_FOOT_STRAPS: tuple[tuple[float, float, float], ...] = ((0.62, 0.82, 0.20), (0.34, 0.50, 0.24))

CLOSED_TOPS: dict[Kind, tuple[Point, ...]] = {
    "sneakers": SNEAKER_TOP,
    "boots": BOOT_TOP,
    "loafers": LOAFER_TOP,
}
SOLE_HEIGHTS: dict[Kind, float] = {"sneakers": 0.07, "boots": 0.06, "loafers": 0.04}


@dataclass(frozen=True, kw_only=True)
class ShoeOutline:
    """One shoe's edges. A part that the kind does not have is an empty curve."""

    upper_parts: list[Curve]
    """Polygons of the upper: one for most kinds, one a strap for sandals."""
    top_line: Curve
    sole: Curve
    """A polygon; for heels the open line under the foot."""
    heel_post: Curve


def smooth_curve(knots: Sequence[Point], *, num_points_per_span: int = 14) -> Curve:
    """Return a uniform Catmull-Rom spline through the knots, the last knot included."""
    step = 1 / num_points_per_span
    fractions = [index * step for index in range(num_points_per_span)]
    t = np.array(fractions)[:, None]
    # numpy's array power differs from the scalar one in the last bit on some processors: cube as scalars, so that a
    # seed draws the same picture everywhere.
    t_cubed = np.array([fraction**3 for fraction in fractions])[:, None]
    controls = np.array([knots[0], *knots, knots[-1]])
    curve: Curve = []
    for before, start, end, after in zip(controls, controls[1:], controls[2:], controls[3:], strict=False):
        linear = (end - before) * t
        quadratic = (2 * before - 5 * start + 4 * end - after) * t * t
        cubic = (-before + 3 * start - 3 * end + after) * t_cubed
        curve.extend((x, y) for x, y in (0.5 * (2 * start + linear + quadratic + cubic)).tolist())
    curve.append(knots[-1])
    return curve


def make_outline(kind: Kind, rng: random.Random) -> ShoeOutline:
    """Return a slightly different outline of the kind for each state of rng."""
    if kind == "sandals":
        return _sandal_outline(rng)
    if kind == "heels":
        return _heel_outline(rng)
    return _closed_outline(kind, rng)


def _jitter(value: float, rng: random.Random) -> float:
    return value + rng.uniform(-0.012, 0.012)


def _jittered_top(knots: Sequence[Point], rng: random.Random) -> Curve:
    return smooth_curve([(x, _jitter(y, rng)) for x, y in knots])


def _closed_outline(kind: Kind, rng: random.Random) -> ShoeOutline:
    top_line = _jittered_top(CLOSED_TOPS[kind], rng)
    height = SOLE_HEIGHTS[kind]
    wedge = rng.uniform(0, 0.035) if kind == "sneakers" else 0.0
    sole = smooth_curve(
        [
            (0.03, 0.005),
            (0.015, height * 0.6),
            (0.03, height + wedge + 0.012),
            (0.3, height + wedge * 0.7),
            (0.6, height + 0.004),
            (0.9, height + 0.012),
            (0.985, height + 0.01),
            (0.995, height * 0.5),
            (0.97, 0.006),
        ]
    )
    upper = [*top_line, (0.965, height * 0.8), (0.05, height * 0.8)]
    return ShoeOutline(upper_parts=[upper], top_line=top_line, sole=sole, heel_post=[])


def _heel_outline(rng: random.Random) -> ShoeOutline:
    top_line = _jittered_top(HEEL_TOP, rng)
    bottom = smooth_curve(HEEL_BOTTOM)
    tip = rng.uniform(0.05, 0.09)
    post = [(0.045, 0.31), (0.17, 0.27), (tip + 0.055, 0.0), (tip, 0.0)]
    return ShoeOutline(upper_parts=[top_line + bottom], top_line=top_line, sole=bottom, heel_post=post)


def _sandal_outline(rng: random.Random) -> ShoeOutline:
    straps = []
    for nominal_start, nominal_end, height in SANDAL_FOOT_STRAPS:
        start, end = _jitter(nominal_start, rng), _jitter(nominal_end, rng)
        shoulder = height * 0.8
        middle = (start + end) / 2
        arch = [
            (start, 0.06),
            (start + 0.03, shoulder),
            (middle, height),
            (end - 0.02, shoulder),
            (end + 0.02, 0.06),
        ]
        straps.append(smooth_curve(arch))
    straps += [smooth_curve(SANDAL_HEEL_STRAP), smooth_curve(SANDAL_ANKLE_STRAP)]
    return ShoeOutline(upper_parts=straps, top_line=[], sole=smooth_curve(SANDAL_SOLE), heel_post=[])
