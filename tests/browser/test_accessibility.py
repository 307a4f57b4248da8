"""The page for those who use it by keyboard, with a screen reader, in the dark, or on a small screen."""

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.layout import WIDTHS, layout_faults
from tests.browser.page_actions import (
    compare_to_end,
    fill_example,
    finish_run,
    generate_quickly,
    go_to_tab,
    open_batch,
    open_loras,
    open_mode,
    open_panel,
    open_section,
    open_training,
    problem,
    run_to_end,
    save_links,
    slider_sources,
    start_load,
    start_run,
    wait_until_ready,
)
from tests.browser.studio_process import RunningStudio

SECTIONS = ("Steps, guidance, seed",)
GENERATE_SECTIONS = (
    "More LoRAs",
    "Advanced",
    "Load settings from an image",
)
BATCH_SECTIONS = (
    "More LoRAs",
    "Advanced",
    "Prompt file, wildcards, precision",
    "Quality checks",
    "Output files",
    "X/Y grid",
)
light_and_dark = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])


def screen_faults(page: Page) -> list[str]:
    """What axe finds serious or critical, each with its element; what overlaps or is cut off at any of the widths."""
    faults = Axe().run(page).response["violations"]
    found = [
        f"{fault['impact']}: {fault['help']}: {node['html'][:200]} ({node['failureSummary']})"
        for fault in faults
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
    size = page.viewport_size
    assert size is not None
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": size["height"]})
        page.wait_for_timeout(200)  # some parts are laid out anew a few frames later
        found += [f"at {width} px: {fault}" for fault in layout_faults(page)]
    page.set_viewport_size(size)
    return found


@light_and_dark
def test_axe_finds_nothing_serious_on_a_page_that_is_ready(
    studio: RunningStudio, open_page: OpenPage, dark: bool
) -> None:
    page = open_page(studio, dark=dark)
    expect(page.locator("body.dark")).to_have_count(int(dark))
    expect(page.locator("#run-generate")).to_have_css("transition-duration", "0s")  # reduced motion, as asked for
    assert screen_faults(page) == []
    open_mode(page, "Smoke test")
    for name in SECTIONS:
        open_section(page, name)
    assert screen_faults(page) == [], "Smoke test"
    open_loras(page)
    assert screen_faults(page) == [], "LoRA library"
    open_panel(page, "device-box")
    open_section(page, "Why float32? The story of the black images")
    assert screen_faults(page) == [], "model and device"


@light_and_dark
def test_axe_finds_nothing_serious_on_the_other_tabs(studio: RunningStudio, open_page: OpenPage, dark: bool) -> None:
    page = open_page(studio, dark=dark)
    open_batch(page)
    fill_example(page, steps=4)
    for name in BATCH_SECTIONS:
        open_section(page, name)
    assert screen_faults(page) == [], "Batch"
    open_training(page)
    for name in ("LoRA", "The loss", "Validation and checkpoints"):  # those of a run: test_training_runs.py
        open_section(page, name)
    assert screen_faults(page) == [], "Training"


@light_and_dark
def test_axe_finds_nothing_serious_on_the_dataset_tab(studio: RunningStudio, open_page: OpenPage, dark: bool) -> None:
    page = open_page(studio, dark=dark)
    go_to_tab(page, "Dataset")
    expect(page.locator("#dataset-demo")).to_be_visible()
    assert screen_faults(page) == [], "empty, or as another test left it"
    page.locator("#dataset-demo").click()
    expect(page.locator("#dataset-summary")).to_contain_text("60 will be trained on")
    page.locator("#dataset-grid .thumb[data-key='images/10004.jpg']").click()
    expect(page.locator("#dataset-facts")).to_contain_text("images/10004.jpg")
    for name in ("Layout and captions", "Edit captions in bulk", "Doctor", "Statistics", "Export"):
        open_section(page, name)
    expect(page.locator("#dataset-statistics")).to_contain_text("Most frequent words")
    expect(page.locator("#dataset-doctor")).to_contain_text("60 found")
    assert screen_faults(page) == []


def test_axe_finds_nothing_serious_while_a_picture_is_made_and_when_all_are_done(
    studio: RunningStudio, open_page: OpenPage
) -> None:
    light, dark = open_page(studio), open_page(studio, dark=True)
    open_mode(dark, "Smoke test")
    start_run(light)
    expect(light.get_by_alt_text("Preview")).to_be_visible()
    assert screen_faults(light) == []
    light.locator("#cancel-smoke").click()
    wait_until_ready(light)
    assert screen_faults(light) == [], "cancelled"
    run_to_end(light, "PASS")
    dark.reload()
    finish_run(dark, "PASS")
    for page in (light, dark):
        assert screen_faults(page) == []


def test_axe_finds_nothing_serious_where_pictures_are_invalid_or_something_is_wrong(
    studio: RunningStudio, open_page: OpenPage, broken_model: Path
) -> None:
    light, dark = open_page(studio), open_page(studio, dark=True)
    open_mode(dark, "Smoke test")
    start_load(light, str(broken_model))
    expect(light.locator("#status-model")).to_contain_text("model poisoned-green")
    wait_until_ready(light)
    run_to_end(light, "FAIL")
    start_load(light, "/nowhere")
    expect(problem(light)).to_be_visible()
    dark.reload()
    expect(problem(dark)).to_be_visible()
    for page in (light, dark):
        assert screen_faults(page) == []


@light_and_dark
def test_axe_finds_nothing_serious_on_generate_with_a_picture(
    studio: RunningStudio, open_page: OpenPage, dark: bool
) -> None:
    page = open_page(studio, dark=dark)
    open_mode(page, "Generate")
    generate_quickly(page, "red " * 76)
    expect(save_links(page)).to_have_count(1)
    assert screen_faults(page) == []
    for name in GENERATE_SECTIONS:
        open_section(page, name)
    page.locator(".past-open").first.click()
    expect(page.get_by_text("A past image.")).to_be_visible()
    assert screen_faults(page) == [], "all open"


@light_and_dark
def test_axe_finds_nothing_serious_on_compare_with_a_comparison(
    studio: RunningStudio, open_page: OpenPage, dark: bool
) -> None:
    page = open_page(studio, dark=dark)
    open_mode(page, "Compare")
    compare_to_end(page, "black boots", "red sandals")
    slider_sources(page)
    assert screen_faults(page) == []
    page.locator("#make-grid").click()
    open_section(page, "Blind vote")
    page.locator("#vote-start").click()
    expect(page.locator("#vote-ballot img")).to_have_count(2)
    assert screen_faults(page) == [], "during the vote"


def test_nothing_is_cut_off_with_everything_open(page: Page) -> None:
    for mode in ("Generate", "Compare"):
        open_mode(page, mode)
        if mode == "Generate":
            generate_quickly(page, "red boots")
            for name in GENERATE_SECTIONS:
                open_section(page, name)
        else:
            compare_to_end(page, "black boots", "red sandals")
        assert screen_faults(page) == [], mode
    run_to_end(page, "PASS")
    for name in SECTIONS:
        open_section(page, name)
    assert screen_faults(page) == []


def test_everything_on_the_inference_tab_is_reached_by_the_tab_key(page: Page) -> None:
    open_mode(page, "Smoke test")
    for name in SECTIONS:
        open_section(page, name)
    wanted = [
        "model shoes-demo",
        "Notify me when work ends",
        "Keys",
        "Inference",
        "Run the smoke test",
        "Prompt 1",
        "Prompt 2",
        "Prompt 3",
        "Steps, guidance, seed",
        "number input for Steps",
        "number input for Guidance",
        "Seed",
    ]
    page.locator("body").click(position={"x": 1, "y": 1})
    missing, reached = not_reached(page, wanted)
    assert missing == [], reached
    open_panel(page)
    wanted = [
        "Get Stable Diffusion 1.5",
        "Model",
        "Precision and prediction",
        "Load",
        "Check the device against the CPU",
        "Why float32? The story of the black images",
    ]
    missing, reached = not_reached(page, wanted)
    assert missing == [], reached


def not_reached(page: Page, wanted: list[str]) -> tuple[list[str], list[str]]:
    """Those names that the Tab key does not reach from where the focus is, and all that it does."""
    reached: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(NAME_OF_FOCUSED))
        if reached[-1] == "":  # past the last one
            break
    return [n for n in wanted if not any(n == found or found.startswith(f"{n} ") for found in reached)], reached


