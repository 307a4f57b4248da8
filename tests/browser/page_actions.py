"""What a person does on the page, by the words and names that the page gives."""

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from studio.core.language import _, speaking

ENGINE_SECONDS = 90  # to start: about 6, and more on a busy machine
MANY_STEPS = 150  # long enough to do something in mid-run
RUN_MILLISECONDS = 60_000
FEW_STEPS = 3  # enough for a valid image


def here(page: Page, words: str) -> str:
    """A whole message of ours, in the language of the page."""
    with speaking(page.evaluate("document.documentElement.lang")):
        return _(words)


def verdict(page: Page) -> Locator:
    """The one sentence above the images."""
    return page.locator("#verdict .verdict")


def problem(page: Page) -> Locator:
    """What went wrong, above the verdict."""
    return page.locator("#verdict .problem")


def activity(page: Page) -> Locator:
    """What the status line says is running."""
    return page.locator("#status-activity")


def pictures(page: Page) -> Locator:
    """The finished images that are shown."""
    return page.locator(".card .frame.zoom img").filter(visible=True)  # other modes keep theirs, hidden


def wait_until_ready(page: Page) -> None:
    """Wait for the engine, which starts in the background."""
    expect(activity(page)).to_have_text("ready", timeout=1000 * ENGINE_SECONDS)


def expect_nothing_asked(*pages: Page, seconds: float = 3.0) -> None:
    """Nothing goes on, so the pages ask their studio for nothing: not after the last answers, which may yet come."""
    asked: list[str] = []
    for page in pages:
        page.on("request", lambda request: asked.append(request.url))
    for _attempt in range(5):  # a page that goes on asking is never still for so long
        asked.clear()
        pages[0].wait_for_timeout(1000 * seconds)
        if not asked:
            return
    raise AssertionError(f"the pages go on asking for {asked}")


def open_section(page: Page, name: str) -> None:
    """Open one of the folded sections."""
    label = re.escape(here(page, name))
    button = page.locator("button.label-wrap:visible", has_text=re.compile(rf"^\s*{label}\W*$"))
    expect(button).to_be_visible()
    if "open" not in (button.get_attribute("class") or "").split():
        button.click()


def fill(box: Locator, value: str) -> None:
    """Type into a box of a section that may just have been opened: for a moment Gradio still puts its default back."""
    expect(box).to_be_visible()
    for _attempt in range(20):
        box.fill(value)
        box.blur()
        box.page.wait_for_timeout(150)
        if box.input_value() == value and _stays(box, value):
            return
    raise AssertionError(f"the box does not keep {value!r}")


def _stays(box: Locator, value: str) -> bool:
    box.page.wait_for_timeout(150)  # on a busy machine the default comes back later
    return box.input_value() == value


def set_number(page: Page, label: str, value: str) -> None:
    """Type into one of the number boxes under “Steps, guidance, seed”."""
    open_section(page, "Steps, guidance, seed")
    # A tab that was looked at stays on the page, hidden: Batch has steps of its own.
    fill(page.get_by_label(label, exact=True).filter(visible=True), value)


def set_steps(page: Page, steps: int) -> None:
    """Choose the number of denoising steps of the smoke test."""
    open_mode(page, "Smoke test")
    set_number(page, "number input for Steps", str(steps))


def press_run(page: Page) -> None:
    """Press the one button."""
    page.locator("#run-smoke").click()


def start_run(page: Page, *, steps: int = MANY_STEPS) -> None:
    """Start a smoke test and see that it runs."""
    page.bring_to_front()  # in a tab behind another the browser draws no frames, and Gradio takes a value with one
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
    open_panel(page)
    fill(field(page, "model-model"), model)
    page.locator("#load-model").click()
    page.keyboard.press("Escape")


def open_panel(page: Page, box: str = "model-box") -> Locator:
    """Press the model, or the device (`device-box`), in the line at the top."""
    panel = page.get_by_role("dialog", name=here(page, "Model and device"))
    page.locator(f"[data-panel={box}]").click()
    expect(panel).to_be_visible()
    expect(panel.locator("#model-choices li").first).to_be_visible()
    return panel


def open_loras(page: Page) -> None:
    """Open the library of LoRAs."""
    page.locator("#modes").get_by_role("tab", name=here(page, "LoRA library"), exact=True).click()
    expect(page.locator("#lora-box")).to_be_visible()


