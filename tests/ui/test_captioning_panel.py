"""The panel that has captions written: what it starts, what it shows of a job, what its buttons do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.core.errors import DatasetError, ModelError, SettingsError, StudioError
from studio.core.paths import UserData
from studio.datasets.caption_job import run_captioning
from studio.datasets.captioning import CaptionFolder, CaptionSettings, begin_captioning, read_caption_settings
from studio.datasets.captions import alternatives_of
from studio.datasets.session import DatasetSession
from studio.jobs.folder import RunStatus, pending_requests, write_status
from studio.ui.datasets.captioning import CaptionJobs, act, caption_jobs, captioning_html, start
from tests.datasets.bad_inputs import encoded, picture
from tests.datasets.test_captioning import Sayer
from tests.engine.caption_files import save_captioner


@pytest.fixture
def session(tmp_path: Path) -> Iterator[DatasetSession]:
    source = tmp_path / "shoes"
    source.mkdir()
    for number, name in enumerate("abc"):
        (source / f"{name}.png").write_bytes(encoded(picture(100 + number, 120), "PNG"))
    made = DatasetSession(UserData(tmp_path / "user_data"), count_tokens=len)
    made.open_folder(str(source))
    yield made
    made.close()


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CaptionJobs:
    """Jobs that nobody works on."""
    monkeypatch.setattr("studio.jobs.session.ensure_worker", lambda user_data: False)
    return caption_jobs(UserData(tmp_path / "user_data"))


@pytest.fixture
def finished(session: DatasetSession, jobs: CaptionJobs) -> CaptionFolder:
    """Two candidates for each of three images."""
    settings = CaptionSettings(dataset="shoes", num_candidates=2)
    folder = begin_captioning(settings, jobs.user_data)
    run_captioning(folder, jobs.user_data, Sayer().load)
    return folder


def press(session: DatasetSession, jobs: CaptionJobs, name: str, folder: CaptionFolder, **sent: str) -> str:
    return act(session, jobs, {"act": name, "job": folder.name, **sent})


def test_nothing_is_shown_before_the_first_job(session: DatasetSession, jobs: CaptionJobs) -> None:
    assert captioning_html(session, jobs) == ""


def test_a_start_queues_what_the_form_says(session: DatasetSession, jobs: CaptionJobs, tmp_path: Path) -> None:
    model = save_captioner("git", tmp_path / "model")
    values = {"model": str(model), "which": "all", "prefix": "sks", "num_candidates": 2, "unknown": 1, "suffix": None}
    folder = start(session, jobs, values, cpu_only=True)
    settings = read_caption_settings(folder)
    assert settings == CaptionSettings(
        dataset="shoes", model=str(model), which="all", prefix="sks", num_candidates=2, cpu=True
    )
    assert [(line.job.kind, line.job.run) for line in jobs.jobs()] == [("caption", folder)]
    shown = captioning_html(session, jobs)
    assert "It waits in the queue." in shown
    assert 'data-act="stop"' in shown
    with pytest.raises(DatasetError, match="being written already"):
        start(session, jobs, values, cpu_only=True)


@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        ({"num_candidates": 99}, SettingsError, "num_candidates|Candidates"),
        ({"model": "no such model"}, ModelError, "no model folder or file"),
        ({"model": "/"}, ModelError, "config.json"),
    ],
)
def test_what_cannot_be_started_is_said_before_it_is_queued(
    session: DatasetSession, jobs: CaptionJobs, values: dict[str, object], error: type[StudioError], match: str
) -> None:
    with pytest.raises(error, match=match):
        start(session, jobs, values, cpu_only=True)
    assert jobs.folders() == ()


def test_what_came_out_is_shown_and_what_is_taken_is_marked(
    session: DatasetSession, jobs: CaptionJobs, finished: CaptionFolder
) -> None:
    shown = captioning_html(session, jobs)
    assert shown.count('data-act="choose"') == 6
    assert 'aria-pressed="true"' not in shown
    said = press(session, jobs, "take", finished)
    assert said == "3 captions changed. Undo, beside the image, takes it back."
    assert [row.caption for row in session.opened.rows] == [f"a photo of {100 + n} by 120 0" for n in range(3)]
    assert captioning_html(session, jobs).count('aria-pressed="true"') == 3
    session.opened.undo()
    assert [row.caption for row in session.opened.rows] == ["", "", ""]


def test_a_candidate_is_taken_for_its_image_alone(
    session: DatasetSession, jobs: CaptionJobs, finished: CaptionFolder
) -> None:
    press(session, jobs, "choose", finished, key="b.png", value="1")
    assert [row.caption for row in session.opened.rows] == ["", "a photo of 101 by 120 1", ""]


def test_all_candidates_are_taken_for_training_to_choose_from(
    session: DatasetSession, jobs: CaptionJobs, finished: CaptionFolder
) -> None:
    assert 'data-act="take all"' in captioning_html(session, jobs)
    press(session, jobs, "take all", finished)
    assert alternatives_of(session.opened.row("a.png").caption) == (
        "a photo of 100 by 120 0",
        "a photo of 100 by 120 1",
    )


def test_a_running_job_is_paused_and_stopped(
    session: DatasetSession, jobs: CaptionJobs, finished: CaptionFolder
) -> None:
    write_status(finished, RunStatus(state="running", step=1, num_steps=3))
    assert "1 of 3 images are captioned." in captioning_html(session, jobs)
    for wish in ("pause", "stop"):
        press(session, jobs, wish, finished)
        assert wish in pending_requests(finished)


def test_a_job_that_ended_early_is_resumed(session: DatasetSession, jobs: CaptionJobs, finished: CaptionFolder) -> None:
    write_status(finished, RunStatus(state="stopped", step=1, num_steps=3, message="1 of 3"))
    assert 'data-act="resume"' in captioning_html(session, jobs)
    press(session, jobs, "resume", finished)
    assert [line.job.state for line in jobs.jobs()] == ["queued"]


def test_why_an_image_has_no_caption_is_shown(session: DatasetSession, jobs: CaptionJobs, tmp_path: Path) -> None:
    file = tmp_path / "shoes" / "b.png"
    file.write_bytes(file.read_bytes()[:60])
    folder = begin_captioning(CaptionSettings(dataset="shoes"), jobs.user_data)
    run_captioning(folder, jobs.user_data, Sayer().load)
    shown = captioning_html(session, jobs)
    assert shown.count('data-act="choose"') == 2
    assert shown.count('class="bad"') == 1


@pytest.mark.parametrize(
    "sent",
    [
        {"act": "take", "job": "../../etc"},
        {"act": "take"},
        {"act": "explode"},
        {"act": "choose", "key": "nothing.png", "value": "0"},
        {"act": "choose", "key": "../a.png", "value": "-1"},
    ],
)
def test_what_a_page_cannot_mean_is_refused(
    session: DatasetSession, jobs: CaptionJobs, finished: CaptionFolder, sent: dict[str, str]
) -> None:
    with pytest.raises(DatasetError):
        act(session, jobs, {"job": finished.name, **sent} if sent["act"] != "take" else sent)
    assert [row.caption for row in session.opened.rows] == ["", "", ""]


def test_names_and_captions_are_never_markup(session: DatasetSession, jobs: CaptionJobs) -> None:
    folder = begin_captioning(CaptionSettings(dataset="shoes", prefix="<img src=x onerror=alert(1)>"), jobs.user_data)
    run_captioning(folder, jobs.user_data, Sayer().load)
    assert "<img src=x" not in captioning_html(session, jobs)
