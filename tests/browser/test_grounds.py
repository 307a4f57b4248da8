"""An image on grey is put on white in the browser: before and after, used, undone."""

from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.page_actions import go_to_tab, open_section, set_field
from tests.browser.studio_process import RunningStudio
from tests.images.scores.drawn import draw

WORK_MILLISECONDS = 60_000


def test_an_image_is_put_on_white_and_back(studio: RunningStudio, open_page: OpenPage, tmp_path: Path) -> None:
    source = tmp_path / f"grounds {tmp_path.name[-6:]}"
    source.mkdir()
    for name in ("grey", "wood"):
        Image.fromarray(draw(name, side=520)).save(source / f"{name}.png")
    page = open_page(studio, ready=False)
    go_to_tab(page, "Dataset")
    set_field(page, "dataset-path", source)
    page.locator("#dataset-open").click()
    expect(page.locator("#dataset-summary")).to_contain_text("2 will be trained on", timeout=WORK_MILLISECONDS)
    page.locator("#dataset-grid .thumb").first.click()
    facts = page.locator("#dataset-facts")
    expect(facts).to_contain_text("0% of the border white")
    open_section(page, "Backgrounds and masks")
    page.locator("#dataset-grounds-preview").click()
    result = page.locator("#dataset-grounds")
    expect(result).to_contain_text("1 image to look at.", timeout=WORK_MILLISECONDS)
    expect(result).to_contain_text("0% before, 100% after")
    for image in result.locator("img").all():
        expect(image).to_have_js_property("complete", True)
        assert image.evaluate("image => image.naturalWidth") > 0
    result.get_by_role("button", name="Use this one").click()
    expect(facts).to_contain_text("100% of the border white", timeout=WORK_MILLISECONDS)
    page.locator("#dataset-undo").click()
    expect(facts).to_contain_text("0% of the border white")
    page.locator("#dataset-grounds-preview-all").click()
    expect(result).to_contain_text("2 images to look at.", timeout=WORK_MILLISECONDS)
    result.get_by_role("button", name="Discard").click()
    expect(result.locator("img")).to_have_count(0)
