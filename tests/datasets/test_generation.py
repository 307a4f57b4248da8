"""A dataset of images that were made here: what is left out of it, where it comes from, how far it drifted."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.core.paths import UserData
from studio.datasets.captioning import CaptionSettings, dataset_of, open_dataset
from studio.datasets.generation import (
    DRIFT,
    DUPLICATE,
    drift_words,
    lineage_words,
    low_scores,
    note_generation,
    scored,
    unfit_images,
    use_only,
    variety_of,
)
from studio.datasets.library import DatasetLibrary
from studio.datasets.opened import OpenedDataset
from studio.datasets.report import DuplicatePair, DuplicateSearch
from studio.datasets.snapshot import make_snapshot
from studio.datasets.source import MadeFrom, Variety
from studio.images.records import PictureFacts


def drawn(colour: tuple[int, int, int], *, ground: int = 255, at: int = 30) -> Image.Image:
    """A disc on a grey ground."""
    pixels = np.full((96, 96, 3), ground, np.uint8)
    y, x = np.mgrid[:96, :96]
    pixels[(y - 50) ** 2 + (x - at - 18) ** 2 < 22**2] = colour
    return Image.fromarray(pixels)


def folder_of(folder: Path, images: dict[str, Image.Image]) -> Path:
    folder.mkdir(parents=True)
    for name, image in images.items():
        image.save(folder / f"{name}.png")
    return folder


COLOURS = {"red": (200, 20, 20), "blue": (20, 40, 200), "green": (20, 140, 40), "black": (15, 15, 15)}


def facts(tiny: np.ndarray, colour: str) -> PictureFacts:
    return PictureFacts(tiny=tiny.astype(np.uint8).tobytes().hex(), measured={"colour": colour})


def test_variety_grows_with_differences_and_colours() -> None:
    rng = np.random.default_rng(0)
    flat = [facts(np.full((8, 8, 3), 200), "red") for __ in range(6)]
    noisy = [facts(rng.integers(0, 255, (8, 8, 3)), name) for name in (*COLOURS, "white", "brown")]
    same, other = variety_of(flat), variety_of(noisy)
    assert same is not None
    assert other is not None
    assert (same.difference, same.colours) == (0, pytest.approx(1))
    assert other.difference > 20
    assert other.colours == pytest.approx(6)
    assert variety_of(flat[:1]) is None


def test_the_distance_is_cielabs_at_the_same_place() -> None:
    black, white = facts(np.zeros((8, 8, 3)), ""), facts(np.full((8, 8, 3), 255), "")
    found = variety_of([black, white])
    assert found is not None
    assert (found.difference, found.colours) == (pytest.approx(100, abs=0.1), 0)


def test_what_is_worse_than_the_others_is_left_out_for_a_reason(tmp_path: Path) -> None:
    good = {f"good {name}": drawn(colour) for name, colour in COLOURS.items()}
    bad = {"grey": drawn((200, 20, 20), ground=150), "empty": Image.new("RGB", (96, 96), "white")}
    folder = folder_of(tmp_path / "made", {**good, **bad, "wrong": drawn((20, 40, 200))})
    prompts = {path: "a red ball" if path.stem == "wrong" else "" for path in sorted(folder.iterdir())}
    found = low_scores(scored(prompts))
    assert found["grey.png"] == "less white than the others"
    assert found["empty.png"] == "no subject found"
    assert found["wrong.png"] == "another colour than asked"
    assert not [name for name in found if name.startswith("good")]


def test_where_hardly_any_ground_is_white_none_is_left_out_for_it(tmp_path: Path) -> None:
    images = {name: drawn(colour, ground=120) for name, colour in COLOURS.items()}
    folder = folder_of(tmp_path / "made", {**images, "white": drawn((200, 20, 20))})
    assert low_scores(scored(dict.fromkeys(folder.iterdir(), ""))) == {}


@pytest.fixture
def made(tmp_path: Path) -> tuple[OpenedDataset, UserData]:
    """Four images, one of them twice."""
    folder = folder_of(tmp_path / "made", {name: drawn(colour) for name, colour in COLOURS.items()})
    shutil.copy(folder / "red.png", folder / "red again.png")
    data = UserData(tmp_path / "data")
    dataset_of(str(folder), data)
    return open_dataset(CaptionSettings(dataset="made"), data), data


def test_near_duplicates_are_excluded_as_one_edit_and_the_recipe_says_from_where(
    made: tuple[OpenedDataset, UserData],
) -> None:
    opened, data = made
    found = note_generation(opened, data, made_by="the batch shoes", scores={}, snapshots=[])
    assert found.left_out == {DUPLICATE: 1}
    assert [row.key for row in opened.rows if row.excluded] == ["red.png"]
    assert note_generation(opened, data, made_by="the batch shoes", scores={}, snapshots=[]) == found, "a second time"
    assert DatasetLibrary(data.datasets).recipe("made").made_from == found
    assert lineage_words(found) == ["From the batch shoes.", "1 image left out: 1 × near-duplicates."]
    opened.undo()
    assert not [row.key for row in opened.rows if row.excluded]


def test_what_was_decided_stays_and_of_a_chain_only_the_middle_goes(
    made: tuple[OpenedDataset, UserData], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, data = made
    note_generation(opened, data, made_by="the batch shoes", scores={}, snapshots=[])
    opened.set_excluded(["red.png"], excluded=False)
    opened.set_excluded(["blue.png"], excluded=True)
    keys = {row.key for row in opened.rows}
    use_only(opened, keys - {"green.png"})
    use_only(opened, keys)
    found = note_generation(opened, data, made_by="the batch shoes", scores={}, snapshots=[])
    assert [row.key for row in opened.rows if row.excluded] == ["blue.png"], "the user's own choices"
    assert found.left_out == {}
    pairs = [("black.png", "green.png"), ("green.png", "red.png")]
    chain = DuplicateSearch(tuple(DuplicatePair(a, b, exact=False, distance=1) for a, b in pairs), 0)
    monkeypatch.setattr("studio.datasets.generation.find_duplicates", lambda rows: chain)
    assert unfit_images(opened, {}) == {"green.png": DUPLICATE}


def test_a_snapshot_keeps_where_its_images_come_from(made: tuple[OpenedDataset, UserData]) -> None:
    opened, data = made
    found = note_generation(opened, data, made_by="the batch shoes", scores={}, snapshots=[])
    assert make_snapshot("made", opened.recipe, opened.rows).header.recipe.made_from == found


@pytest.mark.parametrize(
    ("share", "num_sentences"), [(DRIFT + 0.01, 0), (DRIFT - 0.01, 3)], ids=["as varied", "less varied"]
)
def test_less_variety_than_the_first_dataset_is_warned_of(share: float, num_sentences: int) -> None:
    before = Variety(difference=20, colours=5)
    now = Variety(difference=20 * share, colours=5 * share)
    warned = drift_words(MadeFrom(made_by="x", dataset="shoes", before=before, now=now))
    assert len(warned) == num_sentences
    if warned:
        assert warned[0] == "Second generation: these images differ 21% less than those of shoes."
        assert "about 4.0 colours; those of shoes have 5.0" in warned[1]
