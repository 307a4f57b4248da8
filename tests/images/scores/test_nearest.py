"""Copies of training images are known as such, mirrored and shifted ones too; new images are their own."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from studio.core.errors import DatasetError
from studio.core.paths import assets_folder
from studio.images.scores.likeness import COPY_CEILING, COPY_FLOOR, NearestIndex, NearestPicture, describe
from studio.images.scores.subject import find_subject, make_working
from tests.images.scores.drawn import draw

SHOES = sorted((assets_folder() / "casual-shoes" / "images").iterdir())


def near(index: NearestIndex, image: Image.Image | np.ndarray) -> NearestPicture:
    working = make_working(np.asarray(image))
    return index.find(describe(working, find_subject(working)))


@pytest.fixture(scope="module")
def shoes() -> NearestIndex:
    return NearestIndex.build(SHOES)


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> NearestIndex:
    """Sixty ellipses that differ: colour, place, size, ground."""
    folder = tmp_path_factory.mktemp("varied")
    rng = np.random.default_rng(3)
    for number in range(60):
        ground = ("white", "grey", "wood", "grass")[number % 4]
        Image.fromarray(varied_picture(rng, ground)).save(folder / f"{number}.png")
    return NearestIndex.build(sorted(folder.iterdir()))


def varied_picture(rng: np.random.Generator, ground: str) -> np.ndarray:
    red, green, blue = (int(value) for value in rng.integers(20, 230, 3))
    at = (float(rng.uniform(0.35, 0.65)), float(rng.uniform(0.35, 0.65)))
    radii = (float(rng.uniform(0.12, 0.3)), float(rng.uniform(0.1, 0.3)))
    return draw(ground, colour=(red, green, blue), at=at, radii=radii)


def jpeg(image: Image.Image) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=60)
    return Image.open(content).convert("RGB")


def shifted(image: Image.Image, share: float) -> Image.Image:
    by = round(image.width * share)
    pixels = np.pad(np.asarray(image), ((by, 0), (by, 0), (0, 0)), mode="edge")
    return Image.fromarray(pixels[: image.height, : image.width])


@pytest.mark.parametrize("number", range(0, 60, 7))
def test_the_same_picture_is_at_zero(shoes: NearestIndex, number: int) -> None:
    found = near(shoes, Image.open(SHOES[number]).convert("RGB"))
    assert found.distance < 1e-5
    assert found.likeness == "as a copy"


@pytest.mark.parametrize("number", range(0, 60, 7))
def test_copies_are_found_however_they_were_saved(shoes: NearestIndex, number: int) -> None:
    image = Image.open(SHOES[number]).convert("RGB")
    half = image.resize((128, 128))
    for copy in (ImageOps.mirror(image), jpeg(image), half, image.filter(ImageFilter.GaussianBlur(1.5))):
        found = near(shoes, copy)
        assert found.likeness == "as a copy"
        assert found.path == SHOES[number]
    mirrored = near(shoes, ImageOps.mirror(image))
    assert mirrored.mirrored
    assert mirrored.distance < 1e-3


def test_shifted_copies_are_at_least_close(shoes: NearestIndex) -> None:
    """This dataset's images are as alike as shifted copies are: most are called copies, the others close."""
    words = [near(shoes, shifted(Image.open(path).convert("RGB"), 0.03)).likeness for path in SHOES[::4]]
    assert words.count("as a copy") >= 0.6 * len(words)
    assert words.count("of its own") <= 1


@pytest.mark.parametrize("share", [0.03, 0.08])
def test_shifted_copies_are_copies_where_pictures_differ(varied: NearestIndex, share: float) -> None:
    words = [near(varied, shifted(Image.open(path).convert("RGB"), share)).likeness for path in varied.paths]
    assert words.count("as a copy") >= 0.7 * len(words)


def test_new_pictures_are_of_their_own(varied: NearestIndex) -> None:
    rng = np.random.default_rng(99)
    words = [near(varied, varied_picture(rng, ("white", "wood")[i % 2])).likeness for i in range(40)]
    assert words.count("as a copy") <= 1
    assert words.count("of its own") >= 0.8 * len(words)


def test_two_at_random_are_about_one_apart(varied: NearestIndex) -> None:
    rows = varied._whole.rows_ND
    apart = [np.linalg.norm(rows[i] - rows[j]) for i in range(60) for j in range(i)]
    assert np.median(apart) == pytest.approx(1, abs=0.1)
    assert varied.typical is not None
    assert varied.copy_limit < varied.typical < 1


def test_limits_stay_within_bounds(shoes: NearestIndex, varied: NearestIndex) -> None:
    for index in (shoes, varied):
        assert COPY_FLOOR <= index.copy_limit <= COPY_CEILING
        assert index.copy_limit < index.close_limit


def test_the_same_picture_many_times_is_no_trouble(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(draw()).save(path)
    index = NearestIndex.build(paths)
    assert near(index, draw()).likeness == "as a copy"
    assert near(index, draw(colour=(40, 90, 190), at=(0.4, 0.6))).likeness != "as a copy"


def test_pictures_without_a_subject_are_compared_as_a_whole(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (255, 255, 255)).save(tmp_path / "white.png")
    Image.fromarray(draw()).save(tmp_path / "red.png")
    index = NearestIndex.build([tmp_path / "white.png", tmp_path / "red.png"])
    found = near(index, np.full((128, 128, 3), 255, np.uint8))
    assert (found.path.name, found.likeness) == ("white.png", "as a copy")


def test_unreadable_training_pictures_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    index = NearestIndex.build([tmp_path / "broken.png", SHOES[0]])
    assert [file.name for file in index.unreadable] == ["broken.png"]
    with pytest.raises(DatasetError, match=r"no training image to compare with.*broken\.png"):
        NearestIndex.build([tmp_path / "broken.png"])
