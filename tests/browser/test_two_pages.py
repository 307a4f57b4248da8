"""Two pages at once, each with a run and a batch of its own: what is pressed on one is about what that one shows."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from playwright.sync_api import Browser, Locator, Page, expect

from studio.batches.folder import BatchFolder
from studio.batches.session import BatchSession
from studio.core.paths import UserData
from studio.datasets.session import LAST_OPENED
from studio.jobs.folder import REQUESTS, RunState, RunStatus, pending_requests, take_requests, write_status
from studio.jobs.queue import JobQueue, JobState
from studio.jobs.words import title
from studio.loras.library import shipped_loras
from studio.training.events import AnyEvent
from studio.training.folder import RunFolder
from tests.batches.test_session import make_batch, note
from tests.browser.conftest import Profiles, forget_forms
from tests.browser.page_actions import (
    choose,
    choose_run,
    compare_run,
    field,
    fill,
    go_to_tab,
    open_batch,
    open_training,
    runs_on,
    scrub_to,
    shown_run,
    toast,
    training_state,
)
from tests.browser.studio_process import RunningStudio, running_studio
from tests.training.told_runs import SETTINGS, make_run, sample_event, step_event

RANKS = {"20261124-220000-first": 64, "20261125-220000-second": 4}
LORA = "samples/step-{step:06}/lora.safetensors"
NO_SCREEN = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}  # or “Open the folder” would open windows here


@dataclass(frozen=True)
class Prepared:
    """A studio with two runs and two batches, and the pages of two browsers: the first shows the first of each."""

    studio: RunningStudio
    runs: tuple[RunFolder, RunFolder]
    batches: tuple[BatchFolder, BatchFolder]
    pages: tuple[Page, Page]

    @property
    def queue(self) -> JobQueue:
        return JobQueue(self.studio.user_data)

    def expect_jobs(self, **states: JobState) -> None:
        """Wait for the states of the jobs of what the pages `one` and `two` show, and see that there are no others."""
        names = {job.run.name for job in self.queue.jobs()}
        shown = dict(zip(("one", "two"), self.runs if names & set(RANKS) else self.batches, strict=True))
        reported: dict[str, str] = {}
        for _ in range(100):
            reported = {job.run.name: job.state for job in self.queue.jobs()}
            if reported == {shown[page].name: state for page, state in states.items()}:
                return
            self.pages[0].wait_for_timeout(50)
        raise AssertionError(f"the queue has {reported}, not {states}")


def told_events(run: Path) -> list[AnyEvent]:
    """Three hundred steps with images of three of them."""
    events: list[AnyEvent] = [step_event(step) for step in range(1, 301)]
    for step in (100, 200, 300):
        events.append(sample_event(run, step))
        shutil.copyfile(shipped_loras() / "white-ground.safetensors", run / LORA.format(step=step))
    return events


def two_batches(user_data: UserData) -> tuple[BatchFolder, BatchFolder]:
    """The older one has an image, the newer two."""
    first, second = sorted((make_batch(BatchSession(user_data), name) for name in ("one", "two")), key=lambda b: b.name)
    for batch, number in ((first, 1), (second, 2)):
        for item in range(number):
            note(batch, item)
    return first, second


@pytest.fixture(scope="module")
def studio(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """A studio where nobody works on what is in the queue."""
    user_data = UserData(tmp_path_factory.mktemp("two-pages") / "user_data")
    for name, rank in RANKS.items():
        run = user_data.runs / name
        make_run(run, told_events(run), settings=SETTINGS.model_copy(update={"rank": rank}))
    two_batches(user_data)
    with FileLock(user_data.root / "worker.lock"), running_studio(user_data.root, environment=NO_SCREEN) as running:
        yield running


@pytest.fixture
def prepared(studio: RunningStudio, profiles: Profiles) -> Iterator[Prepared]:
    """With what is in the queue, and what was asked for, taken back afterwards."""
    session = BatchSession(studio.user_data)
    first, second = (session.named(name) for name in sorted(session.view().names))
    runs = tuple(RunFolder(studio.user_data.runs / name) for name in RANKS)
    one, two = (profiles(1280, dark).new_page() for dark in (False, True))
    for page in (one, two):
        forget_forms(page, studio.url)
    yield Prepared(studio, (runs[0], runs[1]), (first, second), (one, two))
    for page in (one, two):
        page.close()
    queue = JobQueue(studio.user_data)
    for job in queue.jobs():
        queue.remove(job.id)
    for folder in (*runs, first, second):
        take_requests(folder)


def show_runs(prepared: Prepared, state: RunState) -> None:
    """Both runs stand so; each page shows its own."""
    for page, run in zip(prepared.pages, prepared.runs, strict=True):
        write_status(run, RunStatus(state=state, step=300, num_steps=400))
        page.goto(prepared.studio.url)
        open_training(page)
        choose_run(page, run.name)
        expect(page.locator("#training-files")).to_contain_text(run.name)


def show_batches(prepared: Prepared, state: RunState) -> None:
    """Likewise of the batches."""
    for page, batch in zip(prepared.pages, prepared.batches, strict=True):
        write_status(batch, RunStatus(state=state, step=1, num_steps=4))
        page.goto(prepared.studio.url)
        open_batch(page)
        choose(page, "batch-run", title(batch))
        expect(page.locator("#batch-files")).to_contain_text(batch.name)


def press(page: Page, name: str) -> None:
    button = page.locator(f"#{name}")
    expect(button).to_be_enabled()
    button.click()


def expect_asked(page: Page, run: RunFolder, *requests: str) -> None:
    """What was asked of a run, once the page's press has arrived."""
    for _ in range(100):
        if pending_requests(run) == set(requests):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{run.name} was asked for {sorted(pending_requests(run))}, not for {sorted(requests)}")


