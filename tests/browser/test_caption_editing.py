"""Captions typed faster than the studio answers: each lands on the image it was typed for, whole, or says why not."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.page_actions import field, go_to_tab, open_section, set_field
from tests.browser.slow_link import SlowLink, slow_link
from tests.browser.studio_process import RunningStudio, wait_for
from tests.datasets.bad_inputs import encoded, picture

LATE_SECONDS = 1.5  # of an answer; Gradio needs several round trips for each of its own
EVENTUALLY = 60_000
NUM_IMAGES = 6


@pytest.fixture
def link(studio: RunningStudio) -> Iterator[SlowLink]:
    with slow_link(studio.port) as wire:
        yield wire


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / f"typed {tmp_path.name[-6:]}")


def make_source(folder: Path, num_images: int = NUM_IMAGES) -> Path:
    """Images 0.png, 1.png … with the captions found 0, found 1 …"""
    folder.mkdir()
    for number in range(num_images):
        path = folder / f"{number}.png"
        path.write_bytes(encoded(picture(520 + number, 540), "PNG"))
        path.with_suffix(".txt").write_text(f"found {number}\n", encoding="utf-8")
    return folder


@pytest.fixture
def page(studio: RunningStudio, link: SlowLink, source: Path, open_page: OpenPage) -> Page:
    """The dataset, open and checked, at the other end of a wire that is slow from now on."""
    opened = open_page(studio, ready=False, at=link.url)
    open_dataset(opened, source)
    link.seconds = LATE_SECONDS / 2  # on the way there, and on the way back
    return opened


def open_dataset(page: Page, source: Path, num_images: int = NUM_IMAGES, *, shown: int = NUM_IMAGES) -> None:
    """Open a folder, wait until all of it is checked, and until its grid is on the page."""
    go_to_tab(page, "Dataset")
    set_field(page, "dataset-path", source)
    page.locator("#dataset-open").click()
    expect(page.locator("#dataset-summary")).to_contain_text(f"{num_images} will be trained on")
    expect(page.locator("#dataset-layout-words")).to_contain_text(str(source))
    grid = page.locator(f"#dataset-grid .thumbs[data-dataset='{source.name}']")
    expect(grid.locator(".thumb img")).to_have_count(shown)


def caption(page: Page) -> Locator:
    return page.locator("#dataset-caption textarea")


def thumb(page: Page, key: str) -> Locator:
    return page.locator(f"#dataset-grid .thumb[data-key='{key}']")


def edits(studio: RunningStudio, source: Path) -> dict[str, str]:
    """The captions that the dataset's log of edits comes to, without the studio's own reading of it."""
    log = studio.user_data.datasets / source.name / "edits.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    found: dict[str, str] = {}
    for line in map(json.loads, lines):
        assert line["act"] in ("do", "amend"), "this reading knows no undo"
        found |= {key: change["after"] for key, change in line["edit"]["captions"].items()}
    return found


def wait_for_edits(studio: RunningStudio, source: Path, wanted: dict[str, str]) -> None:
    """Wait until they are as wanted, and see that nothing late makes them others."""
    wait_for(lambda: edits(studio, source) == wanted or None, what=f"{wanted}, not {edits(studio, source)}", seconds=30)
    time.sleep(3 * LATE_SECONDS)
    assert edits(studio, source) == wanted


def type_anew(page: Page, words: str, *, delay: float = 0) -> None:
    """Enter, Ctrl+A, and the new caption, as fast as a keyboard can; Enter leaves the box."""
    page.keyboard.press("Enter")
    page.keyboard.press("Control+a")
    page.keyboard.type(words, delay=delay)
    page.keyboard.press("Enter")


def look_at(tab: Page) -> None:
    """Come to a tab from another one; without a window the browser tells none."""
    tab.bring_to_front()
    tab.evaluate("window.dispatchEvent(new Event('focus'))")


def test_fast_typing_over_several_images_lands_where_it_was_typed(
    studio: RunningStudio, page: Page, link: SlowLink, source: Path
) -> None:
    link.seconds = LATE_SECONDS
    thumb(page, "0.png").click()
    wanted = {}
    for number in range(1, 5):
        page.keyboard.press("ArrowRight")
        wanted[f"{number}.png"] = f"typed for {number}, with an x"
        type_anew(page, wanted[f"{number}.png"])
    wait_for_edits(studio, source, wanted)
    expect(page.locator("#dataset-facts")).to_contain_text("4.png", timeout=EVENTUALLY)
    for number in (3, 2, 1, 0):
        page.keyboard.press("ArrowLeft")
        expect(caption(page)).to_have_value(wanted.get(f"{number}.png", f"found {number}"), timeout=300)


def test_another_image_is_there_at_once_with_nothing_of_the_one_before(page: Page) -> None:
    thumb(page, "1.png").click()
    expect(page.locator("#dataset-facts")).to_contain_text("1.png")
    expect(page.locator("#dataset-saved")).to_contain_text("of 75 tokens")
    page.keyboard.press("ArrowRight")
    expect(caption(page)).to_have_value("found 2", timeout=300)
    expect(thumb(page, "2.png")).to_have_attribute("aria-current", "true", timeout=300)
    expect(page.locator("#dataset-picture")).to_be_hidden(timeout=300)
    expect(page.locator("#dataset-caption .stand-in img")).to_be_visible(timeout=300)
    expect(page.locator("#dataset-caption .stand-in")).to_contain_text("2.png", timeout=300)
    expect(page.locator("#dataset-saved")).to_have_text("", timeout=300)
    expect(page.locator("#dataset-picture img")).to_be_visible()
    expect(page.locator("#dataset-caption .stand-in")).to_be_hidden()
    expect(page.locator("#dataset-facts")).to_contain_text("2.png")
    expect(page.locator("#dataset-saved")).to_contain_text("of 75 tokens")


def test_answers_that_arrive_while_one_types_on_leave_the_box_alone(
    studio: RunningStudio, page: Page, source: Path
) -> None:
    thumb(page, "2.png").click()
    words = "slowly typed words  with two spaces"
    type_anew(page, words, delay=250)
    expect(caption(page)).to_have_value(words)
    wait_for_edits(studio, source, {"2.png": " ".join(words.split())})
    expect(caption(page)).to_have_value(" ".join(words.split()))
    expect(page.locator("#dataset-saved")).to_contain_text("from your edit · saved")


def test_what_was_typed_is_saved_before_it_is_undone(page: Page) -> None:
    thumb(page, "2.png").click()
    type_anew(page, "first")
    page.keyboard.press("Control+z")
    expect(page.locator("#dataset-redo")).to_contain_text("caption of 2.png", timeout=EVENTUALLY)
    expect(caption(page)).to_have_value("found 2")
    page.locator("#dataset-redo").click()
    expect(caption(page)).to_have_value("first")


def test_what_is_excluded_is_the_image_that_the_page_shows(page: Page) -> None:
    thumb(page, "2.png").click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    expect(thumb(page, "3.png").locator(".badge")).to_contain_text("excluded")
    expect(page.locator("#dataset-grid .badge.out")).to_have_count(1)


def test_of_two_tabs_the_last_to_save_wins_and_only_an_untouched_box_follows(
    studio: RunningStudio, page: Page, source: Path, open_page: OpenPage
) -> None:
    other = open_page(studio, ready=False)
    go_to_tab(other, "Dataset")
    for tab in (page, other):
        look_at(tab)
        thumb(tab, "2.png").click()
        expect(caption(tab)).to_have_value("found 2")
    look_at(page)
    page.keyboard.press("Enter")
    page.keyboard.press("Control+a")
    page.keyboard.type("begun here")
    expect(page.locator("#dataset-saved")).to_contain_text("saved")
    look_at(other)
    expect(caption(other)).to_have_value("begun here")  # nobody types there
    type_anew(other, "from the other tab")
    wait_for(lambda: edits(studio, source) == {"2.png": "from the other tab"} or None, what="the other tab's caption")
    look_at(page)
    page.wait_for_timeout(4000 * LATE_SECONDS)
    expect(caption(page)).to_have_value("begun here")  # somebody types here
    page.keyboard.type(", ended here")
    page.keyboard.press("Enter")
    wait_for_edits(studio, source, {"2.png": "begun here, ended here"})
    look_at(other)
    expect(caption(other)).to_have_value("begun here, ended here")


def test_a_page_goes_on_with_its_dataset_when_another_page_opens_one(
    studio: RunningStudio, page: Page, source: Path, open_page: OpenPage, tmp_path: Path
) -> None:
    thumb(page, "2.png").click()
    page.keyboard.press("Enter")
    page.keyboard.press("Control+a")
    page.keyboard.type("for the first")
    wait_for(lambda: edits(studio, source) or None, what="the first half")
    other, second = open_page(studio, ready=False), make_source(tmp_path / f"second {tmp_path.name[-6:]}")
    open_dataset(other, second)
    look_at(page)
    page.wait_for_timeout(4000 * LATE_SECONDS)
    expect(page.locator("#dataset-layout-words")).to_contain_text(str(source))
    page.keyboard.type(" dataset")
    page.keyboard.press("Enter")
    expect(caption(page)).to_have_value("for the first dataset")
    wait_for_edits(studio, source, {"2.png": "for the first dataset"})
    assert edits(studio, second) == {}


def test_a_caption_lands_in_the_dataset_it_was_typed_for_when_its_page_opens_another(
    studio: RunningStudio, page: Page, source: Path, tmp_path: Path
) -> None:
    second = make_source(tmp_path / f"second {tmp_path.name[-6:]}", 3)
    thumb(page, "2.png").click()
    type_anew(page, "for the first dataset")
    field(page, "dataset-path").fill(str(second))
    page.locator("#dataset-open").click()
    expect(page.locator(f"#dataset-grid .thumbs[data-dataset='{second.name}']")).to_be_visible(timeout=EVENTUALLY)
    expect(caption(page)).to_be_disabled()  # its image is not on this page any more
    wait_for_edits(studio, source, {"2.png": "for the first dataset"})
    assert edits(studio, second) == {}
    thumb(page, "2.png").click()
    expect(caption(page)).to_have_value("found 2")


def test_what_cannot_be_saved_stays_is_said_and_is_saved_when_it_can_be(
    studio: RunningStudio, page: Page, link: SlowLink, source: Path
) -> None:
    link.seconds = 0.1
    thumb(page, "2.png").click()
    link.broken = True
    type_anew(page, "typed while the studio was away")
    unsaved = page.locator("#dataset-caption .unsaved")
    expect(unsaved).to_contain_text("The caption of 2.png is not saved: The studio does not answer.")
    page.keyboard.press("ArrowRight")
    expect(unsaved).to_contain_text("The caption of 2.png is not saved")
    expect(thumb(page, "2.png")).to_have_class(re.compile("not-saved"))
    page.keyboard.press("ArrowLeft")
    expect(caption(page)).to_have_value("typed while the studio was away")
    assert edits(studio, source) == {}
    link.broken = False
    wait_for(lambda: edits(studio, source) == {"2.png": "typed while the studio was away"} or None, what="the caption")
    expect(unsaved).to_be_hidden()


def test_the_caption_of_an_image_that_is_gone_stays_in_the_box_with_a_sentence(
    studio: RunningStudio, page: Page, source: Path, open_page: OpenPage
) -> None:
    thumb(page, "2.png").click()
    page.keyboard.press("Enter")
    (source / "2.png").unlink()
    other = open_page(studio, ready=False)
    go_to_tab(other, "Dataset")
    open_section(other, "Layout and captions")
    expect(other.locator("#dataset-template-preview")).to_contain_text("found 1")  # the form is filled
    expect(other.locator("#dataset-grid .thumb")).to_have_count(NUM_IMAGES)
    # As on a slow machine, where the form is there before the images: the press is about the dataset all the same.
    other.evaluate("document.querySelector('#dataset-grid .thumbs').remove()")
    other.locator("#dataset-apply-recipe").click()
    expect(other.locator("#dataset-grid .thumb")).to_have_count(NUM_IMAGES - 1)
    look_at(page)
    page.keyboard.type(" of one that is gone")
    page.keyboard.press("Enter")
    expect(page.locator("#dataset-caption .unsaved")).to_contain_text("has no image 2.png")
    expect(caption(page)).to_have_value("found 2 of one that is gone")
    assert edits(studio, source) == {}
    page.get_by_role("button", name="Discard this text").click()
    expect(page.locator("#dataset-caption .unsaved")).to_be_hidden()


def test_text_typed_in_the_last_moment_is_saved_though_the_page_is_left(
    studio: RunningStudio, page: Page, link: SlowLink, source: Path
) -> None:
    thumb(page, "2.png").click()
    page.keyboard.press("Enter")
    page.keyboard.type(", and left")
    page.goto("about:blank")
    wait_for(lambda: edits(studio, source) == {"2.png": "found 2, and left"} or None, what="the caption")


def test_the_first_image_of_the_next_page_is_there_at_once(
    studio: RunningStudio, link: SlowLink, open_page: OpenPage, tmp_path: Path
) -> None:
    folder = make_source(tmp_path / f"pages {tmp_path.name[-6:]}", 62)
    page = open_page(studio, ready=False, at=link.url)
    open_dataset(page, folder, 62, shown=60)
    link.seconds = LATE_SECONDS / 2  # on the way there, and on the way back
    thumb(page, "59.png").click()
    page.keyboard.press("ArrowRight")
    expect(caption(page)).to_have_value("found 60", timeout=300)
    type_anew(page, "first of the second page")
    expect(page.locator("#dataset-grid .thumb")).to_have_count(2, timeout=EVENTUALLY)
    expect(thumb(page, "60.png")).to_have_attribute("aria-current", "true")
    page.keyboard.press("ArrowLeft")
    expect(caption(page)).to_have_value("found 59", timeout=300)
    expect(page.locator("#dataset-grid .thumb")).to_have_count(60, timeout=EVENTUALLY)
    wait_for_edits(studio, folder, {"60.png": "first of the second page"})


def test_hostile_captions_are_text(studio: RunningStudio, page: Page, source: Path) -> None:
    hostile = "</textarea>\"'><img src=x onerror=\"document.title='run'\"> ${1+1} {{1+1}}"
    thumb(page, "2.png").click()
    type_anew(page, hostile)
    wait_for_edits(studio, source, {"2.png": hostile})
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(caption(page)).to_have_value(hostile)
    expect(thumb(page, "2.png")).to_contain_text("${1+1} {{1+1}}", timeout=EVENTUALLY)
    assert page.title() != "run"


def test_the_box_can_be_used_by_keyboard_and_has_its_name(page: Page) -> None:
    thumb(page, "2.png").click()
    expect(page.get_by_label("Caption", exact=True)).to_have_value("found 2")
    page.keyboard.press("Enter")
    expect(caption(page)).to_be_focused()
    page.keyboard.press("ArrowRight")  # moves the caret alone
    page.keyboard.press("Escape")
    expect(caption(page)).not_to_be_focused()
    expect(caption(page)).to_have_value("found 2")


def test_several_captions_of_an_image_have_no_tags_of_one(
    studio: RunningStudio, open_page: OpenPage, source: Path
) -> None:
    page = open_page(studio, ready=False)
    open_dataset(page, source)
    chips, new_tag = page.locator("#dataset-caption .chip"), page.locator("#dataset-caption .new-tag")
    thumb(page, "0.png").click()
    caption(page).fill("a boot, red")
    expect(chips).to_have_text(["a boot ✕", "red ✕"])
    expect(new_tag).to_be_enabled()
    caption(page).fill("a boot, red || red boots, new")
    expect(chips).to_have_count(0)
    expect(new_tag).to_be_disabled()
    thumb(page, "1.png").click()
    expect(new_tag).to_be_enabled()
    thumb(page, "0.png").click()
    expect(caption(page)).to_have_value("a boot, red || red boots, new")
    expect(new_tag).to_be_disabled()
    caption(page).fill("1girl, ||_||")
    expect(chips).to_have_text(["1girl ✕", "||_|| ✕"])
