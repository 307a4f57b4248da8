"""Captions by every kind of model that is read; what would run code or lacks weights is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BlipForConditionalGeneration, BlipProcessor

from studio.core.errors import ModelError
from studio.datasets.captioning import DEFAULT_CAPTIONER
from studio.engine.caption_models import CAPTION_KINDS, CAPTIONER_LAYOUT, RECOMMENDED, check_captioner, find_captioner
from studio.engine.captioner import Captioner
from studio.engine.device import decide_precision
from studio.engine.hub import find_hub_model
from tests.engine.caption_files import IMAGE, WORDS, save_captioner
from tests.engine.hub_server import fake_hub, files_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of every kind."""
    return {kind: save_captioner(kind, tmp_path_factory.mktemp("captioner") / kind) for kind in CAPTION_KINDS}


def load(folder: Path) -> Captioner:
    return Captioner(folder, device=CPU, precision=decide_precision("cpu"))


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 60, 3), np.uint8))


def changed(folder: Path, place: Path, **values: object) -> Path:
    """A copy of a model with other values in its configuration."""
    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, **values}))
    return place


@pytest.mark.parametrize("kind", list(CAPTION_KINDS))
def test_a_model_of_each_kind_says_words_of_its_own(folders: dict[str, Path], kind: str) -> None:
    captioner = load(folders[kind])
    said = captioner.caption(picture(), num_candidates=4, max_new_tokens=6, seed=3)
    assert 1 <= len(said) <= 4
    assert len(set(said)) == len(said)
    assert {word for caption in said for word in caption.split()} <= {*WORDS, IMAGE}
    assert captioner.caption(picture(), num_candidates=4, max_new_tokens=6, seed=3) == said


@pytest.mark.parametrize("kind", list(CAPTION_KINDS))
def test_another_seed_says_other_words_but_the_likeliest(folders: dict[str, Path], kind: str) -> None:
    captioner = load(folders[kind])
    first, other = (captioner.caption(picture(), num_candidates=6, max_new_tokens=6, seed=seed) for seed in (1, 2))
    assert first != other
    assert captioner.caption(picture(), max_new_tokens=6, seed=9) in ((first[0],), ())


def test_the_first_words_are_the_likeliest(folders: dict[str, Path]) -> None:
    """Compared with a loop over the model's own forward pass."""
    model = BlipForConditionalGeneration.from_pretrained(folders["blip"]).eval()
    processor = BlipProcessor.from_pretrained(folders["blip"])
    pixels = processor(images=picture(), return_tensors="pt").pixel_values
    tokens = torch.tensor([[2]])
    with torch.no_grad():
        for __ in range(6):
            logits = model(pixel_values=pixels, input_ids=tokens).logits
            tokens = torch.cat([tokens, logits[:, -1:].argmax(dim=2)], dim=1)
    expected = processor.decode(tokens[0], skip_special_tokens=True)
    assert load(folders["blip"]).caption(picture(), max_new_tokens=6) == (expected,)


@pytest.mark.parametrize("kind", ["blip", "git"])
def test_a_prompt_is_how_a_caption_begins(folders: dict[str, Path], kind: str) -> None:
    for caption in load(folders[kind]).caption(picture(), prompt="a photo of", num_candidates=3, max_new_tokens=6):
        assert caption.startswith("a photo of")


@pytest.mark.parametrize("kind", ["blip-2", "llava"])
def test_a_question_is_no_part_of_the_caption(folders: dict[str, Path], kind: str) -> None:
    captioner = load(folders[kind])
    said = captioner.caption(picture(), prompt="describe the image in the photo", num_candidates=6, max_new_tokens=3)
    assert said
    assert not any(caption.startswith("describe the image in") for caption in said)
    assert all(len(caption.split()) <= 3 for caption in said)


@pytest.mark.parametrize("kind", list(CAPTION_KINDS))
def test_no_caption_is_longer_than_the_model_reads(folders: dict[str, Path], kind: str) -> None:
    for caption in load(folders[kind]).caption(picture(), num_candidates=2, max_new_tokens=400):
        assert len(caption.split()) < 128


def test_a_prompt_that_leaves_no_room_is_said_so(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="must leave room for a caption: the model reads 64 tokens"):
        load(folders["blip"]).caption(picture(), prompt="a shoe " * 40)


