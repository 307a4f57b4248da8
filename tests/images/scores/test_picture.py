"""All scores together: the same at every size and in a mirror, and quick."""

import time

import numpy as np
import pytest
from PIL import Image

from studio.core.paths import assets_folder
from studio.images.scores.image import PictureScores, score_picture
from studio.images.scores.likeness import NearestIndex
from tests.images.scores.drawn import draw, enlarged

SHOES = sorted((assets_folder() / "casual-shoes" / "images").iterdir())
PROMPT = "red shoes, white background"


@pytest.mark.parametrize("side", [128, 256, 512])
def test_scores_of_a_known_picture(side: int) -> None:
    scores = score_picture(draw("white", side=side, at=(0.45, 0.55)), prompt=PROMPT)
    assert scores.border.whiteness == 1
    assert scores.centring is not None
    assert (scores.centring.dx, scores.centring.dy) == pytest.approx((-0.05, 0.05), abs=0.01)
    assert scores.subject_share == pytest.approx(np.pi * 0.28 * 0.16, rel=0.15)  # a rim of half a pixel is counted
    assert scores.colour is not None
    assert scores.colour.is_named_right
    assert scores.nearest is None


@pytest.mark.parametrize("shape", [(16, 16), (16, 320), (600, 60), (128, 129)])
def test_every_shape_has_scores(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    scores = score_picture(picture, prompt=PROMPT)
    assert PictureScores.model_validate_json(scores.model_dump_json()) == scores


def test_what_is_no_picture_is_our_bug() -> None:
    for wrong in (np.zeros((32, 32), np.uint8), np.zeros((32, 32, 3), np.float32), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(AssertionError):
            score_picture(wrong)


def test_the_same_picture_has_the_same_scores() -> None:
    picture = draw("wood")
    assert score_picture(picture, prompt=PROMPT) == score_picture(picture.copy(), prompt=PROMPT)


def cpu_seconds(picture: np.ndarray, nearest: NearestIndex | None) -> float:
    """The least of a few, of this process's own time: others work on the machine too."""
    seconds = []
    for _ in range(7):
        started = time.process_time()
        score_picture(picture, prompt=PROMPT, nearest=nearest)
        seconds.append(time.process_time() - started)
    return min(seconds)


def test_a_picture_of_512_takes_60_ms_and_80_with_two_thousand_training_pictures() -> None:
    picture = enlarged(draw("wood", side=256), 512)
    assert cpu_seconds(picture, None) < 0.06
    index = NearestIndex.build([SHOES[number % len(SHOES)] for number in range(60)])
    assert cpu_seconds(picture, many_times(index, 2000)) < 0.08


def many_times(index: NearestIndex, number: int) -> NearestIndex:
    """An index of so many images, without looking at them all."""
    chosen = np.arange(number) % len(index.paths)
    shelves = {}
    for name in ("whole", "subject"):
        shelf = getattr(index, f"_{name}")
        shelves[f"_{name}"] = type(shelf)(shelf.rows_ND[chosen], shelf.squares_N[chosen], shelf.scales)
    values = {name: getattr(index, name) for name in ("unreadable", "copy_limit", "close_limit", "typical")}
    return NearestIndex(paths=tuple(index.paths[i] for i in chosen), **values, **shelves)


def test_a_copy_among_two_thousand_is_found() -> None:
    index = many_times(NearestIndex.build(SHOES), 2000)
    found = score_picture(np.asarray(Image.open(SHOES[17]).convert("RGB")), nearest=index).nearest
    assert found is not None
    assert (found.path, found.likeness) == (SHOES[17], "as a copy")
