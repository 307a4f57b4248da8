"""The script that trains a small captioner on drawn shoes."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from studio.core.paths import assets_folder
from studio.engine.captioner import Captioner
from studio.engine.device import decide_precision

SCRIPTS = assets_folder() / "shoes-demo-making"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("train_captioner")


def test_the_script_leaves_a_captioner_that_can_be_read(script: ModuleType, tmp_path: Path) -> None:
    pictures = importlib.import_module("make_pictures")
    pictures.main(["--num-pictures", "16", "--output", str(tmp_path / "pictures")])
    given = ["--pictures", str(tmp_path / "pictures"), "--output", str(tmp_path / "model")]
    script.main([*given, "--max-train-steps", "2", "--batch-size", "4", "--num-held-out", "6"])
    given += ["--start-from", str(tmp_path / "model"), "--max-train-steps", "1"]
    script.main([*given, "--batch-size", "4", "--num-held-out", "6"])
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
    pictures_BCHW, tokens_BT, classes_B3 = first
    assert pictures_BCHW.shape == (4, 3, 128, 128)
    for tokens_T, (kind, colour, ground) in zip(tokens_BT, classes_B3.tolist(), strict=True):
        words = script.GROUND_WORDS[script.GROUNDS[ground]]
        caption = f"{list(script.PALETTE)[colour]} {script.KINDS[kind]}, {words}"
        assert processor.decode(tokens_T, skip_special_tokens=True) == caption
    known = {script.caption_of(shoe) for shoe in picture_set.attributes}
    assert set(processor.batch_decode(tokens_BT, skip_special_tokens=True)) <= known
