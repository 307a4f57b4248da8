"""The queue in the line at the top, for real queues and runs' folders."""

import re
from pathlib import Path

import pytest

from studio.core.paths import UserData
from studio.core.system import MemorySample
from studio.engine.process.messages import Step
from studio.engine.process.view import EngineView
from studio.jobs.folder import RunState, RunStatus, write_status
from studio.jobs.queue import JobQueue
from studio.training.folder import RunFolder
from studio.training.session import TrainingSession
from studio.ui.shell.status import jobs_words, title_words
from tests.jobs.lines import RUNNING, lines_of, queued_run, running_run


@pytest.fixture
def user_data(tmp_path: Path) -> UserData:
    return UserData(tmp_path)


def words_of(user_data: UserData) -> str:
    return re.sub(r"<[^>]*>", "", jobs_words(lines_of(user_data)))


def test_the_one_that_runs_is_named_with_its_step_and_time_left_and_leads_to_its_tab(user_data: UserData) -> None:
    running_run(user_data, "shoes-white")
    assert words_of(user_data) == "training shoes-white 312/3,000 · 1 h 12 min left"
    assert 'data-tab="Training"' in jobs_words(lines_of(user_data))


def test_those_behind_it_are_counted(user_data: UserData) -> None:
    running_run(user_data, "shoes-white")
    queued_run(user_data, "second")
    assert words_of(user_data).endswith("left + 1 waiting")
    queued_run(user_data, "third")
    assert words_of(user_data).endswith("left + 2 waiting")


def test_one_that_waits_alone_is_counted_and_an_ended_one_is_not_told(user_data: UserData) -> None:
    assert words_of(user_data) == ""
    number = queued_run(user_data, "first")
    assert words_of(user_data) == "1 job waiting"
    JobQueue(user_data).stop(number)
    assert words_of(user_data) == ""


@pytest.mark.parametrize(("state", "words"), [("waiting", "waits for its turn"), ("preparing", "is being prepared")])
def test_before_the_first_step_there_is_no_step(user_data: UserData, state: RunState, words: str) -> None:
    running_run(user_data, "shoes-white", RunStatus(state=state))
    assert words_of(user_data) == f"training shoes-white {words}"


def test_what_it_was_asked_is_told_until_it_has_done_it(user_data: UserData) -> None:
    number = running_run(user_data, "shoes-white")
    JobQueue(user_data).pause(number)
    assert words_of(user_data) == "training shoes-white is asked to pause"


def test_markup_of_a_run_stays_text(user_data: UserData) -> None:
    status = RUNNING.model_copy(update={"message": '"><script>alert(1)</script>'})
    running_run(user_data, "a", status)
    assert "<script>" not in jobs_words(lines_of(user_data))


def test_it_stays_true_where_the_run_that_is_looked_at_cannot_be_read(user_data: UserData) -> None:
    running_run(user_data, "shoes-white")
    session = TrainingSession(user_data)
    damaged = RunFolder(user_data.runs / "29990101-000000-damaged")
    damaged.root.mkdir()
    damaged.settings.write_text("{}", encoding="utf-8")
    write_status(damaged, RunStatus(state="new"))
    damaged.status.write_text("{", encoding="utf-8")
    view = session.view(damaged.name)
    assert view.status is not None
    assert (view.status.state, view.problem) == ("failed", "")
    assert "cannot be read. Resume the" in view.status.message
    assert view.active
    assert "training shoes-white 312/3,000" in jobs_words(view.jobs)


def test_the_title_of_the_browsers_tab_tells_how_far_it_is(user_data: UserData) -> None:
    idle = EngineView(phase="ready")
    assert title_words(lines_of(user_data), idle) == ""
    running_run(user_data, "shoes-white")
    assert title_words(lines_of(user_data), idle) == "10% training shoes-white"
    assert title_words((), EngineView(phase="generating")) == "generating"
    memory = MemorySample(process_bytes=1, system_available_bytes=1, system_total_bytes=2)
    step = Step(picture=1, num_pictures=3, step=5, num_steps=25, elapsed_seconds=1.0, memory=memory)
    assert title_words((), EngineView(phase="generating", step=step)) == "40% generating", "30 of 75 steps"
