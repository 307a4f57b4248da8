"""A page in a real browser, for benches. Playwright and Chromium are the tests'; where they are missing it says so."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.processes import started_python
from bench.startup import free_port, page_answers
from studio.core.errors import SkippedError, StudioError
from studio.core.paths import UserData

if TYPE_CHECKING:
    import subprocess

    from playwright.sync_api import Browser, Page

BROWSER_VARIABLE = "STUDIO_CHROMIUM"
BROWSER_NAMES = ("chromium", "chromium-browser", "google-chrome")
# Frames are drawn by the processor: no bench's machine is to need a GPU for its browser.
BROWSER_OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
PATIENCE_SECONDS = 120.0


def find_browser() -> str:
    """The program of Chromium or Chrome.

    Raises:
        SkippedError: where there is none.
    """
    names = [os.environ.get(BROWSER_VARIABLE) or "", *(shutil.which(name) or "" for name in BROWSER_NAMES)]
    found = next(filter(None, names), "")
    if not found:
        raise SkippedError(
            f"it needs Chromium or Chrome, and none was found. Install one, or name its program in {BROWSER_VARIABLE}."
        )
    return found


@contextmanager
def opened_browser() -> Iterator["Browser"]:
    """Chromium without a window.

    Raises:
        SkippedError: where Playwright or Chromium is missing.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise SkippedError('it needs Playwright, which is for tests alone: pip install ".[dev]".') from error
    path = find_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(BROWSER_OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


def browser_seconds(browser: "Browser") -> float:
    """Processor seconds that all processes of the browser have taken so far."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return float(sum(process["cpuTime"] for process in processes))


@contextmanager
def served_studio(user_data: UserData, *, cpu: bool) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A studio in a process of its own: its address, and the process of its page.

    Raises:
        StudioError: where its page does not come.
    """
    port = free_port()
    command = ["-m", "studio", "ui", "--no-browser", "--port", str(port), "--user-data", str(user_data.root)]
    with started_python([*command, "--cpu"] if cpu else command) as process:
        give_up_at = time.perf_counter() + PATIENCE_SECONDS
        while not page_answers(port):
            if process.poll() is not None or time.perf_counter() > give_up_at:
                raise StudioError(f"The page did not come. Start it by hand to see why: python {' '.join(command)}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", process


def open_training_tab(browser: "Browser", url: str) -> "Page":
    """The page with its Training tab opened, and there all settings."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(url)
    page.get_by_role("tab", name="Training", exact=True).click()
    page.locator("#training-way label").last.click()
    page.locator("#start-training").wait_for(timeout=1000 * PATIENCE_SECONDS)
    return page


@contextmanager
def empty_user_data(user_data: UserData) -> Iterator[UserData]:
    """A `user_data/` that is thrown away, in the cache of another."""
    user_data.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=user_data.cache, prefix="bench-", ignore_cleanup_errors=True) as folder:
        yield UserData(Path(folder))
