"""The Dataset tab as a person uses it: drop, look, type, filter, mend, export; and all is there after a reload."""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect

from studio.core.paths import assets_folder
from tests.browser.conftest import OpenPage
from tests.browser.layout import WIDTHS, layout_faults
from tests.browser.page_actions import (
    choose,
    drop_files,
    expect_nothing_asked,
    field,
    field_error,
    go_to_tab,
    open_section,
    set_field,
)
from tests.browser.studio_process import RunningStudio, wait_for
from tests.datasets.bad_inputs import encoded, picture

SHOES = assets_folder() / "casual-shoes"
WAIT_MILLISECONDS = 30_000


@pytest.fixture
def page(studio: RunningStudio, open_page: OpenPage) -> Page:
    """The Dataset tab of the studio that all tests share."""
    opened = open_page(studio, ready=False)
    go_to_tab(opened, "Dataset")
    expect(opened.locator("#dataset-path textarea, #dataset-path input")).to_be_visible()
    return opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eight sound images in two folders; one transparent, one cut short, one with a caption in latin-1."""
    folder = tmp_path / f"shoes {tmp_path.name[-6:]}"
    for number in range(8):
        path = folder / ("left" if number % 2 else "right") / f"shoe {number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(520 + number, 540), "PNG"))
        path.with_suffix(".txt").write_text(f"shoe number {number}\n", encoding="utf-8")
    clear = picture(530, 600).convert("RGBA")
    clear.putalpha(128)
    (folder / "clear.png").write_bytes(encoded(clear, "PNG"))
    (folder / "clear.txt").write_text("a clear shoe\n", encoding="utf-8")
    (folder / "cut.jpg").write_bytes(encoded(picture(530, 610), "JPEG")[:-2])
    (folder / "latin.png").write_bytes(encoded(picture(530, 620), "PNG"))
    (folder / "latin.txt").write_bytes("Größe 42".encode("latin-1"))
    return folder


def summary(page: Page) -> Locator:
    return page.locator("#dataset-summary")


def thumbs(page: Page) -> Locator:
    return page.locator("#dataset-grid .thumb")


def open_path(page: Page, folder: Path, *, pictures: int, used: int) -> None:
    """Type a folder's path and wait until all of it is checked."""
    set_field(page, "dataset-path", folder)
    page.locator("#dataset-open").click()
    wait_until_checked(page, pictures=pictures, used=used)
    expect(page.locator(f"#dataset-grid .thumbs[data-dataset='{folder.name}']")).to_be_visible()


def wait_until_checked(page: Page, *, pictures: int, used: int) -> None:
    expect(summary(page)).to_contain_text(re.compile(rf"^\s*{pictures} images? "), timeout=WAIT_MILLISECONDS)
    expect(summary(page)).to_contain_text(f"{used} will be trained on", timeout=WAIT_MILLISECONDS)
    expect(summary(page)).not_to_contain_text("checking", timeout=WAIT_MILLISECONDS)
    expect(thumbs(page)).not_to_have_count(0)


def press(page: Page, key: str) -> None:
    """Press an image and wait until it is shown."""
    page.locator(f"#dataset-grid .thumb[data-key='{key}']").click()
    expect(page.locator("#dataset-facts")).to_contain_text(key)


def caption(page: Page) -> Locator:
    return page.locator("#dataset-caption textarea")


def reload(page: Page) -> None:
    page.reload()
    go_to_tab(page, "Dataset")
    expect(thumbs(page)).not_to_have_count(0)


def see_summary(page: Page, words: str) -> None:
    expect(summary(page)).to_contain_text(words)


def test_the_demo_shoes_open_with_one_button(page: Page) -> None:
    page.locator("#dataset-demo").click()
    wait_until_checked(page, pictures=60, used=60)
    images = page.locator("#dataset-grid .thumb img")
    expect(images).to_have_count(60)
    expect(images.first).to_have_js_property("complete", True)
    assert images.first.evaluate("image => image.naturalWidth") == 256
    press(page, "images/10004.jpg")
    expect(caption(page)).to_have_value("Tan Leather Loafers")
    expect(page.locator("#dataset-facts")).to_contain_text("256 × 256 → bucket 128 × 128")
    expect(page.locator("#dataset-saved")).to_contain_text("of 75 tokens · from styles.csv row 5")
    expect(page.locator("#dataset-problems")).to_contain_text("Nothing wrong")


