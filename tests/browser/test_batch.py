"""The Batch tab, driven as a person does: from an example to a dataset, through stop, reload, kill and resume."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from studio.batches.folder import BatchFolder
from studio.batches.ledger import read_items
from studio.core.paths import UserData
from studio.jobs.folder import read_status
from tests.browser.conftest import OpenPage
from tests.browser.page_actions import (
    expect_nothing_asked,
    fill_example,
    go_to_tab,
    offered,
    open_batch,
    open_section,
    set_field,
    toast,
)
from tests.browser.studio_process import RunningStudio, running_studio, wait_for
from tests.browser.test_training import jobs_ended

MAKING_MILLISECONDS = 180_000


def state(page: Page) -> Locator:
    """What the batch that is looked at does, in words."""
    return page.locator("#batch-state .verdict")


def preview(page: Page) -> Locator:
    return page.locator("#batch-preview")


@pytest.mark.slow
@pytest.mark.sample
@pytest.mark.timeout(600)
def test_from_an_example_through_kill_stop_and_resume_to_a_dataset(tmp_path: Path, open_page: OpenPage) -> None:
    folder = tmp_path / "data"
    with jobs_ended(UserData(folder)):
        with running_studio(folder) as studio:
            page = open_page(studio)
            open_batch(page)
            expect(state(page)).to_contain_text("No batch was made yet.")
            fill_example(page, steps=8)  # fewer may be done before a slow machine has started the studio again
            expect(preview(page)).to_contain_text("60 images")
            expect(preview(page).locator(".plan-values table", has_text="black")).to_contain_text("12")
            page.locator("#start-batch").click()
            expect(state(page)).to_contain_text("Running.", timeout=MAKING_MILLISECONDS)
            expect(page.locator(".latest img").first).to_be_visible(timeout=MAKING_MILLISECONDS)
            expect(page.locator("#batch-memory [role=meter]")).to_be_visible()
            studio.process.kill()
            studio.process.wait()
        with running_studio(folder) as studio:
            page = open_page(studio, ready=False)
            _stop_and_resume(page, UserData(folder))
            expect(page.locator("#batch-report")).to_contain_text("60 of 60 images are made and valid")
            expect(page.locator("#batch-report")).to_contain_text("Images of each value")
            expect(page.locator("#batch-sheet img")).to_be_visible()
            expect(page.locator("#status-activity")).to_have_text("ready", timeout=MAKING_MILLISECONDS)
            expect_nothing_asked(page)
            _open_as_dataset(page, UserData(folder))


def _stop_and_resume(page: Page, user_data: UserData) -> None:
    """The job ran on without a page; it is stopped, is still stopped after a reload, and goes on to its end."""
    open_batch(page)
    expect(state(page)).to_contain_text("Running.", timeout=5_000)
    expect(state(page)).to_contain_text(re.compile(r"ready at \d\d:\d\d"))
    page.locator("#batch-stop").click()
    expect(state(page)).to_contain_text("Stopped.", timeout=MAKING_MILLISECONDS)
    batch = BatchFolder.all_in(user_data.batches)[0]
    made = len(list(read_items(batch.ledgers)))
    assert 0 < made < 60
    page.reload()
    open_batch(page)
    expect(state(page)).to_contain_text(f"{made} of 60 images")
    expect(page.locator("#batch-past")).to_contain_text("stopped")
    page.locator("#batch-resume").click()
    expect(state(page)).to_contain_text("Finished.", timeout=2 * MAKING_MILLISECONDS)
    assert [row.item for row in read_items(batch.ledgers) if row.state == "done"] == list(range(60))


def _open_as_dataset(page: Page, user_data: UserData) -> None:
    """It is a dataset like any other, says where it came from, and can be trained on."""
    name = BatchFolder.all_in(user_data.batches)[0].name
    page.locator("#batch-as-dataset").click()
    summary = page.locator("#dataset-summary")
    expect(summary).to_contain_text("60 will be trained on", timeout=MAKING_MILLISECONDS)
    expect(summary).to_contain_text("Synthetic: drawn by shoes-demo with the LoRA white-ground")
    expect(page.locator("#dataset-grid .thumb")).to_have_count(60)
    go_to_tab(page, "Training")
    assert name in offered(page, "training-dataset")


@pytest.mark.slow
def test_measuring_tells_time_disk_and_when_it_is_ready(studio: RunningStudio, page: Page) -> None:
    open_batch(page)
    fill_example(page, steps=2)
    page.locator("#measure-batch").click()
    expect(page.locator("#batch-forecast .verdict")).to_contain_text("60 images in", timeout=MAKING_MILLISECONDS)
    expect(page.locator("#batch-forecast .verdict")).to_contain_text(re.compile(r"ready at .*\d\d:\d\d, .* of disk"))
    assert not BatchFolder.all_in(studio.user_data.batches)
    wait_for(lambda: " ready " in studio.shown(), what="the engine to come back", seconds=90)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_grid_of_two_settings_is_shown_large(
    tmp_path: Path, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for screen in ("DISPLAY", "WAYLAND_DISPLAY"):  # or the button below would open a window here
        monkeypatch.delenv(screen, raising=False)
    with jobs_ended(UserData(tmp_path)), running_studio(tmp_path) as studio:
        page = open_page(studio)
        open_batch(page)
        set_field(page, "batch-prompts", "product photo of {y} boots, white background")
        open_section(page, "X/Y grid")
        set_field(page, "batch-grid-across-values", "2, 4")
        page.locator("#batch-grid-down input").click()
        page.get_by_role("option", name="a word of the prompts").click()
        set_field(page, "batch-grid-down-values", "red, black")
        page.locator("#batch-grid-fill").click()
        expect(preview(page)).to_contain_text("4 images")
        page.locator("#start-batch").click()
        expect(state(page)).to_contain_text("Finished.", timeout=MAKING_MILLISECONDS)
        expect(page.locator("#batch-sheet")).to_contain_text("X/Y grid")
        expect(page.locator("#batch-sheet img")).to_be_visible()
        batch = BatchFolder.all_in(UserData(tmp_path).batches)[0]
        assert len({row.seed for row in read_items(batch.ledgers)}) == 1, "one seed in all of its cells"
        assert read_status(batch).state == "finished"
        page.locator("#batch-folder").click()
        expect(toast(page)).to_contain_text(str(batch.root))
        page.locator("#batch-duplicate").click()
        open_section(page, "How it is stored")
        expect(page.locator("#batch-grid-x textarea, #batch-grid-x input")).to_have_value("num_inference_steps")


def test_the_preview_follows_what_is_typed_and_says_what_is_wrong(page: Page) -> None:
    open_batch(page)
    expect(preview(page)).to_contain_text("What would be made is shown here")
    set_field(page, "batch-prompts", "{colour} boots")
    set_field(page, "batch-attributes", "colour: black, red, \"<img src=x onerror='window.ran=true'>\"")
    expect(preview(page)).to_contain_text("3 images", timeout=6_000)
    expect(preview(page)).to_contain_text("<img src=x onerror=")
    assert page.evaluate("window.ran") is None
    open_section(page, "How it is stored")
    set_field(page, "batch-grid-x", "shape")
    problem = page.locator("#batch-problem .problem")
    expect(problem).to_contain_text("grid_x must be a column of the plan", timeout=6_000)
    page.locator("#start-batch").click()
    expect(toast(page)).to_contain_text("grid_x must be a column of the plan")
    set_field(page, "batch-grid-x", "colour")
    expect(problem).to_have_count(0)
