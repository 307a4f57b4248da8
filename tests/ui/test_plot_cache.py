"""The plot is drawn again where something of it would be seen to move, and not at every look."""

from studio.jobs.events import ResumedEvent
from studio.training.events import HeldOutEvent, StepEvent
from studio.training.session import RunHistory
from studio.ui.training.plot import PlotCache, PlotOptions, plot_html


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


def drawn_now(history: RunHistory, window: str = "All steps") -> str:
    """What a look without a cache would show."""
    return plot_html(history, PlotOptions(window=window), {})


def test_of_few_steps_each_is_drawn() -> None:
    history, cache = history_of(50), PlotCache()
    for _ in range(3):
        assert look(cache, history) == drawn_now(history)
        report(history, 1)


def test_of_many_steps_a_point_s_worth_is_waited_for() -> None:
    history, cache = history_of(6000), PlotCache()
    current = []
    for _ in range(30):
        current.append(look(cache, history) == drawn_now(history))
        report(history, 1)
    assert [number for number, is_current in enumerate(current) if is_current] == [0, 10, 20]


def test_what_has_ended_is_drawn_to_its_last_step() -> None:
    history, cache = history_of(6000), PlotCache()
    begun = look(cache, history)
    report(history, 3)
    assert look(cache, history) == begun != drawn_now(history)
    assert look(cache, history, running=False) == drawn_now(history)


def test_a_short_window_a_look_at_held_out_images_another_run_and_a_resume_are_drawn_at_once() -> None:
    history, cache = history_of(6000), PlotCache()
    look(cache, history)
    assert look(cache, history, window="Last 200") == drawn_now(history, "Last 200")
    report(history, 1)
    assert look(cache, history, window="Last 200") == drawn_now(history, "Last 200")
    history.apply_event(HeldOutEvent(step=6001, held_out_loss=0.1, trained_loss=0.1))
    assert look(cache, history, window="Last 200") == drawn_now(history, "Last 200")
    other = history_of(6001)
    assert look(cache, other, window="Last 200") == drawn_now(other, "Last 200")
    history.apply_event(ResumedEvent(step=5990))
    assert look(cache, history) == drawn_now(history)
