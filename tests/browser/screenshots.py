"""Pictures of every screen in every state, from a real studio: `python tests/browser/screenshots.py FOLDER`.

Each state is held still (the engine is paused where it would go on) and taken four times: light and dark, 1280 and
1600 wide, as `<state>-<light|dark>-<1280|1600>.png`, the whole page; with `--language pt-BR` in Portuguese. A state
that cannot be reached is named at the end, after what overlaps or is cut off, and the others are taken.
"""

import argparse
import dataclasses
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from layout import layout_faults
from page_actions import (
    activity,
    cards,
    choose_quick_try,
    choose_run,
    compare_run,
    drop_files,
    field,
    fill_example,
    go_to_tab,
    open_batch,
    open_loras,
    open_mode,
    open_panel,
    open_section,
    open_training,
    pictures,
    save_links,
    set_field,
    slider_sources,
    start_comparing,
    start_generating,
    start_run,
    tick,
    verdict,
)
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError
from safetensors.numpy import load_file, save_file
from studio_process import (
    BROWSER_OPTIONS,
    BROWSER_VARIABLE,
    RunningStudio,
    device_taken,
    find_browser,
    poisoned_model,
    running_studio,
    wait_for,
)

from studio.batches.folder import BatchFolder
from studio.core.paths import UserData
from studio.jobs.folder import read_status
from studio.jobs.queue import JobQueue
from studio.loras.library import shipped_loras
from studio.training.begin import duplicate_run
from studio.training.folder import RunFolder
from studio.training.session import TrainingSession
from tests.datasets.bad_inputs import ACCEPTED, CONVERTED, REJECTED

WIDTHS = (1280, 1600)
SCHEMES = ("light", "dark")
WAIT_MILLISECONDS = 60_000
HUB_MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"

Act = Callable[[Page], None]


@dataclass(frozen=True)
class Stage:
    """A studio, the page that works in it, the four that look at it, and the folder for their images."""

    studio: RunningStudio
    hand: Page  # in English: what is pressed to reach a state
    pages: dict[str, Page]
    folder: Path
    language: str
    faults: list[str] = dataclasses.field(default_factory=list)  # of the layouts, in words

    def shoot(self, state: str, shows: str, *, act: Act | None = None, full_page: bool = True) -> None:
        """Take the four images of a state, once the page shows a text (in English) and an act was done on it."""
        for look, page in self.pages.items():
            page.goto(f"{self.studio.url}?language={self.language}")
            expect(page.locator("#run-generate")).to_be_visible()  # all has arrived
            if self.language == "en":
                expect(page.locator("body")).to_contain_text(shows)
            if act:
                act(page)
            page.mouse.move(0, 0)
            page.evaluate("Promise.all(document.getAnimations().map(animation => animation.finished))")
            page.screenshot(path=self.folder / f"{state}-{look}.png", full_page=full_page)
            self.faults.extend(f"{state}-{look}: {fault}" for fault in layout_faults(page))
        print(f"{state}: 4 images", flush=True)

    @contextmanager
    def paused_engine(self) -> Iterator[None]:
        """Stop the engine where it is, so that its state stays."""
        engine = self.studio.wait_for_engine()
        engine.suspend()
        try:
            yield
        finally:
            if engine.is_running():
                engine.resume()

    def open(self) -> Page:
        """The page that works, opened anew."""
        self.hand.goto(self.studio.url)
        expect(self.hand.locator("#run-generate")).to_be_visible()
        return self.hand

    def run(self, *, steps: int = 25) -> None:
        """Start a smoke test."""
        start_run(self.open(), steps=steps)

    def wait_until(self, pattern: str) -> None:
        """Wait until the studio shows a text."""
        wait_for(lambda: re.search(pattern, self.studio.shown()), what=f"the studio to show: {pattern}")


