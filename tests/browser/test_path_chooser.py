"""A path is chosen from a list of this machine's folders, by keys alone, or dropped where that can be done."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.page_actions import open_section, open_training
from tests.browser.studio_process import RunningStudio

SENTENCE = "Browsers do not reveal where a dropped file or folder lies. Choose it here."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("masks", "notes", "shoes"):
        (tmp_path / "here" / name).mkdir(parents=True)
    (tmp_path / "here" / "prompts.txt").write_text("a red shoe\na blue shoe\n", encoding="utf-8")
    (tmp_path / "here" / "model.safetensors").write_bytes(b"")
    return tmp_path / "here"


def open_tab(page: Page, name: str) -> None:
    page.locator(f'button[role="tab"][data-tab-id="{name}"]').click()


def chooser(page: Page) -> Locator:
    return page.locator("dialog.chooser")


def drop(target: Locator, name: str, content: str) -> None:
    """A file that is let go over a part of the page."""
    carrier = target.page.evaluate_handle(
        "([name, content]) => { const c = new DataTransfer(); c.items.add(new File([content], name)); return c; }",
        [name, content],
    )
    target.dispatch_event("drop", {"dataTransfer": carrier})


def test_a_folder_is_chosen_by_keys_alone(page: Page, folder: Path) -> None:
    open_training(page)
    open_section(page, "The loss")
    field = page.locator("#training-mask-folder")
    field.get_by_role("button", name="Browse…").press("Enter")
    expect(chooser(page)).to_have_accessible_name("Choose a folder")
    chooser(page).get_by_label("Folder", exact=True).fill(str(folder))
    page.keyboard.press("Enter")
    expect(chooser(page).locator("li")).to_have_text(["masks", "notes", "shoes"])
    page.keyboard.press("End")
    expect(chooser(page).locator(".is-folder", has_text="shoes")).to_be_focused()
    page.keyboard.press("m")
    page.keyboard.press("Enter")
    expect(chooser(page).locator("li")).to_have_text(["No folders in here."])
    expect(chooser(page).get_by_role("button", name="Choose this folder")).to_be_focused()
    page.keyboard.press("Enter")
    expect(field.locator("input")).to_have_value(str(folder / "masks"))
    expect(field.locator("input")).to_be_focused()
    field.get_by_role("button", name="Browse…").click()
    expect(chooser(page).get_by_label("Folder", exact=True)).to_have_value(str(folder / "masks"))
    chooser(page).get_by_role("button", name="Up").click()
    expect(chooser(page).locator(".is-folder", has_text="masks")).to_be_focused()
    chooser(page).get_by_label("Folder", exact=True).fill(str(folder / "gone"))
    page.keyboard.press("Enter")
    expect(chooser(page)).to_contain_text(f"There is no folder {folder / 'gone'}.")
    page.keyboard.press("Escape")
    expect(chooser(page)).to_have_count(0)
    expect(field.locator("input")).to_have_value(str(folder / "masks"))


def test_what_is_typed_while_the_first_list_is_fetched_stays_and_keeps_the_focus(page: Page, folder: Path) -> None:
    def late(route: Route) -> None:
        page.wait_for_timeout(700)
        route.continue_()

    open_tab(page, "batch")
    page.route("**/list_folder", late, times=1)
    page.locator("#batch-model").get_by_role("button", name="Browse…").click()
    box = chooser(page).get_by_label("Folder", exact=True)
    box.fill(str(folder))
    expect(chooser(page).locator(".chooser-list li").first).to_be_visible()
    expect(box).to_have_value(str(folder))
    expect(box).to_be_focused()


def test_a_prompt_file_is_chosen_and_planned(page: Page, folder: Path) -> None:
    open_tab(page, "batch")
    open_section(page, "Prompt file, wildcards, precision")
    page.locator("#batch-prompt-file").get_by_role("button", name="Browse…").click()
    chooser(page).get_by_label("Folder", exact=True).fill(str(folder))
    page.keyboard.press("Enter")
    files = chooser(page).locator(".is-file")
    expect(files).to_have_text(["prompts.txt"])
    files.click()
    expect(page.locator("#batch-prompt-file input")).to_have_value(str(folder / "prompts.txt"))
    expect(page.locator("#tab-batch")).to_contain_text("a blue shoe")


@pytest.mark.parametrize("target", ["#batch-prompt-file", "#tab-batch"])
def test_a_dropped_prompt_file_is_kept_and_planned(page: Page, studio: RunningStudio, target: str) -> None:
    open_tab(page, "batch")
    open_section(page, "Prompt file, wildcards, precision")
    drop(page.locator(target), "dropped.txt", "a violet boot\n")
    expect(page.locator("#tab-batch")).to_contain_text("a violet boot")
    kept = Path(page.locator("#batch-prompt-file input").input_value())
    assert kept.parent == studio.user_data.prompt_files
    assert kept.read_text(encoding="utf-8") == "a violet boot\n"


def test_a_drop_that_tells_no_path_leads_to_the_list(page: Page, folder: Path) -> None:
    open_tab(page, "batch")
    field = page.locator("#batch-model")
    drop(field, "model.safetensors", "")
    expect(chooser(page)).to_contain_text(SENTENCE)
    chooser(page).get_by_label("Folder", exact=True).fill(str(folder))
    page.keyboard.press("Enter")
    chooser(page).locator(".is-file").click()
    expect(field.locator("input")).to_have_value(str(folder / "model.safetensors"))


def test_dropped_settings_fill_the_form_of_a_training(page: Page) -> None:
    open_tab(page, "training")
    settings = {"dataset": "built-in:casual-shoes", "name": "dropped", "rank": 3}
    drop(page.locator("#tab-training"), "settings.json", json.dumps(settings))
    expect(page.locator("#training-name input")).to_have_value("dropped")
    expect(page.locator("#start-training")).to_be_visible()  # the simple way makes room for it


def test_a_dataset_is_browsed_for_from_its_list(page: Page, folder: Path) -> None:
    open_training(page)
    field = page.locator("#training-dataset")
    field.get_by_role("button", name="Browse…").click()
    chooser(page).get_by_label("Folder", exact=True).fill(str(folder))
    page.keyboard.press("Enter")
    expect(chooser(page).locator("li")).to_have_count(3)
    chooser(page).get_by_role("button", name="Choose this folder").click()
    expect(field.locator("input")).to_have_value(str(folder))
    page.wait_for_function(
        "path => JSON.parse(sessionStorage.getItem('form training') ?? '{}').dataset === path", arg=str(folder)
    )
