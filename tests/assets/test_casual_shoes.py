"""The dataset that ships: white to its borders, every image with its row, and drawn again by its script."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.core.paths import assets_folder
from studio.datasets.inspection import measure_border_whiteness

SHOES = assets_folder() / "casual-shoes"
SCRIPT = assets_folder() / "shoes-demo-making" / "make_casual_shoes.py"


@pytest.fixture(scope="module")
def drawn_again(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shoes") / "casual-shoes"
    subprocess.run([sys.executable, str(SCRIPT), "--output", str(folder)], check=True, capture_output=True)
    return folder


def test_every_picture_is_white_to_its_border() -> None:
    for path in sorted((SHOES / "images").iterdir()):
        with Image.open(path) as image:
            assert image.size == (256, 256)
            assert measure_border_whiteness(image.convert("RGB")) >= 0.99, path.name


def test_rows_and_pictures_belong_together() -> None:
    rows = list(csv.reader((SHOES / "styles.csv").read_text(encoding="utf-8").splitlines()))[1:]
    assert [row[0] for row in rows] == sorted(path.stem for path in (SHOES / "images").iterdir())
    assert sum(len(row) > 10 for row in rows) == 6  # names with a comma in no quotes
    assert sum(row[4] == "Casual Shoes" for row in rows) == 48


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in SHOES.rglob("*") if path.is_file()) < 2_000_000


@pytest.mark.process
def test_the_script_draws_it_again(drawn_again: Path) -> None:
    assert (drawn_again / "styles.csv").read_bytes() == (SHOES / "styles.csv").read_bytes()
    for path in sorted((SHOES / "images").iterdir()):
        with Image.open(path) as shipped, Image.open(drawn_again / "images" / path.name) as drawn:
            difference = np.abs(np.asarray(shipped).astype(int) - np.asarray(drawn).astype(int))
        # JPEG's encoder may round otherwise in another version.
        assert difference.mean() < 1, path.name