def says(place: Locator, words: str, *, timeout: float = WAIT_MILLISECONDS) -> None:
    """Wait until a place says it; on a page in a language other than English, until it says something."""
    if place.page.evaluate("document.documentElement.lang") == "en":
        expect(place).to_contain_text(words, timeout=timeout)
    else:
        expect(place).not_to_be_empty(timeout=timeout)


def starting(stage: Stage) -> None:
    with stage.paused_engine():
        stage.shoot("inference-starting", "Starting.")


def empty(stage: Stage) -> None:
    stage.shoot("inference-empty", "ready", act=opening("Smoke test", open_controls))


def refused(stage: Stage) -> None:
    def send_a_bad_seed(page: Page) -> None:
        open_mode(page, "Smoke test")
        open_section(page, "Steps, guidance, seed")
        set_field(page, "smoke-seed", "-1")
        page.locator("#run-smoke").click()
        says(page.locator("#smoke-seed .field-error"), "Seed must be")

    stage.shoot("inference-refused", "ready", act=send_a_bad_seed)


def precision_note(stage: Stage) -> None:
    stage.shoot("inference-precision-note", "ready", act=lambda page: open_panel(page, "device-box"))


def open_story(page: Page) -> None:
    open_panel(page, "device-box")
    open_section(page, "Why float32? The story of the black images")


def story(stage: Stage) -> None:
    stage.shoot(
        "inference-story",
        "ready",
        act=open_story,
    )


def device_check(stage: Stage) -> None:
    open_panel(stage.open(), "device-box")
    stage.hand.locator("#check-device").click()
    says(stage.hand.locator("#device-words"), "checked on")
    stage.shoot("inference-device-check", "ready", act=lambda page: open_panel(page, "device-box"))


def training_empty(stage: Stage) -> None:
    def look_at_more(page: Page) -> None:
        open_training(page)
        open_section(page, "The loss")

    def look_at_the_short_way(page: Page) -> None:
        go_to_tab(page, "Training")
        expect(page.locator("#short-start")).to_be_visible()

    stage.shoot("training-short", "ready", act=look_at_the_short_way)
    stage.shoot("training-empty", "ready", act=open_training)
    stage.shoot("training-form", "ready", act=look_at_more)


def training_run(stage: Stage) -> None:
    """Preflight, a run held still in its middle with others that wait, paused, and finished."""
    page = stage.open()
    open_training(page)
    choose_quick_try(page, steps=60)
    page.locator("#run-preflight").click()
    says(page.locator("#preflight-words .verdict"), "steps ≈", timeout=3 * WAIT_MILLISECONDS)
    stage.shoot("training-preflight", "LoRA Studio", act=open_training)
    stage.open()
    open_training(page)
    choose_quick_try(page, steps=60)
    page.locator("#start-training").click()
    runs = stage.studio.user_data.runs
    wait_for(lambda: any(read_status(run).step >= 25 for run in RunFolder.all_in(runs)), what="the run", seconds=300)
    run = RunFolder.all_in(runs)[0]
    job = psutil.Process(read_status(run).pid)
    job.suspend()
    queue = JobQueue(stage.studio.user_data)
    for name, rank in (("wide shoes", 32), ("narrow shoes", 2), ("small shoes", 4)):
        waiting = duplicate_run(run, stage.studio.user_data, [f"rank={rank}", f"name={name}"])
        queue.add("train", waiting.root, waiting.name)
    stage.shoot("training-running", "LoRA Studio", act=see_pictures)
    stage.shoot("inference-training", "LoRA Studio")
    job.resume()
    for waiting_job in queue.jobs()[1:]:
        queue.remove(waiting_job.id)
    queue.pause(queue.running()[0].id)
    wait_for(lambda: not queue.has_work(), what="the pause", seconds=300)
    stage.shoot("training-paused", "LoRA Studio", act=see_pictures)
    open_training(page)
    page.locator("#training-resume").click()
    wait_for(lambda: read_status(run).state == "finished", what="the end", seconds=300)
    stage.shoot("training-finished", "LoRA Studio", act=see_pictures)
    stage.shoot("training-closer", "LoRA Studio", act=open_image_viewer)


