"""Curves as SVG: thinned so that peaks stay, smoothed, with rounded ticks. No script, no outside request."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from markupsafe import Markup

from studio.core.language import _, number
from studio.core.text import template

MAX_POINTS = 600
MAX_DRAWN = 1e100
MAX_MARKED_POINTS = 60  # more markers than these would run into each other
WIDTH, HEIGHT = 540, 280
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 32, 50
DOTS_SHARE = 0.995  # a few dots far above all others do not flatten the rest: they are counted and not drawn

CurveStyle = Literal["dots", "main", "second", "third", "fourth", "fifth"]
Point = tuple[float, float]
# The fourth and fifth, of other runs, have a point at every step: they are told by their dashes.
MARKED_STYLES: tuple[CurveStyle, ...] = ("second", "third")

_template = template("training/templates/curves.html")


@dataclass(frozen=True)
class Curve:
    """Values over steps or time.

    Attributes:
        name: for the legend, in words.
        xs, ys: of the same length, xs ascending. What is not finite is left out.
        style: `dots` are single values; lines differ in their dashes and markers as well as in their colour.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    style: CurveStyle = "main"

    @cached_property
    def points(self) -> list[Point]:
        """All that can be drawn."""
        return [(x, y) for x, y in zip(self.xs, self.ys, strict=True) if is_number(x) and is_number(y)]

    def in_powers_of_ten(self) -> "Curve":
        """The same with the logarithm of each value; what has none is left out."""
        return replace(self, ys=[math.log10(y) if y > 0 and is_number(y) else math.nan for y in self.ys])


@dataclass(frozen=True)
class Chart:
    """Curves on one pair of axes.

    Attributes:
        x_label, y_label: what the axes count, with its unit.
        note: below the chart, in sentences.
        from_zero: whether the y axis must begin at 0.
        log: whether the y axis counts powers of ten; what is not above 0 is left out then.
        unit: written after each value that is told.
        width, height: of the drawing; letters keep their size, so a small chart is a small drawing.
    """

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    note: str = ""
    from_zero: bool = False
    log: bool = False
    unit: str = ""
    width: int = WIDTH
    height: int = HEIGHT


