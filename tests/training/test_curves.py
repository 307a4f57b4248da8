"""Curves: smoothing, thinning, ticks, and what is drawn."""

import math
import random
import re
from xml.etree import ElementTree

import pytest

from studio.training.curves import (
    MAX_POINTS,
    Chart,
    Curve,
    chart_svg,
    legend_html,
    num_above,
    rounded_ticks,
    sampled,
    smoothed,
    thinned,
    tick_words,
)


def chart(*curves: Curve, from_zero: bool = False) -> Chart:
    return Chart("Loss", "step", "loss", curves, from_zero=from_zero)


def drawn(svg: str, kind: str) -> list[tuple[float, float]]:
    """Points of the path of one class."""
    path = next(re.finditer(rf'class="{kind}" d="([^"]*)"', svg)).group(1)
    numbers = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", path.replace("h0", ""))]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_smoothing_is_the_weighted_mean_of_all_before() -> None:
    values, weight = [3.0, 1.0, 4.0, 1.0, 5.0], 0.9
    for last, found in enumerate(smoothed(values, weight)):
        weights = [weight ** (last - i) for i in range(last + 1)]
        assert found == pytest.approx(sum(w * v for w, v in zip(weights, values, strict=False)) / sum(weights))


def test_smoothing_does_not_begin_at_zero() -> None:
    assert smoothed([7.0] * 50, 0.98) == pytest.approx([7.0] * 50)


def test_smoothing_passes_over_what_is_no_number() -> None:
    nan = math.nan
    found = smoothed([nan, 2.0, nan, 4.0], 0.5)
    assert math.isnan(found[0])
    assert found[1:] == pytest.approx([2.0, 2.0, (0.5 * 2 + 4) / 1.5])


@pytest.mark.parametrize("weight", [-0.1, 1.0, math.nan])
def test_a_weight_that_means_nothing_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="weight must be from 0 to below 1"):
        smoothed([1.0], weight)


def test_thinning_keeps_peaks_and_order() -> None:
    points = [(float(i), 0.1) for i in range(20_000)]
    points[12_345], points[777] = (12_345.0, 9.0), (777.0, -9.0)
    few = thinned(points)
    assert len(few) <= MAX_POINTS
    assert {points[12_345], points[777]} <= set(few)
    assert few == sorted(few)


def test_few_points_are_all_kept() -> None:
    points = [(float(i), 0.0) for i in range(MAX_POINTS)]
    assert thinned(points) == points == sampled(points)


def test_sampled_dots_lie_as_all_do_and_have_the_peak() -> None:
    rng = random.Random(1)
    points = [(float(i), rng.random()) for i in range(20_000)]
    points[5_000] = (5_000.0, 3.0)
    few = sampled(points)
    assert len(few) <= MAX_POINTS
    assert points[5_000] in few
    middle = sum(0.25 < y < 0.75 for _, y in few) / len(few)
    assert 0.3 < middle < 0.6  # half of all; lowest and highest alone would have next to none
    assert sum(0.25 < y < 0.75 for _, y in thinned(points)) < 0.1 * MAX_POINTS


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 3000), (0.0213, 0.3987), (0, 1e-4), (-3, 17), (0.1499, 0.1501), (5, 5), (0, 0), (-2, -2), (1, 2e9)],
)
def test_ticks_are_round_and_enclose_the_values(low: float, high: float) -> None:
    ticks = rounded_ticks(low, high)
    assert ticks[0] <= low <= high <= ticks[-1]
    assert 2 <= len(ticks) <= 12
    step = ticks[1] - ticks[0]
    assert float(f"{step:.6e}".partition("e")[0]) in (1, 2, 5)
    assert all(tick / step == pytest.approx(round(tick / step), abs=1e-6) for tick in ticks)


@pytest.mark.parametrize(
    ("value", "step", "words"),
    [
        (3000, 1000, "3,000"),
        (0.15, 0.05, "0.15"),
        (0.1, 0.02, "0.10"),
        (8e-5, 2e-5, "8e-5"),
        (1.2e-4, 2e-5, "1.2e-4"),
        (0, 2e-5, "0"),
    ],
)
def test_ticks_have_as_many_places_as_they_need(value: float, step: float, words: str) -> None:
    assert tick_words(value, step) == words


def test_a_line_goes_through_its_values_at_scale() -> None:
    points = drawn(chart_svg(chart(Curve("a", [0, 50, 100], [0.0, 1.0, 2.0]))), "line main")
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y1 == pytest.approx((y0 + y2) / 2, abs=0.1)
    assert x0 < x2 and y0 > y2  # higher values are nearer to the top


def test_a_chart_is_well_formed_and_its_words_are_text() -> None:
    hostile = '</svg><script>alert(1)</script>"&'
    svg = chart_svg(Chart(hostile, hostile, hostile, (Curve(hostile, [1, 2], [1, 2], "second"),)))
    root = ElementTree.fromstring(svg)
    assert hostile in (root.get("aria-label") or "")
    assert "<script" not in svg
    assert "<script" not in legend_html(chart(Curve(hostile, [1], [1])))


def test_dots_far_above_all_are_counted_and_do_not_flatten_the_rest() -> None:
    values = [0.1 + 0.1 * (i % 2) for i in range(1000)]
    values[500] = 900.0
    whole = chart(Curve("a", range(1000), values, "dots"))
    assert num_above(whole) == 1
    heights = [y for _, y in drawn(chart_svg(whole), "dots")]
    assert max(heights) - min(heights) > 100


def test_lines_are_never_cut() -> None:
    assert num_above(chart(Curve("a", [1, 2], [1.0, 900.0]))) == 0
    assert min(y for _, y in drawn(chart_svg(chart(Curve("a", [1, 2], [1.0, 900.0]))), "line main")) >= 0


def test_what_is_no_number_is_not_drawn() -> None:
    curve = Curve("a", [1, 2, 3, 4], [1.0, math.nan, math.inf, 2.0])
    svg = chart_svg(chart(curve))
    assert len(drawn(svg, "line main")) == 2
    assert not re.search(r"\b(nan|inf)\b", svg)
    assert chart_svg(chart(Curve("a", [1], [math.nan]))) == ""


def test_one_value_is_seen_as_a_mark() -> None:
    assert "<circle" in chart_svg(chart(Curve("a", [100], [0.5])))


def test_axes_from_zero_begin_there() -> None:
    svg = chart_svg(chart(Curve("a", [1, 2], [8.0, 8.5]), from_zero=True))
    assert ">0</text>" in svg
    assert ">0</text>" not in chart_svg(chart(Curve("a", [1, 2], [8.0, 8.5])))


def test_a_small_chart_is_a_small_drawing_with_its_curve_inside() -> None:
    curves = tuple(Curve(style, [0, 50, 100], [0.2, 0.9, 0.4], style) for style in ("main", "fourth", "fifth"))
    drawn = chart_svg(Chart("Small", "step", "share", curves, width=260, height=172))
    assert 'viewBox="0 0 260 172"' in drawn
    places = [(float(x), float(y)) for x, y in re.findall(r"[ML](\d+\.\d) (\d+\.\d)", drawn)]
    assert max(x for x, _ in places) <= 260
    assert max(y for _, y in places) <= 172
    assert re.findall(r'class="line (\w+)"', drawn) == ["main", "fourth", "fifth"], "each with dashes of its own"
