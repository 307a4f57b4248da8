"""What an open Training tab costs: the page's process, the browser, and the training itself; and its buttons' haste."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, TypeVar

import psutil

from bench.browser import (
    browser_seconds,
    empty_user_data,
    open_training_tab,
    opened_browser,
    served_studio,
)
from bench.figures import Figure, paired_figure, plain_figure
from bench.long_run import LongRun, telling
from bench.settings import BenchSettings
from studio.core.errors import StudioError
from studio.core.paths import UserData, assets_folder
from studio.jobs.folder import read_status
from studio.jobs.queue import JobQueue
from studio.training.begin import begin_run
from studio.training.events import AnyEvent, CheckpointEvent, StepEvent, read_events
from studio.training.folder import RunFolder
from studio.training.presets import settings_from
from studio.training.session import TrainingSession

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROCESS_LIMIT_PERCENT = 5.0
IDLE_LIMIT_PERCENT = 10.0
UPDATE_LIMIT_MILLISECONDS = 60.0
SLOWER_LIMIT = 1.01
FIRST_STEP_LIMIT_SECONDS, SAVED_LIMIT_SECONDS = 8.0, 2.0
TOLD_STEPS = 20_000
WATCHED_SECONDS, SETTLING_SECONDS = 30.0, 6.0
BLOCK_SECONDS, NUM_BLOCK_PAIRS = 20.0, 5  # with the tab and without, in turns
MIN_STEPS = 4  # of a block, for a median
PATIENCE_SECONDS = 180.0

Found = TypeVar("Found")


def bench_training_tab(settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    """All figures of the tab.

    Raises:
        SkippedError: where Playwright or Chromium is missing.
        StudioError: where the studio or the training does not do its part.
    """
    with opened_browser() as browser:
        idle = [_watch_idle_page(browser, settings, user_data) for _ in range(settings.runs)]
        watched = [_watch_long_run(browser, settings, user_data) for _ in range(settings.runs)]
        pressed = [_start_and_stop(browser, settings, user_data) for _ in range(settings.runs)]
        slowed = _slowed(browser, settings, user_data)
    percents = [percent for percent, _ in watched]
    updates = [milliseconds for _, some in watched for milliseconds in some]
    return (
        plain_figure("an idle page, browser and the page's process", idle, unit="%", limit=IDLE_LIMIT_PERCENT),
        plain_figure("page's process, a tab on 20,000 steps", percents, unit="%", limit=PROCESS_LIMIT_PERCENT),
        plain_figure("browser's main thread, an update", updates, unit="ms", limit=UPDATE_LIMIT_MILLISECONDS),
        slowed,
        plain_figure("Start to the first step", [a for a, _ in pressed], unit="s", limit=FIRST_STEP_LIMIT_SECONDS),
        plain_figure("Stop to saved", [b for _, b in pressed], unit="s", limit=SAVED_LIMIT_SECONDS),
    )


def _watch_idle_page(browser: "Browser", settings: BenchSettings, user_data: UserData) -> float:
    with empty_user_data(user_data) as folder:
        return idle_percent(browser, folder, cpu=settings.cpu, seconds=WATCHED_SECONDS)


def idle_percent(browser: "Browser", folder: UserData, *, cpu: bool, seconds: float) -> float:
    """Percent of one core that browser and page's process take while nothing goes on and the engine is loaded."""
    with served_studio(folder, cpu=cpu) as (url, process):
        page = open_training_tab(browser, url)
        page.locator("#status-activity", has_text="ready").wait_for(timeout=1000 * PATIENCE_SECONDS)
        page.wait_for_timeout(1000 * SETTLING_SECONDS)
        server = psutil.Process(process.pid)
        before, started = _seconds_of(server) + browser_seconds(browser), time.perf_counter()
        page.wait_for_timeout(1000 * seconds)
        taken = _seconds_of(server) + browser_seconds(browser) - before
        share = taken / (time.perf_counter() - started)
        page.context.close()
    return 100 * share


def _watch_long_run(
    browser: "Browser", settings: BenchSettings, user_data: UserData
) -> tuple[float, tuple[float, ...]]:
    """Percent of one core that the page's process took, and the main thread's milliseconds of each update."""
    with empty_user_data(user_data) as folder, telling(LongRun(folder, told_steps=TOLD_STEPS)):
        return watch(browser, folder, cpu=settings.cpu, seconds=WATCHED_SECONDS)


def watch(browser: "Browser", folder: UserData, *, cpu: bool, seconds: float) -> tuple[float, tuple[float, ...]]:
    """The same, for a `user_data/` in which a run is told."""
    with served_studio(folder, cpu=cpu) as (url, process):
        page = open_training_tab(browser, url)
        page.locator("#training-plot svg.chart").first.wait_for(timeout=1000 * PATIENCE_SECONDS)
        page.locator("#status-activity", has_text="ready").wait_for(timeout=1000 * PATIENCE_SECONDS)
        page.wait_for_timeout(1000 * SETTLING_SECONDS)
        server = psutil.Process(process.pid)
        before, started = _seconds_of(server), time.perf_counter()
        updates = _updates(page, seconds)
        share = (_seconds_of(server) - before) / (time.perf_counter() - started)
        page.context.close()
    return 100 * share, updates


