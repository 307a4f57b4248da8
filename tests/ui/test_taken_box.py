"""What the Inference tab says while the device is another's, for real queues and runs' folders."""

import re
from pathlib import Path

import gradio as gr
import pytest

from studio.core.paths import UserData
from studio.core.settings import GenerationSettings, ImagesSettings, SmokeSettings
from studio.engine.process.messages import Generate, Smoke
from studio.engine.process.view import EngineView
from studio.jobs.folder import RunStatus
from studio.jobs.queue import JobQueue
from studio.ui.shell.device_busy_box import BlockingJobs, question_words, render
from tests.jobs.lines import lines_of, queued_run, running_run

WAITING = EngineView(phase="waiting", owner="training shoes (process 7)")
SHOES = ImagesSettings(generation=GenerationSettings(prompt="shoes"), num_images=4)


@pytest.fixture
def user_data(tmp_path: Path) -> UserData:
    return UserData(tmp_path)


def shown(
    view: EngineView, user_data: UserData, blocking_jobs: BlockingJobs | None = None
) -> tuple[str, dict[str, str]]:
    """The words, and what each button that can be seen says."""
    parts = render(view, lines_of(user_data), blocking_jobs or BlockingJobs(user_data))
    words = parts.pop("taken-words")
    assert isinstance(words, str)
    box = parts.pop("taken-box")
    assert isinstance(box, dict)
    assert box["visible"] == bool(words)
    seen = {name: part for name, part in parts.items() if isinstance(part, dict) and part.get("visible")}
    return re.sub(r"<[^>]*>", "", words), {name: part.get("value", "") for name, part in seen.items()}


def test_nothing_is_said_while_the_device_is_ours(user_data: UserData) -> None:
    running_run(user_data, "shoes-white", RunStatus(state="waiting"))
    assert shown(EngineView(phase="generating"), user_data) == ("", {})


def test_the_training_is_named_with_its_step_and_time_left_and_can_be_waited_for_paused_or_stopped(
    user_data: UserData,
) -> None:
    running_run(user_data, "shoes-white")
    words, buttons = shown(WAITING, user_data)
    assert words.startswith("Training shoes-white has the device: step 312 of 3,000, 1 h 12 min left.")
    assert buttons == {
        "taken-go-on": "",
        "taken-pause": "Pause the training",
        "taken-stop": "Stop the training",
        "taken-question": "",
    }


def test_its_buttons_are_about_the_jobs_that_it_tells_of(user_data: UserData) -> None:
    blocking_jobs, first = BlockingJobs(user_data), running_run(user_data, "shoes-white")
    both = [first, queued_run(user_data, "second")]
    assert render(WAITING, lines_of(user_data), blocking_jobs)["taken-jobs"] == gr.update(value=both)
    blocking_jobs.pause(both)
    JobQueue(user_data).finish_job(first, "paused", "")
    queued_run(user_data, "third")
    assert render(EngineView(phase="ready"), lines_of(user_data), blocking_jobs)["taken-jobs"] == gr.update(value=both)


def test_jobs_behind_it_are_named_because_they_would_take_the_device_next(user_data: UserData) -> None:
    running_run(user_data, "shoes-white")
    queued_run(user_data, "second")
    queued_run(user_data, "third")
    words, buttons = shown(WAITING, user_data)
    assert "Behind it 2 more wait: second, third." in words
    assert buttons["taken-pause"] == "Pause all 3 jobs"


def test_another_program_can_only_be_waited_for(user_data: UserData) -> None:
    words, buttons = shown(WAITING, user_data)
    assert "in use by training shoes (process 7)" in words
    assert list(buttons) == ["taken-go-on"]


def test_what_waits_is_named_and_can_be_cancelled(user_data: UserData) -> None:
    running_run(user_data, "shoes-white")
    words, buttons = shown(EngineView(phase="waiting", keeps_runs=True), user_data)
    assert "press “Generate”" in words
    assert buttons["taken-cancel"] == "Cancel waiting requests"
    words, buttons = shown(EngineView(phase="waiting", kept=Generate(settings=SHOES)), user_data)
    assert "Waiting here: 4 images to make. It starts automatically as soon as the device is free" in words
    assert buttons["taken-cancel"] == "Cancel waiting request"
    words, _ = shown(EngineView(phase="no model", kept=Smoke(settings=SmokeSettings())), user_data)
    assert "Waiting here: the smoke test. It starts automatically when the engine is ready" in words


def test_one_that_was_asked_is_not_asked_again(user_data: UserData) -> None:
    JobQueue(user_data).pause(running_run(user_data, "shoes-white"))
    words, buttons = shown(WAITING, user_data)
    assert "Training shoes-white was asked to pause: it saves after the current step" in words
    assert list(buttons) == ["taken-go-on"]


def test_after_a_pause_it_offers_to_resume(user_data: UserData) -> None:
    number, blocking_jobs = running_run(user_data, "shoes-white"), BlockingJobs(user_data)
    blocking_jobs.pause([number])
    JobQueue(user_data).finish_job(number, "paused", "")
    words, buttons = shown(EngineView(phase="ready"), user_data, blocking_jobs)
    assert words.startswith("Training shoes-white is paused at step 312 of 3,000. Everything is saved")
    assert buttons == {"taken-resume": "Resume the training"}


def test_the_question_before_a_stop_names_what_ends_and_says_that_nothing_is_lost(user_data: UserData) -> None:
    running_run(user_data, "shoes-white")
    queued_run(user_data, "second")
    words = question_words(lines_of(user_data))
    assert "Stop training shoes-white at step 312 of 3,000?" in words
    assert "nothing is lost" in words
    assert "Jobs behind it would not start either: second." in words
