"""Scores as curves over the steps, beside the level of the base and of the dataset."""

import pytest

from studio.training.session import RunHistory
from studio.ui.training.plot import SCORES, chart_of, charts_html
from tests.ui.told_scores import reference_event, score_event


def reported(*, colour: float | None = 12.0) -> RunHistory:
    history = RunHistory()
    for event in (reference_event(0.98), *(score_event(s, s / 100, colour=colour) for s in (0, 50, 100))):
        history.apply_event(event)
    return history


def test_each_score_has_a_line_over_the_steps_and_level_lines_for_base_and_dataset() -> None:
    chart = chart_of(SCORES[0], reported())
    lora, base, dataset = chart.curves
    assert (lora.xs, lora.ys) == ([0, 50, 100], [0, 50, 100])
    assert (list(base.xs), list(base.ys)) == ([0, 100], [10, 10])
    assert list(dataset.ys) == [98, 98]
    html = charts_html(reported())
    assert html.count('<svg class="chart"') == len(SCORES)
    for name in ("LoRA", "base", "dataset"):
        assert name in html.split("</h3>")[0]
    assert "data-curves" in html, "the script that shows values under the pointer reads it"


def test_a_score_that_was_not_measured_says_why() -> None:
    html = charts_html(reported(colour=None))
    assert html.count('<svg class="chart"') == len(SCORES) - 1
    assert "No prompt names a colour" in html


def test_one_step_is_no_curve() -> None:
    history = RunHistory()
    history.apply_event(score_event(0, 0.1))
    assert charts_html(history) == ""
    assert charts_html(None) == ""


@pytest.mark.parametrize(
    ("lora", "dataset", "reached"), [(0.7, 0.98, False), (0.95, 0.98, True), (0.99, 0.98, True), (0.02, 0.98, False)]
)
def test_a_score_reaches_the_datasets_where_it_is_as_good_or_better(lora: float, dataset: float, reached: bool) -> None:
    whiteness = SCORES[0]
    assert whiteness.reaches(score_event(100, lora), reference_event(dataset).scores) == reached
    assert not whiteness.reaches(score_event(100, lora), None)