def toast_after(page: Page, name: str) -> Locator:
    press(page, name)
    return toast(page)


@pytest.mark.parametrize("first", [0, 1], ids=["older first", "newer first"])
def test_a_run_is_asked_by_the_page_that_shows_it(prepared: Prepared, first: int) -> None:
    show_runs(prepared, "running")
    page, run, other = prepared.pages[first], prepared.runs[first], prepared.runs[1 - first]
    for number in range(len(REQUESTS)):
        press(page, f"training-{REQUESTS[number]}")
        expect_asked(page, run, *REQUESTS[: number + 1])
    assert pending_requests(other) == set()
    press(prepared.pages[1 - first], "training-sample")
    expect_asked(page, other, "sample")


def test_a_run_is_resumed_by_the_page_that_shows_it(prepared: Prepared) -> None:
    show_runs(prepared, "paused")
    one, two = prepared.pages
    press(one, "training-resume")
    expect(training_state(one)).to_contain_text("In the queue, position 1.")
    prepared.expect_jobs(one="queued")
    press(two, "training-resume")
    expect(training_state(two)).to_contain_text("In the queue, position 2.")
    prepared.expect_jobs(one="queued", two="queued")
    expect(training_state(one)).to_contain_text("In the queue, position 1.")


@pytest.mark.parametrize(("button", "state"), [("pause", "paused"), ("stop", "stopped")])
def test_the_job_of_the_run_that_is_shown_is_halted(prepared: Prepared, button: str, state: JobState) -> None:
    for run in prepared.runs:
        prepared.queue.add("train", run.root, run.name)
    show_runs(prepared, "waiting")
    one, two = prepared.pages
    press(one, f"training-{button}")
    prepared.expect_jobs(one=state, two="queued")
    press(two, f"training-{button}")
    prepared.expect_jobs(one=state, two=state)


def test_what_comes_out_is_of_the_run_that_is_shown(prepared: Prepared) -> None:
    show_runs(prepared, "finished")
    for page, run in zip(prepared.pages, prepared.runs, strict=True):
        expect(toast_after(page, "training-folder")).to_contain_text(str(run.root))
        press(page, "training-duplicate")
        expect(page.locator("#training-rank input")).to_have_value(str(RANKS[run.name]))
        with page.expect_download() as download:
            press(page, "training-report")
        assert download.value.suggested_filename == f"{run.name}-report.html"


def test_each_page_draws_and_compares_as_it_was_told_and_keeps_that_through_a_reload(prepared: Prepared) -> None:
    show_runs(prepared, "finished")
    one, two = prepared.pages
    choose(one, "plot-window", "Last 200")
    one.locator("#plot-log input").check()
    compare_run(one, prepared.runs[1].name)
    differences = one.locator("#training-differences table")
    expect(differences.locator("td")).to_have_text(["Rank", "64", "4"])
    for page, shown in ((one, ("Last 200", True, 1)), (two, ("All steps", False, 0))):
        page.reload()
        open_training(page)
        expect(page.locator("#training-files")).to_contain_text(prepared.runs[prepared.pages.index(page)].name)
        window, log, compared = shown
        expect(field(page, "plot-window")).to_have_value(window)
        expect(page.locator("#plot-log input")).to_be_checked(checked=log)
        expect(page.locator("#training-differences table")).to_have_count(compared)