def is_number(value: float) -> bool:
    """Whether it can be drawn and added up: a loss of 10³⁰⁰ is as good as infinite, and sums of it overflow."""
    return abs(value) <= MAX_DRAWN


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """Exponential mean, corrected for its start: the first value is the first one's own, not a share of it.

    Args:
        values: those that are not finite are passed over; the mean before them stands there (nan before the first).
        weight: of the past, from 0 (no smoothing) to below 1.

    Raises:
        ValueError: where the weight is outside of that.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"weight must be from 0 to below 1, got {weight}")
    means: list[float] = []
    total, certainty = 0.0, 0.0
    for value in values:
        if is_number(value):
            total = weight * total + (1 - weight) * value
            certainty = weight * certainty + (1 - weight)
        means.append(total / certainty if certainty else math.nan)
    return means


def thinned(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most so many points: of each of equal parts the lowest and the highest, in their order, so that peaks stay.

    Args:
        points: ascending in x.
        most: at least 2.
    """
    if len(points) <= most:
        return list(points)
    num_parts = most // 2
    kept: list[Point] = []
    for part in range(num_parts):
        some = points[part * len(points) // num_parts : (part + 1) * len(points) // num_parts]
        ends = {min(some, key=_height), max(some, key=_height)}
        kept += sorted(ends)
    return kept


def sampled(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most so many points, to be seen as dots: most of them evenly, as single values lie; the rest are peaks.

    Lowest and highest alone, as `thinned` keeps them, would leave a gap in the middle that is none.
    """
    if len(points) <= most:
        return list(points)
    num_evenly = most * 3 // 4
    evenly = {points[i * len(points) // num_evenly] for i in range(num_evenly)}
    return sorted(evenly | set(thinned(points, most - num_evenly)))


def _height(point: Point) -> float:
    return point[1]


def rounded_ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Ticks at 1, 2 or 5 times a power of ten, from at or below `low` to at or above `high`; at least two."""
    if high <= low:
        room = abs(low) / 2 or 1.0
        low, high = (0.0, 2 * low) if low > 0 else (low - room, low + room)
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [round(tick * step, 12 - math.floor(math.log10(step))) for tick in range(first, last + 1)]


def tick_words(value: float, step: float) -> str:
    """A tick with as many places as its axis needs: `3,000`, `0.05`, `5e-5`."""
    if value == 0:
        return "0"
    if step < 1e-3:
        digits, power = f"{value:.2e}".split("e")
        return f"{number(float(digits), 'g')}e{int(power)}"
    return number(value, f",.{max(0, -math.floor(math.log10(step) + 1e-9))}f")


def chart_svg(chart: Chart) -> Markup:
    """The chart without its title and legend; "" where there is nothing to draw."""
    label = summary(chart) if any(curve.points for curve in chart.curves) else ""
    if chart.log:
        chart = replace(chart, curves=tuple(curve.in_powers_of_ten() for curve in chart.curves), from_zero=False)
    if not any(curve.points for curve in chart.curves):
        return Markup()
    axes = _axes_of(chart)
    lines = [_line(curve, axes) for curve in chart.curves]
    return _template("chart", chart=chart, axes=axes, lines=lines, label=label)


def legend_html(chart: Chart) -> Markup:
    """What each curve is: a sample of its line and its name."""
    return _template("legend", curves=[curve for curve in chart.curves if curve.points], marked=MARKED_STYLES)


def summary(chart: Chart) -> str:
    """The chart in a sentence, for those who cannot see it."""
    parts = [
        _("{name} from {first:.4g} to {last:.4g}", name=curve.name, first=points[0][1], last=points[-1][1])
        for curve in chart.curves
        if (points := curve.points)
    ]
    return _(
        "{title}, {y_label} over {x_label}: {curves}.",
        title=chart.title,
        y_label=chart.y_label,
        x_label=chart.x_label,
        curves="; ".join(parts),
    )


def num_above(chart: Chart) -> int:
    """How many dots lie above the chart's upper end and are not drawn."""
    dots = [point for curve in chart.curves if curve.style == "dots" for point in curve.points]
    if not dots:
        return 0
    top = _axes_of(chart).y_ticks[-1]
    return sum(y > top for __, y in dots)


@dataclass(frozen=True)
class _Axes:
    """Where values lie in the image."""

    x_low: float
    x_high: float
    x_ticks: list[float]
    y_ticks: list[float]
    width: int
    height: int
    log: bool = False

    def value(self, y: float) -> float:
        """What stands at that height."""
        return 10.0**y if self.log else y

    @property
    def left(self) -> int:
        return LEFT

    @property
    def right(self) -> int:
        return self.width - RIGHT

    @property
    def bottom(self) -> int:
        return self.height - BOTTOM

    @property
    def levels(self) -> list[tuple[float, str]]:
        """Where the ticks of the y axis lie, with their words."""
        step = self.y_ticks[1] - self.y_ticks[0]
        return [
            (self.y(tick), number(10.0**tick, ".2g") if self.log else tick_words(tick, step)) for tick in self.y_ticks
        ]

    @property
    def marks(self) -> list[tuple[float, str]]:
        """Where the ticks of the x axis lie, with their words."""
        step = self.x_ticks[1] - self.x_ticks[0] if len(self.x_ticks) > 1 else 1.0
        return [(self.x(tick), tick_words(tick, step)) for tick in self.x_ticks]

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (self.right - LEFT)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return self.bottom - (value - low) / (high - low) * (self.bottom - TOP)


def _axes_of(chart: Chart) -> _Axes:
    xs = [x for curve in chart.curves for x, __ in curve.points]
    lows, highs = [0.0] if chart.from_zero else [], [0.0] if chart.from_zero else []
    for curve in chart.curves:
        heights = sorted(y for __, y in curve.points)
        if heights:
            lows.append(heights[0])
            highs.append(heights[_last_shown(len(heights)) if curve.style == "dots" else -1])
    x_low, x_high = min(xs), max(xs)
    if x_low == x_high:
        x_low, x_high = x_low - 1, x_high + 1
    x_ticks = [tick for tick in rounded_ticks(x_low, x_high, about=4) if x_low - 1e-9 <= tick <= x_high + 1e-9]
    y_ticks = rounded_ticks(min(lows), max(highs), about=5 if chart.height >= HEIGHT else 3)
    return _Axes(x_low, x_high, x_ticks, y_ticks, chart.width, chart.height, chart.log)


def _last_shown(num_dots: int) -> int:
    return min(num_dots - 1, math.ceil(num_dots * DOTS_SHARE) - 1)


@dataclass(frozen=True)
class _Line:
    """A curve as it is drawn.

    Attributes:
        path: of SVG's; "" where nothing of it can be seen.
        marked: where its points get a marker, and what each says.
    """

    name: str
    style: CurveStyle
    path: str = ""
    marked: tuple[tuple[float, float, str], ...] = ()


def _line(curve: Curve, axes: _Axes) -> _Line:
    top = axes.y_ticks[-1]
    is_dots = curve.style == "dots"
    points = sampled([point for point in curve.points if point[1] <= top]) if is_dots else thinned(curve.points)
    places = [(axes.x(x), axes.y(y)) for x, y in points]
    if is_dots:
        return _Line(curve.name, curve.style, "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places))
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places) if places else ""
    if (curve.style not in MARKED_STYLES and len(places) > 1) or len(places) > MAX_MARKED_POINTS:
        return _Line(curve.name, curve.style, path)
    marked = [(axes.x(x), axes.y(y), _("{y:.4g} at {x:,.4g}", y=axes.value(y), x=x)) for x, y in points]
    return _Line(curve.name, curve.style, path, tuple(marked))