def go_to_tab(page: Page, name: str) -> None:
    """Press one of the four tabs."""
    page.get_by_role("tab", name=here(page, name), exact=True).click()


def open_mode(page: Page, name: str, *, idle: bool = True) -> None:
    """Press one of the modes of the Inference tab, whose controls are made at that moment; `idle` where it can run."""
    page.locator("#modes").get_by_role("tab", name=here(page, name), exact=True).click()
    button = page.locator(f"#run-{name.split()[0].lower()}")
    expect(button).to_be_visible()
    if idle:
        expect(button).to_be_enabled(timeout=1000 * ENGINE_SECONDS)


def field(page: Page, name: str) -> Locator:
    """What one types into, in the control of that id: `field(page, "generate-seed")`."""
    return page.locator(f"#{name}").locator("textarea, input:not([type=range]):not([type=file])").first


def set_field(page: Page, name: str, value: object) -> None:
    """Type into a control."""
    fill(field(page, name), str(value))


def tick(page: Page, name: str, *, on: bool) -> None:
    """Set a checkbox; as in `fill`, for a moment Gradio still puts its default back."""
    box = page.locator(f"#{name} input[type=checkbox]")
    for _attempt in range(3):
        box.set_checked(on)
        page.wait_for_timeout(150)
    expect(box).to_be_checked(checked=on)


def offered(page: Page, name: str) -> list[str]:
    """The options of a dropdown."""
    field(page, name).click()
    options = page.get_by_role("option")
    expect(options.first).to_be_visible()
    words = [option.get_attribute("aria-label") or option.inner_text() for option in options.all()]
    field(page, name).press("Escape")
    expect(options).to_have_count(0)
    return words


def choose(page: Page, name: str, option: str) -> None:
    """Choose from a dropdown."""
    field(page, name).click()
    page.get_by_role("option", name=option, exact=True).click()
    expect(field(page, name)).to_have_value(option)


def drop_files(page: Page, name: str, *files: Path) -> None:
    """Drop files from outside of the browser onto an element, as a person does."""
    target = page.locator(f"#{name}")
    place = _middle_at_rest(target)
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    session.detach()


def _middle_at_rest(target: Locator) -> dict[str, float]:
    """Where an element's middle is, once what is above it has come and moves it no more."""
    before: dict[str, float] = {}
    for _attempt in range(50):
        target.scroll_into_view_if_needed()
        box = target.bounding_box()
        assert box is not None
        middle = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        if middle == before:
            return middle
        before = middle
        target.page.wait_for_timeout(200)
    raise AssertionError(f"{target} never rests")


def toast(page: Page) -> Locator:
    """What a toast says."""
    return page.get_by_test_id("toast-body")


def field_error(page: Page, name: str) -> Locator:
    """What is said to be wrong, at the control of that id."""
    return page.locator(f"#{name} .field-error")


def cards(page: Page) -> Locator:
    """The places of the Generate mode, each with an image, or for one."""
    return page.locator("#generate-pictures .card")


def save_links(page: Page) -> Locator:
    """The links that save the images of the Generate mode; each names its file."""
    return cards(page).get_by_role("link", name="Save", exact=True)


def saved_names(page: Page) -> list[str]:
    """The names of the files of the images that the Generate mode shows."""
    return [link.get_attribute("download") or "" for link in save_links(page).all()]


def press_generate(page: Page) -> None:
    """Press the button of the Generate mode."""
    page.locator("#run-generate").click()


def start_generating(page: Page, *, steps: int = MANY_STEPS) -> None:
    """Start a long run in the Generate mode and see that it runs."""
    set_field(page, "generate-num-inference-steps", steps)
    press_generate(page)
    expect(page.locator("#generate-state")).to_contain_text("Running.")


def generate_to_end(page: Page, *, start: Callable[[Page], None] = press_generate) -> None:
    """Make images, by the button or as `start` does, and wait for these, not for those before."""
    before = saved_names(page)
    start(page)
    for name in before[:1]:
        expect(page.locator(f"#generate-pictures a[download='{name}']")).to_have_count(0)
    expect(page.locator("#generate-state")).to_contain_text("made, checked and saved", timeout=RUN_MILLISECONDS)
    expect(save_links(page)).not_to_have_count(0)  # the state's words may come a moment before them


