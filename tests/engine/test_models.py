"""Any model opens, or says exactly why not."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.core.errors import ModelError
from studio.engine.models import FoundModel, find_model, load_components

WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_components(find_model(str(folder)), "float32")
    return str(caught.value)


def test_a_folder_is_loaded_on_the_cpu(model_copy: Path) -> None:
    components = load_components(find_model(str(model_copy)), "float32")
    assert {p.device.type for module in components.modules().values() for p in module.parameters()} == {"cpu"}
    assert not any(p.requires_grad for module in components.modules().values() for p in module.parameters())


def test_what_is_found_says_where_it_is(model_copy: Path) -> None:
    assert find_model(str(model_copy)) == FoundModel("model", model_copy)


def test_a_folder_that_does_not_exist_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no model folder"):
        find_model(str(tmp_path / "nowhere"))


def test_a_folder_without_an_index_is_not_a_model(tmp_path: Path) -> None:
    assert "has no model_index.json" in refusal(tmp_path)


def test_an_index_that_is_not_json_is_said_to_be_damaged(model_copy: Path) -> None:
    (model_copy / "model_index.json").write_text("<html>")
    assert "model_index.json cannot be read" in refusal(model_copy)


def test_another_kind_of_model_is_named(model_copy: Path) -> None:
    index = model_copy / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": "StableDiffusionXLPipeline"}))
    assert "holds a StableDiffusionXLPipeline" in refusal(model_copy)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_weights_are_said_to_be_missing(model_copy: Path, part: str) -> None:
    next((model_copy / part).glob("*.safetensors")).unlink()
    assert "cannot be read" in refusal(model_copy)


def test_pickles_are_not_read(model_copy: Path) -> None:
    (model_copy / WEIGHTS).unlink()
    torch.save({}, (model_copy / WEIGHTS).with_suffix(".bin"))
    said = refusal(model_copy)
    assert "can run any program" in said
    assert "as .safetensors" in said


def test_half_precision_files_are_used_where_there_are_no_others(model_copy: Path) -> None:
    for part in ("unet", "text_encoder"):
        file = next((model_copy / part).glob("*.safetensors"))
        file.rename(file.with_suffix(".fp16.safetensors"))
    found = find_model(str(model_copy))
    assert found.notes == (
        "model has its unet and text_encoder in float16 files only (.fp16.safetensors); they are used.",
    )
    assert load_components(found, "float32").num_parameters() > 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"<!doctype html><title>404</title>", "is a web page saved under this name"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
    ],
)
def test_what_only_looks_like_weights_is_said_to_be_that(model_copy: Path, content: bytes, words: str) -> None:
    (model_copy / WEIGHTS).write_bytes(content)
    assert words in refusal(model_copy)


@pytest.mark.parametrize("change", ["dropped", "renamed"])
def test_a_text_encoder_that_lacks_weights_is_not_filled_with_random_ones(model_copy: Path, change: str) -> None:
    weights = model_copy / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if name.endswith("q_proj.weight"))
    kept = tensors.pop(name)
    if change == "renamed":
        tensors["another.name"] = kept
    save_file(tensors, weights, metadata={"format": "pt"})
    assert "lacks 1 of its weights" in refusal(model_copy)


@pytest.mark.parametrize(("part", "words"), [("unet", "The U-Net in"), ("vae", "The VAE in")])
def test_a_folder_that_lacks_weights_is_not_filled_up(model_copy: Path, part: str, words: str) -> None:
    weights = model_copy / part / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors.pop(next(name for name in tensors if "mid_block" in name))
    save_file(tensors, weights, metadata={"format": "pt"})
    said = refusal(model_copy)
    assert words in said
    assert "lacks 1 of its weights" in said


def test_a_copy_of_the_seed_reports_model_under_its_old_name_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    snapshot = tmp_path / "models--runwayml--stable-diffusion-v1-5" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text("{}")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = find_model("runwayml/stable-diffusion-v1-5")
    assert found.folder == snapshot
    assert found.notes == ()


def test_weights_cut_short_are_refused(model_copy: Path) -> None:
    whole = (model_copy / WEIGHTS).read_bytes()
    (model_copy / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in refusal(model_copy)


@pytest.mark.parametrize("file", ["unet/config.json", "tokenizer/vocab.json", "scheduler/scheduler_config.json"])
def test_a_damaged_configuration_is_refused(model_copy: Path, file: str) -> None:
    (model_copy / file).write_text("{")
    assert f"{file} cannot be read" in refusal(model_copy)


def test_a_hub_model_that_is_not_here_says_what_to_do_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="could not be downloaded from Hugging Face"):
        find_model("runwayml/stable-diffusion-v1-5")


@pytest.mark.parametrize("name", ["a/b/c", "stable diffusion", "org/na me"])
def test_what_is_neither_a_folder_nor_an_id_is_refused(name: str) -> None:
    with pytest.raises(ModelError):
        find_model(name)
