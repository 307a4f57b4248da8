"""The measure of a layout finds each kind of fault, and none where there is none."""

import pytest
from playwright.sync_api import Browser, Page

from studio.batches.settings import BatchSettings
from studio.core.settings import (
    CompareSettings,
    GenerationSettings,
    ImagesSettings,
    LoraChoice,
    Settings,
    SmokeSettings,
    bounds,
)
from studio.training.settings import TrainingSettings
from tests.browser.conftest import OpenPage
from tests.browser.layout import WIDTHS, layout_faults, number_boxes
from tests.browser.page_actions import go_to_tab, open_mode
from tests.browser.studio_process import RunningStudio

RIGHT = """<div style="width:300px">
<h1>A heading</h1><p>Some words that go on for <b>more than one line</b> of this paragraph.</p>
<label>A name <input value="typed"></label> <button>Press</button>
<div style="width:120px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap">Cut with an ellipsis</div>
<div style="width:140px;overflow:hidden"><p style="margin:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap">
Cut with an ellipsis inside of a frame</p></div>
<div style="width:120px;overflow-x:auto;white-space:nowrap">This one can be scrolled to its end</div>
<span style="position:absolute;width:1px;height:1px;overflow:hidden">for screen readers alone</span></div>"""

WRONG = {
    "clipped by": '<div style="width:80px;overflow:hidden;white-space:nowrap">These words do not fit in</div>',
    "clipped by ": '<div style="height:20px;overflow:hidden">One line<br>and one that is cut</div>',
    "lies on": '<p style="margin:0">First words</p><p style="margin:-12px 0 0">Second words</p>',
    "scrolls sideways": '<div style="width:1200px">Wide</div>',
    "beyond the right edge": '<p style="position:absolute;left:980px;white-space:nowrap">Words too far right</p>',
    "lies on ": '<button>Save</button><button style="margin-left:-30px">Delete</button>',
}


@pytest.fixture
def plain(browser: Browser) -> Page:
    return browser.new_page(viewport={"width": 1024, "height": 700})


def test_a_layout_without_faults_has_none(plain: Page) -> None:
    plain.set_content(RIGHT)
    assert layout_faults(plain) == []


@pytest.mark.parametrize("words", WRONG)
def test_each_kind_of_fault_is_found(plain: Page, words: str) -> None:
    plain.set_content(RIGHT + WRONG[words])
    assert any(words in fault for fault in layout_faults(plain))


def test_what_a_panel_covers_does_not_lie_on_it(plain: Page) -> None:
    panel = '<div style="position:fixed;inset:0 0 0 0;background:white"><p>A panel over all of it</p></div>'
    plain.set_content(RIGHT + panel)
    assert layout_faults(plain) == []


FORMS: dict[str, tuple[type[Settings], ...]] = {
    "generate": (GenerationSettings, ImagesSettings),
    "compare": (GenerationSettings, CompareSettings),
    "smoke": (SmokeSettings,),
    "training": (TrainingSettings,),
    "batch": (GenerationSettings, BatchSettings),
}


def longest_numbers() -> dict[str, str]:
    """By the id of its box, the longest number that each setting may have and people write."""
    longest = {}
    for form, kinds in FORMS.items():
        for kind in kinds:
            for name in kind.model_fields:
                ends = [f"{end:d}" if isinstance(end, int) else f"{end:g}" for end in bounds(kind, name) if end]
                if ends:
                    longest[f"{form}-{name.replace('_', '-')}"] = max(ends, key=len)
        for row in range(3):
            longest[f"{form}-strength-{row}"] = f"{bounds(LoraChoice, 'strength')[0]:.2f}"
    return longest


def test_each_number_box_shows_the_longest_number_that_it_may_hold(studio: RunningStudio, open_page: OpenPage) -> None:
    page = open_page(studio, width=WIDTHS[0])
    longest = longest_numbers()
    boxes: list[str] = []
    for show in (
        lambda: open_mode(page, "Generate"),
        lambda: open_mode(page, "Compare"),
        lambda: open_mode(page, "Smoke test", idle=False),
        lambda: go_to_tab(page, "Training"),
        lambda: go_to_tab(page, "Batch"),
    ):
        show()
        page.evaluate("""() => [...document.querySelectorAll(".label-wrap:not(.open)")]
            .filter((label) => label.checkVisibility()).forEach((label) => label.click())""")
        page.wait_for_timeout(500)
        boxes += number_boxes(page, longest)
    assert len(boxes) > 30
    assert [box for box in boxes if box.startswith("cut")] == []