def see_pictures(page: Page) -> None:
    """Go to the tab and wait until all its small images have arrived."""
    open_training(page)
    expect(page.locator("#training-samples img:visible").first).to_be_visible()
    page.wait_for_function(
        "[...document.querySelectorAll('#training-samples img, .nearest-figure img')].every((i) => i.naturalWidth)"
    )


def open_image_viewer(page: Page) -> None:
    """Open the last step's image beside the base's."""
    see_pictures(page)
    page.locator("#training-samples .shot:visible .sample").first.click()
    expect(page.locator("#closer-slider img")).to_have_count(2)


def training_runs(stage: Stage) -> None:
    """A run that failed, and runs laid over each other, on what `training_run` left."""
    runs = stage.studio.user_data.runs
    finished = next(run for run in RunFolder.all_in(runs) if read_status(run).state == "finished")
    failing = duplicate_run(finished, stage.studio.user_data, ["max_train_steps=40", "rank=16", "name=moved"])
    lines = failing.dataset.read_text(encoding="utf-8").splitlines(keepends=True)
    failing.dataset.write_text("".join(lines[:-1]), encoding="utf-8")  # as an editor would that lost the last line
    TrainingSession(stage.studio.user_data).enqueue(failing)
    wait_for(lambda: read_status(failing).state == "failed", what="the failure", seconds=300)
    wait_for(lambda: not JobQueue(stage.studio.user_data).has_work(), what="the queue")

    def see_the_failure(page: Page) -> None:
        open_training(page)
        choose_run(page, failing.name)
        says(page.locator("#training-state"), "Failed.")

    stage.shoot("training-failed", "LoRA Studio", act=see_the_failure)
    other = duplicate_run(finished, stage.studio.user_data, ["rank=2", "learning_rate=0.001", "name=narrow"])
    TrainingSession(stage.studio.user_data).enqueue(other)
    wait_for(lambda: read_status(other).state == "finished", what="the other run", seconds=600)

    def lay_over(page: Page) -> None:
        open_training(page)
        choose_run(page, finished.name)
        compare_run(page, other.name)
        expect(page.locator("#training-differences table")).to_be_visible()
        page.keyboard.press("Escape")
        see_pictures(page)

    stage.shoot("training-overlay", "LoRA Studio", act=lay_over)


def batch_empty(stage: Stage) -> None:
    def see_the_preview(page: Page) -> None:
        open_batch(page)
        fill_example(page, steps=12)
        page.wait_for_timeout(800)

    def make_a_mistake(page: Page) -> None:
        see_the_preview(page)
        set_field(page, "batch-attributes", "colour: black, brown\nnum_inference_steps: 4, 900")
        expect(page.locator("#batch-attributes .field-error")).to_be_visible()

    def look_at_more(page: Page) -> None:
        open_batch(page)
        for name in ("Quality checks", "Output files", "X/Y grid"):
            open_section(page, name)

    stage.shoot("batch-empty", "ready", act=open_batch)
    stage.shoot("batch-preview", "ready", act=see_the_preview)
    stage.shoot("batch-error", "ready", act=make_a_mistake)
    stage.shoot("batch-form", "ready", act=look_at_more)


def batch_run(stage: Stage) -> None:
    """Measured, held still in its middle, and finished."""
    page = stage.open()
    open_batch(page)
    fill_example(page, steps=12)
    page.locator("#measure-batch").click()
    says(page.locator("#batch-forecast .verdict"), "ready at", timeout=3 * WAIT_MILLISECONDS)
    page.locator("#start-batch").click()
    batches = stage.studio.user_data.batches
    wait_for(lambda: BatchFolder.all_in(batches), what="the batch")
    job = BatchFolder.all_in(batches)[0]
    wait_for(lambda: read_status(job).step >= 20, what="twenty images", seconds=400)
    process = psutil.Process(read_status(job).pid)
    process.suspend()
    stage.shoot("batch-running", "LoRA Studio", act=open_batch)
    process.resume()
    wait_for(lambda: read_status(job).state == "finished", what="the end", seconds=600)
    stage.wait_until(" ready ")
    stage.shoot("batch-finished", "ready", act=open_batch)

    def open_it(page: Page) -> None:
        open_batch(page)
        page.locator("#batch-as-dataset").click()
        says(page.locator("#dataset-summary"), "60 will be trained on")

    stage.shoot("batch-dataset", "ready", act=open_it, full_page=False)


