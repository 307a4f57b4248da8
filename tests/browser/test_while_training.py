"""What the page says and offers while a job has the device: the jobs are real processes that only pretend to train."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from studio.jobs.job import Job
from studio.jobs.queue import JobQueue
from studio.paths import UserData
from tests.browser.conftest import OpenPage
from tests.browser.page_actions import activity, go_to_tab
from tests.browser.studio_process import RunningStudio, running_studio
from tests.jobs.scripted_jobs import TRAINS, add_job, end_job, new_user_data, worker_process

SOON_MILLISECONDS = 15_000


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
    worker = subprocess.Popen(worker_process(user_data), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
    told = "training shoes-white 312/3,000 · 1 h 12 min left + 2 waiting"
    expect(jobs_line(page)).to_have_text(told, timeout=SOON_MILLISECONDS)
    for tab in ("Dataset", "Training", "Batch", "Inference"):
        go_to_tab(page, tab)
        expect(jobs_line(page)).to_have_text(told)
    page.reload()
    expect(jobs_line(page)).to_have_text(told)
    expect(activity(page)).to_contain_text("waiting for the device")
    jobs_line(page).get_by_role("link").click()
    expect(page.get_by_role("tab", name="Training", exact=True)).to_have_attribute("aria-selected", "true")
    JobQueue(user_data).stop(third.id)
    expect(jobs_line(page)).to_contain_text("+ 1 waiting", timeout=2_000)
    end_job(first.run)
    expect(jobs_line(page)).to_contain_text("training second 312/3,000", timeout=SOON_MILLISECONDS)
    end_job(second.run)
    expect(jobs_line(page)).to_have_text("", timeout=SOON_MILLISECONDS)
