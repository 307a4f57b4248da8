"""The way in for other machines: the login form, behind a proxy that shows the studio under a path of its own."""

from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import OpenPage, StartStudio
from tests.browser.page_actions import go_to_tab, wait_until_ready

WAIT_MILLISECONDS = 30_000


def test_the_form_lets_in_who_knows_the_password_and_the_page_works_below_a_path(
    start_studio: StartStudio, open_page: OpenPage, tmp_path: Path
) -> None:
    logins = tmp_path / "logins.txt"
    logins.write_text("ada:correct horse\n", encoding="utf-8")
    studio = start_studio("listening", "--listen", "--auth-file", str(logins), "--root-path", "/my/studio")
    page = open_page(studio, ready=False, at=f"{studio.url}/my/studio/")
    refused: list[str] = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)
    for password in ("wrong", "correct horse"):
        page.get_by_label("username").fill("ada")
        page.get_by_label("password").fill(password)
        page.get_by_role("button", name="Login").click()
        if password == "wrong":
            expect(page.get_by_text("Incorrect Credentials")).to_be_visible()
    wait_until_ready(page)
    go_to_tab(page, "Dataset")
    page.locator("#dataset-demo").click()
    images = page.locator("#dataset-grid .thumb img")
    expect(images).to_have_count(60, timeout=WAIT_MILLISECONDS)
    expect(images.first).to_have_js_property("naturalWidth", 256)
    assert refused == [f"{studio.url}/my/studio/login"], "the wrong password, and nothing else"
    page.context.clear_cookies()
