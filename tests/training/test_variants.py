"""The variants of an image: where they are cut, how bright they are, and that they never change."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from studio.datasets.rows import Bucket, BucketFit, fit_of
from studio.training.variants import Variant, VariantSettings, cut, make_variants, small_jpegs

ALL: dict[str, Any] = {
    "crop": "random",
    "horizontal_flip": True,
    "scale_jitter_percent": 30,
    "brightness_jitter_percent": 20,
    "num_variants": 8,
}


def variants(
    size: tuple[int, int] = (300, 200), sha256: str = "a", *, is_moved: bool = False, **changes: object
) -> tuple[tuple[Variant, ...], BucketFit]:
    settings = VariantSettings.model_validate(changes)
    fit = fit_of(*size, 64, step=None, square=False)
    return make_variants(size, fit, settings, sha256=sha256, is_moved=is_moved), fit


def test_by_default_an_image_is_seen_in_one_way() -> None:
    (only,), fit = variants()
    assert only == Variant(fit.crop)


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"num_variants": 9}, 1),
        ({"horizontal_flip": True}, 2),
        ({"scale_jitter_percent": 10}, 4),
        ({"brightness_jitter_percent": 10, "num_variants": 7}, 7),
        ({"crop": "random", "num_variants": 3}, 3),
        (ALL, 16),
    ],
)
def test_there_are_as_many_as_the_settings_say(changes: dict[str, object], number: int) -> None:
    assert len(variants((701, 333), **changes)[0]) == number


@given(
    size=st.tuples(st.integers(1, 900), st.integers(1, 900)),
    resolution=st.sampled_from([64, 128, 256, 512]),
    is_square=st.booleans(),
    is_random=st.booleans(),
    scale=st.integers(0, 50),
    num=st.integers(1, 20),
)
def test_no_crop_leaves_the_image_is_enlarged_or_smaller_than_said(
    size: tuple[int, int], resolution: int, is_square: bool, is_random: bool, scale: int, num: int
) -> None:
    fit = fit_of(*size, resolution, step=None, square=is_square)
    settings = VariantSettings(
        crop="random" if is_random else "centre", scale_jitter_percent=scale, num_variants=num, horizontal_flip=True
    )
    made = make_variants(size, fit, settings, sha256=f"{size}", is_moved=False)
    assert len(set(made)) == len(made) <= 2 * num
    whole = (fit.crop[2] - fit.crop[0], fit.crop[3] - fit.crop[1])
    for variant in made:
        left, top, right, bottom = variant.crop
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        for kept, usual, seen in zip(
            (right - left, bottom - top), whole, (fit.bucket.width, fit.bucket.height), strict=True
        ):
            assert min(usual, seen) <= kept <= usual
            assert kept >= usual * (1 - scale / 100) - 0.5


def test_scales_reach_over_the_whole_range_and_the_first_is_the_images_own() -> None:
    made, fit = variants((1000, 1000), scale_jitter_percent=40, num_variants=16)
    sides = [variant.crop[2] - variant.crop[0] for variant in made]
    assert sides[0] == 1000
    assert made[0].crop == fit.crop
    counts, __ = np.histogram(sides[1:], bins=4, range=(600, 1000))
    assert min(counts) >= 2, "evenly"


def test_without_random_crops_a_smaller_part_lies_in_the_middle_of_the_crop() -> None:
    made, fit = variants((640, 480), scale_jitter_percent=50)
    middle = (fit.crop[0] + fit.crop[2]) / 2, (fit.crop[1] + fit.crop[3]) / 2
    for variant in made:
        left, top, right, bottom = variant.crop
        assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx(middle, abs=1)


def test_a_crop_that_a_person_moved_stays_in_every_variant() -> None:
    made, fit = variants(is_moved=True, **ALL)
    assert {variant.crop for variant in made} == {fit.crop}
    assert len({variant.brightness for variant in made}) == 8


def test_they_are_the_same_each_time_others_for_another_image_and_more_of_them_begin_with_fewer() -> None:
    first, __ = variants(**ALL)
    assert variants(**ALL)[0] == first
    assert variants(sha256="b", **ALL)[0] != first
    more, __ = variants(**{**ALL, "num_variants": 12})
    assert set(first) < set(more), "what is cached already is used again"


def test_brightness_lies_on_both_sides_within_the_bound() -> None:
    made, __ = variants(brightness_jitter_percent=20, num_variants=8)
    levels = [variant.brightness for variant in made]
    assert levels[0] == 0
    assert -0.2 <= min(levels) < -0.1
    assert 0.1 < max(levels) <= 0.2


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("brightness", [-0.5, -0.13, 0.0, 0.2, 0.5])
def test_the_pixels_are_those_of_a_reference(flip: bool, brightness: float) -> None:
    """Boxes that need no resampling: numpy cuts, mirrors and brightens them in float."""
    rng = np.random.default_rng(3)
    levels = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    for left, top in ((0, 0), (17, 5), (56, 42)):
        variant = Variant((left, top, left + 64, top + 48), flip, brightness)
        part = levels[top : top + 48, left : left + 64]
        wanted = 255 * np.power(part / 255.0, np.log(0.5 * (1 + brightness)) / np.log(0.5))
        if flip:
            wanted = wanted[:, ::-1]
        found = np.asarray(cut(Image.fromarray(levels), variant, Bucket(64, 48)))
        assert np.abs(found - wanted).max() <= 0.5 + 1e-6


def test_medium_grey_changes_by_what_is_said_and_white_and_black_stay() -> None:
    for brightness in (-0.3, 0.3):
        for level, wanted in ((0, 0), (255, 255), (127.5, 127.5 * (1 + brightness))):
            image = Image.new("RGB", (64, 64), (int(level),) * 3)
            found = cut(image, Variant((0, 0, 64, 64), brightness=brightness), Bucket(64, 64))
            assert np.asarray(found).mean() == pytest.approx(wanted, abs=1.5)


def test_what_is_shown_is_what_is_trained_on() -> None:

    image = Image.linear_gradient("L").convert("RGB")
    seen = (Variant((0, 0, 256, 128)), Variant((0, 0, 256, 128), flip=True))
    shown = [
        Image.open(io.BytesIO(base64.b64decode(jpeg))).convert("RGB")
        for jpeg in small_jpegs(ImageOps.mirror(image.rotate(90)), seen, Bucket(128, 64))
    ]
    assert [one.size for one in shown] == [(120, 60)] * 2
    apart = np.abs(np.asarray(shown[0], float) - np.asarray(ImageOps.mirror(shown[1]), float)).max()
    assert apart < 8
    assert np.abs(np.asarray(shown[0], float) - np.asarray(shown[1], float)).max() > 100