def test_a_pickle_is_refused_and_never_opened(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["blip"], tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only as a pickle \(pytorch_model.bin\)"):
        load(folder)


def test_code_of_a_models_own_is_refused_and_never_run(folders: dict[str, Path], tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    folder = changed(folders["blip"], tmp_path / "model", auto_map={"AutoModel": "own.Model"})
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Model: pass\n")
    with pytest.raises(ModelError, match="code of its own"):
        load(folder)
    assert not ran.exists()


def test_code_of_a_processors_own_is_never_run(folders: dict[str, Path], tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    folder = shutil.copytree(folders["blip"], tmp_path / "model")
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Processor: pass\n")
    values = json.loads((folder / "processor_config.json").read_text())
    values |= {"auto_map": {"AutoProcessor": "own.Processor"}, "processor_class": "Processor"}
    (folder / "processor_config.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)
    assert not ran.exists()


def test_another_kind_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = changed(folders["blip"], tmp_path / "model", model_type="vilt")
    with pytest.raises(ModelError, match=r"must be one of blip, blip-2, florence2, git, llava, got 'vilt'"):
        check_captioner(folder)


def test_missing_weights_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["git"], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "query" in name))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of its weights"):
        load(folder)


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("processor_config.json", "preprocessor_config.json"),
        ("tokenizer*", "tokenizer.json"),
        ("model.safetensors", "model.safetensors"),
        ("config.json", "config.json"),
    ],
)
def test_half_a_captioner_says_which_file_it_lacks(
    folders: dict[str, Path], tmp_path: Path, gone: str, named: str
) -> None:
    folder = shutil.copytree(folders["blip"], tmp_path / "model")
    for file in folder.glob(gone):
        file.unlink()
    with pytest.raises(ModelError, match=rf"has no {named}"):
        check_captioner(folder)


def test_a_captioner_without_one_of_its_shards_is_not_whole(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["blip"], tmp_path / "model")
    BlipForConditionalGeneration.from_pretrained(folder).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    for file in (tmp_path / "shards").glob("model*"):
        shutil.copy(file, folder)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert load(folder).caption(picture(), max_new_tokens=4)
    shards[-1].unlink()
    with pytest.raises(ModelError, match="Files of the model model are missing"):
        check_captioner(folder)


def test_weights_that_are_cut_short_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["git"], tmp_path / "model")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be"):
        load(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model_type": 3}'])
def test_a_damaged_configuration_is_said_so(folders: dict[str, Path], tmp_path: Path, content: str) -> None:
    folder = shutil.copytree(folders["git"], tmp_path / "model")
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError):
        check_captioner(folder)


def test_of_the_hub_only_what_is_needed_is_fetched(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    files = files_of(folders["llava"])
    others = {"pytorch_model.bin": b"a pickle", "own.py": b"a program", "README.md": b"#", "onnx/config.json": b"{}"}
    with fake_hub() as hub:
        hub.add("someone/captions", {**files, **others})
        where = {"endpoint": hub.address, "cache": tmp_path / "hub"}
        found = find_hub_model("someone/captions", layout=CAPTIONER_LAYOUT, **where)
        num_requests = len(hub.requests)
        again = find_hub_model("someone/captions", layout=CAPTIONER_LAYOUT, **where)
    assert {path.name for path in found.folder.iterdir()} == set(files)
    assert again == found
    assert len(hub.requests) == num_requests
    assert load(found.folder).caption(picture(), max_new_tokens=4)


def test_of_the_hub_pickles_are_refused_before_the_download(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    files = {**files_of(folders["git"]), "pytorch_model.bin": b"a pickle"}
    del files["model.safetensors"]
    with fake_hub() as hub:
        hub.add("someone/captions", files)
        with pytest.raises(ModelError, match="only as a pickle"):
            find_hub_model("someone/captions", layout=CAPTIONER_LAYOUT, endpoint=hub.address, cache=tmp_path / "hub")
        assert hub.fetched() == ["config.json"]


def test_a_name_that_is_nothing_is_said_so() -> None:
    with pytest.raises(ModelError, match="no model folder or file"):
        find_captioner("nothing of that name")


def test_recommended_models_say_what_they_are() -> None:
    assert RECOMMENDED[0].name == DEFAULT_CAPTIONER
    assert all(model.licence and model.good_at and model.gigabytes > 0 for model in RECOMMENDED)
