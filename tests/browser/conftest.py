"""A studio and a browser for the tests of this folder, and the way to both."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.page_actions import wait_until_ready
from tests.browser.studio_process import (
    BROWSER_OPTIONS,
    BROWSER_VARIABLE,
    RunningStudio,
    find_browser,
    poisoned_model,
    running_studio,
)

PATIENCE_MILLISECONDS = 20_000

Profiles = Callable[[int, bool], BrowserContext]
OpenPage = Callable[..., Page]
StartStudio = Callable[..., RunningStudio]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    path = find_browser()
    if path is None:
        missing = f"No Chromium or Chrome was found. Install one, or name its program in {BROWSER_VARIABLE}."
        if os.environ.get("STUDIO_REQUIRE_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(BROWSER_OPTIONS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def profiles(browser: Browser) -> Profiles:
    """The browser's profile for a width and for light (False) or dark; kept, so that its cache makes tests quick."""

    @cache
    def profile(width: int, dark: bool) -> BrowserContext:
        return browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )

    return profile


@pytest.fixture(scope="session")
def shared_studio(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """One studio for all tests."""
    with running_studio(tmp_path_factory.mktemp("studio") / "user_data") as running:
        yield running


@pytest.fixture
def studio(shared_studio: RunningStudio) -> RunningStudio:
    """The studio of all tests, with nothing running and the shipped model loaded, whatever the last one did to it."""
    shared_studio.make_ready()
    return shared_studio


@pytest.fixture
def start_studio(browser: Browser, tmp_path: Path) -> Iterator[StartStudio]:
    """Starts further studios: `start_studio("name", "--option")`, each name with its own user data."""
    with ExitStack() as stack:

        def start(name: str, *options: str, environment: dict[str, str] | None = None) -> RunningStudio:
            return stack.enter_context(running_studio(tmp_path / name, *options, environment=environment))

        yield start


def forget_forms(page: Page, url: str) -> None:
    """What the browser keeps for all pages of that address."""
    session = page.context.new_cdp_session(page)
    session.send("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "local_storage"})
    session.detach()


@pytest.fixture
def open_page(profiles: Profiles) -> Iterator[OpenPage]:
    """Opens pages: `open_page(studio, dark=True)`, `at` another address of it; they are closed after the test."""
    fresh: set[tuple[str, int, bool]] = set()
    with ExitStack() as stack:

        def open_one(
            running: RunningStudio, *, ready: bool = True, width: int = 1280, dark: bool = False, at: str = ""
        ) -> Page:
            page = profiles(width, dark).new_page()
            stack.callback(page.close)
            if (running.url, width, dark) not in fresh:  # no test finds the forms of another one
                fresh.add((running.url, width, dark))
                forget_forms(page, at or running.url)
            page.goto(at or running.url)
            if ready:
                wait_until_ready(page)
            return page

        yield open_one


@pytest.fixture
def page(studio: RunningStudio, open_page: OpenPage) -> Page:
    """The page of the studio that all tests share, ready to run."""
    return open_page(studio)


@pytest.fixture(scope="session")
def broken_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose VAE gives NaN in the green channel."""
    return poisoned_model(tmp_path_factory.mktemp("models"), channel=1)