def batch_grid(stage: Stage) -> None:
    page = stage.open()
    open_batch(page)
    set_field(page, "batch-prompts", "product photo of brown boots, white background")
    open_section(page, "X/Y grid")
    set_field(page, "batch-grid-across-values", "4, 8, 12")
    set_field(page, "batch-grid-down-values", "3, 7.5")
    page.locator("#batch-grid-fill").click()
    says(page.locator("#batch-preview"), "6 images")
    page.locator("#start-batch").click()
    says(page.locator("#batch-state"), "6 of 6 images", timeout=3 * WAIT_MILLISECONDS)
    says(page.locator("#batch-sheet"), "X/Y grid", timeout=WAIT_MILLISECONDS)

    def see_the_grid(page: Page) -> None:
        open_batch(page)
        field(page, "batch-run").click()
        page.get_by_role("option").first.click()  # the newest
        says(page.locator("#batch-sheet"), "X/Y grid")

    stage.shoot("batch-grid", "LoRA Studio", act=see_the_grid)


def on_datasets(act: Act | None = None) -> Act:
    """Go to the Dataset tab, then do something there."""

    def go(page: Page) -> None:
        go_to_tab(page, "Dataset")
        expect(page.locator("#dataset-demo")).to_be_visible()
        if act:
            act(page)

    return go


def dataset_empty(stage: Stage) -> None:
    stage.shoot("dataset-empty", "ready", act=on_datasets())


def dataset_demo(stage: Stage) -> None:
    def look_at_one(page: Page) -> None:
        page.locator("#dataset-demo").click()
        says(page.locator("#dataset-summary"), "60 will be trained on")
        page.locator("#dataset-grid .thumb[data-key='images/10004.jpg']").click()
        says(page.locator("#dataset-facts"), "images/10004.jpg")
        page.evaluate("scrollTo(0, 0)")

    stage.shoot("dataset-demo", "ready", act=on_datasets(look_at_one), full_page=False)
    panels = {
        "layout": "Layout and captions",
        "captions": "Write captions with a model",
        "bulk": "Edit captions in bulk",
        "statistics": "Statistics",
        "export": "Export",
    }
    for name, words in panels.items():

        def open_it(page: Page, title: str = words) -> None:
            look_at_one(page)
            open_section(page, title)
            page.wait_for_timeout(800)

        stage.shoot(f"dataset-{name}", "ready", act=on_datasets(open_it))


def dataset_with_problems(stage: Stage) -> None:
    folder = stage.studio.user_data.root / "some shoes"
    folder.mkdir(exist_ok=True)
    for bad in (*REJECTED[:14], *CONVERTED[:8], *ACCEPTED[:6]):
        if not os.path.lexists(folder / bad.name):
            bad.write(folder / bad.name)

    def look(page: Page) -> None:
        set_field(page, "dataset-path", folder)
        page.locator("#dataset-open").click()
        says(page.locator("#dataset-summary"), "needs fixing")
        expect(page.locator("#dataset-summary")).not_to_contain_text(re.compile("checking|verificando"))
        page.locator("#dataset-grid .thumb[data-key='rgba.png']").click()
        says(page.locator("#dataset-facts"), "rgba.png")
        open_section(page, "Doctor")
        says(page.locator("#dataset-doctor"), "needs fixing")

    stage.shoot("dataset-problems", "ready", act=on_datasets(look))


