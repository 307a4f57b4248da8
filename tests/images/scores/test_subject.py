"""The subject is told from plain, grey, graded and textured grounds; where there is none, that is said."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.core.paths import assets_folder
from studio.images.scores.subject import find_subject, make_working, measure_centring
from tests.images.scores.drawn import GROUNDS, Picture, draw, ground

RED, BLUE, BLACK = (190, 36, 40), (40, 90, 190), (25, 25, 28)


def offset_of(picture: Picture) -> tuple[float, float]:
    mask = find_subject(make_working(picture)).mask_HW
    assert mask is not None
    centring = measure_centring(mask)
    assert centring.offset == pytest.approx(float(np.hypot(centring.dx, centring.dy)))
    return centring.dx, centring.dy


@pytest.mark.parametrize("name", GROUNDS)
@pytest.mark.parametrize("colour", [RED, BLUE, BLACK])
@pytest.mark.parametrize("at", [(0.5, 0.5), (0.36, 0.6), (0.66, 0.4)])
def test_the_offset_is_found_on_every_ground(name: str, colour: tuple[int, int, int], at: tuple[float, float]) -> None:
    dx, dy = offset_of(draw(name, colour=colour, at=at))
    assert (dx, dy) == pytest.approx((at[0] - 0.5, at[1] - 0.5), abs=0.02)


@pytest.mark.parametrize("name", GROUNDS)
def test_size_does_not_matter(name: str) -> None:
    found = [offset_of(draw(name, side=side, at=(0.4, 0.55))) for side in (64, 128, 256, 512)]
    np.testing.assert_allclose(found, [[-0.1, 0.05]] * 4, atol=0.02)


def test_a_mirror_turns_dx_around() -> None:
    picture = draw("wood", at=(0.4, 0.55))
    (dx, dy), (mirrored_dx, mirrored_dy) = offset_of(picture), offset_of(picture[:, ::-1])
    assert (mirrored_dx, mirrored_dy) == pytest.approx((-dx, dy), abs=0.01)


def test_offsets_are_shares_of_the_shorter_side() -> None:
    square = draw("white", side=128, at=(0.5, 0.5))
    wide = np.concatenate([square, np.full((128, 128, 3), 255, np.uint8)], axis=1)
    assert offset_of(wide) == pytest.approx((-0.5, 0), abs=0.01)


@pytest.mark.parametrize("name", GROUNDS)
def test_a_ground_alone_has_no_subject(name: str) -> None:
    subject = find_subject(make_working(ground(name, 128)))
    assert subject.mask_HW is None
    assert "No subject stands out" in subject.reason


def test_a_subject_that_fills_the_picture_hides_the_ground() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    restless = np.asarray(Image.fromarray(noise).resize((128, 128), Image.Resampling.NEAREST))
    assert find_subject(make_working(restless)).mask_HW is None
    filled = draw("white", radii=(0.7, 0.7))
    assert find_subject(make_working(filled)).mask_HW is None


@pytest.mark.parametrize(("level", "is_found"), [(253, False), (240, True)])
def test_white_on_white_is_found_by_its_shading_or_not_at_all(level: int, is_found: bool) -> None:
    picture = draw("white", colour=(level, level, level), shaded=False)
    subject = find_subject(make_working(picture))
    assert (subject.mask_HW is not None) == is_found
    assert bool(subject.reason) != is_found


def test_white_on_white_is_found_by_its_outline() -> None:
    inner = draw("white", colour=(255, 255, 255), shaded=False)
    outline = draw("white", colour=(150, 150, 150), shaded=False)
    smaller = draw("white", colour=(0, 0, 0), radii=(0.262, 0.142), shaded=False)
    picture = np.where(smaller < 128, inner, outline)
    subject = find_subject(make_working(picture))
    assert subject.mask_HW is not None
    assert subject.mask_HW[64, 64]
    assert subject.mask_HW.mean() == pytest.approx(np.pi * 0.28 * 0.16, rel=0.1)


def test_shoes_of_the_dataset_lie_in_the_middle() -> None:
    for path in sorted((assets_folder() / "casual-shoes" / "images").iterdir()):
        mask = find_subject(make_working(np.asarray(Image.open(path).convert("RGB")))).mask_HW
        assert mask is not None, path.name
        centring = measure_centring(mask)
        assert centring.box_offset < 0.05, path.name  # soft shadows are counted
        assert centring.offset < 0.15, path.name  # boots and heels have their weight at the heel


MAKING = Path(__file__).resolve().parents[3] / "assets" / "shoes-demo-making"


@pytest.mark.skipif(not MAKING.is_dir(), reason="only a checkout has the drawing of the model inside")
def test_drawn_shoes_are_found_on_all_grounds_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their masks are known: the centroid is right within 3% for most, and within 6% for nine in ten."""
    monkeypatch.syspath_prepend(str(MAKING))
    from attributes import GROUNDS as MODEL_GROUNDS
    from drawing import draw as draw_shoe

    rng = random.Random(5)
    errors = []
    for name in MODEL_GROUNDS:
        for _ in range(12):
            drawn = draw_shoe(rng, ground=name, supersampling=2)
            known = measure_centring(np.asarray(drawn.subject_mask) > 127)
            mask = find_subject(make_working(np.asarray(drawn.image))).mask_HW
            found = None if mask is None else measure_centring(mask)
            errors.append(1.0 if found is None else float(np.hypot(found.dx - known.dx, found.dy - known.dy)))
    assert np.median(errors) < 0.03
    assert np.percentile(errors, 90) < 0.06
