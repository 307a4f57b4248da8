"""The Training tab with runs of the past and one that goes on: images, other runs, results, queue, other tabs."""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Response, expect

from studio.jobs.events import EventWriter
from studio.jobs.folder import RunStatus, write_status
from studio.jobs.queue import JobQueue
from studio.loras.library import LoraLibrary, shipped_loras
from studio.training.events import AnyEvent, FinishedEvent, ProposalEvent
from studio.training.folder import RunFolder
from tests.browser.conftest import OpenPage
from tests.browser.page_actions import (
    choose,
    choose_run,
    compare_run,
    expect_nothing_asked,
    field,
    open_training,
    scrub_to,
    set_field,
    toast,
)
from tests.browser.page_actions import training_state as state
from tests.browser.studio_process import RunningStudio, running_studio
from tests.browser.test_accessibility import light_and_dark, screen_faults
from tests.training.told_runs import PROMPTS, SETTINGS, make_run, sample_event, step_event
from tests.ui.told_scores import near, reference_event, score_event

NEWEST, OTHER = "20261125-220000-white-shoes", "20261124-220000-white-shoes"


def told_events(folder: Path) -> list[AnyEvent]:
    """Four hundred steps, images of four of them with their scores, and a proposal."""
    events: list[AnyEvent] = [reference_event(0.98)]
    for step in range(0, 401):
        if step:
            events.append(step_event(step, loss=0.2 - step / 4000))
        if step % 100 == 0:
            events.append(sample_event(folder, step))
            events.append(score_event(step, step / 500, near("0.png", 0.1, likeness="as a copy"), near("1.png", 1.2)))
    lora = "samples/step-000300/lora.safetensors"
    shutil.copyfile(shipped_loras() / "white-ground.safetensors", folder / lora)
    events.append(ProposalEvent(step=300, sentence="Step 300: white backgrounds 60%.", sure=True, lora=lora))
    return [*events, FinishedEvent(files=("white-shoes.safetensors",), library_name="white-shoes")]


@pytest.fixture(scope="module")
def past_studio(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """A studio with two runs of the past, on a machine without a screen."""
    folder = tmp_path_factory.mktemp("past") / "user_data"
    for name, changes in ((OTHER, {"rank": 64}), (NEWEST, {})):
        run = folder / "runs" / name
        make_run(run, told_events(run), settings=SETTINGS.model_copy(update=changes))
    no_screen = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}
    with running_studio(folder, environment=no_screen) as running:
        yield running


@pytest.fixture
def training(past_studio: RunningStudio, open_page: OpenPage) -> Page:
    """The tab of that studio on a page of its own, which shows the newest run."""
    page = open_page(past_studio, ready=False)
    open_training(page)
    expect(page.locator("#training-files")).to_contain_text(NEWEST)
    return page


def samples(page: Page, step: int) -> list[str]:
    """Where the small copies of a step's images are."""
    images = page.locator(f"#training-samples .sample[data-step='{step}'] img")
    return [image.get_attribute("src") or "" for image in images.all()]


def slider_sizes(page: Page) -> list[int]:
    images = page.locator("#closer-slider img")
    expect(images).to_have_count(2)
    for image in images.all():
        expect(image).to_have_js_property("complete", True)
    return [image.evaluate("image => image.naturalWidth") for image in images.all()]


