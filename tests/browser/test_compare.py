"""Comparing as a person does: the slider, the strip, the blind vote, and what stays when the page or studio is gone."""

import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from studio.images.comparison import SavedComparison, latest_comparison
from studio.loras.votes import read_votes, votes_file
from tests.browser.conftest import OpenPage, StartStudio
from tests.browser.page_actions import (
    activity,
    choose,
    compare_to_end,
    field_error,
    open_mode,
    open_section,
    slider_sources,
    start_comparing,
    tick,
)
from tests.browser.studio_process import RunningStudio

PROMPTS = ("black boots", "red sandals", "white clogs")


@pytest.fixture
def page(studio: RunningStudio, open_page: OpenPage) -> Page:
    """A page with the Compare mode open."""
    opened = open_page(studio)
    open_mode(opened, "Compare")
    return opened


def state(page: Page) -> Locator:
    """What is going on, in words."""
    return page.locator("#compare-state")


def finding(page: Page) -> Locator:
    """The sentence on what the right side does."""
    return page.locator("#compare-finding")


def pair_pictures(page: Page) -> Locator:
    """Both images beside each other."""
    return page.locator("#compare-pair-pictures .card img:not(.preview)")


def saved_comparison(studio: RunningStudio) -> SavedComparison:
    """The newest comparison of a studio."""
    saved = latest_comparison(studio.user_data.outputs)
    assert saved is not None
    return saved


def test_the_form_as_it_opens_compares_the_base_with_the_lora_that_ships(studio: RunningStudio, page: Page) -> None:
    page.locator("#run-compare").click()
    expect(state(page)).to_contain_text("Running.")
    expect(state(page)).to_contain_text("is finished: 2 pairs.", timeout=60_000)
    expect(finding(page)).to_contain_text(
        re.compile(r"white-ground changes \d+% of the pixels noticeably, on average of 2 pairs\.")
    )
    left, right = slider_sources(page)
    assert left != right
    expect(page.locator("#compare-ends")).to_contain_text(re.compile(r"◀ base\s*white-ground ▶"))
    expect(page.locator("#compare-pair input")).to_have_count(2)
    expect(pair_pictures(page)).to_have_count(2)
    report = saved_comparison(studio).report
    assert (report.left_name, report.right_name, len(report.pairs)) == ("base", "white-ground", 2)


def test_the_strip_shows_the_lora_at_six_strengths(page: Page) -> None:
    tick(page, "compare-strip", on=True)
    compare_to_end(page, "red sandals")
    figures = page.locator("#compare-strip-pictures .strip .card")
    expect(figures).to_have_count(6)
    expect(figures.locator("img")).to_have_count(6)
    assert [words.inner_text() for words in figures.locator("b").all()] == ["0", "0.25", "0.5", "0.75", "1", "1.25"]
    expect(figures.nth(0)).to_contain_text("0 of 255")
    slider, large = page.get_by_label("Strength of white-ground"), page.locator(".strength-live img")
    expect(slider).to_have_value("4")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    for position, strength in ((0, "0"), (5, "1.25")):
        slider.fill(str(position))
        expect(page.locator(".strength-live .words")).to_contain_text(re.compile(rf"^{strength} · "))
        assert large.get_attribute("src") == figures.nth(position).locator("img").get_attribute("src")
    assert requests == [], "the images are there"


def test_choosing_another_pair_changes_the_slider_and_the_pictures(page: Page) -> None:
    compare_to_end(page, "black boots", "red sandals")
    expect(pair_pictures(page).first).to_have_attribute("alt", "red sandals")
    before = slider_sources(page)
    page.locator("#compare-pair").get_by_text("1 · black boots · seed 42").click()
    expect(pair_pictures(page).first).to_have_attribute("alt", "black boots")
    expect(page.locator("#compare-slider img").first).not_to_have_attribute("src", before[0])
    assert not set(slider_sources(page)) & set(before)


