"""WD taggers: what they see, which tags are given, and folders that hold none."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.core.errors import ModelError
from studio.engine.caption_models import CAPTIONER_LAYOUT, TAGGER, check_captioner
from studio.engine.captioner import load_captioner
from studio.engine.hub import find_hub_model
from studio.engine.tagger import Tagger, prepared, words_of
from tests.engine.hub_server import fake_hub, files_of
from tests.engine.tagger_files import BIASES_T, SIDE, WEIGHTS_T3, save_tagger, tagger_bytes

RED = Image.new("RGB", (40, 40), (255, 0, 0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tagger(tmp_path / "tagger")


def load(folder: Path, general: float = 0.35, character: float = 0.85) -> Tagger:
    return Tagger(folder, general_threshold=general, character_threshold=character)


@pytest.mark.parametrize(("colour", "named"), [((255, 0, 0), "red"), ((0, 255, 0), "green"), ((0, 0, 255), "blue")])
def test_colours_arrive_as_the_model_takes_them(folder: Path, colour: tuple[int, int, int], named: str) -> None:
    assert load(folder).caption(Image.new("RGB", (40, 40), colour)) == (f"{named} shoes, :d",)


def test_probabilities_are_those_of_the_model_computed_another_way(folder: Path) -> None:
    image = Image.fromarray(np.random.default_rng(3).integers(0, 255, (SIDE, SIDE, 3), np.uint8))
    mean_bgr = np.asarray(image, np.float32).mean(axis=(0, 1))[::-1]
    expected_T = 1 / (1 + np.exp(-(np.asarray(WEIGHTS_T3) @ mean_bgr + np.asarray(BIASES_T))))
    for number, name in ((1, "blue shoes"), (3, "red shoes"), (4, "white background")):
        probability = float(expected_T[number])
        assert name in load(folder, general=max(0.0, probability - 1e-4)).caption(image)[0]
        assert name not in (load(folder, general=min(1.0, probability + 1e-4)).caption(image) or ("",))[0]


def test_a_characters_name_has_a_threshold_of_its_own_and_comes_first(folder: Path) -> None:
    assert load(folder, character=0.6).caption(RED) == ("hatsune miku, red shoes, :d",)
    assert load(folder, general=1.0, character=0.6).caption(RED) == ("hatsune miku, red shoes",)
    assert load(folder, general=0.0, character=1.0).caption(RED)[0].startswith("red shoes, :d")


def test_ratings_are_never_tags_and_no_tag_is_no_caption(folder: Path) -> None:
    assert "general" not in load(folder, general=0.0, character=0.0).caption(RED)[0].split(", ")
    assert load(folder, general=1.0).caption(Image.new("RGB", (9, 9))) == ()


def test_there_is_one_caption_whatever_is_asked(folder: Path) -> None:
    assert len(load(folder).caption(RED, prompt="a photo of", num_candidates=4, max_new_tokens=4, seed=3)) == 1


@pytest.mark.parametrize("size", [(60, 20), (20, 60), (30, 8), (16, 16)])
def test_an_image_lies_in_the_middle_of_a_white_square(size: tuple[int, int]) -> None:
    pixels = prepared(Image.new("RGB", size, (255, 0, 0)), 60)[0]
    assert pixels.shape == (60, 60, 3)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[30, 30], (0, 0, 255), atol=4)
    share = min(size) / max(size)
    whiteness = (pixels.min(axis=2) > 250).mean()
    assert whiteness == pytest.approx(1 - share, abs=0.06)
    np.testing.assert_allclose(pixels, pixels[::-1, ::-1], atol=4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("long_hair", "long hair"),
        (">_<", ">_<"),
        ("||_||", "||_||"),
        ("o_o", "o_o"),
        ("0_0", "0_0"),
        ("1girl", "1girl"),
    ],
)
def test_names_become_words_and_faces_stay(name: str, words: str) -> None:
    assert words_of(name) == words


def test_a_tagger_is_known_by_its_files(folder: Path) -> None:
    assert check_captioner(folder) == TAGGER
    (folder / "config.json").write_text('{"architecture": "vit_base_patch16_224"}')
    assert check_captioner(folder) == TAGGER
    found = load_captioner(
        str(folder), precision="float32", cpu=True, thresholds=(0.35, 0.85), say=print, should_stop=lambda: False
    )
    assert isinstance(found, Tagger)
    assert found.caption(RED) == ("red shoes, :d",)


def test_half_a_tagger_says_which_file_it_lacks(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"has no model\.onnx"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"no model", tagger_bytes()[:-40]])
def test_damaged_weights_are_said_so(folder: Path, content: bytes) -> None:
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot be loaded|is no WD tagger"):
        load(folder)


def test_a_pointer_to_the_weights_is_said_so(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ModelError, match="Git LFS pointer"):
        load(folder)


@pytest.mark.parametrize("table", ["", "a,b\n1,2\n", "tag_id,name,category,count\n1,red,0,5\n", "\0"])
def test_a_table_that_is_not_the_models_is_said_so(folder: Path, table: str) -> None:
    (folder / "selected_tags.csv").write_text(table)
    with pytest.raises(ModelError, match=r"selected_tags\.csv"):
        load(folder)


def test_another_kind_of_onnx_model_is_no_tagger(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(tagger_bytes(channels=1))
    with pytest.raises(ModelError, match="is no WD tagger"):
        load(folder)


@pytest.mark.parametrize("config", [None, {"architecture": "vit_base_patch16_224"}])
def test_of_the_hub_only_tags_and_weights_are_fetched(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: object
) -> None:
    """With a configuration, as the newer ones, and without, as the older."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    files = {**files_of(folder), "model.safetensors": b"of timm", "README.md": b"#"}
    if config:
        files["config.json"] = json.dumps(config).encode()
    with fake_hub() as hub:
        hub.add("SmilingWolf/wd-tagger", files)
        where = {"endpoint": hub.address, "cache": tmp_path / "hub"}
        found = find_hub_model("SmilingWolf/wd-tagger", layout=CAPTIONER_LAYOUT, **where)
        num_requests = len(hub.requests)
        assert find_hub_model("SmilingWolf/wd-tagger", layout=CAPTIONER_LAYOUT, **where) == found
        assert len(hub.requests) == num_requests
    assert {path.name for path in found.folder.iterdir()} - {"config.json"} == {"model.onnx", "selected_tags.csv"}
    assert load(found.folder).caption(RED) == ("red shoes, :d",)
