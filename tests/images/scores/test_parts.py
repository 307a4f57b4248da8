"""Where two images differ: the background and the subject are told apart, or nothing is said of them."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from studio.images.scores.parts import difference_by_part


def drawing(ground: str, shoe: str | None, *, size: int = 128, at: float = 0.5) -> np.ndarray:
    """A box on a ground that fills a fifth of it, with the noise that every image has."""
    image = Image.new("RGB", (size, size), ground)
    if shoe:
        middle = at * size
        ImageDraw.Draw(image).rectangle((middle - size / 4, 0.4 * size, middle + size / 4, 0.8 * size - 1), fill=shoe)
    noise = np.random.default_rng(0).integers(-2, 3, (size, size, 3))
    return np.clip(np.asarray(image).astype(int) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [128, 512])
@pytest.mark.parametrize(
    ("ground", "shoe", "background", "subject"),
    [("white", "red", 1, 0), ("grey", "navy", 0, 1), ("white", "navy", 1, 1), ("grey", "red", 0, 0)],
)
def test_a_change_counts_where_it_is(size: int, ground: str, shoe: str, background: float, subject: float) -> None:
    parts = difference_by_part(drawing("grey", "red", size=size), drawing(ground, shoe, size=size))
    assert parts is not None
    assert parts.background.changed_share == pytest.approx(background, abs=0.05)
    assert parts.subject.changed_share == pytest.approx(subject, abs=0.05)
    if ground == "white" and shoe == "red":
        assert parts.background.pixels == pytest.approx(255 - 128, abs=4)


def test_a_subject_that_moved_is_no_change_of_the_background() -> None:
    parts = difference_by_part(drawing("grey", "red", at=0.4), drawing("grey", "red", at=0.6))
    assert parts is not None
    assert parts.background.changed_share < 0.03
    assert parts.subject.changed_share > 0.3


def test_without_a_subject_in_both_nothing_is_said() -> None:
    assert difference_by_part(drawing("grey", None), drawing("grey", "red")) is None
    assert difference_by_part(drawing("grey", "red"), drawing("white", None)) is None
