"""What the page says and offers while a job has the device: the jobs are real processes that only pretend to train."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from studio.core.paths import UserData
from studio.jobs.queue import Job, JobQueue
from tests.browser.conftest import OpenPage
from tests.browser.page_actions import (
    activity,
    go_to_tab,
    open_mode,
    press_generate,
    set_field,
    wait_until_ready,
)
from tests.browser.studio_process import RunningStudio, running_studio
from tests.jobs.scripted_jobs import TRAINS, add_job, end_job, new_user_data, patient_worker_process

pytestmark = pytest.mark.slow

SOON_MILLISECONDS = 15_000
READY_MILLISECONDS = 60_000


@pytest.fixture
def user_data(tmp_path: Path) -> Iterator[UserData]:
    """A `user_data/` whose jobs end with the test."""
    with new_user_data(tmp_path) as made:
        yield made


@pytest.fixture
def studio(user_data: UserData) -> Iterator[RunningStudio]:
    with running_studio(user_data.root) as running:
        yield running


def train(user_data: UserData, *names: str) -> list[Job]:
    """Jobs that train, and a worker that starts them one after the other."""
    jobs = [add_job(user_data, name, TRAINS) for name in names]
    for job in jobs:
        (job.run_folder / "settings.json").write_text("{}")
    worker = subprocess.Popen(patient_worker_process(user_data), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert worker.pid
    return jobs


def jobs_line(page: Page) -> Locator:
    """What the line at the top says of the queue."""
    return page.locator("#status-jobs")


def test_the_line_at_the_top_tells_of_the_queue_on_every_tab_and_leads_to_it(
    user_data: UserData, studio: RunningStudio, open_page: OpenPage
) -> None:
    page = open_page(studio)
    expect(jobs_line(page)).to_have_text("")
    first, second, third = train(user_data, "shoes-white", "second", "third")
    page.reload()  # as coming back to the page does, it asks once; from then on it follows
    reported = "training shoes-white 312/3,000 · 1 h 12 min left + 2 waiting"
    expect(jobs_line(page)).to_have_text(reported, timeout=SOON_MILLISECONDS)
    for tab in ("Dataset", "Training", "Batch", "Inference"):
        go_to_tab(page, tab)
        expect(jobs_line(page)).to_have_text(reported)
    page.reload()
    expect(jobs_line(page)).to_have_text(reported)
    expect(activity(page)).to_have_text("engine waits")
    jobs_line(page).get_by_role("link").click()
    expect(page.get_by_role("tab", name="Training", exact=True)).to_have_attribute("aria-selected", "true")
    JobQueue(user_data).stop(third.id)
    expect(jobs_line(page)).to_contain_text("+ 1 waiting", timeout=2_000)
    end_job(first.run)
    expect(jobs_line(page)).to_contain_text("training second 312/3,000", timeout=SOON_MILLISECONDS)
    end_job(second.run)
    expect(jobs_line(page)).to_have_text("", timeout=SOON_MILLISECONDS)


def words(page: Page) -> Locator:
    """What the Inference tab says of who has the device."""
    return page.locator("#taken-words")


def open_while_training(open_page: OpenPage, studio: RunningStudio) -> Page:
    """The page once the training has the device."""
    page = open_page(studio, ready=False)
    expect(words(page)).to_contain_text(
        "has the device: step 312 of 3,000, 1 h 12 min left", timeout=READY_MILLISECONDS
    )
    return page


@pytest.mark.sample
def test_what_is_asked_for_meanwhile_waits_and_begins_by_itself(
    user_data: UserData, studio: RunningStudio, open_page: OpenPage
) -> None:
    (job,) = train(user_data, "shoes-white")
    page = open_while_training(open_page, studio)
    open_mode(page, "Generate", idle=False)
    expect(page.locator("#run-generate")).to_be_disabled()
    page.locator("#taken-go-on").click()
    expect(words(page)).to_contain_text("press “Generate”")
    expect(page.locator("#run-generate")).to_be_enabled()
    set_field(page, "generate-prompt", "casual shoes")
    set_field(page, "generate-num-inference-steps", 3)
    press_generate(page)
    expect(words(page)).to_contain_text("1 image to make. It starts automatically")
    expect(page.locator("#run-generate")).to_be_disabled()
    page.reload()
    expect(words(page)).to_contain_text("1 image to make. It starts automatically")
    page.locator("#taken-cancel").click()
    expect(page.locator("#taken-go-on")).to_be_visible()
    page.locator("#taken-go-on").click()
    open_mode(page, "Smoke test", idle=False)
    expect(page.locator("#run-smoke")).to_be_enabled()
    page.locator("#run-smoke").click()
    expect(words(page)).to_contain_text("the smoke test. It starts automatically")
    end_job(job.run)
    expect(page.locator("#verdict .verdict")).to_contain_text("PASS:", timeout=READY_MILLISECONDS)
    expect(page.locator("#taken-box")).to_be_hidden()


def test_the_training_is_paused_from_here_and_resumed(
    user_data: UserData, studio: RunningStudio, open_page: OpenPage
) -> None:
    first, second = train(user_data, "shoes-white", "second")
    page = open_while_training(open_page, studio)
    expect(words(page)).to_contain_text("Behind it 1 more waits: second.")
    page.get_by_role("button", name="Pause all 2 jobs").click()
    expect(words(page)).to_contain_text(re.compile("was asked to pause|is paused"))  # where that was quick
    wait_until_ready(page)
    expect(words(page)).to_contain_text("Training shoes-white is paused at step 313 of 3,000. So is second.")
    assert [JobQueue(user_data).job(job.id).state for job in (first, second)] == ["paused", "paused"]
    page.reload()
    page.get_by_role("button", name="Resume all 2 jobs").click()
    expect(jobs_line(page)).to_contain_text("+ 1 waiting")
    expect(words(page)).to_contain_text("Training shoes-white has the device", timeout=READY_MILLISECONDS)


def test_a_stop_is_asked_about_once(user_data: UserData, studio: RunningStudio, open_page: OpenPage) -> None:
    (job,) = train(user_data, "shoes-white")
    page = open_while_training(open_page, studio)
    page.locator("#taken-stop").click()
    question = page.locator("#taken-question")
    expect(question).to_contain_text("Stop training shoes-white at step 312 of 3,000? It saves first")
    page.get_by_role("button", name="Keep it running").click()
    expect(question).to_be_hidden()
    assert JobQueue(user_data).job(job.id).asked == ""
    page.locator("#taken-stop").click()
    page.locator("#taken-stop-really").click()
    wait_until_ready(page)
    expect(page.locator("#taken-box")).to_be_hidden()
    assert JobQueue(user_data).job(job.id).state == "stopped"
