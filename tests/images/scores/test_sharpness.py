"""Sharpness falls with blur, and neither contrast nor a mirror changes it."""

from itertools import pairwise

import numpy as np
import pytest

from studio.images.scores.subject import measure_sharpness
from tests.images.scores.drawn import GROUNDS, draw


@pytest.mark.parametrize("name", GROUNDS)
@pytest.mark.parametrize("side", [128, 256, 512])
def test_more_blur_is_less_sharp(name: str, side: int) -> None:
    found = [measure_sharpness(draw(name, side=side, blur=blur)) for blur in (0, 1, 2, 4)]
    values = [value for value in found if value is not None]
    assert len(values) == 4
    assert all(0 <= value <= 1 for value in values)
    assert all(before > after for before, after in pairwise(values)), values
    assert values[0] > values[3] + 0.2


def test_contrast_and_mirror_do_not_matter() -> None:
    picture = draw("white", blur=1)
    paler = (255 - (255 - picture.astype(float)) * 0.4).astype(np.uint8)
    sharp = measure_sharpness(picture)
    assert sharp is not None
    assert measure_sharpness(paler) == pytest.approx(sharp, abs=0.05)
    assert measure_sharpness(picture[:, ::-1]) == pytest.approx(sharp, abs=0.01)


def test_one_flat_colour_has_no_sharpness() -> None:
    assert measure_sharpness(np.full((64, 64, 3), 200, np.uint8)) is None
