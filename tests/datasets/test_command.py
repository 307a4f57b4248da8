"""`python -m studio dataset check`: the exit code says whether something needs fixing."""

import json
import shutil
from pathlib import Path

import pytest

from studio.cli.dataset import check_dataset
from studio.core.errors import DatasetError
from studio.core.paths import UserData, assets_folder
from studio.datasets.source import DatasetRecipe

SHOES = assets_folder() / "casual-shoes"


def check(source: Path, tmp_path: Path, *, as_json: bool = False) -> bool:
    return check_dataset(
        DatasetRecipe(source=str(source), resolution=128), UserData(tmp_path / "user_data"), as_json=as_json
    )


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
