"""Any model opens, or says exactly why not."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.core.errors import ModelError
from studio.engine.model_files import FoundModel, find_model
from studio.engine.models import load_components

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


@pytest.mark.skipif("os.name == 'nt'", reason="Windows has no such files")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("endless", [False, True])
def test_no_file_of_a_model_may_be_a_pipe_or_without_an_end(model_copy: Path, endless: bool) -> None:
    files = [path for path in model_copy.rglob("*") if path.is_file() and path.parent.name != model_copy.name]
    assert len(files) >= 8
    for path in [*files, model_copy / "model_index.json"]:
        content = path.read_bytes()
        path.unlink()
        path.symlink_to("/dev/zero") if endless else os.mkfifo(path)
        said = refusal(model_copy)
        assert str(path) in said
        assert "it is a pipe, a socket or a device, not a file" in said
        path.unlink()
        path.write_bytes(content)
    load_components(find_model(str(model_copy)), "float32")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("file", "name", "value", "bounds"),
    [
        ("scheduler/scheduler_config.json", "num_train_timesteps", 10**12, "between 1 and 10,000"),
        ("scheduler/scheduler_config.json", "num_train_timesteps", 0, "between 1 and 10,000"),
        ("scheduler/scheduler_config.json", "num_train_timesteps", float("nan"), "between 1 and 10,000"),
        ("scheduler/scheduler_config.json", "steps_offset", -(10**7), "between -1,000,000 and 1,000,000"),
        ("tokenizer/tokenizer_config.json", "model_max_length", 10**30, "between 1 and 1,000"),
        ("tokenizer/tokenizer_config.json", "model_max_length", 1e30, "between 1 and 1,000"),
        ("text_encoder/config.json", "max_position_embeddings", 10**9, "between 1 and 1,000"),
        ("text_encoder/config.json", "num_hidden_layers", 10**9, "between -100 and 100"),
        ("text_encoder/config.json", "vocab_size", 10**400, "between -1,000,000 and 1,000,000"),
        ("unet/config.json", "layers_per_block", 10**9, "between -100 and 100"),
        ("unet/config.json", "block_out_channels", [32, 10**12], "between -1,000,000 and 1,000,000"),
        ("vae/config.json", "sample_size", 10**9, "between -1,000,000 and 1,000,000"),
        ("vae/config.json", "norm_num_groups", [1] * 10_001, "a list of at most 10,000 numbers"),
    ],
)
def test_a_number_of_a_configuration_out_of_bounds_is_refused_by_its_name(
    model_copy: Path, file: str, name: str, value: object, bounds: str
) -> None:
    values = json.loads((model_copy / file).read_text())
    (model_copy / file).write_text(json.dumps({**values, name: value}))
    assert f"{name} in {model_copy / file} must be {bounds}" in refusal(model_copy)


@pytest.mark.parametrize("said", [2, 78, None])
def test_a_prompt_is_no_longer_than_the_text_encoder_reads(model_copy: Path, said: int | None) -> None:
    """Of a tokenizer that says no length, its library takes one of 10³⁰ tokens."""
    file = model_copy / "tokenizer" / "tokenizer_config.json"
    values = {name: value for name, value in json.loads(file.read_text()).items() if name != "model_max_length"}
    file.write_text(json.dumps(values if said is None else {**values, "model_max_length": said}))
    assert "must be between 3 and 77, which is what its text encoder reads, got" in refusal(model_copy)


def test_a_hub_model_that_is_not_here_says_what_to_do_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="could not be downloaded from Hugging Face"):
        find_model("runwayml/stable-diffusion-v1-5")


@pytest.mark.parametrize("name", ["a/b/c", "stable diffusion", "org/na me"])
def test_what_is_neither_a_folder_nor_an_id_is_refused(name: str) -> None:
    with pytest.raises(ModelError):
        find_model(name)
