"""What a person does on the page, by the words and names that the page gives."""

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

ENGINE_SECONDS = 90  # to start: about 6, and more on a busy machine
MANY_STEPS = 150  # long enough to do something in mid-run
RUN_MILLISECONDS = 60_000
FEW_STEPS = 3  # enough for a valid picture


def verdict(page: Page) -> Locator:
    """The one sentence above the pictures."""
    return page.locator("#verdict .verdict")


def problem(page: Page) -> Locator:
    """What went wrong, above the verdict."""
    return page.locator("#verdict .problem")


def activity(page: Page) -> Locator:
    """What the status line says is running."""
    return page.locator("#status-activity")


def pictures(page: Page) -> Locator:
    """The finished pictures that are shown."""
    return page.locator(".card .frame.zoom img")


def wait_until_ready(page: Page) -> None:
    """Wait for the engine, which starts in the background."""
    expect(page.locator("#run-smoke")).to_be_enabled(timeout=1000 * ENGINE_SECONDS)
    expect(activity(page)).to_have_text("ready")


def open_section(page: Page, name: str) -> None:
    """Open one of the folded sections."""
    button = page.locator("button.label-wrap", has_text=re.compile(rf"^\s*{re.escape(name)}\W*$"))
    expect(button).to_be_visible()
    if "open" not in (button.get_attribute("class") or "").split():
        button.click()


def fill(box: Locator, value: str) -> None:
    """Type into a box of a section that may just have been opened: for a moment Gradio still puts its default back."""
    expect(box).to_be_visible()
    for _ in range(20):
        box.fill(value)
        box.blur()
        box.page.wait_for_timeout(150)
        if box.input_value() == value:
            return
    raise AssertionError(f"the box does not keep {value!r}")


def set_number(page: Page, label: str, value: str) -> None:
    """Type into one of the number boxes under “Steps, guidance, seed”."""
    open_section(page, "Steps, guidance, seed")
    fill(page.get_by_label(label, exact=True), value)


def set_steps(page: Page, steps: int) -> None:
    """Choose the number of denoising steps."""
    set_number(page, "number input for Steps", str(steps))


def press_run(page: Page) -> None:
    """Press the one button."""
    page.locator("#run-smoke").click()


def start_run(page: Page, *, steps: int = MANY_STEPS) -> None:
    """Start a smoke test and see that it runs."""
    set_steps(page, steps)
    press_run(page)
    expect(verdict(page)).to_contain_text("Running.")


def finish_run(page: Page, word: str) -> None:
    """Wait for the verdict, PASS or FAIL, of a run that is on."""
    expect(verdict(page)).to_contain_text(f"{word}:", timeout=RUN_MILLISECONDS)


def run_to_end(page: Page, word: str, *, steps: int = FEW_STEPS, start: Callable[[Page], None] = press_run) -> None:
    """Run a short smoke test, by its button or as `start` does, and wait for its own verdict, not the one before."""
    set_steps(page, steps)
    saved = page.locator("#downloads .quiet")
    before = saved.inner_text() if saved.count() else "nothing"
    start(page)
    expect(saved.get_by_text(before, exact=True)).to_have_count(0)
    finish_run(page, word)


def start_load(page: Page, model: str) -> None:
    """Type a model's name or folder and press Load."""
    open_section(page, "Model")
    fill(page.locator("#model-box").get_by_role("textbox"), model)
    page.locator("#load-model").click()


def go_to_tab(page: Page, name: str) -> None:
    """Press one of the four tabs."""
    page.get_by_role("tab", name=name, exact=True).click()
