"""Forms outlive a reload and a restart of the studio, and lead back to their first values."""

from pathlib import Path

from playwright.sync_api import BrowserContext, Page, expect

from studio.core.paths import UserData
from tests.browser.conftest import Profiles
from tests.browser.page_actions import (
    choose,
    field,
    go_to_tab,
    open_mode,
    open_section,
    open_training,
    set_field,
    tick,
    toast,
)
from tests.browser.studio_process import running_studio


def show_training(page: Page) -> None:
    open_training(page)
    expect(page.get_by_role("radio", name="Quick try")).to_be_visible()


def fill_all(page: Page) -> None:
    """Something in every tab, and in every kind of control."""
    open_mode(page, "Smoke test", idle=False)
    set_field(page, "prompt-1", "smoke prompt")
    open_mode(page, "Generate", idle=False)
    set_field(page, "generate-prompt", "a kept prompt")
    choose(page, "generate-lora-0", "white-ground")
    tick(page, "generate-new-seed", on=False)
    set_field(page, "generate-seed", 2**53 + 1)
    open_mode(page, "Compare", idle=False)
    set_field(page, "compare-prompts", "one\ntwo")
    go_to_tab(page, "Dataset")
    set_field(page, "dataset-path", "/typed/path")
    show_training(page)
    page.get_by_role("radio", name="Product photos").check()
    set_field(page, "training-max-train-steps", 123)
    open_section(page, "The loss")
    expect(field(page, "training-noise-offset")).to_have_value("0.1")
    go_to_tab(page, "Batch")
    set_field(page, "batch-prompts", "kept {word}")


def see_all(page: Page) -> None:
    go_to_tab(page, "Inference")
    open_mode(page, "Smoke test", idle=False)
    expect(field(page, "prompt-1")).to_have_value("smoke prompt")
    open_mode(page, "Generate", idle=False)
    expect(field(page, "generate-prompt")).to_have_value("a kept prompt")
    expect(field(page, "generate-lora-0")).to_have_value("white-ground")
    expect(page.locator("#generate-new-seed input")).not_to_be_checked()
    expect(field(page, "generate-seed")).to_have_value(str(2**53 + 1))
    open_mode(page, "Compare", idle=False)
    expect(field(page, "compare-prompts")).to_have_value("one\ntwo")
    go_to_tab(page, "Dataset")
    expect(field(page, "dataset-path")).to_have_value("/typed/path")
    show_training(page)
    expect(page.get_by_role("radio", name="Product photos")).to_be_checked()
    expect(page.locator("#training-purpose")).to_contain_text("White backgrounds")
    expect(field(page, "training-max-train-steps")).to_have_value("123")
    open_section(page, "The loss")
    expect(field(page, "training-noise-offset")).to_have_value("0.1")
    go_to_tab(page, "Batch")
    expect(field(page, "batch-prompts")).to_have_value("kept {word}")


def test_forms_of_all_tabs_outlive_a_reload_and_a_restart_and_nothing_that_was_offered_is_refused(
    profiles: Profiles, tmp_path: Path
) -> None:
    context: BrowserContext = profiles(1280, False)
    page = context.new_page()
    user_data = UserData(tmp_path / "user_data")
    with running_studio(user_data.root) as first:
        page.goto(first.url)
        fill_all(page)
        page.reload()
        see_all(page)
        go_to_tab(page, "Inference")
        open_mode(page, "Generate", idle=False)
        page.evaluate("window.isTheSame = true")
    with running_studio(user_data.root, port=first.port) as again:
        again.make_ready()
        see_all(page)
        go_to_tab(page, "Inference")
        open_mode(page, "Generate")
        page.locator("#run-generate").click()
        expect(page.locator("#generate-state")).to_contain_text("made, checked and saved", timeout=60_000)
        expect(toast(page)).to_have_count(0)
        assert page.evaluate("window.isTheSame"), "it was open all the time"
        other = context.new_page()
        other.goto(again.url)
        see_all(other)  # a new tab begins with what was typed last
        show_training(other)
        other.locator("#training-reset").click()
        expect(field(other, "training-max-train-steps")).not_to_have_value("123")
        expect(field(other, "training-noise-offset")).to_have_value("0.1")  # of that preset
        go_to_tab(other, "Inference")
        open_mode(other, "Generate", idle=False)
        other.locator("#generate-reset").click()
        expect(field(other, "generate-lora-0")).to_have_value("none")
        page.reload()
        see_all(page)  # a tab has its own
        other.close()
    page.close()