def test_a_cancelled_comparison_keeps_what_is_finished(studio: RunningStudio, page: Page) -> None:
    start_comparing(page, *PROMPTS, steps=25)
    expect(finding(page)).to_contain_text("white-ground changes")
    page.locator("#cancel-compare").click()
    expect(state(page)).to_contain_text(re.compile(r"cancelled: [12] pair"))
    slider_sources(page)
    expect(finding(page)).to_contain_text("white-ground changes")
    expect(page.locator("#run-compare")).to_be_enabled()
    report = saved_comparison(studio).report
    assert report.cancelled
    assert 1 <= len([pair for pair in report.pairs if pair.difference]) < len(PROMPTS)


def test_the_same_lora_on_both_sides_is_refused(page: Page) -> None:
    choose(page, "compare-lora-0", "white-ground")
    page.locator("#run-compare").click()
    expect(field_error(page, "compare-lora-1")).to_contain_text("Left and right are the same: choose a LoRA")
    expect(activity(page)).to_have_text("ready")


def begin_vote(page: Page) -> Locator:
    """Begin the blind vote: the ballot."""
    open_section(page, "Blind vote")
    page.locator("#vote-start").click()
    expect(page.locator("#vote-ballot .card img")).to_have_count(2)
    return page.locator("#vote-ballot")


def test_the_keys_vote_and_after_all_pairs_the_result_is_told(studio: RunningStudio, page: Page) -> None:
    compare_to_end(page, *PROMPTS)
    votes_file(studio.user_data.loras, "white-ground").unlink(missing_ok=True)
    begin_vote(page)
    result = page.locator("#vote-result")
    for number in (1, 2, 3):
        expect(page.locator(".vote-progress")).to_contain_text(f"Pair {number} of 3")
        page.keyboard.press(str(number))
    expect(result).to_contain_text(
        re.compile(r"white-ground: \d, base: \d, no difference: 1\. white-ground wins \d+ to \d+% of decided votes")
    )
    expect(page.locator(".vote-score")).to_be_in_viewport()
    expect(page.locator("#vote-ballot .card")).to_have_count(0)
    expect(page.locator("#vote-1")).to_have_count(0)
    votes = read_votes(studio.user_data.loras, "white-ground")
    assert len(votes) == 3
    assert sorted(vote.prompt for vote in votes) == sorted(PROMPTS)
    assert votes[-1].winner == "neither"


def test_a_ballot_does_not_tell_which_side_is_which(page: Page) -> None:
    compare_to_end(page, *PROMPTS[:1])
    ballot = begin_vote(page).inner_html()
    assert len(re.findall("data:image/png;base64,", ballot)) == 2
    words = re.sub(r"data:image/png;base64,[^\"]*", "", ballot)
    for name in ("base", "white-ground", "left", "right"):
        assert name not in words.lower(), name


def test_the_labelled_grid_is_a_picture_to_save(page: Page, tmp_path: Path) -> None:
    compare_to_end(page, *PROMPTS[:2])
    page.locator("#make-grid").click()
    link = page.locator("#grid-link").get_by_role("link", name=re.compile(r"^Save compare-"))
    with page.expect_download() as download:
        link.click()
    download.value.save_as(tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        grid.load()
        assert grid.format == "PNG"
        assert grid.width > 256
        assert grid.height > 256


def test_a_link_to_the_grid_of_another_comparison_does_not_stay(page: Page) -> None:
    compare_to_end(page, *PROMPTS[:1])
    page.locator("#make-grid").click()
    expect(page.locator("#grid-link a")).to_have_count(1)
    compare_to_end(page, *PROMPTS[1:2])
    expect(page.locator("#grid-link a")).to_have_count(0)


@pytest.mark.slow  # it starts two studios
def test_a_comparison_is_shown_again_after_a_reload_and_after_a_restart(
    start_studio: StartStudio, open_page: OpenPage
) -> None:
    first = start_studio("kept")
    page = open_page(first)
    open_mode(page, "Compare")
    compare_to_end(page, *PROMPTS[:2])
    sentence = finding(page).inner_text()

    def expect_it(shown: Page) -> None:
        open_mode(shown, "Compare", idle=False)
        expect(finding(shown)).to_have_text(sentence)
        slider_sources(shown)
        expect(pair_pictures(shown).first).to_have_attribute("alt", PROMPTS[1])

    page.reload()
    expect_it(page)
    first.end()
    expect_it(open_page(start_studio("kept"), ready=False))
