"""A folder without captions, captioned by a model in the browser: started, shown, taken, undone."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.page_actions import go_to_tab, open_section, set_field
from tests.browser.studio_process import RunningStudio
from tests.datasets.bad_inputs import encoded, picture
from tests.engine.caption_files import save_captioner

JOB_MILLISECONDS = 120_000


@pytest.fixture
def page(studio: RunningStudio, open_page: OpenPage, tmp_path: Path) -> Page:
    """The Dataset tab with three images that have no caption."""
    source = tmp_path / f"bare {tmp_path.name[-6:]}"
    source.mkdir()
    for name in "abc":
        (source / f"{name}.png").write_bytes(encoded(picture(520, 540), "PNG"))
    opened = open_page(studio, ready=False)
    go_to_tab(opened, "Dataset")
    set_field(opened, "dataset-path", source)
    opened.locator("#dataset-open").click()
    expect(opened.locator("#dataset-summary")).to_contain_text("3 will be trained on")
    return opened


def test_a_folder_is_captioned_by_a_model(page: Page, tmp_path: Path) -> None:
    model = save_captioner("blip", tmp_path / "model")
    open_section(page, "Write captions with a model")
    chosen = page.locator("#dataset-captioning-model input")
    chosen.fill(str(model))
    chosen.press("Enter")
    set_field(page, "dataset-captioning-prefix", "sks")
    set_field(page, "dataset-captioning-num-candidates", "2")
    set_field(page, "dataset-captioning-max-new-tokens", "6")
    page.locator("#dataset-captioning-start").click()
    result = page.locator("#dataset-captioning")
    expect(result).to_contain_text("3 captions to look at.", timeout=JOB_MILLISECONDS)
    grid = page.locator("#dataset-grid")
    expect(grid).to_contain_text("no caption")
    page.reload()
    go_to_tab(page, "Dataset")
    open_section(page, "Write captions with a model")
    result.get_by_role("button", name="Use 3 captions").click()
    expect(grid).not_to_contain_text("no caption")
    expect(grid).to_contain_text("sks")
    expect(result.locator("button[aria-pressed=true]")).to_have_count(3)
    page.locator("#dataset-undo").click()
    expect(grid).to_contain_text("no caption")
    expect(result.locator("button[aria-pressed=true]")).to_have_count(0)
