"""What the Training tab shows: states in words, a gauge, images by step, curves; hostile text as text."""

import re
from datetime import datetime
from pathlib import Path

import pytest

from studio.jobs.events import MemoryEvent, NoteEvent
from studio.jobs.folder import RunRequest, RunState, RunStatus
from studio.training.events import AnyEvent, EffectEvent, HeldOutEvent, ProposalEvent, StepEvent
from studio.training.folder import RunFolder
from studio.training.session import RunHistory, TrainingView
from studio.ui.training import view as training_view
from studio.ui.training.plot import PlotOptions, plot_html
from tests.ui.queued import job_line
from tests.ui.told_scores import score_event

GIB = 2**30


def history_of(*events: AnyEvent) -> RunHistory:
    history = RunHistory()
    for event in events:
        history.apply_event(event)
    return history


def steps(number: int) -> list[StepEvent]:
    return [
        StepEvent(step=i + 1, loss=1 / (i + 1), learning_rate=1e-4, grad_norm=0.5, seconds=0.1) for i in range(number)
    ]


@pytest.mark.parametrize(
    ("state", "words"),
    [("running", "Running."), ("paused", "Paused."), ("failed", "Failed."), ("finished", "Finished.")],
)
def test_a_state_is_a_word_with_step_speed_and_time_left(state: RunState, words: str, tmp_path: Path) -> None:
    status = RunStatus(state=state, step=312, num_steps=3000, seconds_per_step=7.9, remaining_seconds=4320)
    now = datetime(2026, 3, 1, 17, 30)
    html = training_view.state_html(TrainingView(run=RunFolder(tmp_path), status=status), now)
    assert words in html
    assert "312 of 3,000" in html
    for fact in ("7.9 s/step", "1 h 12 min left", "ready at 18:42"):
        assert (fact in html) == (state == "running")
    assert 'aria-valuenow="312"' in html


def test_a_speed_is_told_by_the_second_or_by_the_step_and_a_later_day_has_its_name() -> None:
    assert training_view.speed_text(0.3125) == "3.2 steps/s"
    assert training_view.speed_text(7.94) == "7.9 s/step"
    assert training_view.ready_text(datetime(2026, 3, 1, 22, 0), 9.5 * 3600) == "ready Monday 07:30"


def test_the_gauge_stands_in_the_head(tmp_path: Path) -> None:
    reading = MemoryEvent(
        process_bytes=1, peak_process_bytes=2, system_available_bytes=8 * GIB, system_total_bytes=32 * GIB
    )
    view = TrainingView(run=RunFolder(tmp_path), status=RunStatus(state="running"), history=history_of(reading))
    head = training_view.state_html(view).partition("</p></div>")[0]
    assert 'role="meter"' in head
    assert "Memory 24.0 GB of 32.0 GB, fine" in head


def test_without_a_run_it_says_what_to_do_first() -> None:
    assert "press “Start”" in training_view.state_html(TrainingView())


def test_the_gauge_says_how_full_memory_is_and_colours_it() -> None:
    def reading(available: int) -> MemoryEvent:
        return MemoryEvent(
            process_bytes=2 * GIB,
            peak_process_bytes=3 * GIB,
            system_available_bytes=available * GIB,
            system_total_bytes=32 * GIB,
        )

    fine = training_view.memory_html(history_of(reading(16)))
    assert 'aria-valuenow="50"' in fine
    assert "fine" in fine
    full = training_view.memory_html(history_of(reading(1), reading(1)))
    assert "gauge full" in full
    assert "<polyline" in full
    assert "Last memory 16.0 GB of 32.0 GB" in training_view.memory_html(history_of(reading(16)), working=False)


def test_on_a_gpu_the_gauge_is_the_gpus() -> None:
    event = MemoryEvent(
        process_bytes=1,
        peak_process_bytes=1,
        system_available_bytes=1,
        system_total_bytes=2,
        accelerator_bytes=6 * GIB,
        accelerator_limit_bytes=8 * GIB,
    )
    assert "GPU memory 6.0 GB of 8.0 GB" in training_view.memory_html(history_of(event))


def test_effects_are_sorted_and_notes_and_proposal_are_text() -> None:
    history = history_of(
        EffectEvent(step=50, groups={"convolutions, up": 0.01, "self-attention, down": 0.05}),
        NoteEvent(message="<b>bold</b>"),
        ProposalEvent(step=300, sentence="white & centred.", sure=True, lora="l"),
    )
    effect = training_view.effect_html(history)
    assert effect.index("self-attention") < effect.index("convolutions")
    assert "<b>bold" not in training_view.notes_html(history)
    assert "Step 300 is recommended:" in training_view.proposal_html(history)
    assert "white &amp; centred." in training_view.proposal_html(history)