def test_an_image_is_open_on_one_page_alone_and_every_press_moves_it(prepared: Prepared) -> None:
    show_runs(prepared, "finished")
    one, two = prepared.pages
    scrub_to(one, 1)
    one.locator("#training-samples .shot:visible .sample").first.click()
    image_viewer = one.locator("#training-closer")
    expect(image_viewer).to_contain_text("LoRA at step 100 ▶")
    one.evaluate(
        "async () => { const next = document.querySelector('#closer-next-step'); next.click();"
        "await new Promise((done) => setTimeout(done, 60)); next.click(); }"
    )
    expect(image_viewer).to_contain_text("LoRA at step 300 ▶")
    expect(one.locator("#closer-next-step")).to_be_disabled()
    two.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # what a browser sends on coming back
    expect(two.locator("#training-closer")).to_be_hidden()
    one.reload()
    open_training(one)
    expect(image_viewer).to_contain_text("LoRA at step 300 ▶")
    expect(one.locator("#training-files")).to_contain_text(prepared.runs[0].name)
    choose_run(one, prepared.runs[1].name)
    expect(image_viewer).to_be_hidden()


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="the trash of these is one for all")
def test_each_page_deletes_what_it_shows_after_one_question(prepared: Prepared, tmp_path: Path) -> None:
    show_runs(prepared, "finished")
    kept = shutil.copytree(prepared.runs[1].root, tmp_path / "kept")
    one, two = prepared.pages
    for page, run in zip(prepared.pages, prepared.runs, strict=True):
        press(page, "training-delete")
        expect(page.locator("#training-trash")).to_contain_text(f"Delete {title(run)}?")
    press(one, "training-trash-not")
    expect(one.locator("#training-trash")).to_be_hidden()
    assert prepared.runs[0].settings.is_file()
    called = title(prepared.runs[1])
    press(two, "training-trash-really")
    expect(toast(two)).to_contain_text(f"{called} is in the system's trash.")
    expect(two.locator("#training-files")).to_contain_text(prepared.runs[0].name)
    expect(one.locator("#training-files")).to_contain_text(prepared.runs[0].name)
    assert prepared.runs[0].settings.is_file()
    assert not prepared.runs[1].root.exists()
    shutil.copytree(kept, prepared.runs[1].root)  # for the other tests


def test_each_page_names_what_it_shows_and_the_other_reads_it(prepared: Prepared) -> None:
    show_runs(prepared, "running")
    one, two = prepared.pages
    for page, name in ((one, "<b>White</b> shoes"), (two, "Red shoes")):
        press(page, "training-rename")
        fill(field(page, "training-label-name"), name)
    fill(field(one, "training-label-note"), "for the *shop*")
    choose_run(two, prepared.runs[0].name)  # what is open stays about the run that it was opened for
    try:
        for page in (two, one):
            press(page, "training-label-save")
            expect(page.locator("#training-label")).to_be_hidden()
        expect(one.locator("#training-state .user-label")).to_have_text("<b>White</b> shoesfor the *shop*")
        for page in (one, two):
            expect(shown_run(page).locator("b")).to_have_text("<b>White</b> shoes")
        assert runs_on(two) == [run.name for run in reversed(prepared.runs)]
        expect(two.locator("#training-runs .run-card b").first).to_have_text("Red shoes")
    finally:
        for run in prepared.runs:
            run.label.unlink(missing_ok=True)
            os.utime(run.root.parent)


def test_a_run_that_is_gone_is_refused_and_no_other_takes_its_place(prepared: Prepared, tmp_path: Path) -> None:
    show_runs(prepared, "paused")
    page, (gone, other) = prepared.pages[0], prepared.runs
    shutil.move(gone.root, tmp_path / "moved")
    try:
        expect(toast_after(page, "training-resume")).to_contain_text(f"There is no run {title(gone)} any more")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(page.locator("#training-state .problem")).to_contain_text("Choose another run.")
        expect(page.locator("#training-resume")).to_be_hidden()
        prepared.expect_jobs()
        choose_run(page, other.name)
        expect(page.locator("#training-files")).to_contain_text(other.name)
    finally:
        shutil.move(tmp_path / "moved", gone.root)


