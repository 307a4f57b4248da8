"""Runs as cards: the newest, or those that were searched for, each with what it is and how it went."""

from datetime import datetime
from pathlib import Path

import pytest

from studio.core.paths import UserData
from studio.core.records import Label
from studio.datasets.session import DatasetSession
from studio.jobs.folder import RunStatus
from studio.training.session import TrainingSession
from studio.ui.shell.commands import Commands
from studio.ui.shell.selection import Selection
from studio.ui.training.queue import TrainingPage
from studio.ui.training.run_cards import MAX_CARDS, runs_html, when_text
from tests.training.told_runs import make_run, sample_event
from tests.ui.told_scores import reference_event, score_event

NOW = datetime(2026, 11, 29, 12, 0)


@pytest.fixture
def page(tmp_path: Path) -> TrainingPage:
    user_data = UserData(tmp_path)
    commands = Commands(user_data)
    datasets = DatasetSession(user_data, count_tokens=len)
    return TrainingPage(TrainingSession(user_data), datasets, commands.preflight, commands.exports)


def shown(page: TrainingPage, selection: Selection) -> str:
    return runs_html(page, page.session.view(selection.run), selection, NOW)


def test_a_card_says_name_when_state_and_best_score_beside_the_last_image(page: TrainingPage) -> None:
    folder = page.session.user_data.runs / "20261129-093000-white-shoes"
    make_run(folder, [reference_event(0.98), sample_event(folder, 100), score_event(100, 0.9)])
    html = shown(page, Selection())
    assert "<b>white-shoes</b><span>today 09:30</span>" in html
    assert "✓</span> Finished</span>" in html
    assert 'white border 90% <span class="outcome good">better</span>' in html
    assert html.count("gradio_api/file=") == 1
    assert 'aria-current="true"' in html
    page.session.set_label(page.session.named(folder.name), Label(name="Red <b>"))
    assert "<b>Red &lt;b&gt;</b>" in shown(page, Selection())


def test_many_runs_are_searched_and_the_shown_and_the_compared_always_have_a_card(page: TrainingPage) -> None:
    names = [f"202611{day:02}-120000-{'wide' if day % 2 else 'narrow'}" for day in range(1, MAX_CARDS + 9)]
    for name in names:
        make_run(page.session.user_data.runs / name, [])
    html = shown(page, Selection())
    assert html.count('class="run-card"') == MAX_CARDS
    assert "8 more runs" in html
    old = Selection(run=names[0], compared=(names[2],))
    html = shown(page, old)
    assert html.count('class="run-card"') == MAX_CARDS + 2
    assert html.count(" checked>") == 1
    found = shown(page, Selection(run=names[1], run_search="NARROW"))
    assert "wide" not in found


def test_a_run_without_anything_told_has_a_card_too(page: TrainingPage) -> None:
    make_run(page.session.user_data.runs / "own name", [], status=RunStatus(state="failed"))
    html = shown(page, Selection())
    assert "<b>own name</b>" in html
    assert "Failed" in html


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        (datetime(2026, 11, 29, 7, 5), "today 07:05"),
        (datetime(2026, 11, 28, 23, 59), "yesterday 23:59"),
        (datetime(2026, 11, 24, 22, 0), "Tuesday 22:00"),
        (datetime(2026, 3, 1, 22, 0), "1 March"),
        (datetime(2025, 12, 24, 22, 0), "24 December 2025"),
        (datetime(2026, 11, 30, 1, 0), "30 November"),
    ],
)
def test_when_is_told_in_words(moment: datetime, words: str) -> None:
    assert when_text(moment, NOW) == words
