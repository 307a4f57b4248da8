"""The plot is drawn again where something of it would be seen to move, and not at every look."""

import pytest

from studio.jobs.events import ResumedEvent
from studio.training.events import HeldOutEvent, StepEvent
from studio.training.session import RunHistory
from studio.ui.training import plot as training_plot
from studio.ui.training.plot import PlotCache, PlotOptions


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many steps each drawing had."""
    numbers: list[int] = []

    def plot(history: RunHistory, options: PlotOptions, others: object) -> str:
        numbers.append(len(history.steps))
        return f"{len(history.steps)} steps"

    monkeypatch.setattr(training_plot, "plot_html", plot)
    return numbers


def history_of(number: int) -> RunHistory:
    history = RunHistory()
    report(history, number)
    return history


def report(history: RunHistory, number: int) -> None:
    for _ in range(number):
        step = len(history.steps) + 1
        history.apply_event(StepEvent(step=step, loss=1 / step, learning_rate=1e-4, grad_norm=1, seconds=0.5))


def look(cache: PlotCache, history: RunHistory, *, running: bool = True, window: str = "All steps") -> str:
    return cache.html(history, PlotOptions(window=window), {}, running=running)


def test_of_few_steps_each_is_drawn(drawn: list[int]) -> None:
    history, cache = history_of(50), PlotCache()
    for _ in range(3):
        look(cache, history)
        report(history, 1)
    assert drawn == [50, 51, 52]


def test_of_many_steps_a_point_s_worth_is_waited_for(drawn: list[int]) -> None:
    history, cache = history_of(6000), PlotCache()
    for _ in range(30):
        look(cache, history)
        report(history, 1)
    assert drawn == [6000, 6010, 6020]


def test_what_has_ended_is_drawn_to_its_last_step(drawn: list[int]) -> None:
    history, cache = history_of(6000), PlotCache()
    look(cache, history)
    report(history, 3)
    assert look(cache, history) == "6000 steps"
    assert look(cache, history, running=False) == "6003 steps"


def test_a_short_window_a_look_at_held_out_pictures_another_run_and_a_resume_are_drawn_at_once(
    drawn: list[int],
) -> None:
    history, cache = history_of(6000), PlotCache()
    look(cache, history)
    look(cache, history, window="Last 200")
    report(history, 1)
    look(cache, history, window="Last 200")
    history.apply_event(HeldOutEvent(step=6001, held_out_loss=0.1, trained_loss=0.1))
    look(cache, history, window="Last 200")
    look(cache, history_of(6001), window="Last 200")
    history.apply_event(ResumedEvent(step=5990))
    look(cache, history)
    assert drawn == [6000, 6000, 6001, 6001, 6001, 5990]