def _seconds_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _updates(page: "Page", seconds: float) -> tuple[float, ...]:
    """Milliseconds that the main thread was busy from each answer of the studio to the next."""
    from playwright.sync_api import TimeoutError

    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def busy() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")

    readings = []
    end = time.perf_counter() + seconds
    while (left := end - time.perf_counter()) > 0:
        try:
            page.wait_for_event("requestfinished", predicate=lambda r: r.method == "POST", timeout=1000 * left)
        except TimeoutError:
            break
        readings.append(busy())
    if len(readings) < 2:
        raise StudioError("The page asked for nothing while the run went on.")
    return tuple(1000 * (after - before) for before, after in itertools.pairwise(readings))


def _start_and_stop(browser: "Browser", settings: BenchSettings, user_data: UserData) -> tuple[float, float]:
    """Seconds from the click on Start to the first step, and from that on Stop to the checkpoint."""
    with empty_user_data(user_data) as folder, served_studio(folder, cpu=settings.cpu) as (url, _), ended_jobs(folder):
        page = open_training_tab(browser, url)
        page.locator("#status-activity", has_text="ready").wait_for(timeout=1000 * PATIENCE_SECONDS)
        page.get_by_role("radio", name="Quick try").check()
        page.wait_for_timeout(1000)  # the preset fills the form
        clicked = time.time()
        page.locator("#start-training").click()
        run = _wait_for(lambda: next(iter(RunFolder.all_in(folder.runs)), None), "the run")
        first = _wait_for(lambda: _first_event(run, StepEvent, after=clicked), "the first step")
        page.wait_for_timeout(4000)
        asked = time.time()
        page.locator("#training-stop").click()
        saved = _wait_for(lambda: _first_event(run, CheckpointEvent, after=asked), "the checkpoint")
        _wait_for(lambda: read_status(run).state == "stopped", "the end of the training")
        page.context.close()
    return first.at.timestamp() - clicked, saved.at.timestamp() - asked


def _first_event(run: RunFolder, kind: type[AnyEvent], *, after: float) -> AnyEvent | None:
    return next((e for e in read_events(run.events) if isinstance(e, kind) and e.at.timestamp() >= after), None)


def _slowed(browser: "Browser", settings: BenchSettings, user_data: UserData) -> Figure:
    """A step of a real training with the tab open, beside one without, in turns."""
    with empty_user_data(user_data) as folder, served_studio(folder, cpu=settings.cpu) as (url, _), ended_jobs(folder):
        values = {
            "dataset": str(assets_folder() / "casual-shoes"),
            "cpu": settings.cpu,
            "max_train_steps": 100_000,
            "validation_steps": 100_000,
            "held_out_steps": 100_000,
            "checkpointing_steps": 100_000,
        }
        run = begin_run(settings_from("quick-try", values, ()), folder)
        TrainingSession(folder).enqueue(run)
        _wait_for(lambda: _first_event(run, StepEvent, after=0), "the first step")
        with_tab: list[float] = []
        without: list[float] = []
        for pair in range(NUM_BLOCK_PAIRS):
            for tab in (pair % 2 == 0, pair % 2 == 1):
                (with_tab if tab else without).append(_step_seconds(browser, url, run, tab=tab))
    name = "a step with the tab open (shipped model, quick try)"
    return paired_figure(name, with_tab, without, peer="without it", unit="s", limit=SLOWER_LIMIT)


def _step_seconds(browser: "Browser", url: str, run: RunFolder, *, tab: bool) -> float:
    """The median step of a block; an empty page is open where it is not the studio's."""
    page = open_training_tab(browser, url) if tab else browser.new_context().new_page()
    page.wait_for_timeout(1000 * SETTLING_SECONDS)
    begin = time.time()
    page.wait_for_timeout(1000 * BLOCK_SECONDS)
    page.context.close()
    steps = [e.seconds for e in read_events(run.events) if isinstance(e, StepEvent) and e.at.timestamp() > begin]
    if len(steps) < MIN_STEPS:
        raise StudioError(f"Only {len(steps)} steps were trained in {BLOCK_SECONDS:g} s; the bench needs more.")
    return median(steps)


@contextmanager
def ended_jobs(user_data: UserData) -> Iterator[None]:
    """Jobs live on when their studio ends: stop them, and wait for their end, after the `with` block."""
    try:
        yield
    finally:
        queue = JobQueue(user_data)
        for job in queue.running():
            queue.stop(job.id)
        _wait_for(lambda: not queue.has_work(), "the end of the training")


def _wait_for(look: Callable[[], Found | None], what: str) -> Found:
    give_up_at = time.perf_counter() + PATIENCE_SECONDS
    while not (found := look()):
        if time.perf_counter() > give_up_at:
            raise StudioError(f"The bench waited {PATIENCE_SECONDS:g} s for {what}.")
        time.sleep(0.05)
    return found
