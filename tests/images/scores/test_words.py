"""An image in words for its caption: colour, ground, orientation, size, position."""

import random
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from studio.core.paths import assets_folder
from studio.images.decoding import open_rgb
from studio.images.records import MEASURED_COLUMNS
from studio.images.scores.image import measure_words
from studio.images.scores.subject import measure_border
from tests.images.scores.drawn import draw, enlarged

MAKING = assets_folder() / "shoes-demo-making"
GROUNDS = {
    "white": {"white background"},
    "grey": {"textured grey background", "grey background"},
    "grass": {"textured green background"},
    "street": {"textured grey background", "grey background"},
    "wood": {f"{texture}{colour} background" for texture in ("", "textured ") for colour in ("brown", "tan")},
    "studio": {f"{colour} background" for colour in ("grey", "tan", "beige", "green", "blue", "pink")},
}
"""What may be said of each ground that is drawn: asphalt, clouds and grain are nearly too fine for textures."""


def words_of(picture: np.ndarray) -> dict[str, str]:
    height, width, __ = picture.shape
    border = measure_border(picture)
    return measure_words(picture, size=(width, height), border_whiteness=border.whiteness)


def test_words_of_the_dataset_inside_are_those_of_its_table() -> None:
    folder = assets_folder() / "casual-shoes"
    for line in (folder / "styles.csv").read_text(encoding="utf-8").splitlines()[1:]:
        name, *__, colour = line.split(",")[:6]
        words = words_of(np.asarray(open_rgb(folder / "images" / f"{name}.jpg", background="#ffffff")))
        assert words == {
            "colour": colour.lower(),
            "ground": "white background",
            "orientation": "square",
            "subject_size": "large",
            "position": "centred",
        }, name


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Iterator[tuple[str, str, np.ndarray]]]:
    """The ground, the colour and the image of 120 shoes in any pose, as the dataset's own are drawn."""
    monkeypatch.syspath_prepend(str(MAKING))
    from attributes import GROUNDS as NAMES
    from attributes import PALETTE
    from drawing import draw as draw_shoe

    rng = random.Random(11)

    def each() -> Iterator[tuple[str, str, np.ndarray]]:
        for index in range(120):
            ground, colour = NAMES[index % len(NAMES)], list(PALETTE)[index // 6 % len(PALETTE)]
            shoe = draw_shoe(rng, colour=colour, ground=ground, size=256, supersampling=1)
            yield ground, colour, np.asarray(shoe.image)

    yield each()


def test_colours_and_grounds_are_named_right_in_any_pose(
    drawings: Iterator[tuple[str, str, np.ndarray]],
) -> None:
    right = Counter[str]()
    for ground, colour, picture in drawings:
        words = words_of(picture)
        right.update(colour=words["colour"] == colour, ground=words["ground"] in GROUNDS[ground])
    assert right["colour"] >= 0.9 * 120
    assert right["ground"] >= 0.9 * 120


def test_a_ground_that_is_nearly_white_is_not_called_white() -> None:
    picture = draw("white")
    grey = np.where(picture.min(axis=2, keepdims=True) >= 245, np.uint8(228), picture)
    warm = np.where(picture.min(axis=2, keepdims=True) >= 245, np.array([244, 236, 215], np.uint8), picture)
    assert words_of(grey)["ground"] == "light grey background"
    assert words_of(warm)["ground"] in ("off-white background", "beige background")


@pytest.mark.parametrize(
    ("at", "position"),
    [
        ((0.5, 0.5), "centred"),
        ((0.3, 0.5), "on the left"),
        ((0.7, 0.5), "on the right"),
        ((0.5, 0.3), "at the top"),
        ((0.5, 0.7), "at the bottom"),
    ],
)
def test_where_the_subject_stands_is_said(at: tuple[float, float], position: str) -> None:
    assert words_of(draw(at=at))["position"] == position


def test_how_large_the_subject_is_is_said() -> None:
    sizes = [words_of(draw(radii=(radius, radius / 2)))["subject_size"] for radius in (0.1, 0.25, 0.42)]
    assert sizes == ["small", "medium", "large"]


@pytest.mark.parametrize(
    ("shape", "orientation"), [((100, 100), "square"), ((100, 160), "landscape"), ((160, 100), "portrait")]
)
def test_the_orientation_is_the_images_own(shape: tuple[int, int], orientation: str) -> None:
    words = words_of(np.full((*shape, 3), 128, np.uint8))
    assert words["orientation"] == orientation
    assert words["colour"] == words["position"] == ""


def test_a_thumbnail_has_the_same_words() -> None:
    large = enlarged(draw("wood", at=(0.35, 0.5)), 512)
    small = np.asarray(Image.fromarray(large).resize((256, 256), Image.Resampling.BICUBIC))
    assert words_of(small) == words_of(large)


def test_every_column_is_there() -> None:
    assert tuple(words_of(draw())) == MEASURED_COLUMNS
