"""The queue on the page: its order, what can be done with each job, and that a page's wishes are checked."""

from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from studio.core.errors import RunError
from studio.core.paths import UserData
from studio.jobs.folder import RunStatus, write_status
from studio.training.folder import RunFolder
from studio.training.session import TrainingSession
from studio.ui.training.queue import TrainingPage, act_on_job, queue_html, run_of_job
from tests.ui.queued import job_line


@pytest.fixture
def page(tmp_path: Path) -> TrainingPage:
    """With three runs that wait, and nobody who works on them."""
    user_data = UserData(tmp_path)
    session = TrainingSession(user_data)
    for second, name in enumerate(("one", "two", "three")):
        run = RunFolder.new(user_data.runs, name, now=datetime(2026, 11, 25, 12, 0, second))
        run.settings.write_text("{}", encoding="utf-8")
        write_status(run, RunStatus(state="new", num_steps=10))
        session.queue.add("train", run.root, name)
    return cast(TrainingPage, SimpleNamespace(session=session))


def titles(page: TrainingPage) -> list[str]:
    return [job.title for job in page.session.queue.jobs()]


def job_id(page: TrainingPage, title: str) -> int:
    return next(job.id for job in page.session.queue.jobs() if job.title == title)


def test_jobs_are_moved_up_and_down_one_place_at_a_time(page: TrainingPage) -> None:
    act_on_job(page, "down", job_id(page, "one"))
    assert titles(page) == ["two", "one", "three"]
    act_on_job(page, "up", job_id(page, "three"))
    assert titles(page) == ["two", "three", "one"]
    act_on_job(page, "up", job_id(page, "two"))
    act_on_job(page, "down", job_id(page, "one"))
    assert titles(page) == ["two", "three", "one"], "the ends are ends"


def test_a_removed_job_leaves_its_run_and_the_words_say_so(page: TrainingPage) -> None:
    run = page.session.queue.job(job_id(page, "two")).run
    assert "press “Resume” to put it back" in act_on_job(page, "remove", job_id(page, "two"))
    assert titles(page) == ["one", "three"]
    assert run.root.is_dir()


def test_a_run_is_shown_by_its_row(page: TrainingPage) -> None:
    assert run_of_job(page, job_id(page, "one")).endswith("-one")
    with pytest.raises(RunError):
        run_of_job(page, 99)
    with pytest.raises(RunError):
        run_of_job(page, "1")


@pytest.mark.parametrize(
    ("act", "job"), [("up", 99), ("up", "1"), ("up", None), ("delete", 1), (None, 1), ("up", "../1")]
)
def test_what_a_page_wishes_is_checked(page: TrainingPage, act: object, job: object) -> None:
    with pytest.raises(RunError):
        act_on_job(page, act, job)
    assert titles(page) == ["one", "two", "three"]


def test_a_job_that_runs_meanwhile_is_not_moved(page: TrainingPage) -> None:
    first = job_id(page, "one")
    page.session.queue.begin(first, pid=1, process_start_time=1.5)
    with pytest.raises(RunError, match="has no position in the queue"):
        act_on_job(page, "down", first)
    with pytest.raises(RunError, match="cannot be removed"):
        act_on_job(page, "remove", first)


def test_a_batch_stands_in_the_same_line_but_is_shown_on_its_own_tab(tmp_path: Path) -> None:
    batch = job_line(RunFolder(tmp_path / "shoes <all>"), job_id=2, position=1, kind="batch")
    html = queue_html([job_line(RunFolder(tmp_path / "a"), state="running", step=3), batch], "")
    row = html.split("<tr>")[3]
    assert "shoes &lt;all&gt;" in row
    assert "on the Batch tab" in row
    assert 'data-act="show"' not in row
    assert 'data-act="remove"' in row


def test_rows_have_the_buttons_that_can_do_something(tmp_path: Path) -> None:
    html = queue_html(
        [
            job_line(RunFolder(tmp_path / "<b>a"), job_id=1, state="running", step=312),
            job_line(RunFolder(tmp_path / "b"), job_id=2, title="b", position=1),
            job_line(RunFolder(tmp_path / "c"), job_id=3, title="c", position=2),
            job_line(RunFolder(tmp_path / "d"), job_id=4, title="d", state="paused"),
            job_line(RunFolder(tmp_path / "e"), job_id=5, title="e", state="finished"),
        ],
        "b",
    )
    assert "2 runs wait" in html
    assert "<b>a" not in html
    assert "312 of 1,000" in html
    rows = html.split("<tr>")[2:]
    acts = [[act for act in ("up", "down", "remove") if f'data-act="{act}"' in row] for row in rows]
    assert acts == [[], ["up", "down", "remove"], ["up", "down", "remove"], ["remove"]]
    assert 'aria-label="Move b up" class="link-button" disabled' in rows[1]
    assert 'aria-label="Move c down" class="link-button" disabled' in rows[2]
    assert 'aria-current="true"' in rows[1]
    assert "empty" in queue_html([], "")
