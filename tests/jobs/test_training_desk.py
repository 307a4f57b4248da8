"""The trainings as the page sees them, read from runs' folders and the queue alone."""

from datetime import datetime
from pathlib import Path

import pytest

from studio.errors import RunError
from studio.jobs.training_desk import TrainingDesk
from studio.paths import UserData
from studio.runs.events import EventWriter, StepEvent
from studio.runs.folder import RunFolder, RunStatus, new_run_folder, take_requests, write_status


def make_run(desk: TrainingDesk, name: str, status: RunStatus) -> RunFolder:
    run = new_run_folder(desk.user_data.runs, name, now=datetime(2026, 11, 25, 12, 0, len(name)))
    run.settings.write_text("{}", encoding="utf-8")
    write_status(run, status)
    return run


@pytest.fixture
def desk(tmp_path: Path) -> TrainingDesk:
    return TrainingDesk(UserData(tmp_path))


def test_without_runs_there_is_nothing_and_nothing_to_follow(desk: TrainingDesk) -> None:
    view = desk.view
    assert (view.names, view.run, view.active, view.problem) == ((), None, False, "")


def test_it_looks_at_the_one_that_runs_else_at_the_newest_else_at_the_chosen(desk: TrainingDesk) -> None:
    old = make_run(desk, "a", RunStatus(state="finished"))
    new = make_run(desk, "bb", RunStatus(state="stopped"))
    assert desk.view.run == new
    write_status(old, RunStatus(state="running", step=3, num_steps=9))
    assert desk.view.run == old
    assert desk.view.active
    desk.choose(new.name)
    assert desk.view.run == new
    with pytest.raises(RunError, match="There is no run"):
        desk.choose("nothing")


def test_a_runs_name_from_a_page_is_never_a_path(desk: TrainingDesk, tmp_path: Path) -> None:
    run = make_run(desk, "a", RunStatus(state="finished"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "settings.json").write_text("{}", encoding="utf-8")
    for name in (str(elsewhere), str(run.root), f"../runs/{run.name}", "a", ""):
        with pytest.raises(RunError, match="There is no run"):
            desk.run_named(name)
    assert desk.run_named(run.name) == run


def test_what_a_run_tells_is_followed_by_every_desk(desk: TrainingDesk) -> None:
    run = make_run(desk, "a", RunStatus(state="running"))
    EventWriter(run.events).tell(StepEvent(step=1, loss=0.5, learning_rate=1e-4, grad_norm=1, seconds=1))
    for one in (desk, TrainingDesk(desk.user_data)):  # the second is that of a page that was started again
        history = one.view.history
        assert history is not None
        assert list(history.steps.loss) == [0.5]


def test_a_run_that_is_no_job_is_asked_through_its_folder(desk: TrainingDesk) -> None:
    run = make_run(desk, "a", RunStatus(state="running"))
    desk.ask(run, "sample")
    desk.ask(run, "stop")
    assert take_requests(run) == {"sample", "stop"}


def test_a_damaged_status_is_said_and_not_raised(desk: TrainingDesk) -> None:
    run = make_run(desk, "a", RunStatus(state="running"))
    run.status.write_text("{", encoding="utf-8")
    assert "cannot be read" in desk.view.problem