def test_a_picture_opens_large_beside_the_bases_and_one_goes_on_by_keyboard(training: Page) -> None:
    page, image_viewer = training, training.locator("#training-closer")
    expect(image_viewer).to_be_hidden()
    scrub_to(page, 2)
    page.get_by_role("button", name=f"Enlarge step 200: {PROMPTS[1]}").focus()
    page.keyboard.press("Enter")
    expect(image_viewer).to_be_visible()
    expect(image_viewer).to_be_in_viewport()
    assert slider_sizes(page) == [64, 64], "the images themselves, not their small copies"
    expect(image_viewer).to_contain_text("LoRA at step 200 ▶")
    expect(image_viewer).to_contain_text("Nearest training image: 1.png")
    expect(page.locator("#closer-close")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(image_viewer).to_contain_text("LoRA at step 300 ▶")
    page.locator("#closer-previous-picture").click()
    expect(image_viewer).to_contain_text(PROMPTS[0])
    expect(image_viewer).to_contain_text("as a copy, distance 0.10")
    expect(page.locator("#closer-previous-picture")).to_be_disabled()
    choose(page, "closer-step", "400")
    expect(image_viewer).to_contain_text("LoRA at step 400 ▶")
    page.locator("#closer-close").focus()
    page.keyboard.press("Escape")
    expect(image_viewer).to_be_hidden()
    expect(page.get_by_role("button", name=f"Enlarge step 400: {PROMPTS[0]}")).to_be_focused()


def test_the_scrubber_and_the_cursor_of_the_loss_move_together_in_the_browser(training: Page) -> None:
    page, asked = training, list[str]()
    shown, cursor = page.locator(".scrubbed-step:visible"), page.locator(".chart-figure.large .cursor")
    expect(shown).to_contain_text("LoRA at step 300 ✓ recommended")
    size = page.locator(".scrubber .shot:visible img").first.evaluate(
        "image => [image.naturalWidth, image.naturalHeight, image.clientWidth / image.naturalWidth]"
    )
    enlarged = f", shown × {size[2]:.1f}" if abs(size[2] - 1) > 0.05 else ""
    expect(page.locator(".scrubber .shown-size")).to_have_text(f"{size[0]} × {size[1]}{enlarged}")
    page.on("request", lambda request: asked.append(request.url))
    at = [float(cursor.get_attribute("x1") or 0)]
    for _ in range(2):
        page.locator(".scrubber input").press("ArrowLeft")
        at.append(float(cursor.get_attribute("x1") or 0))
    expect(shown).to_contain_text("LoRA at step 100")
    expect(page.get_by_role("button", name=f"Enlarge step 100: {PROMPTS[0]}")).to_be_visible()
    assert at[0] - at[1] == pytest.approx(at[1] - at[2], abs=0.5)
    plot = page.locator(".chart-figure.large svg.chart")
    plot.click(position={"x": (plot.bounding_box() or {"width": 0})["width"] * 0.9, "y": 60})
    expect(shown).to_contain_text("LoRA at step 400")
    expect(page.locator(".scrubber input")).to_have_value("4")
    assert not [url for url in asked if "/file=" in url], "every image is in the page already"


def test_it_closes_when_another_run_is_chosen(training: Page) -> None:
    scrub_to(training, 0)
    training.get_by_role("button", name=f"Enlarge base: {PROMPTS[0]}").click()
    expect(training.locator("#training-closer")).to_contain_text("LoRA at step 400 ▶")
    choose_run(training, OTHER)
    expect(training.locator("#training-closer")).to_be_hidden()


def test_scores_are_drawn_over_the_steps_and_tell_their_values_under_the_pointer(training: Page) -> None:
    charts = training.locator(".score-charts svg.chart")
    expect(charts).to_have_count(5)
    charts.first.hover()
    values = training.locator(".score-charts .chart-values").first
    expect(values).to_contain_text(re.compile(r"step 1\d\d: LoRA 40% · base 10% · dataset 98%"))
    expect(training.locator(".nearest-figure")).to_contain_text("as a copy")


def test_runs_are_laid_over_with_a_table_of_what_differs(training: Page) -> None:
    expect(training.locator("#training-differences")).to_be_empty()
    compare_run(training, OTHER)
    table = training.locator("#training-differences table")
    expect(table).to_contain_text("Rank")
    expect(table.locator("tbody tr")).to_have_count(1)
    expect(table.locator("td")).to_have_text(["Rank", "8", "64"])
    expect(training.locator("#training-plot svg.chart .line.fourth").first).to_be_visible()
    training.reload()
    open_training(training)
    expect(table).to_contain_text("Rank")
    expect(training.locator(f"#training-runs input[data-run='{OTHER}']")).to_be_checked()
    compare_run(training, OTHER, compared=False)
    expect(table).to_have_count(0)


def test_the_proposed_lora_goes_to_compare_beside_the_base_to_generate_and_to_a_batch(
    past_studio: RunningStudio, training: Page
) -> None:
    training.locator(".end-card").get_by_role("button", name="Compare with the base").click()
    expect(training.locator("#run-compare")).to_be_visible()
    expect(field(training, "compare-lora-0")).to_have_value("base")
    expect(field(training, "compare-lora-1")).to_have_value("white-ground"), "it is a copy of the one that ships"
    assert LoraLibrary(past_studio.user_data.loras).names() == ("white-ground",)
    open_training(training)
    training.get_by_role("button", name="Use it").click()
    expect(field(training, "generate-lora-0")).to_have_value("white-ground")
    open_training(training)
    training.get_by_role("button", name="Make a batch with it").click()
    expect(training.locator("#start-batch")).to_be_visible()
    expect(field(training, "batch-lora-0")).to_have_value("white-ground")
    set_field(training, "batch-strength-0", "0.5")
    training.locator("#batch-example").click()
    expect(field(training, "batch-name")).to_have_value("shoes")
    expect(field(training, "batch-strength-0")).to_have_value("0.5"), "the example's is 1"


def test_the_report_is_saved_whole_in_one_file(past_studio: RunningStudio, training: Page) -> None:
    with training.expect_download() as download:
        training.locator("#training-report").click()
    assert download.value.suggested_filename == f"{NEWEST}-report.html"
    page = Path(download.value.path()).read_text(encoding="utf-8")
    assert "Training of white-shoes" in page
    assert "data:image/jpeg;base64," in page
    assert (past_studio.user_data.runs / NEWEST / "report.md").is_file(), "and written beside the run"


def test_the_proposed_lora_is_exported_inside_a_whole_model_and_its_place_is_shown(
    past_studio: RunningStudio, training: Page
) -> None:
    export, said = training.locator("#training-export-merged"), training.locator("#training-export")
    folder = past_studio.user_data.runs / NEWEST / "white-shoes step 300-merged"
    export.click()
    expect(said).to_contain_text("A whole model with the LoRA in it is being written.")
    expect(export).to_be_disabled()
    expect(said).to_contain_text(str(folder), timeout=120_000)
    assert (folder / "model_index.json").is_file()
    expect(export).to_be_enabled()
    export.click()
    expect(said.get_by_role("alert")).to_contain_text("is there already, and nothing is overwritten", timeout=120_000)
    training.locator("#training-export-checkpoint").click()
    expect(said.get_by_role("alert")).to_contain_text("Export a model folder instead", timeout=120_000)


def test_without_a_screen_the_folders_path_is_told(past_studio: RunningStudio, training: Page) -> None:
    training.locator("#training-folder").click()
    expect(toast(training)).to_contain_text(str(past_studio.user_data.runs / NEWEST))


def test_nothing_of_a_runs_folder_is_served_but_small_copies(past_studio: RunningStudio, training: Page) -> None:
    first = samples(training, 300)[0]
    assert training.request.get(f"{past_studio.url}/{first}").ok
    for file in ("settings.json", "events.jsonl", "samples/step-000300/lora.safetensors", "report.html"):
        path = past_studio.user_data.runs / NEWEST / file
        assert training.request.get(f"{past_studio.url}/gradio_api/file={path}").status >= 400, file


@contextmanager
def waiting_jobs(studio: RunningStudio, *names: str) -> Iterator[JobQueue]:
    """Runs that wait in the queue, with nobody who works on them."""
    queue = JobQueue(studio.user_data)
    for name in names:
        run = make_run(
            studio.user_data.runs / f"20261101-000000-{name}", [], status=RunStatus(state="new", num_steps=9)
        )
        queue.add("train", run.root, name)
    try:
        yield queue
    finally:
        for job in queue.jobs():
            queue.remove(job.id)
            shutil.rmtree(job.run_folder)


def order(queue: JobQueue) -> list[str]:
    return [job.title for job in queue.jobs()]


def test_the_queue_is_put_in_order_by_keyboard_and_focus_stays(past_studio: RunningStudio, training: Page) -> None:
    page = training
    with waiting_jobs(past_studio, "one", "two", "three") as queue:
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        titles = page.locator("#training-queue .queue-run")
        expect(titles).to_have_text([re.compile(f"^{name}") for name in ("one", "two", "three")])
        one, two, three = titles.all_inner_texts()
        up = page.get_by_role("button", name=f"Move {three} up")
        up.focus()
        page.keyboard.press("Enter")
        expect(titles).to_have_text([one, three, two])
        expect(up).to_be_focused()
        page.keyboard.press("Enter")
        expect(titles).to_have_text([three, one, two])
        expect(up).to_be_disabled()
        expect(page.get_by_role("button", name=f"Show {three}")).to_be_focused()
        assert order(queue) == ["three", "one", "two"]
        page.get_by_role("button", name=f"Remove {one} from the queue").click()
        expect(toast(page)).to_contain_text("one left the queue. Its run is kept")
        expect(titles).to_have_text([three, two])
        page.get_by_role("button", name=f"Show {two}").click()
        expect(state(page)).to_contain_text("In the queue, position 2.")
        shutil.rmtree(past_studio.user_data.runs / "20261101-000000-one")


def test_two_tabs_follow_a_run_within_two_seconds_and_ask_nothing_when_it_ended(
    past_studio: RunningStudio, open_page: OpenPage
) -> None:
    run = make_run(past_studio.user_data.runs / "20261231-000000-live", [])
    try:
        _follow(run, past_studio, open_page)
    finally:
        shutil.rmtree(run.root)


def _follow(run: RunFolder, studio: RunningStudio, open_page: OpenPage) -> None:
    writer = EventWriter(run.events)

    def report(step: int, *more: AnyEvent, ended: bool = False) -> None:
        writer.report(step_event(step))
        for event in more:
            writer.report(event)
        write_status(run, RunStatus(state="finished" if ended else "running", step=step, num_steps=100))

    report(1, sample_event(run.root, 0), sample_event(run.root, 1))
    pages = [open_page(studio, ready=False) for _ in range(2)]
    answers: list[str] = []
    for page in pages:
        open_training(page)
        expect(page.locator("#training-samples img:visible").first).to_be_visible()
    pages[1].on("response", lambda response: answers.append(_body(response)))
    delays = []
    for step in (2, 3, 4):
        report(step)
        reported_at = time.monotonic()
        for page in pages:
            expect(state(page)).to_contain_text(f"step {step} of 100")
        delays.append(time.monotonic() - reported_at)
    began = time.monotonic()
    studio.shown()
    busy = 20 * (time.monotonic() - began)  # a machine that computes other things answers later too
    assert min(delays) < max(2.0, busy), "seconds"
    end = time.monotonic() + 10
    while not any("step 4 of 100" in answer for answer in answers):  # shown already; told to this test a moment later
        assert time.monotonic() < end, "this test does not see what is sent"
        pages[1].wait_for_timeout(50)
    assert not [answer for answer in answers if "data-picture" in answer], "no image came anew"
    assert max(map(len, answers)) < 40_000
    report(5, ended=True)
    for page in pages:
        expect(state(page)).to_contain_text("Finished.")
    expect_nothing_asked(*pages)


def _body(response: Response) -> str:
    return response.text() if "/gradio_api/run/" in response.url else ""


@light_and_dark
def test_axe_finds_nothing_serious_on_a_run_looked_at_closely_with_a_queue(
    past_studio: RunningStudio, open_page: OpenPage, dark: bool
) -> None:
    with waiting_jobs(past_studio, "one", "two"):
        page = open_page(past_studio, ready=False, dark=dark)
        open_training(page)
        compare_run(page, OTHER)
        scrub_to(page, 2)
        page.get_by_role("button", name=f"Enlarge step 200: {PROMPTS[1]}").click()
        expect(page.locator("#training-closer")).to_be_visible()
        expect(page.locator("#training-queue")).to_contain_text("2 runs wait")
        expect(page.locator("#training-differences table")).to_be_visible()
        assert screen_faults(page) == []
