"""Subjects cut out of their grounds: how well on drawn images, and what is done with them, whatever the image."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from studio.core.errors import PictureFileError
from studio.core.paths import assets_folder
from studio.datasets.inspection import measure_border_whiteness
from studio.images.cutout import cut_out
from studio.images.grounds import change_ground
from studio.images.records import GroundSettings
from tests.images.scores.drawn import GROUNDS, draw

MAKING = assets_folder() / "shoes-demo-making"
NUM_DRAWN = 4


def overlap(found: np.ndarray, known: np.ndarray) -> float:
    return float((found & known).sum() / (found | known).sum())


def known_ellipse(side: int) -> np.ndarray:
    """Where `draw` puts its ellipse."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    return np.asarray((x / 0.28) ** 2 + (y / 0.16) ** 2 <= 1)


@pytest.mark.parametrize("ground", GROUNDS)
def test_an_ellipse_is_found_to_the_pixel_and_none_of_it_is_lost(ground: str) -> None:
    known = known_ellipse(256)
    alpha_HW = cut_out(draw(ground, side=256)).alpha_HW
    assert overlap(alpha_HW > 127, known) >= 0.95
    assert (alpha_HW[known] > 127).mean() >= 0.995


@pytest.mark.skipif(not MAKING.is_dir(), reason="only a checkout has the drawing of the model inside")
@pytest.mark.parametrize(("ground", "least"), [("grass", 0.94), ("studio", 0.88), ("grey", 0.85), ("wood", 0.84)])
def test_drawn_shoes_are_cut_out_about_as_well_as_they_were(
    ground: str, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(MAKING))
    from drawing import draw as draw_shoe

    overlaps, num_refused = [], 0
    for number in range(NUM_DRAWN):
        drawn = draw_shoe(random.Random(f"cutout {ground} {number}"), ground=ground, size=256, supersampling=2)
        try:
            found_HW = cut_out(np.asarray(drawn.image)).alpha_HW > 127
        except PictureFileError:
            num_refused += 1
        else:
            overlaps.append(overlap(found_HW, np.asarray(drawn.subject_mask) > 127))
    assert num_refused <= 1
    assert np.mean(overlaps) >= least


def test_the_hole_in_a_ring_is_ground() -> None:
    ring = draw("grey", side=256).copy()
    ring[112:144, 100:156] = draw("grey", side=256, radii=(0.01, 0.01), at=(0.05, 0.05))[112:144, 100:156]
    alpha_HW = cut_out(ring).alpha_HW
    assert alpha_HW[128, 128] == 0
    assert alpha_HW[128, 75] == 255


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("shadow", [False, True])
def test_the_border_is_pure_white_and_the_subject_is_as_it_was(ground: str, shadow: bool) -> None:
    image = Image.fromarray(draw(ground, side=256))
    changed = change_ground(image, GroundSettings(shadow=shadow))
    assert measure_border_whiteness(changed.image) == 1
    assert np.asarray(changed.image)[4, 4].tolist() == [255, 255, 255]
    middle = (slice(110, 146), slice(90, 166))
    assert np.array_equal(np.asarray(changed.image)[middle], np.asarray(image)[middle])


def test_a_shadow_is_kept_only_where_that_is_asked_for() -> None:
    pixels = draw("grey", side=256).astype(np.float64)
    y, x = (np.mgrid[:256, :256] + 0.5) / 256 - 0.5
    shade = 1 - 0.35 * np.exp(-(((x / 0.2) ** 2) + ((y - 0.2) / 0.06) ** 2))
    outside = ~known_ellipse(256)
    pixels[outside] *= shade[outside][:, None]
    image = Image.fromarray(pixels.astype(np.uint8))
    without, kept = (
        np.asarray(change_ground(image, GroundSettings(shadow=shadow)).image).astype(int) for shadow in (False, True)
    )
    below = (slice(182, 186), slice(118, 138))
    assert without[below].mean() > 250
    assert 150 < kept[below].mean() < 240


@pytest.mark.parametrize("white", [False, True])
def test_the_subject_is_centred_at_the_size_that_was_asked_for(white: bool) -> None:
    image = Image.fromarray(draw("grey", side=256, at=(0.42, 0.56), radii=(0.2, 0.12)))
    changed = change_ground(image, GroundSettings(white=white, subject_percent=80))
    rows, columns = np.nonzero(np.asarray(changed.mask) > 127)
    width, height = changed.image.size
    assert changed.mask.size == changed.image.size
    assert (np.ptp(columns) + 1) / width == pytest.approx(0.8, abs=0.03)
    assert (columns.min() + columns.max() + 1) / 2 / width == pytest.approx(0.5, abs=0.02)
    assert (rows.min() + rows.max() + 1) / 2 / height == pytest.approx(0.5, abs=0.02)


def test_a_small_subject_size_adds_white_around_it() -> None:
    changed = change_ground(Image.fromarray(draw("grey", side=256)), GroundSettings(subject_percent=30))
    assert changed.image.width > 400
    assert measure_border_whiteness(changed.image) == 1


@pytest.mark.parametrize("colour", ["white", "black", "#808080"])
def test_an_image_without_a_subject_says_so(colour: str) -> None:
    with pytest.raises(PictureFileError, match="No subject stands out"):
        change_ground(Image.new("RGB", (64, 48), colour), GroundSettings())


@settings(deadline=None, max_examples=40)
@given(
    width=st.integers(16, 90),
    height=st.integers(16, 90),
    seed=st.integers(0, 9),
    kind=st.sampled_from(["noise", "grey", "subject"]),
    percent=st.sampled_from([0, 1, 50, 100]),
    white=st.booleans(),
)
def test_any_image_is_changed_or_says_why_not(
    width: int, height: int, seed: int, kind: str, percent: int, white: bool
) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    if kind == "grey":
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    elif kind == "subject":
        pixels = np.full((height, width, 3), 200, np.uint8)
        pixels[height // 3 : height * 2 // 3, width // 3 : width * 2 // 3] = 30
    image = Image.fromarray(pixels)
    try:
        changed = change_ground(image, GroundSettings(white=white, subject_percent=percent))
    except PictureFileError as error:
        assert len(str(error)) > 20
        assert kind != "subject"
        return
    assert changed.mask.size == changed.image.size
    assert changed.image.mode == "RGB"
    if kind == "subject" and white:
        assert measure_border_whiteness(changed.image) == 1 or percent == 100


@pytest.mark.parametrize("at", [(0.1, 0.5), (0.9, 0.5), (0.5, 0.08), (0.5, 0.92)])
@pytest.mark.parametrize("ground", ["white", "grey", "wood"])
def test_a_subject_that_the_edge_cuts_off_is_never_cut_wrongly(ground: str, at: tuple[float, float]) -> None:
    with pytest.raises(PictureFileError, match="reaches the edge"):
        cut_out(draw(ground, side=256, at=at))


def test_a_subject_cannot_become_so_small_that_no_image_may_be_so_large() -> None:
    image = Image.fromarray(draw("grey", side=2400))
    with pytest.raises(PictureFileError, match="too large"):
        change_ground(image, GroundSettings(subject_percent=5))
