"""The trainings as the page sees them, read from runs' folders and the queue alone."""

import shutil
from datetime import datetime
from pathlib import Path

import pytest

from studio.core.errors import RunError
from studio.core.paths import UserData
from studio.jobs.events import EventWriter
from studio.jobs.folder import RunStatus, take_requests, write_status
from studio.jobs.words import title
from studio.training.events import StepEvent
from studio.training.folder import RunFolder
from studio.training.session import TrainingSession


def make_run(session: TrainingSession, name: str, status: RunStatus) -> RunFolder:
    run = RunFolder.new(session.user_data.runs, name, now=datetime(2026, 11, 25, 12, 0, len(name)))
    run.settings.write_text("{}", encoding="utf-8")
    write_status(run, status)
    return run


@pytest.fixture
def session(tmp_path: Path) -> TrainingSession:
    return TrainingSession(UserData(tmp_path))


def test_without_runs_there_is_nothing_and_nothing_to_follow(session: TrainingSession) -> None:
    view = session.view()
    assert (view.names, view.run, view.active, view.problem) == ((), None, False, "")


def test_it_shows_the_named_run_else_the_one_that_runs_else_the_newest(session: TrainingSession) -> None:
    old = make_run(session, "a", RunStatus(state="finished"))
    new = make_run(session, "bb", RunStatus(state="stopped"))
    assert session.view().run == new
    write_status(old, RunStatus(state="running", step=3, num_steps=9))
    assert session.view().run == old
    assert session.view().active
    assert session.view(new.name).run == new
    assert session.view(old.name).run == old
    assert session.view().run == old, "what one page was shown is nothing to the next"


def test_a_run_that_is_gone_is_said_and_no_other_takes_its_place(session: TrainingSession) -> None:
    gone, other = make_run(session, "a", RunStatus(state="paused")), make_run(session, "bb", RunStatus(state="running"))
    shutil.rmtree(gone.root)
    view = session.view(gone.name)
    assert (view.run, view.status, view.names) == (None, None, (other.name,))
    assert f"There is no run {title(gone)} any more" in view.problem
    assert not view.active, "nothing is in the queue"
    with pytest.raises(RunError, match="it was deleted or renamed"):
        session.named(gone.name)
    shutil.rmtree(other.root)
    assert session.view(gone.name).problem == "", "where there are none at all, that is what is said"


def test_a_runs_name_from_a_page_is_never_a_path(session: TrainingSession, tmp_path: Path) -> None:
    run = make_run(session, "a", RunStatus(state="finished"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "settings.json").write_text("{}", encoding="utf-8")
    for name in (str(elsewhere), str(run.root), f"../runs/{run.name}", "a"):
        with pytest.raises(RunError, match="There is no run"):
            session.named(name)
        assert session.view(name).run is None
    with pytest.raises(RunError, match="No run is chosen"):
        session.named("")
    assert session.named(run.name) == run


def test_what_a_run_tells_is_followed_by_every_desk(session: TrainingSession) -> None:
    run = make_run(session, "a", RunStatus(state="running"))
    EventWriter(run.events).report(StepEvent(step=1, loss=0.5, learning_rate=1e-4, grad_norm=1, seconds=1))
    for one in (session, TrainingSession(session.user_data)):  # the second is that of a page that was started again
        history = one.view().history
        assert history is not None
        assert list(history.steps.loss) == [0.5]


def test_a_run_that_is_no_job_is_asked_through_its_folder(session: TrainingSession) -> None:
    run = make_run(session, "a", RunStatus(state="running"))
    session.ask(run, "sample")
    session.ask(run, "stop")
    assert take_requests(run) == {"sample", "stop"}


def test_a_damaged_status_takes_nothing_else_of_its_run(session: TrainingSession) -> None:
    """The run is shown as failed, with what it reported: so it can be resumed, as the sentence says."""
    run = make_run(session, "a", RunStatus(state="running"))
    run.status.write_text("{", encoding="utf-8")
    view = session.view()
    assert view.status is not None
    assert (view.run, view.problem, view.status.state) == (run, "", "failed")
    assert "cannot be read. Resume the run to write it again." in view.status.message
    assert view.history is not None