def loading(stage: Stage) -> None:
    with stage.paused_engine():
        stage.studio.press("load", "shoes-demo", "float32", "auto", False)
        stage.shoot("inference-loading", "Loading.")


def running_and_cancelled(stage: Stage) -> None:
    stage.run(steps=50)
    stage.wait_until(r"Image 2 of 3, step 2\d ")
    with stage.paused_engine():
        stage.shoot(
            "inference-running",
            "Running.",
            act=opening("Smoke test", lambda page: expect(pictures(page)).to_have_count(1)),
        )
        stage.hand.locator("#cancel-smoke").click()
        stage.shoot("inference-cancelling", "stopping", act=opening("Smoke test"))
    stage.wait_until("cancelled after")
    stage.shoot("inference-cancelled", "cancelled after", act=opening("Smoke test"))


def passed(stage: Stage) -> None:
    stage.run()
    stage.wait_until("PASS:")
    stage.shoot(
        "inference-passed",
        "PASS:",
        act=opening("Smoke test", lambda page: expect(pictures(page)).to_have_count(3)),
    )
    stage.shoot(
        "inference-enlarged",
        "PASS:",
        act=opening("Smoke test", lambda page: page.locator("#card-1 button.zoom").click()),
        full_page=False,  # it covers the window, not the page
    )


def generate(stage: Stage, *, images: int = 1, steps: int = 25) -> None:
    """Start making images."""
    page = stage.open()
    set_field(page, "generate-prompt", "red canvas sneakers, white background <lora:white-ground>")
    set_field(page, "generate-num-images", images)
    start_generating(page, steps=steps)


def compare(stage: Stage, *, steps: int = 25, strip: bool = False) -> None:
    """Start a comparison."""
    page = stage.open()
    open_mode(page, "Compare")
    if strip:
        tick(page, "compare-strip", on=True)
    start_comparing(page, "black casual shoes, white background", "red canvas sneakers, white background", steps=steps)


def opening(mode: str, act: Act | None = None) -> Act:
    """Open a mode, then do something there."""

    def open_it(page: Page) -> None:
        open_mode(page, mode, idle=False)
        if act:
            act(page)

    return open_it


def generate_empty(stage: Stage) -> None:
    def see_the_tokens(page: Page) -> None:
        says(page.locator("#generate-tokens"), "of 75 tokens")

    stage.shoot("generate-empty", "ready", act=opening("Generate", see_the_tokens))


def generate_token_warning(stage: Stage) -> None:
    def write_much(page: Page) -> None:
        set_field(page, "generate-prompt", "red canvas sneakers, " * 18 + "on grass, evening light")
        says(page.locator("#generate-tokens"), "Cut off")
        open_section(page, "Advanced")

    stage.shoot("generate-token-warning", "ready", act=opening("Generate", write_much))


def generate_running_and_done(stage: Stage) -> None:
    generate(stage, images=4)
    stage.wait_until(r"generating: image 2 of 4, step 1\d ")
    with stage.paused_engine():
        stage.shoot(
            "generate-running",
            "generating: image 2",
            act=opening("Generate", lambda page: expect(save_links(page)).to_have_count(1)),
        )
    stage.wait_until("4 of 4 images made")
    stage.shoot(
        "generate-done", "ready", act=opening("Generate", lambda page: expect(save_links(page)).to_have_count(4))
    )


def generate_history(stage: Stage) -> None:
    generate(stage, images=6, steps=15)
    stage.wait_until("6 of 6 images made")

    def select_one(page: Page) -> None:
        expect(cards(page)).to_have_count(6)
        page.locator(".past-open").nth(2).click()
        says(page.locator(".past-head"), "A past image.")

    stage.shoot("generate-history", "ready", act=opening("Generate", select_one))


