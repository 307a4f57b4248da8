"""The Training tab, driven as a person does: from the demo dataset to a finished LoRA, through reload and kill."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect

from studio.core.paths import UserData
from studio.jobs.folder import read_status
from studio.jobs.queue import JobQueue
from studio.loras.library import LoraLibrary
from studio.training.folder import RunFolder
from tests.browser.conftest import OpenPage
from tests.browser.page_actions import (
    choose_quick_try,
    field,
    field_error,
    open_section,
    open_training,
    set_field,
    set_training_number,
)
from tests.browser.page_actions import training_state as state
from tests.browser.studio_process import RunningStudio, running_studio, wait_for

STEP_MILLISECONDS = 120_000


@contextmanager
def jobs_ended(user_data: UserData) -> Iterator[None]:
    """What a test queued does not outlive it: jobs live on when their studio ends."""
    try:
        yield
    finally:
        if user_data.database.is_file():
            for job in JobQueue(user_data).jobs():
                if job.pid and psutil.pid_exists(job.pid):
                    os.kill(job.pid, signal.SIGKILL)
        for process in psutil.process_iter(["cmdline"]):
            line = process.info["cmdline"] or []
            if "studio.jobs.worker" in line and str(user_data.root) in line:
                process.kill()


@pytest.mark.slow
@pytest.mark.sample
@pytest.mark.timeout(600)
def test_from_the_demo_dataset_to_a_lora_through_reload_kill_stop_and_resume(
    tmp_path: Path, open_page: OpenPage
) -> None:
    folder = tmp_path / "data"
    with jobs_ended(UserData(folder)):
        with running_studio(folder) as studio:
            page = open_page(studio)
            open_training(page)
            expect(state(page)).to_contain_text("No runs yet.")
            choose_quick_try(page, steps=150)
            page.locator("#run-preflight").click()
            expect(page.locator("#preflight-words .verdict")).to_contain_text("150 steps ≈", timeout=STEP_MILLISECONDS)
            expect(page.locator("#preflight-offer-0")).to_be_visible()
            _free_more_memory(page)
            page.locator("#start-training").click()
            expect(state(page)).to_contain_text(re.compile(r"Running|Making images"), timeout=STEP_MILLISECONDS)
            expect(page.locator("#training-plot svg.chart").first).to_be_visible(timeout=STEP_MILLISECONDS)
            expect(page.locator("#training-state [role=meter]")).to_be_visible()
            expect(page.locator("#training-samples img:visible").first).to_be_visible(timeout=STEP_MILLISECONDS)
            page.reload()
            open_training(page)
            expect(state(page)).to_contain_text("of 150", timeout=5_000)
            expect(page.locator("#training-plot svg.chart").first).to_be_visible(timeout=5_000)
            studio.process.kill()
            studio.process.wait()
        _finish_in_another_studio(folder, open_page)


def _free_more_memory(page: Page) -> None:
    """The preflight's slider moves the point on the curve, and the form's settings."""
    slider = page.get_by_role("slider", name="Part of the activations' memory to free")
    expect(page.locator(".checkpointing output")).to_contain_text("0% freed")
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    expect(page.locator(".checkpointing output")).to_contain_text("20% freed")
    expect(page.locator("#training-changes")).to_contain_text("Checkpointed part 20")
    expect(page.locator("#training-changes")).to_contain_text("Gradient checkpointing part")


def _finish_in_another_studio(folder: Path, open_page: OpenPage) -> None:
    """The job ran on; a new studio finds it, stops it, resumes it, and its LoRA is in the library."""
    with running_studio(folder) as studio:
        page = open_page(studio, ready=False)
        open_training(page)
        expect(state(page)).to_contain_text("of 150", timeout=5_000)
        page.locator("#training-stop").click()
        expect(state(page)).to_contain_text("Stopped.", timeout=STEP_MILLISECONDS)
        run = RunFolder.all_in(UserData(folder).runs)[0]
        assert 0 < read_status(run).step < 150
        page.locator("#training-resume").click()
        expect(state(page)).to_contain_text("Finished.", timeout=3 * STEP_MILLISECONDS)
        expect(page.locator("#training-end")).to_contain_text("is recommended")
        expect(page.locator(".step-scores tbody tr").first).to_contain_text("white border")
        wait_for(lambda: " ready " in studio.shown(), what="the engine to come back", seconds=90)
        assert "lora" in LoraLibrary(UserData(folder).loras).names()
        expect(page.locator(".score-charts svg.chart").first).to_be_visible()
        expect(page.locator(".nearest-figure img").first).to_be_visible()


def test_a_field_that_breaks_its_rule_says_so_until_it_changes(page: Page) -> None:
    open_training(page)
    set_field(page, "training-name", "no/such name")
    open_section(page, "The loss")
    set_field(page, "training-huber-c", 0)
    page.get_by_role("button", name="The loss").click()  # folded away
    page.locator("#start-training").click()
    name, huber_c = field_error(page, "training-name"), field_error(page, "training-huber-c")
    expect(name).to_contain_text("Name must have 1 to 80 characters")
    expect(huber_c).to_be_hidden()
    open_section(page, "The loss")
    expect(huber_c).to_have_text("Huber c must be between 0.0001 and 100, got 0.")
    expect(field(page, "training-huber-c")).to_have_accessible_description(huber_c.inner_text())
    expect(field(page, "training-huber-c")).to_have_attribute("aria-invalid", "true")
    said = page.locator("#training-errors")
    expect(said).to_contain_text("2 fields need fixing.")
    page.get_by_role("radio", name="Style").check()  # which has a Huber c, and no name
    expect(huber_c).to_have_count(0)
    expect(name).to_be_visible()
    set_field(page, "training-name", "a name")
    expect(name).to_have_count(0)
    expect(said).to_be_hidden()


def test_a_dataset_that_is_not_there_is_said(page: Page) -> None:
    open_training(page)
    box = page.locator("#training-dataset input")
    box.fill("/nowhere/at/all")
    box.press("Enter")
    page.locator("#start-training").click()
    expect(field_error(page, "training-dataset")).to_contain_text("There is no dataset")


def test_a_preset_fills_the_form_and_says_what_it_is_for(studio: RunningStudio, page: Page) -> None:
    open_training(page)
    page.get_by_role("radio", name="Product photos").check()
    expect(page.locator("#training-purpose")).to_contain_text("White backgrounds")
    open_section(page, "The loss")
    expect(page.locator("#training-noise-offset input")).to_have_value("0.1")
    page.get_by_role("radio", name="Default").check()
    expect(page.locator("#training-noise-offset input")).to_have_value("0")


def test_what_differs_from_the_preset_is_named_put_back_searched_saved_and_loaded(page: Page, tmp_path: Path) -> None:
    open_training(page)
    page.get_by_role("radio", name="Quick try").check()
    page.locator("#training-reset").click()
    chips = page.locator("#training-changes .chips button")
    expect(chips).to_have_count(0)
    set_training_number(page, "rank", "32")
    expect(chips).to_have_text(["Rank 32 ✕"])
    page.locator("#training-search").fill("noise offset")
    set_training_number(page, "noise-offset", "0.3")  # its section was unfolded
    expect(page.locator("#training-rank")).to_be_hidden()
    expect(chips).to_have_text(["Rank 32 ✕", "Noise offset 0.3 ✕"])
    page.locator("#training-search").fill("")
    expect(page.locator("#training-rank")).to_be_visible()
    with page.expect_download() as saved:
        page.locator("#training-save-settings").click()
    saved.value.save_as(tmp_path / "mine.json")
    chips.first.click()
    expect(field(page, "training-rank")).to_have_value("8")
    expect(chips).to_have_count(1)
    with page.expect_file_chooser() as chooser:
        page.locator("#training-load-settings").click()
    chooser.value.set_files(tmp_path / "mine.json")
    expect(field(page, "training-rank")).to_have_value("32")
    expect(chips).to_have_count(2)
    page.locator("#training-reset").click()
    expect(chips).to_have_count(0)
