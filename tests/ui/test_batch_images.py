"""A batch's images on the page: prompt, score and reason; filters that are there; presses that say what they decide."""

from pathlib import Path

import pytest
from PIL import Image

from studio.batches.review import ReviewedImage, ReviewPage, ReviewQuery
from studio.core.errors import BatchError
from studio.images.scores.image import PictureScores
from studio.images.scores.subject import Border
from studio.ui.batches import images
from studio.ui.shell.selection import Selection

HOSTILE = "<img src=x onerror=alert(1)>"
SCORES = PictureScores(
    border=Border.model_construct(whiteness=0.934),
    centring=None,
    subject_share=None,
    no_subject="none",
    colour=None,
    no_colour="none",
    sharpness=0.412,
    nearest=None,
)


def page_of(*shown: ReviewedImage, **changes: object) -> ReviewPage:
    return ReviewPage(shown, counts={"all": 3, "done": 2, "failed": 1}, **changes)


def test_an_image_tells_its_prompt_scores_and_what_can_be_done(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    Image.new("RGB", (512, 512), "red").save(path)
    image = ReviewedImage(item=1234, state="done", path=path, prompt=HOSTILE, seed=7, attempt=1, scores=SCORES)
    html = images.images_html(page_of(image), tmp_path / "thumbnails")
    assert "#1,234" in html
    assert "93% white · sharpness 0.41" in html
    assert 'src="gradio_api/file=' in html
    assert [act in html for act in ('data-act="keep"', 'data-act="reject"', 'data-act="again"')] == [False, True, True]
    assert HOSTILE not in html


@pytest.mark.parametrize(
    ("state", "acts"), [("rejected", ["keep", "again"]), ("again", ["keep", "reject"]), ("failed", ["again"])]
)
def test_a_state_offers_the_others(state: str, acts: list[str], tmp_path: Path) -> None:
    path = None if state == "failed" else tmp_path / "gone.png"
    image = ReviewedImage(item=5, state=state, path=path, prompt="a", seed=7, attempt=1, reason=HOSTILE)
    html = images.images_html(page_of(image), tmp_path)
    assert [act for act in ("keep", "reject", "again") if f'data-act="{act}"' in html] == acts
    assert ("no image" if path is None else "gone") in html
    assert "&lt;img src=x" in html


def test_filters_are_those_that_some_image_has_and_the_chosen_one() -> None:
    html = images.bar_html(page_of(query=ReviewQuery("rejected")), can_remake=True)
    assert [name for name in images.STATES if f'data-value="{name}"' in html] == ["all", "done", "rejected", "failed"]
    assert html.count('aria-pressed="true"') == 1
    assert 'data-act="remake"' not in html
    waiting = ReviewPage(counts={"all": 2, "again": 2}, num_again=2)
    assert "Make 2 images again now" in images.bar_html(waiting, can_remake=True)
    assert "Make 2 images again now" not in images.bar_html(waiting, can_remake=False)


def test_what_a_page_asks_for_that_there_is_not_is_the_usual() -> None:
    asked = images.query_of(Selection(batch_state="no such", batch_sort="no such", batch_page=3))
    assert asked == ReviewQuery(page=3)
    assert images.order_html(page_of(query=asked)).count("selected") == 1


def test_a_value_is_chosen_among_those_of_its_column() -> None:
    page = page_of(query=ReviewQuery(value=("colour", "red")), values={"colour": ("red", HOSTILE), "type": ("", "red")})
    html = images.order_html(page)
    assert html.count(" selected") == 2  # this value, and the order
    assert html.index(" selected") < html.index(">red<") < html.index('label="type"')
    assert HOSTILE not in html
    assert ">empty<" in html
    assert "Value" not in images.order_html(page_of())
    assert "No images of this kind." in images.images_html(page_of(query=page.query), Path())


@pytest.mark.parametrize(
    ("sent", "value"),
    [('["colour", "red"]', ("colour", "red")), ("", None), ("{", None), ("[1]", None), ("7", None), ("[]", None)],
)
def test_a_value_that_the_page_sends_is_a_column_with_one(sent: str, value: tuple[str, str] | None) -> None:
    assert images._value(sent) == value


@pytest.mark.parametrize("number", ["", "-1", "x", "9" * 30])
def test_no_number_is_refused(number: str) -> None:
    with pytest.raises(BatchError, match="names no image"):
        images._number(number)
