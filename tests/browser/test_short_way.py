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
from tests.browser.page_actions import drop_files
from tests.browser.page_actions import training_state as state
from tests.browser.studio_process import running_studio
from tests.browser.test_training import STEP_MILLISECONDS, jobs_ended


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    """A folder of six drawings that nothing was said of."""
    folder = tmp_path / "red and blue"
    folder.mkdir()
    for file in sorted((assets_folder() / "casual-shoes" / "images").glob("*.jpg"))[:6]:
        shutil.copy(file, folder / file.name)
    return folder


def plan(page: Page) -> str:
    return page.locator("#short-plan").inner_text()


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
        expect(page.locator("#short-plan")).to_contain_text("6 images have no caption")
        page.get_by_text("Product", exact=True).click()  # 2
        page.locator("#short-start").click()  # 3
        expect(page.locator(".end-card")).to_be_visible(timeout=3 * STEP_MILLISECONDS)
        expect(state(page)).to_contain_text("Finished")
    assert LoraLibrary(data.loras).find("red and blue")
    (run,) = RunFolder.all_in(data.runs)
    assert read_run_settings(run).trigger_word == "redandblue"
    assert "white background" in run.dataset.read_text(encoding="utf-8")
    assert not run.preparation.exists()
