"""`python -m studio dataset check`: the exit code says whether something needs fixing."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from studio.cli.app import app
from studio.cli.dataset import check_dataset
from studio.core.errors import DatasetError
from studio.core.paths import UserData, assets_folder
from studio.datasets.source import DatasetRecipe
from tests.datasets.bad_inputs import picture

SHOES = assets_folder() / "casual-shoes"


def check(source: Path, tmp_path: Path, *, masks: Path | None = None, as_json: bool = False) -> bool:
    recipe = DatasetRecipe(source=str(source), resolution=128)
    return check_dataset(recipe, UserData(tmp_path / "user_data"), masks=masks, as_json=as_json)


def test_a_sound_dataset_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(SHOES, tmp_path)
    printed = capsys.readouterr().out
    assert "60 found = 60 will be trained on." in printed
    assert "Nothing needs fixing." in printed


def test_a_cut_file_does_not_pass_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(SHOES, tmp_path / "shoes")
    victim = tmp_path / "shoes/images/10001.jpg"
    victim.write_bytes(victim.read_bytes()[:-2])
    assert not check(tmp_path / "shoes", tmp_path)
    assert "'images/10001.jpg': cut short" in capsys.readouterr().out


def test_a_row_without_its_picture_does_not_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(SHOES, tmp_path / "shoes")
    (tmp_path / "shoes/images/10001.jpg").unlink()
    assert not check(tmp_path / "shoes", tmp_path, as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["num_used"] == 59
    assert report["findings"][0]["name"] == "styles.csv row 2"


def test_nothing_is_written_beside_the_pictures(tmp_path: Path) -> None:
    shutil.copytree(SHOES, tmp_path / "shoes")
    before = sorted(tmp_path.joinpath("shoes").rglob("*"))
    check(tmp_path / "shoes", tmp_path)
    assert sorted(tmp_path.joinpath("shoes").rglob("*")) == before
    assert not (tmp_path / "user_data/datasets").exists()


def test_no_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be found"):
        check(tmp_path / "nowhere", tmp_path)


@pytest.fixture
def shoes(tmp_path: Path) -> Path:
    """Two images of 80 × 100 pixels, and an empty folder of masks."""
    (tmp_path / "shoes").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("a.jpg", "b.jpg"):
        picture(80, 100).save(tmp_path / "shoes" / name)
    return tmp_path / "shoes"


def grey(level: int, size: tuple[int, int] = (80, 100)) -> Image.Image:
    return Image.new("L", size, level)


@pytest.mark.parametrize(
    ("masks", "notes"),
    [
        ({"a.png": grey(255), "b_mask.png": grey(9)}, ["2 have a mask; 0 have none and are learned whole."]),
        (
            {"a.png": grey(255), "a-masklabel.png": grey(255)},
            [
                "1 have a mask; 1 have none and are learned whole.",
                "a.jpg has 2 masks: a.png is used, a-masklabel.png not. Delete those that are wrong.",
            ],
        ),
        (
            {"a.png": grey(255, (100, 80)), "b.png": grey(0)},
            [
                "2 have a mask; 0 have none and are learned whole.",
                "Masks of another shape than their image are stretched over it: a.jpg.",
                "Masks that are all black learn nothing at full weight: b.jpg.",
            ],
        ),
        (
            {"a.png": grey(1)},
            [
                "1 have a mask; 1 have none and are learned whole.",
                "Masks with the levels 0 and 1 only are black throughout; save what is learned as 255: a.jpg.",
            ],
        ),
    ],
)
def test_how_masks_fit_is_said(
    masks: dict[str, Image.Image], notes: list[str], shoes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, mask in masks.items():
        mask.save(tmp_path / "masks" / name)
    assert check(shoes, tmp_path, masks=tmp_path / "masks")
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("Masks: ")] == [
        f"Masks: {note}" for note in notes
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("other.png", None, r"no masks. No mask in mask_folder .* has the name of an image"),
        ("a.png", b"<html>", r"a\.png': mask unreadable. The mask of a\.jpg: "),
    ],
)
def test_masks_that_fit_nothing_or_cannot_be_read_do_not_pass(
    name: str, content: bytes | None, said: str, shoes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey(255).save(tmp_path / "masks" / name)
    if content is not None:
        (tmp_path / "masks" / name).write_bytes(content)
    assert not check(shoes, tmp_path, masks=tmp_path / "masks")
    printed = capsys.readouterr().out
    assert re.search(said, printed)
    assert "2 found = 2 will be trained on." in printed


def test_the_folder_of_masks_is_an_option(shoes: Path, tmp_path: Path) -> None:
    words = ["dataset", "check", str(shoes), "--masks", (tmp_path / "masks").as_uri(), "--user-data", str(tmp_path)]
    found = CliRunner().invoke(app, words, catch_exceptions=False)
    assert (found.exit_code, f"mask_folder {tmp_path / 'masks'} holds no image" in found.stdout) == (1, True)