def test_a_proposal_does_not_say_its_step_twice() -> None:
    reported = ProposalEvent(step=1300, sentence="Step 1,300: white backgrounds.", sure=False, lora="l")
    html = training_view.proposal_html(history_of(reported))
    assert "<b>Step 1,300 is recommended:</b> <span>white backgrounds. The evidence is thin so far." in html


@pytest.mark.parametrize(("white", "is_green"), [(0.9, True), (0.02, False)])
def test_a_finished_run_is_green_only_where_nothing_got_worse_than_the_base(
    white: float, is_green: bool, tmp_path: Path
) -> None:
    status = RunStatus(state="finished", step=40, num_steps=40, message="The LoRA a is finished.")
    view = TrainingView(run=RunFolder(tmp_path), status=status, history=history_of(score_event(40, white)))
    html = training_view.state_html(view)
    assert ("run-state pass" in html) == is_green
    assert "The LoRA a is finished." in html


def test_a_run_that_waits_in_the_queue_says_its_place(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    view = TrainingView(run=run, status=RunStatus(state="new", num_steps=40), jobs=(job_line(run, position=2),))
    assert "In the queue, position 2." in training_view.state_html(view)
    running = TrainingView(run=run, status=RunStatus(state="new", num_steps=40))
    assert "Not started." in training_view.state_html(running)


def test_twenty_thousand_steps_are_drawn_from_at_most_six_hundred_points_a_curve() -> None:
    history = history_of(*steps(20_000), HeldOutEvent(step=100, held_out_loss=0.5, trained_loss=0.4))
    html = plot_html(history, PlotOptions(), {})
    assert html.count('<svg class="chart"') == 3
    for path in re.findall(r'd="(M[^"]*)"', html):
        assert path.count("L") + path.count("M") <= 700
    assert len(html) < 200_000


def test_single_losses_far_above_the_rest_are_counted_and_not_drawn() -> None:
    rows = [
        step.model_copy(update={"loss": 9.0 if step.step in (20, 30) else 0.1 + step.step / 1e4}) for step in steps(100)
    ]
    html = plot_html(history_of(*rows), PlotOptions(), {})
    assert "2 steps above the plot" in html
    dots = re.search(r'class="dots" d="(M[^"]*)"/>\s*<path class="line', html)
    assert dots is not None
    assert dots.group(1).count("M") == 98
    assert "above the plot" not in plot_html(history_of(*steps(1)), PlotOptions(), {})


def test_a_window_and_a_log_scale_change_what_is_drawn() -> None:
    history = history_of(*steps(2_000))
    every = plot_html(history, PlotOptions(), {})
    last = plot_html(history, PlotOptions(window="Last 200"), {})
    assert ">1,900<" in last
    assert ">1,900<" not in every
    assert plot_html(history, PlotOptions(log=True), {}) != every


def test_other_runs_are_laid_over_by_name_in_lines_of_their_own() -> None:
    looks = HeldOutEvent(step=10, held_out_loss=0.5, trained_loss=0.4)
    others = {"20261125-a": history_of(*steps(40)), "20261125-b": history_of(*steps(30))}
    html = plot_html(history_of(*steps(50), looks), PlotOptions(), others)
    assert "20261125-a" in html
    drawn = re.findall(r'<path class="line (\w+)" d="M[^"]*L[^"]*"', html.split("</figcaption>")[1])
    assert sorted(drawn) == ["fifth", "fourth", "main"], "and what is held out has two lines more, with marks"


def test_before_the_first_step_there_are_words() -> None:
    assert "from the first step on" in plot_html(None, PlotOptions(), {})


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("pause",), "Pausing after this step."),
        (("stop", "save"), "Saving and stopping after this step."),
        (("sample",), "Making images after this step."),
    ],
)
def test_what_a_run_was_asked_for_stands_in_its_head_until_it_is_done(
    asked: tuple[RunRequest, ...], words: str, tmp_path: Path
) -> None:
    view = TrainingView(run=RunFolder(tmp_path), status=RunStatus(state="running"), asked=frozenset(asked))
    assert f"<b>{words}</b>" in training_view.state_html(view)
