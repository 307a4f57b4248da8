"""The captioner that is shipped: small, without pickles, and right on drawings that it never saw; its script runs."""

import importlib
import random
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from studio.core.paths import SHIPPED_CAPTIONER, assets_folder
from studio.engine.caption_models import check_captioner
from studio.engine.captioner import Captioner
from studio.engine.device import decide_precision

FOLDER = assets_folder() / SHIPPED_CAPTIONER
SCRIPTS = assets_folder() / "shoes-demo-making"
MAX_BYTES = 10_000_000
NUM_DRAWINGS = 240


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("train_captioner")


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner(FOLDER, device=torch.device("cpu"), precision=decide_precision("cpu"))


def test_it_is_small_and_has_no_pickle() -> None:
    assert check_captioner(FOLDER) == "blip"
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MAX_BYTES
    assert {path.suffix for path in FOLDER.iterdir()} <= {".json", ".safetensors", ".md"}


def test_colours_and_kinds_of_new_drawings_are_named_right(captioner: Captioner, script: ModuleType) -> None:
    """At least 95 % have both right, on every ground and in any pose, at the size of the dataset inside."""
    rng = random.Random(2026)
    right = []
    for index in range(NUM_DRAWINGS):
        shoe = script.draw(rng, ground=script.GROUNDS[index % 6], size=128, supersampling=2)
        (said,) = captioner.caption(shoe.image)
        right.append(said.partition(",")[0] == f"{shoe.attributes.colour} {shoe.attributes.kind}")
    assert np.mean(right) >= 0.95


def test_the_dataset_inside_is_captioned_as_its_table_says(captioner: Captioner) -> None:
    """256 pixels, twice as large as what it learned from."""
    right = []
    table = (assets_folder() / "casual-shoes" / "styles.csv").read_text(encoding="utf-8").splitlines()[1:]
    for line in table:
        name, *__, colour, _season, _year, _usage, product = line.split(",")[:10]
        kind = product.split()[-1].lower()
        with Image.open(assets_folder() / "casual-shoes" / "images" / f"{name}.jpg") as image:
            (said,) = captioner.caption(image.convert("RGB"))
        right.append(said == f"{colour.lower()} {kind}, white background")
    assert np.mean(right) >= 0.95


def test_the_script_leaves_a_captioner_that_can_be_read(script: ModuleType, tmp_path: Path) -> None:
    pictures = importlib.import_module("make_pictures")
    pictures.main(["--num-pictures", "16", "--output", str(tmp_path / "pictures")])
    given = ["--pictures", str(tmp_path / "pictures"), "--output", str(tmp_path / "model")]
    script.main([*given, "--max-train-steps", "2", "--batch-size", "4", "--num-held-out", "6"])
    made = Captioner(tmp_path / "model", device=torch.device("cpu"), precision=decide_precision("cpu"))
    words = set(script.make_processor().tokenizer.get_vocab())
    for caption in made.caption(Image.new("RGB", (40, 40)), num_candidates=2, max_new_tokens=5):
        assert set(caption.replace(",", " ").split()) <= words


def test_the_same_pictures_have_the_same_batches(script: ModuleType, tmp_path: Path) -> None:
    pictures = importlib.import_module("make_pictures")
    pictures.main(["--num-pictures", "12", "--output", str(tmp_path)])
    settings = script.parse_settings(["--pictures", str(tmp_path), "--output", "x", "--batch-size", "4"])
    picture_set, processor = script.load_picture_set(tmp_path), script.make_processor()
    first, second = (next(script.batches(picture_set, processor, settings)) for __ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    pictures_BCHW, tokens_BT, labels_BT = first
    assert pictures_BCHW.shape == (4, 3, 128, 128)
    assert (labels_BT[tokens_BT == script.PAD] == -100).all()
    known = {script.caption_of(shoe) for shoe in picture_set.attributes}
    assert set(processor.batch_decode(tokens_BT, skip_special_tokens=True)) <= known