def uploaded(studio: RunningStudio) -> set[Path]:
    """What pages sent and the studio still keeps as it came; Gradio's copies of other tests' images lie there too."""
    below = os.walk(studio.user_data.cache / "page")  # unlike glob, it lets folders go while it looks
    files = [Path(folder, name) for folder, _, names in below for name in names]
    return {file for file in files if file.suffix in (".png", ".jpg", ".txt", ".zip", "")}


def test_a_dropped_folder_keeps_its_sub_folders(studio: RunningStudio, page: Page, source: Path) -> None:
    before = uploaded(studio)
    drop_files(page, "dataset-drop", source)
    expect(page.locator(".drop-status")).to_contain_text("11 images in the dataset", timeout=WAIT_MILLISECONDS)
    wait_until_checked(page, pictures=11, used=9)
    press(page, "left/shoe 1.png")
    expect(caption(page)).to_have_value("shoe number 1")
    assert (source / "left/shoe 1.png").is_file()
    assert uploaded(studio) <= before


def test_of_a_cancelled_drop_nothing_is_kept(studio: RunningStudio, page: Page, tmp_path: Path) -> None:
    """Its first part has arrived, its second is on the way."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(201):
        (folder / f"{number}.png").write_bytes(b"%d" % number)
    parts: list[Route] = []

    def hold_the_second(route: Route) -> None:
        parts.append(route)
        if len(parts) == 1:
            route.continue_()

    before = uploaded(studio)
    page.route("**/gradio_api/upload", hold_the_second)
    drop_files(page, "dataset-drop", folder)
    expect(page.locator(".drop-status")).to_have_text("Uploading: 200 of 201 files")
    assert len(uploaded(studio) - before) == 200, "so this test can see them"
    page.locator(".drop-cancel").click()
    expect(page.locator(".drop-status")).to_have_text("Cancelled: nothing was kept.")
    wait_for(lambda: uploaded(studio) <= before, what="the uploads to go")
    page.unroute("**/gradio_api/upload")


def test_a_full_disk_is_said_in_the_drop_zone(page: Page, source: Path) -> None:
    sentence = "The upload has 3.0 GB, and the disk has 12 MB free. Free some space first."
    page.route("**/gradio_api/upload", lambda route: route.fulfill(status=507, body=sentence))
    drop_files(page, "dataset-drop", source)
    said = f"The upload failed: {sentence} Nothing was kept; try again."
    expect(page.locator(".drop-status")).to_have_text(said)
    page.unroute("**/gradio_api/upload")


def test_a_folder_dropped_on_another_tab_finds_its_way(page: Page, source: Path) -> None:
    go_to_tab(page, "Inference")
    drop_files(page, "generate-state", source)
    expect(page.get_by_role("tab", name="Dataset", exact=True)).to_have_attribute("aria-selected", "true")
    wait_until_checked(page, pictures=11, used=9)


def test_a_dropped_zip_is_unpacked(page: Page, source: Path, tmp_path: Path) -> None:
    archive = tmp_path / f"zip {tmp_path.name[-6:]}.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in source.rglob("*.*"):
            packed.write(path, path.relative_to(source))
        packed.writestr("../outside.png", b"x")
    drop_files(page, "dataset-drop", archive)
    expect(page.locator(".drop-status")).to_contain_text("1 file skipped", timeout=WAIT_MILLISECONDS)
    wait_until_checked(page, pictures=11, used=9)
    open_section(page, "Doctor")
    expect(page.locator("#dataset-doctor")).to_contain_text("../outside.png")


def test_a_path_that_leads_nowhere_is_a_sentence(page: Page) -> None:
    set_field(page, "dataset-path", "/nowhere/at/all")
    page.locator("#dataset-open").click()
    expect(field_error(page, "dataset-path")).to_contain_text("cannot be found")


def test_captions_typed_between_fast_clicks_all_land_where_they_were_typed(page: Page, source: Path) -> None:
    open_path(page, source, pictures=11, used=9)
    keys = [f"{'left' if number % 2 else 'right'}/shoe {number}.png" for number in range(8)]
    for key in keys:
        press(page, key)
        caption(page).fill(f"mine {key}")
    press(page, keys[0])
    reload(page)
    for key in keys:
        press(page, key)
        expect(caption(page)).to_have_value(f"mine {key}")
    assert (source / "left/shoe 1.txt").read_text(encoding="utf-8") == "shoe number 1\n"


def test_clicks_faster_than_answers_end_at_the_last_one(page: Page, source: Path) -> None:
    open_path(page, source, pictures=11, used=9)
    for key in ("left/shoe 1.png", "right/shoe 2.png", "left/shoe 3.png", "right/shoe 4.png", "left/shoe 5.png"):
        page.locator(f"#dataset-grid .thumb[data-key='{key}']").click()
    expect(page.locator("#dataset-facts")).to_contain_text("left/shoe 5.png")
    expect(caption(page)).to_have_value("shoe number 5")
    page.wait_for_timeout(500)
    expect(page.locator("#dataset-facts")).to_contain_text("left/shoe 5.png")


def test_an_edit_is_undone_after_a_reload(page: Page, source: Path) -> None:
    open_path(page, source, pictures=11, used=9)
    press(page, "left/shoe 1.png")
    caption(page).fill("another")
    caption(page).blur()
    expect(page.locator("#dataset-saved")).to_contain_text("your edit")
    reload(page)
    press(page, "left/shoe 1.png")
    expect(caption(page)).to_have_value("another")
    expect(page.locator("#dataset-undo")).to_contain_text("caption of left/shoe 1.png")
    page.locator("#dataset-undo").click()
    expect(caption(page)).to_have_value("shoe number 1")
    page.locator("#dataset-redo").click()
    expect(caption(page)).to_have_value("another")


def test_keys_go_on_exclude_and_undo(page: Page, source: Path) -> None:
    open_path(page, source, pictures=11, used=9)
    press(page, "left/shoe 1.png")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#dataset-facts")).to_contain_text("left/shoe 3.png")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#dataset-facts")).to_contain_text("left/shoe 7.png")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#dataset-facts")).to_contain_text("left/shoe 5.png")
    page.keyboard.press("x")
    see_summary(page, "8 will be trained on")
    see_summary(page, "1 excluded")
    page.keyboard.press("Control+z")
    see_summary(page, "9 will be trained on")
    page.keyboard.press("Enter")
    expect(caption(page)).to_be_focused()
    page.keyboard.type(" xyz")
    page.keyboard.press("Escape")
    expect(page.locator("#dataset-saved")).to_contain_text("your edit")
    see_summary(page, "9 will be trained on")


def test_search_and_filters_show_what_fits(page: Page, source: Path) -> None:
    open_path(page, source, pictures=11, used=9)
    field(page, "dataset-search").fill("number 3")
    field(page, "dataset-search").press("Enter")
    expect(thumbs(page)).to_have_count(1)
    expect(page.locator("#dataset-words")).to_contain_text("1 of 11 images")
    field(page, "dataset-search").fill("")
    field(page, "dataset-search").press("Enter")
    expect(thumbs(page)).to_have_count(11)
    field(page, "dataset-problem").click()
    page.get_by_role("option", name=re.compile("^transparent")).click()
    expect(thumbs(page)).to_have_count(1)
    choose_state(page, "needs fixing")
    expect(thumbs(page)).to_have_count(2)
    choose_state(page, "any")
    choose(page, "dataset-sort", "largest")
    expect(thumbs(page).first).to_have_attribute("data-key", "latin.png")


def choose_state(page: Page, state: str) -> None:
    field(page, "dataset-problem").click()
    page.get_by_role("option", name=state, exact=True).click()


def test_the_doctor_mends_with_one_click_and_it_lasts(page: Page, source: Path) -> None:
    open_path(page, source, pictures=11, used=9)
    open_section(page, "Doctor")
    doctor = page.locator("#dataset-doctor")
    expect(doctor).to_contain_text("11 found − 2 that need fixing first = 9 will be trained on.")
    doctor.get_by_role("button", name="Re-encode the caption: latin.png").click()
    expect(doctor).to_contain_text("1 that needs fixing")
    doctor.get_by_role("button", name="Exclude: cut.jpg").click()
    expect(doctor).to_contain_text("11 found − 1 excluded by you = 10 will be trained on.")
    doctor.get_by_role("button", name="Convert a copy: clear.png").click()
    expect(doctor).not_to_contain_text("transparent")
    see_summary(page, "10 will be trained on")
    reload(page)
    see_summary(page, "10 will be trained on")
    press(page, "latin.png")
    expect(caption(page)).to_have_value("Größe 42")
    press(page, "clear.png")
    expect(page.locator("#dataset-problems")).to_contain_text("Nothing wrong")


def test_rows_and_a_template_make_captions_with_a_live_preview(page: Page, tmp_path: Path) -> None:
    folder = tmp_path / f"fashion {tmp_path.name[-6:]}"
    (folder / "images").mkdir(parents=True)
    (folder / "styles.csv").write_bytes((SHOES / "styles.csv").read_bytes())
    for path in (SHOES / "images").iterdir():
        (folder / "images" / path.name).write_bytes(path.read_bytes())
    open_path(page, folder, pictures=60, used=60)
    open_section(page, "Layout and captions")
    expect(page.locator("#dataset-layout-words")).to_contain_text("Fashion products")
    preview = page.locator("#dataset-template-preview")
    expect(preview).to_contain_text("Black Canvas Sneakers")  # the form is filled
    set_field(page, "dataset-template", "{baseColour} {articleType}, {nonsense}")
    expect(preview).to_contain_text("nonsense")
    set_field(page, "dataset-template", "{baseColour} {articleType}, white background")
    expect(preview).to_contain_text("Black Casual Shoes, white background")
    field(page, "dataset-row-column").click()
    page.get_by_role("option", name="articleType", exact=True).click()
    field(page, "dataset-row-values").click()
    page.get_by_role("option", name=re.compile("^Casual Shoes")).click()
    expect(preview).to_contain_text("48 images")
    page.locator("#dataset-apply-recipe").click()
    wait_until_checked(page, pictures=48, used=48)
    press(page, "images/10001.jpg")
    expect(caption(page)).to_have_value("Black Casual Shoes, white background")
    reload(page)
    see_summary(page, "48 images")


def test_captions_in_bulk_are_previewed_changed_and_undone_as_one(page: Page, source: Path) -> None:
    open_path(page, source, pictures=11, used=9)
    press(page, "left/shoe 1.png")
    open_section(page, "Edit captions in bulk")
    set_field(page, "dataset-bulk-find", "shoe")
    set_field(page, "dataset-bulk-replace", "boot")
    set_field(page, "dataset-bulk-prefix", "sks")
    page.locator("#dataset-bulk-preview").click()
    expect(page.locator("#dataset-bulk-words")).to_contain_text("11 of 11 captions would change.")
    expect(page.locator("#dataset-bulk-words")).to_contain_text("sks boot number 1")
    page.locator("#dataset-bulk-apply").click()
    expect(page.locator("#dataset-bulk-words")).to_contain_text("11 captions changed.")
    expect(caption(page)).to_have_value("sks boot number 1")
    page.locator("#dataset-undo").click()
    expect(caption(page)).to_have_value("shoe number 1")


def test_statistics_and_export(page: Page, source: Path, tmp_path: Path) -> None:
    open_path(page, source, pictures=11, used=9)
    open_section(page, "Statistics")
    expect(page.locator("#dataset-statistics")).to_contain_text("Most frequent words")
    open_section(page, "Export")
    page.locator("#dataset-format label", has_text="imagefolder: images").click()
    set_field(page, "dataset-export-folder", tmp_path / "out")
    page.locator("#dataset-export").click()
    expect(page.locator("#dataset-export-words")).to_contain_text("9 images exported to", timeout=WAIT_MILLISECONDS)
    lines = (tmp_path / "out/train/metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 9
    assert "shoe number 1" in {json.loads(line)["text"] for line in lines}


def test_what_files_say_is_shown_as_text(page: Page, tmp_path: Path) -> None:
    folder = tmp_path / f"hostile {tmp_path.name[-6:]}"
    folder.mkdir()
    (folder / "<img src=x onerror=document.title='run'>.png").write_bytes(encoded(picture(520, 520), "PNG"))
    (folder / "<img src=x onerror=document.title='run'>.txt").write_text(
        "<img src=x onerror=\"document.title='run'\"> {{1+1}} ${1+1}", encoding="utf-8"
    )
    open_path(page, folder, pictures=1, used=1)
    thumbs(page).filter(has_text="{{1+1}}").click()
    expect(caption(page)).to_have_value(re.compile("onerror"))
    for section in ("Doctor", "Statistics", "Layout and captions"):
        open_section(page, section)
    expect(page.locator("#dataset-statistics")).to_contain_text("onerror")
    expect(thumbs(page).first).to_contain_text("{{1+1}} ${1+1}")
    assert page.title() != "run"


@pytest.mark.parametrize("width", WIDTHS)
def test_export_is_beside_the_images(studio: RunningStudio, open_page: OpenPage, source: Path, width: int) -> None:
    page = open_page(studio, width=width)
    go_to_tab(page, "Dataset")
    open_path(page, source, pictures=11, used=9)
    page.evaluate("scrollTo(0, 0)")
    head, grid = page.locator("#dataset-export-box .label-wrap"), page.locator("#dataset-grid")
    expect(head).to_be_in_viewport(ratio=1)
    box, images = head.bounding_box(), grid.bounding_box()
    assert box is not None
    assert images is not None
    assert box["x"] >= images["x"] + images["width"]
    head.click()
    page.locator("#dataset-export").scroll_into_view_if_needed()
    expect(page.locator("#dataset-export")).to_be_in_viewport(ratio=0.9)  # at 1024 px its edge is just below
    assert layout_faults(page) == []


def test_an_export_is_cropped_where_a_crop_was_moved(page: Page, source: Path, tmp_path: Path) -> None:
    open_path(page, source, pictures=11, used=9)
    open_section(page, "Export")
    cropped = page.locator("#dataset-export-cropped input")
    expect(cropped).not_to_be_checked()
    press(page, "left/shoe 1.png")  # 521 × 540
    page.locator("#dataset-picture .zoom").focus()
    page.keyboard.press("Shift+ArrowUp")
    expect(cropped).to_be_checked()
    page.locator("#dataset-format").get_by_text("imagefolder").first.click()
    set_field(page, "dataset-export-folder", tmp_path / "out")
    page.locator("#dataset-export").click()
    expect(page.locator("#dataset-export-words")).to_contain_text("9 images exported to", timeout=WAIT_MILLISECONDS)
    [file] = (tmp_path / "out/train").glob("*shoe-1.png")
    with Image.open(file) as image:
        assert image.height < 540


def test_two_pages_each_change_export_and_undo_their_own_dataset(
    studio: RunningStudio, open_page: OpenPage, source: Path, tmp_path: Path
) -> None:
    second = Path(shutil.copytree(source, tmp_path / f"second {tmp_path.name[-6:]}"))
    (second / "clear.png").unlink()
    pages = [open_page(studio, ready=False, dark=dark) for dark in (False, True)]
    for page, folder, number in zip(pages, (source, second), (11, 10), strict=True):
        go_to_tab(page, "Dataset")
        open_path(page, folder, pictures=number, used=number - 2)
        open_section(page, "Edit captions in bulk")
        set_field(page, "dataset-bulk-prefix", f"page{number}")
    for page, number in zip(pages, (11, 10), strict=True):
        page.locator("#dataset-bulk-apply").click()
        expect(page.locator("#dataset-bulk-words")).to_contain_text("captions changed")
        open_section(page, "Export")
        set_field(page, "dataset-export-folder", tmp_path / f"exported {number}")
        page.get_by_label("kohya").check()
        page.locator("#dataset-export").click()
        expect(page.locator("#dataset-export-words")).to_contain_text(f"{number - 1} images exported")
        texts = [path.read_text(encoding="utf-8") for path in (tmp_path / f"exported {number}").rglob("*.txt")]
        assert len(texts) == number - 1  # the caption in latin-1 is one of ours now
        assert {text.split()[0] for text in texts} == {f"page{number}"}
    for page, folder, number in zip(pages, (source, second), (11, 10), strict=True):
        undo = page.locator("#dataset-undo")  # no image is chosen
        expect(undo).to_contain_text(f"Undo: “page{number}” before")
        undo.click()
        expect(page.locator("#dataset-redo")).to_contain_text(f"Redo: “page{number}” before")
        assert [json.loads(line)["act"] for line in edit_lines(studio, folder)] == ["do", "undo"]
    for page, folder, number in zip(pages, (source, second), (11, 10), strict=True):
        reload(page)
        expect(page.locator("#dataset-layout-words")).to_contain_text(str(folder))
        see_summary(page, f"{number} images")


def edit_lines(studio: RunningStudio, folder: Path) -> list[str]:
    log = studio.user_data.datasets / folder.name / "edits.jsonl"
    return log.read_text(encoding="utf-8").splitlines()


def test_search_filters_page_image_and_table_are_of_one_dataset_and_the_image_outlives_a_reload(
    page: Page, source: Path, tmp_path: Path
) -> None:
    second = Path(shutil.copytree(source, tmp_path / f"second {tmp_path.name[-6:]}"))
    open_path(page, second, pictures=11, used=9)
    open_path(page, source, pictures=11, used=9)
    press(page, "right/shoe 4.png")
    reload(page)
    expect(page.locator("#dataset-facts")).to_contain_text("right/shoe 4.png")
    expect(caption(page)).to_have_value("shoe number 4")
    field(page, "dataset-search").fill("number")
    field(page, "dataset-search").press("Enter")
    expect(thumbs(page)).to_have_count(8)
    open_section(page, "Edit captions in bulk")
    page.locator("#dataset-bulk-load").click()
    expect(page.locator("#dataset-bulk-save")).to_be_enabled()
    choose(page, "dataset-names", second.name)
    expect(page.locator(f"#dataset-grid .thumbs[data-dataset='{second.name}']")).to_be_visible()
    expect(thumbs(page)).to_have_count(11)
    expect(field(page, "dataset-search")).to_have_value("")
    expect(page.locator("#dataset-facts")).to_have_text("")
    expect(caption(page)).to_be_disabled()
    expect(page.locator("#dataset-bulk-save")).to_be_disabled()
    expect(page.locator("#dataset-bulk-table")).to_be_hidden()


def test_two_tabs_see_the_same_and_neither_takes_back_the_others_edit(
    studio: RunningStudio, page: Page, open_page: OpenPage, source: Path
) -> None:
    open_path(page, source, pictures=11, used=9)
    press(page, "left/shoe 1.png")
    other = open_page(studio, ready=False)
    go_to_tab(other, "Dataset")
    press(other, "left/shoe 1.png")
    caption(other).fill("of the other tab")
    caption(other).blur()
    expect(other.locator("#dataset-saved")).to_contain_text("your edit")
    caption(page).focus()
    caption(page).blur()
    expect(caption(page)).to_have_value("of the other tab")


def test_a_tab_that_was_not_looked_at_is_there_at_once(
    page: Page, source: Path, studio: RunningStudio, open_page: OpenPage
) -> None:
    open_path(page, source, pictures=11, used=9)
    other = open_page(studio)
    expect_nothing_asked(other)
    other.route("**/gradio_api/**", lambda route: route.abort())
    go_to_tab(other, "Dataset")
    expect(other.locator("#dataset-grid .thumb")).to_have_count(11)


def test_several_images_are_selected_tagged_starred_and_found_by_a_bar(page: Page, source: Path) -> None:
    open_path(page, source, pictures=11, used=9)
    bar = page.locator(".selected-bar")
    press(page, "left/shoe 1.png")
    expect(bar).to_be_hidden()
    thumbs(page).and_(page.locator("[data-key='left/shoe 5.png']")).click(modifiers=["Shift"])
    thumbs(page).and_(page.locator("[data-key='right/shoe 0.png']")).click(modifiers=["ControlOrMeta"])
    expect(bar).to_contain_text("4 selected")
    bar.locator(".tag").fill("studio light")
    bar.locator("[data-act=tag]").click()
    expect(page.locator("#dataset-caption textarea")).to_have_value("shoe number 1, studio light")
    page.locator(".caption-box .tags .chip", has_text="shoe number 1").click()
    expect(page.locator("#dataset-caption textarea")).to_have_value("studio light")
    page.locator(".cell", has=page.locator("[data-key='latin.png']")).locator(".star").click()
    choose_state(page, "starred")
    expect(thumbs(page)).to_have_count(1)
    choose_state(page, "any")
    open_section(page, "Statistics")
    word = page.locator(".chart", has_text="Most frequent words").get_by_role("button", name="studio", exact=True)
    for release in (page.locator("#dataset-bars .chip"), word):
        word.click()
        expect(page.locator("#dataset-bars .chip")).to_have_text("Most frequent words: studio ✕")
        expect(word).to_have_attribute("aria-pressed", "true")
        expect(thumbs(page)).to_have_count(4)
        release.click()
        expect(thumbs(page)).to_have_count(11)
        expect(word).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Escape")
    expect(bar).to_be_hidden()


def test_keys_and_buttons_are_about_all_selected_images(page: Page, source: Path) -> None:
    open_path(page, source, pictures=11, used=9)
    press(page, "left/shoe 1.png")
    thumbs(page).and_(page.locator("[data-key='left/shoe 5.png']")).click(modifiers=["Shift"])
    page.keyboard.press("x")
    see_summary(page, "6 will be trained on")
    expect(page.locator(".toast-wrap")).to_contain_text("Done: excluded 3 images.")
    expect(page.locator("#dataset-grid .badge.out")).to_have_count(3)
    page.locator("#dataset-exclude").click()
    see_summary(page, "9 will be trained on")
    page.locator("#dataset-undo").click()
    see_summary(page, "6 will be trained on")
    page.keyboard.press("ControlOrMeta+z")
    see_summary(page, "9 will be trained on")
    page.locator(".cell", has=page.locator("[data-key='left/shoe 3.png']")).locator(".star").click()
    expect(page.locator("#dataset-grid .star[aria-pressed=true]")).to_have_count(3)
    expect(page.locator("#dataset-undo")).to_have_text("Undo: starred 3 images")
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    see_summary(page, "8 will be trained on")


def test_an_image_that_is_opened_large_leads_through_the_grid(page: Page, source: Path) -> None:
    open_path(page, source, pictures=11, used=9)
    press(page, "left/shoe 1.png")
    thumbs(page).and_(page.locator("[data-key='left/shoe 5.png']")).click(modifiers=["Shift"])
    page.locator("#dataset-picture .zoom").click()
    large = page.locator("dialog.lightbox img")
    expect(page.locator("dialog.lightbox")).to_contain_text("of 11")
    before = large.get_attribute("src")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#dataset-facts")).to_contain_text("left/shoe 3.png")
    whole = page.locator("#dataset-picture .shown[data-key='left/shoe 3.png'] img").get_attribute("src")
    assert whole != before
    expect(large).to_have_attribute("src", str(whole))
    page.keyboard.press("Escape")
    expect(page.locator(".selected-bar")).to_contain_text("3 selected")


def test_the_crop_is_dragged_over_the_image(page: Page, source: Path) -> None:
    open_path(page, source, pictures=11, used=9)
    press(page, "latin.png")  # 530 × 620: its bucket keeps less than its width
    crop = page.locator("#dataset-picture .crop")
    before = crop.evaluate("(crop) => parseFloat(crop.style.left)")
    box = page.locator("#dataset-picture .zoom").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 50, steps=3)
    page.mouse.up()
    expect(page.locator("#dataset-undo")).to_contain_text("crop of latin.png")
    expect(page.locator("dialog")).to_have_count(0)
    assert crop.evaluate("(crop) => parseFloat(crop.style.left)") > before
    page.locator(".recentre").click()
    expect(page.locator(".recentre")).to_have_count(0)