def generate_quickly(page: Page, prompt: str, *, seed: int | None = None) -> None:
    """Make one image of few steps; with a seed, of that seed."""
    set_field(page, "generate-prompt", prompt)
    set_field(page, "generate-num-inference-steps", FEW_STEPS)
    if seed is not None:
        tick(page, "generate-new-seed", on=False)
        set_field(page, "generate-seed", seed)
    generate_to_end(page)


def slider_sources(page: Page) -> list[str]:
    """The addresses of the two images of the Compare mode's slider, once both can be seen."""
    images = page.locator("#compare-slider img")
    expect(images).to_have_count(2)
    for image in images.all():
        expect(image).to_have_js_property("complete", True)
        assert image.evaluate("image => image.naturalWidth") > 0
    return [image.get_attribute("src") or "" for image in images.all()]


def start_comparing(page: Page, *prompts: str, steps: int = FEW_STEPS) -> None:
    """Start a comparison of the base with the LoRA that ships, and see that it runs."""
    if prompts:
        set_field(page, "compare-prompts", "\n".join(prompts))
    set_field(page, "compare-num-inference-steps", steps)
    page.locator("#run-compare").click()
    expect(page.locator("#compare-state")).to_contain_text("Running.")


def compare_to_end(page: Page, *prompts: str, steps: int = 5) -> None:
    """Make a short comparison and wait for its end."""
    start_comparing(page, *prompts, steps=steps)
    expect(page.locator("#compare-state")).to_contain_text("is finished", timeout=RUN_MILLISECONDS)


def open_training(page: Page) -> None:
    """Go to the Training tab, and there to all settings."""
    go_to_tab(page, "Training")
    page.locator("#training-way label").last.click()
    expect(page.locator("#start-training")).to_be_visible()


def training_state(page: Page) -> Locator:
    """What the run that is looked at does, in words."""
    return page.locator("#training-state .verdict")


def choose_run(page: Page, name: str) -> None:
    """Show a run by its card."""
    page.locator(f"#training-runs button[data-run='{name}']").click()


def compare_run(page: Page, name: str, *, compared: bool = True) -> None:
    """Tick or untick a run's card."""
    page.locator(f"#training-runs input[data-run='{name}']").set_checked(compared)


def shown_run(page: Page) -> Locator:
    """The card of the run that is shown."""
    return page.locator("#training-runs .run-card[aria-current] button")


def runs_on(page: Page) -> list[str]:
    """The names of the runs that have cards, in their order."""
    return [card.get_attribute("data-run") or "" for card in page.locator("#training-runs button[data-run]").all()]


def scrub_to(page: Page, position: int) -> None:
    """Move the scrubber over a run's steps; position 0 is the base."""
    page.locator(".scrubber input").fill(str(position))


def set_training_number(page: Page, field: str, value: str) -> None:
    """Type into one of the form's number boxes."""
    fill(page.locator(f"#training-{field} input"), value)


def choose_quick_try(page: Page, *, steps: int) -> None:
    """The preset for the model inside, made short; images soon."""
    page.get_by_role("radio", name="Quick try").check()
    page.locator("#training-reset").click()  # the browser keeps what was typed before
    expect(page.locator("#training-max-train-steps input")).to_have_value("400")
    set_training_number(page, "max-train-steps", str(steps))
    set_training_number(page, "train-batch-size", "2")
    open_section(page, "Validation and checkpoints")
    set_training_number(page, "validation-steps", "10")
    set_training_number(page, "num-validation-images", "1")
    set_training_number(page, "validation-inference-steps", "4")
    set_training_number(page, "held-out-steps", "5")
    set_training_number(page, "checkpointing-steps", "5")


def open_batch(page: Page) -> None:
    """Go to the Batch tab."""
    go_to_tab(page, "Batch")
    expect(page.locator("#start-batch")).to_be_visible()


def fill_example(page: Page, *, steps: int) -> None:
    """The example of the Batch tab, with fewer steps."""
    page.locator("#batch-example").click()
    expect(field(page, "batch-name")).to_have_value("shoes")
    set_field(page, "batch-num-inference-steps", steps)
    expect(page.locator("#batch-preview")).to_contain_text("60 images")
