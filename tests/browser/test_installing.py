"""The page as an app: it can be installed, in every language and below a proxy's path, and says when work ends."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import StartStudio
from tests.browser.page_actions import finish_run, start_run
from tests.browser.studio_process import BROWSER_OPTIONS, RunningStudio, find_browser

# Where Chromium's own notification cannot be seen, it is counted as it is made.
COUNTED = """window.told = [];
window.Notification = class extends window.Notification {
  constructor(title, options) { super(title, options); window.told.push(`${title}: ${options.body}`); }
};
Object.defineProperty(document, "hidden", { get: () => true });"""


def as_an_app(page: Page) -> dict[str, Any]:
    """What Chromium would install."""
    session = page.context.new_cdp_session(page)
    found = session.send("Page.getAppManifest")
    assert found["errors"] == []
    return {"url": found["url"], **found["manifest"]}


@pytest.mark.parametrize("path", ["", "/my/studio"])
def test_it_is_one_app_in_every_language(
    studio: RunningStudio, start_studio: StartStudio, browser: Browser, path: str
) -> None:
    running = start_studio("below a path", "--root-path", path) if path else studio
    root = f"{running.url}{path}/"
    for language in ("en", "pt-BR"):
        with browser.new_context(locale=language) as context:
            page = context.new_page()
            page.goto(root)
            expect(page.locator("html")).to_have_attribute("lang", language)
            expect(page.locator('link[rel="icon"]')).to_have_count(1)
            app = as_an_app(page)
            assert (app["url"], app["startUrl"], app["scope"]) == (f"{root}manifest.json", root, root)
            for icon in app["icons"]:
                answer = context.request.get(icon["url"])
                assert (answer.status, answer.headers["content-type"]) == (200, icon["type"])
            icon = page.locator('link[rel="icon"]').evaluate("link => link.href")
            assert context.request.get(icon).status == 200


def test_chromium_finds_nothing_against_installing(studio: RunningStudio, browser: Browser, tmp_path: Path) -> None:
    """In a profile that is kept: in others it installs nothing."""
    context = browser.browser_type.launch_persistent_context(
        tmp_path / "profile", executable_path=find_browser(), args=list(BROWSER_OPTIONS)
    )
    try:
        page = context.new_page()
        page.goto(studio.url)
        expect(page.locator('link[rel="icon"]')).to_have_count(1)
        session = context.new_cdp_session(page)
        assert session.send("Page.getInstallabilityErrors")["installabilityErrors"] == []
    finally:
        context.close()


def test_whoever_asked_for_it_is_told_when_work_ends(studio: RunningStudio, browser: Browser) -> None:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.grant_permissions(["notifications"], origin=studio.url)
        page = context.new_page()
        page.goto(studio.url)
        page.evaluate(COUNTED)
        bell = page.locator("#notify")
        expect(bell).to_have_attribute("aria-pressed", "false")
        bell.click()
        expect(bell).to_have_attribute("aria-pressed", "true")
        start_run(page, steps=20)
        finish_run(page, "PASS")
        page.wait_for_function("window.told.length === 1")
        assert page.evaluate("window.told[0]").startswith("LoRA Studio: Ended: ")
        bell.click()
        expect(bell).to_have_attribute("aria-pressed", "false")