def test_what_is_started_on_a_page_is_shown_there_and_a_row_of_the_queue_too(prepared: Prepared) -> None:
    show_runs(prepared, "finished")
    (one, two), (first, second) = prepared.pages, prepared.runs
    press(one, "start-training")
    expect(training_state(one)).to_contain_text("In the queue, position 1.")
    (job,) = prepared.queue.jobs()
    try:
        expect(shown_run(one)).to_have_attribute("data-run", job.run.name)
        two.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        show = two.get_by_role("button", name=f"Show {job.short_title}")
        expect(show).to_be_visible()
        expect(shown_run(two)).to_have_attribute("data-run", second.name)
        show.click()
        expect(shown_run(two)).to_have_attribute("data-run", job.run.name)
        choose_run(one, first.name)
        expect(training_state(two)).to_contain_text("In the queue, position 1.")
    finally:
        shutil.rmtree(job.run_folder)


@pytest.mark.parametrize("first", [0, 1], ids=["older first", "newer first"])
def test_a_batch_is_asked_by_the_page_that_shows_it(prepared: Prepared, first: int) -> None:
    show_batches(prepared, "running")
    page, batch, other = prepared.pages[first], prepared.batches[first], prepared.batches[1 - first]
    press(page, "batch-pause")
    expect_asked(page, batch, "pause")
    press(page, "batch-stop")
    expect_asked(page, batch, "pause", "stop")
    assert pending_requests(other) == set()
    press(prepared.pages[1 - first], "batch-stop")
    expect_asked(page, other, "stop")


def test_a_batch_is_resumed_copied_and_opened_by_the_page_that_shows_it(prepared: Prepared) -> None:
    show_batches(prepared, "stopped")
    (one, two), (first, second) = prepared.pages, prepared.batches
    for page, batch, number in ((one, first, 1), (two, second, 2)):
        page.reload()
        open_batch(page)
        expect(page.locator("#batch-files")).to_contain_text(batch.name)
        expect(page.locator("#batch-state")).to_contain_text(f"{number} of 4 images")
        expect(toast_after(page, "batch-folder")).to_contain_text(str(batch.root))
        press(page, "batch-duplicate")
        expect(field(page, "batch-name")).to_have_value(batch.name.rpartition("-")[2])
    press(one, "batch-resume")
    expect(one.locator("#batch-state")).to_contain_text("In the queue.")
    prepared.expect_jobs(one="queued")
    press(one, "batch-as-dataset")
    expect(one.locator("#dataset-summary")).to_contain_text("1 will be trained on")
    press(two, "batch-as-dataset")
    expect(two.locator("#dataset-summary")).to_contain_text("2 will be trained on")
    one.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(one.locator("#dataset-layout-words")).to_contain_text(first.name)
    expect(one.locator("#dataset-summary")).to_contain_text("1 will be trained on")
    open_batch(two)
    press(two, "batch-resume")
    expect(two.locator("#batch-state")).to_contain_text("In the queue.")
    prepared.expect_jobs(one="queued", two="queued")


def test_the_choice_outlives_the_studio(prepared: Prepared, tmp_path: Path) -> None:
    user_data = UserData(tmp_path)
    for name in RANKS:
        make_run(user_data.runs / name, [])
    page = prepared.pages[0]
    with running_studio(user_data.root) as first:
        page.goto(first.url)
        open_training(page)
        older, newer = RANKS
        expect(page.locator("#training-files")).to_contain_text(newer)
        choose_run(page, older)
        expect(page.locator("#training-files")).to_contain_text(older)
        go_to_tab(page, "Dataset")
        page.locator("#dataset-demo").click()
        expect(page.locator("#dataset-summary")).to_contain_text("60 will be trained on")
        page.goto("about:blank")  # else Gradio reloads it at a moment of its own
    (user_data.datasets / LAST_OPENED).unlink()  # as if another page had opened another one since
    with running_studio(user_data.root, port=first.port):
        page.goto(first.url)
        open_training(page)
        expect(page.locator("#training-files")).to_contain_text(older)
        expect(shown_run(page)).to_have_attribute("data-run", older)
        go_to_tab(page, "Dataset")
        expect(page.locator("#dataset-grid .thumbs[data-dataset='casual-shoes']")).to_be_visible()
