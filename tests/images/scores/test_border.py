"""Whiteness of the border: the share is known to the pixel."""

import numpy as np
import pytest

from studio.images.scores.subject import border_width, measure_border
from tests.images.scores.drawn import draw, ground


@pytest.mark.parametrize(("side", "width"), [(128, 6), (256, 12), (512, 24), (16, 1), (64, 3)])
def test_the_border_grows_with_the_picture(side: int, width: int) -> None:
    assert border_width(side, side * 3) == width


def test_white_is_white_and_the_subject_does_not_matter() -> None:
    border = measure_border(draw("white", colour=(20, 20, 20)))
    assert border.whiteness == 1
    assert border.mean == 255


def test_one_channel_under_the_level_is_not_white() -> None:
    picture = np.full((128, 128, 3), 245, np.uint8)
    assert measure_border(picture).whiteness == 1
    picture[:, :, 2] = 244
    assert measure_border(picture).whiteness == 0


@pytest.mark.parametrize("side", [128, 256, 512])
def test_a_dark_stripe_takes_its_share(side: int) -> None:
    picture = np.full((side, side, 3), 255, np.uint8)
    picture[: side // 2] = 100
    border = measure_border(picture)
    assert border.whiteness == pytest.approx(0.5)
    assert border.mean == pytest.approx(177.5)
    assert measure_border(picture[:, ::-1]) == border


def test_other_grounds_are_not_white() -> None:
    assert all(measure_border(ground(name, 128)).whiteness == 0 for name in ("grey", "wood", "grass", "street"))
