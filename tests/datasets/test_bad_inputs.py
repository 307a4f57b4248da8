"""The list of bad inputs: none crashes, none hangs, each comes out as the list says, by itself and in a crowd."""

from pathlib import Path

import numpy as np
import pytest

from studio.core.errors import PictureFileError
from studio.datasets.checker import PictureChecker
from studio.datasets.inspection import inspect
from studio.images.decoding import open_rgb
from studio.images.records import PictureFacts
from tests.datasets.bad_inputs import ACCEPTED, BAD_INPUTS, CONVERTED, REJECTED, BadInput, encoded, picture, turned

WHITE, BLUE = "#ffffff", "#0000ff"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them in one folder."""
    folder = tmp_path_factory.mktemp("bad")
    for bad in BAD_INPUTS:
        bad.write(folder / bad.name)
    return folder


def classify_exit(bad: BadInput, facts: PictureFacts) -> None:
    found = {(problem.severity, problem.code) for problem in facts.problems}
    if bad.severity is None:
        assert not found, bad.name
    elif bad.code is None:
        assert bad.severity in {severity for severity, _ in found}, (bad.name, found)
    else:
        assert (bad.severity, bad.code) in found, (bad.name, found)
    assert facts.is_usable == (bad.severity != "reject"), (bad.name, found)
    assert all(problem.sentence.endswith((".", ").")) for problem in facts.problems), found


def test_the_list_is_as_long_as_it_was_promised_to_be() -> None:
    assert len(BAD_INPUTS) >= 76
    assert len({bad.name for bad in BAD_INPUTS}) == len(BAD_INPUTS)


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: repr(bad.name))
def test_each_comes_out_as_the_list_says(bad: BadInput, corpus: Path, tmp_path: Path) -> None:
    classify_exit(bad, inspect(corpus / bad.name, background=WHITE, thumbnails=tmp_path))


def test_all_at_once_in_workers_come_out_the_same(corpus: Path, tmp_path: Path) -> None:
    checker = PictureChecker(tmp_path / "checks.db", tmp_path / "thumbnails", num_workers=2)
    found: dict[Path, PictureFacts] = {}
    try:
        paths = [corpus / bad.name for bad in BAD_INPUTS]
        checker.check(paths, background=WHITE, on_checked=found.__setitem__)
    finally:
        checker.close()
    assert len(found) == len(BAD_INPUTS)
    for bad in BAD_INPUTS:
        classify_exit(bad, found[corpus / bad.name])


@pytest.mark.parametrize("bad", REJECTED, ids=lambda bad: bad.name)
def test_what_is_rejected_cannot_be_read_for_training_either(bad: BadInput, corpus: Path) -> None:
    with pytest.raises(PictureFileError):
        open_rgb(corpus / bad.name)


@pytest.mark.parametrize("bad", (*CONVERTED, *ACCEPTED), ids=lambda bad: bad.name)
def test_what_is_usable_is_read_as_rgb(bad: BadInput, corpus: Path) -> None:
    assert open_rgb(corpus / bad.name).mode == "RGB"


def test_postscript_is_never_run(corpus: Path) -> None:
    assert not Path("/tmp/studio-was-here").exists()


def pixels(path: Path, *, background: str = WHITE) -> np.ndarray:
    return np.asarray(open_rgb(path, background=background)).astype(int)


def test_16_bits_are_scaled_not_clipped(corpus: Path) -> None:
    grey = pixels(corpus / "grey16.png")
    assert grey.min() == 0
    assert grey.max() == 255
    assert abs(grey.mean() - 127.5) < 1


@pytest.mark.parametrize("name", ["float.tif", "int32.tif"])
def test_numbers_beyond_8_bits_are_scaled_by_what_they_hold(name: str, corpus: Path) -> None:
    grey = pixels(corpus / name)
    assert (grey.min(), grey.max()) == (0, 255)
    assert abs(grey.mean() - 127.5) < 1


@pytest.mark.parametrize("name", ["rgba.png", "rgba.webp", "la.png"])
def test_transparency_shows_the_background_not_black(name: str, corpus: Path) -> None:
    assert (pixels(corpus / name) == 255).all()
    assert (pixels(corpus / name, background=BLUE) == (0, 0, 255)).all()


def test_a_turned_picture_is_turned_upright(tmp_path: Path) -> None:
    file = tmp_path / "turned.jpg"
    file.write_bytes(turned(6))
    assert open_rgb(file).size == (64, 96)
    upright = picture().rotate(-90, expand=True)
    assert np.abs(pixels(file) - np.asarray(upright).astype(int)).mean() < 8


def test_lab_and_cmyk_keep_their_colours(corpus: Path) -> None:
    wanted = np.asarray(picture()).astype(int)
    assert np.abs(pixels(corpus / "lab.tif") - wanted).mean() < 8
    assert np.abs(pixels(corpus / "cmyk.tif") - wanted).mean() < 8


def test_of_several_frames_the_first_is_used(corpus: Path) -> None:
    assert np.abs(pixels(corpus / "moving.png") - np.asarray(picture()).astype(int)).mean() < 8


def test_a_png_is_read_to_the_bit(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(picture(), "PNG"))
    assert (pixels(file) == np.asarray(picture())).all()