def lora_library(stage: Stage) -> None:
    """The LoRA that ships, a user's that was checked, a file that is damaged, and a dropped one that is refused."""
    loras = stage.studio.user_data.loras
    loras.mkdir(parents=True, exist_ok=True)
    tensors = load_file(shipped_loras() / "white-ground.safetensors")
    said = {"modelspec.description": "The same once more, as a user's own.", "ss_sd_model_name": "shoes-demo"}
    save_file(tensors, loras / "my ground.safetensors", metadata=said)
    broken = (loras / "my ground.safetensors").read_bytes()[:-1000]
    (loras / "half downloaded.safetensors").write_bytes(broken)
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "detail-xl.safetensors"
        name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight"
        save_file({name: np.zeros((4, 2048), np.float16)}, other)

        def look_at_it(page: Page) -> None:
            open_loras(page)
            page.locator("#check-loras").click()
            drop_files(page, "drop-lora", other)
            expect(page.locator("#lora-words .bad")).to_be_visible()
            expect(page.locator(".lora-card .good").first).to_be_visible()

        stage.shoot("lora-library", "ready", act=look_at_it)
    for file in loras.glob("*.safetensors"):
        file.unlink()


def compare_empty(stage: Stage) -> None:
    stage.shoot("compare-empty", "ready", act=opening("Compare"))


def compare_running_and_done(stage: Stage) -> None:
    compare(stage, strip=True)
    stage.wait_until(r"comparing: image 3 of \d+, step 1\d ")
    with stage.paused_engine():
        stage.shoot(
            "compare-running",
            "comparing: image 3",
            act=opening("Compare", lambda page: says(page.locator("#compare-finding"), "changes")),
        )
    stage.wait_until("is finished: 2 pairs")

    def see_the_strip(page: Page) -> None:
        slider_sources(page)
        expect(page.locator("#compare-strip-pictures .strip img")).to_have_count(6)

    stage.shoot("compare-done", "ready", act=opening("Compare", see_the_strip))


def compare_vote(stage: Stage) -> None:
    compare(stage, steps=15)
    stage.wait_until("is finished: 2 pairs")

    def begin(page: Page) -> None:
        slider_sources(page)
        open_section(page, "Blind vote")
        page.locator("#vote-start").click()
        expect(page.locator("#vote-ballot img")).to_have_count(2)

    def vote(page: Page) -> None:
        begin(page)
        for left in (2, 1):
            says(page.locator("#vote-result"), f"{left} to go.")
            page.keyboard.press("1")
        says(page.locator("#vote-result .verdict"), "of decided votes")

    stage.shoot("compare-vote", "ready", act=opening("Compare", begin))
    stage.shoot("compare-vote-result", "ready", act=opening("Compare", vote))


def engine_gone(stage: Stage) -> None:
    stage.run(steps=150)
    stage.wait_until(r"Image 1 of 3, step \d\d")
    killed = stage.studio.wait_for_engine()
    killed.kill()
    wait_for(lambda: stage.studio.engine not in (None, killed), what="the next engine")
    with stage.paused_engine():
        stage.shoot("inference-engine-gone", "The engine stopped during the smoke test", act=opening("Smoke test"))
        stage.studio.wait_for_engine().kill()  # one that dies before it is ready is not started again
        stage.wait_until("Start the engine")
    stage.shoot("inference-stopped", "engine stopped")
    stage.studio.press("start")
    stage.wait_until(" ready ")


def no_model(stage: Stage) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stage.studio.press("load", folder, "float32", "auto", False)
        stage.wait_until("no model loaded")
        stage.shoot("inference-no-model", "model_index.json")


def offline(stage: Stage) -> None:
    stage.studio.press("load", HUB_MODEL, "float32", "auto", False)
    stage.wait_until("could not be downloaded")
    stage.shoot("inference-offline", "could not be downloaded", act=open_panel)


def failed(stage: Stage) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stage.studio.press("load", str(poisoned_model(Path(folder), channel=1)), "float32", "auto", False)
        stage.wait_until(" ready ")
        stage.run()
        stage.wait_until("images are not valid")
        stage.shoot("inference-failed", "images are not valid", act=opening("Smoke test"))


