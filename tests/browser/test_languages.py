"""The page in Portuguese, as somebody uses it whose browser speaks that; a form outlives a change of language."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from studio.core.language import PORTUGUESE, _, speaking
from tests.browser.conftest import OpenPage
from tests.browser.page_actions import ENGINE_SECONDS, FEW_STEPS, RUN_MILLISECONDS, activity, cards, field, set_field
from tests.browser.studio_process import RunningStudio
from tests.browser.test_accessibility import light_and_dark, screen_faults

# Words that stand in most English sentences and in no Portuguese one.
ENGLISH_WORDS = re.compile(r"\b(the|and|of|is|are|not|with|this|that|from|there|it|its|was|to)\b", re.IGNORECASE)
# What Gradio says in English in every language.
GRADIOS = re.compile(r"(number input|range slider) for |Reset to default value$|Click to upload")
TABS = ("inference", "dataset", "training", "batch")
MODES = ("generate", "compare", "lora-library", "smoke-test")


def in_portuguese(text: str, **values: object) -> str:
    with speaking(PORTUGUESE):
        return _(text, **values)


def go_to(page: Page, tab: str) -> None:
    """Press a tab or a mode by its id, whatever it is called."""
    page.locator(f'button[role="tab"][data-tab-id="{tab}"]').first.click()


def wait_until_ready(page: Page) -> None:
    expect(activity(page)).to_have_text(in_portuguese("ready"), timeout=1000 * ENGINE_SECONDS)


def english_on(page: Page) -> list[str]:
    """The visible texts that look English; what a person typed and what a model is told are not among them."""
    texts: list[str] = page.evaluate(
        """() => {
          const found = [];
          const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          while (walker.nextNode()) {
            const node = walker.currentNode, element = node.parentElement;
            if (!node.textContent.trim() || !element?.checkVisibility()) continue;
            if (element.closest("code, script, style")) continue;
            if (element.closest("[data-caption], .past-strip, figcaption, .caption-box, [lang=en]")) continue;
            found.push(node.textContent.trim());
          }
          for (const element of document.querySelectorAll("[title], [aria-label], [placeholder]")) {
            if (!element.checkVisibility() || element.closest("[data-caption], .past-strip, [lang=en]")) continue;
            for (const name of ["title", "aria-label", "placeholder"])
              if (element.getAttribute(name)) found.push(element.getAttribute(name));
          }
          return found;
        }"""
    )
    return [text for text in texts if ENGLISH_WORDS.search(re.sub(r"/\S+", "", text)) and not GRADIOS.match(text)]


@pytest.fixture
def portuguese(studio: RunningStudio, browser: Browser) -> Iterator[Page]:
    """The page of a browser that speaks it: Gradio's own few words are in it too."""
    context = browser.new_context(locale="pt-BR", viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    page.goto(studio.url)
    wait_until_ready(page)
    yield page
    context.close()


def test_a_browser_that_speaks_portuguese_is_spoken_to_in_it(studio: RunningStudio, browser: Browser) -> None:
    context = browser.new_context(locale="pt-BR", reduced_motion="reduce")
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(studio.url)
    expect(page).to_have_url(f"{studio.url}/pt-BR/")
    wait_until_ready(page)
    assert page.locator("html").get_attribute("lang") == PORTUGUESE
    set_field(page, "generate-prompt", "a photo of blue sandals")
    set_field(page, "generate-num-inference-steps", FEW_STEPS)
    page.locator("#run-generate").click()
    expect(cards(page).locator("img")).to_have_count(1, timeout=RUN_MILLISECONDS)
    expect(page.locator("#generate-state")).to_contain_text("1 imagem", timeout=RUN_MILLISECONDS)
    page.get_by_role("link", name="English").click()
    expect(page).to_have_url(f"{studio.url}/")
    expect(activity(page)).to_have_text("ready", timeout=1000 * ENGINE_SECONDS)
    expect(field(page, "generate-prompt")).to_have_value("a photo of blue sandals")
    page.goto(studio.url)
    expect(page).to_have_url(f"{studio.url}/")  # chosen by hand, and kept
    assert failures == []
    context.close()


def test_no_english_is_left_on_the_portuguese_page(portuguese: Page) -> None:
    page = portuguese
    found: dict[str, list[str]] = {}
    for mode in MODES:
        go_to(page, mode)
        page.wait_for_timeout(500)
        found[mode] = english_on(page)
    go_to(page, "dataset")
    page.locator("#dataset-demo").click()
    expect(page.locator("#dataset-grid .thumb")).to_have_count(60)
    page.locator("#dataset-grid .thumb").first.click()
    expect(page.locator("#dataset-caption textarea")).to_be_enabled()
    for tab in ("dataset", "training", "batch"):
        go_to(page, tab)
        page.wait_for_timeout(1000)
        for fold in page.locator("button.label-wrap:visible").all():
            if "open" not in (fold.get_attribute("class") or "").split():
                fold.click()
        page.wait_for_timeout(500)
        found[tab] = english_on(page)
    assert {place: texts for place, texts in found.items() if texts} == {}


def test_an_error_a_refusal_and_a_number_are_said_in_portuguese(portuguese: Page) -> None:
    page = portuguese
    set_field(page, "generate-width", 60)
    page.locator("#run-generate").click()
    expected = in_portuguese("Width")
    error = page.locator(".field-error").filter(visible=True).first
    expect(error).to_contain_text(expected)
    assert not ENGLISH_WORDS.search(error.inner_text())
    expect(page.locator("#status-memory")).to_contain_text(re.compile(r"\d,\d"))


@light_and_dark
def test_axe_finds_nothing_serious_in_portuguese_and_nothing_is_cut_off(
    studio: RunningStudio, open_page: OpenPage, dark: bool
) -> None:
    page = open_page(studio, ready=False, dark=dark, at=f"{studio.url}/pt-BR/")
    wait_until_ready(page)
    for tab in (*MODES, *TABS[1:]):
        go_to(page, tab)
        page.wait_for_timeout(500)
        assert screen_faults(page) == [], tab