NAME_OF_FOCUSED = """() => {
  const element = document.activeElement;
  if (element === document.body) return "";
  const label = element.getAttribute("aria-label") || element.closest("label")?.innerText;
  return (label || element.innerText || element.tagName).trim().replace(/\\s+/g, " ");
}"""


def test_the_focus_on_the_main_button_can_be_seen(page: Page) -> None:
    open_mode(page, "Smoke test")
    button = page.locator("#run-smoke")
    look = "button => { const s = getComputedStyle(button); return [s.outlineStyle, parseFloat(s.outlineWidth)]; }"
    assert button.evaluate(look)[0] == "none"
    page.get_by_label("Prompt 1", exact=True).focus()
    page.keyboard.press("Shift+Tab")
    expect(button).to_be_focused()
    style, width = button.evaluate(look)
    assert style == "solid"
    assert width >= 2


def test_the_main_button_runs_and_a_picture_opens_and_closes_by_keyboard(page: Page) -> None:
    run_to_end(page, "PASS", start=lambda page: page.locator("#run-smoke").press("Enter"))
    enlarge = page.get_by_role("button", name="Enlarge image 2")
    enlarge.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("img")).to_be_visible()
    assert dialog.get_by_role("img").bounding_box()["width"] > 400
    assert screen_faults(page) == []
    words = dialog.get_by_role("status")
    expect(words).to_contain_text(re.compile(r"128 × 128, shown × \d\.\d · 2 of 3"))
    page.keyboard.press("1")
    expect(words).to_contain_text("128 × 128 · 2 of 3")
    page.keyboard.press("1")
    second = dialog.get_by_role("img").get_attribute("src")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(words).to_contain_text("1 of 3")
    assert dialog.get_by_role("img").get_attribute("src") != second
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert Image.open(download.value.path()).size == (128, 128)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(enlarge).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("Ctrl or ⌘ + Enter")
    assert screen_faults(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page).to_have_title("LoRA Studio")
