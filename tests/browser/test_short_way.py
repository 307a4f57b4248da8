"""The short way: from a dropped folder of drawings without captions to a finished LoRA, in three presses."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from studio.core.paths import UserData, assets_folder
from studio.loras.library import LoraLibrary
from studio.training.begin import read_run_settings
from studio.training.folder import RunFolder
from tests.browser.conftest import OpenPage
from tests.browser.page_actions import drop_files, field, field_error, go_to_tab, set_field
from tests.browser.page_actions import training_state as state
from tests.browser.studio_process import RunningStudio, running_studio
from tests.browser.test_accessibility import screen_faults
from tests.browser.test_training import STEP_MILLISECONDS, jobs_ended


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    """A folder of six drawings that nothing was said of."""
    folder = tmp_path / "red and blue"
    folder.mkdir()
    for file in sorted((assets_folder() / "casual-shoes" / "images").glob("*.jpg"))[:6]:
        shutil.copy(file, folder / file.name)
    return folder


@pytest.mark.slow
@pytest.mark.sample
@pytest.mark.timeout(600)
def test_three_presses_lead_from_a_dropped_folder_to_a_lora(
    tmp_path: Path, drawings: Path, open_page: OpenPage
) -> None:
    data = UserData(tmp_path / "data")
    with jobs_ended(data), running_studio(data.root) as studio:
        page = open_page(studio)
        page.get_by_role("tab", name="Training", exact=True).click()  # 1
        drop_files(page, "short-drop", drawings)
        expect(page.locator("#short-plan")).to_contain_text("6 images of red and blue are trained on.")
        expect(page.locator("#short-plan")).to_contain_text("6 images without a caption")
        page.locator("#short-kind label").first.click()  # 2
        page.locator("#short-start").click()  # 3
        expect(page.locator(".end-card")).to_be_visible(timeout=3 * STEP_MILLISECONDS)
        expect(state(page)).to_contain_text("Finished")
    assert LoraLibrary(data.loras).find("red and blue")
    (run,) = RunFolder.all_in(data.runs)
    assert read_run_settings(run).trigger_word == "redandblue"
    assert "white background" in run.dataset.read_text(encoding="utf-8")
    assert not run.preparation.exists()


@pytest.fixture
def short(studio: RunningStudio, open_page: OpenPage) -> Page:
    """The short way on a page that chose nothing yet."""
    page = open_page(studio, ready=False)
    go_to_tab(page, "Training")
    expect(page.locator("#short-start")).to_be_visible()
    return page


def choose_images(page: Page, typed: object) -> None:
    box = page.locator("#short-dataset input")
    box.fill(str(typed))
    box.press("Enter")


def test_what_cannot_be_trained_on_is_said_at_the_images_and_nothing_starts(short: Page, tmp_path: Path) -> None:
    short.locator("#short-start").click()
    expect(field_error(short, "short-dataset")).to_contain_text("Type the path of a folder, or drop one.")
    choose_images(short, tmp_path / "nowhere")
    expect(field_error(short, "short-dataset")).to_contain_text("nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    choose_images(short, empty)
    expect(field_error(short, "short-dataset")).to_contain_text("There is no image in")
    expect(short.locator("#training-queue")).not_to_contain_text("running")


def test_a_sentence_leads_to_its_field_and_the_full_form_has_what_follows(short: Page, drawings: Path) -> None:
    choose_images(short, drawings)
    plan = short.locator("#short-plan")
    expect(plan).to_contain_text("“redandblue” in a prompt")
    plan.locator("button[data-about=trigger_word]").click()
    expect(field(short, "short-trigger-word")).to_be_focused()
    set_field(short, "short-trigger-word", "ohwx")
    expect(plan).to_contain_text("“ohwx” in a prompt")
    assert screen_faults(short) == []
    short.reload()
    go_to_tab(short, "Training")
    expect(plan).to_contain_text("“ohwx” in a prompt")
    plan.locator("button[data-about=max_train_steps]").click()
    expect(field(short, "training-max-train-steps")).to_be_focused()
    expect(field(short, "training-max-train-steps")).to_have_value("94")
    expect(field(short, "training-trigger-word")).to_have_value("ohwx")
    expect(short.locator("#short-start")).to_be_hidden()