def waiting(stage: Stage) -> None:
    stage.shoot("inference-waiting", "LoRA Studio", act=lambda page: says(activity(page), "waiting"))


def open_controls(page: Page) -> None:
    """Open the first folded section and see that the page is as it should be."""
    expect(verdict(page)).to_be_visible()
    open_section(page, "Steps, guidance, seed")


# In this order: the first two, and those named empty, need a studio that has not done it yet.
SCENES: dict[str, Callable[[Stage], None]] = {
    "inference-starting": starting,
    "inference-empty": empty,
    "inference-refused": refused,
    "inference-precision-note": precision_note,
    "inference-story": story,
    "inference-device-check": device_check,
    "dataset-empty": dataset_empty,
    "dataset-demo": dataset_demo,
    "dataset-problems": dataset_with_problems,
    "training-empty": training_empty,
    "training-run": training_run,
    "batch-empty": batch_empty,
    "batch-run": batch_run,
    "batch-grid": batch_grid,
    "training-runs": training_runs,
    "inference-loading": loading,
    "inference-running": running_and_cancelled,
    "inference-passed": passed,
    "generate-empty": generate_empty,
    "generate-token-warning": generate_token_warning,
    "generate-running": generate_running_and_done,
    "generate-history": generate_history,
    "lora-library": lora_library,
    "compare-empty": compare_empty,
    "compare-running": compare_running_and_done,
    "compare-vote": compare_vote,
    "inference-engine-gone": engine_gone,
    "inference-no-model": no_model,
    "inference-offline": offline,
    "inference-failed": failed,
    "inference-waiting": waiting,
}


def open_pages(browser: Browser, stack: ExitStack) -> dict[str, Page]:
    """A page for each look, by the end of its file names."""
    pages = {}
    for scheme in SCHEMES:
        for width in WIDTHS:
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
            )
            stack.callback(context.close)
            pages[f"{scheme}-{width}"] = context.new_page()
    return pages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", action="append", choices=SCENES, help="take only this state; may be repeated")
    parser.add_argument("--language", default="en", help="of the pages, such as pt-BR")
    options = parser.parse_args()
    wanted = options.only or list(SCENES)
    path = find_browser()
    if path is None:
        parser.error(f"No Chromium or Chrome was found. Install one, or name its program in {BROWSER_VARIABLE}.")
    options.folder.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=WAIT_MILLISECONDS)
    faults: list[str] = []
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=path, args=list(BROWSER_OPTIONS)
        )
        stack.callback(browser.close)
        pages = open_pages(browser, stack)
        hand = browser.new_page(locale="en-US")
        nothing_downloaded = {"HF_HOME": str(temporary / "hub")}
        if "inference-waiting" in wanted:
            user_data = UserData(temporary / "waiting")
            with (
                device_taken(user_data, "python -m studio smoke"),
                running_studio(user_data.root, environment=nothing_downloaded) as studio,
            ):
                stage = Stage(studio, hand, pages, options.folder, options.language)
                play([waiting], stage)
                faults += stage.faults
        scenes = [SCENES[name] for name in SCENES if name in wanted and name != "inference-waiting"]
        if scenes:
            with running_studio(temporary / "user_data", environment=nothing_downloaded) as studio:
                stage = Stage(studio, hand, pages, options.folder, options.language)
                play(scenes, stage)
                faults += stage.faults
    print("\n".join(faults) or "Nothing overlaps or is cut off.")


def play(scenes: list[Callable[[Stage], None]], stage: Stage) -> None:
    """Take one scene after the other, each from a studio that is ready."""
    for scene in scenes:
        if scene not in (starting, waiting):
            stage.studio.make_ready()
        try:
            scene(stage)
        except (AssertionError, PlaywrightError) as error:  # one state fewer; it is named at the end
            stage.faults.append(f"{scene.__name__}: {error}")
            print(f"{scene.__name__}: not reached", flush=True)


if __name__ == "__main__":
    main()
