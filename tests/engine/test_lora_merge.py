"""A merged model is written whole or not at all, other programs know its names, and it loads back as it was."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from studio.core.errors import LoraError, ModelError
from studio.core.paths import assets_folder
from studio.core.settings import SHIPPED_MODEL
from studio.engine import lora_conversion
from studio.engine.lora_conversion import at_strength, convert_lora, export_model
from studio.engine.lora_export import largest_difference, read_weights
from studio.engine.lora_file import LayerWeights, LoraWeights
from studio.engine.lora_merge import OriginalLayout, merge_loras, merged_tensors, write_checkpoint
from studio.engine.model_files import check_checkpoint, configuration_folder, find_model
from studio.engine.models import Components, load_components, said_prediction_type
from studio.engine.pipeline import PipelineManager
from studio.loras.weights_file import read_header
from tests.engine.lora_updates import expected_weight, random_update
from tests.engine.test_single_file import original_checkpoint, original_unet, original_vae

SHOES = assets_folder() / SHIPPED_MODEL
State = dict[tuple[str, str], torch.Tensor]


@pytest.fixture
def base(manager: PipelineManager) -> Components:
    """The shipped model, without LoRAs."""
    manager.loras.use(())
    return manager.components


@pytest.fixture(scope="module")
def update(manager: PipelineManager) -> LoraWeights:
    return random_update(manager.components)


@pytest.fixture
def shoes_configuration(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if Stable Diffusion 1.5 were as small as the shipped model: its checkpoints can be loaded then."""
    monkeypatch.setattr("studio.engine.model_files.configuration_folder", lambda: SHOES)
    monkeypatch.setattr("studio.engine.models.configuration_folder", lambda: SHOES)
    monkeypatch.setattr("studio.engine.lora_merge.configuration_folder", lambda: SHOES)
    return None


def expected_state(base: Components, update: LoraWeights, dtype: torch.dtype, *, strength: float = 1.0) -> State:
    """Of all weights, by part and name: computed in another way, and rounded as the file rounds."""
    state = {(part, name): t for part, module in base.modules().items() for name, t in module.state_dict().items()}
    for part, path, layer in update.layers():
        old = state[part, f"{path}.weight"]
        state[part, f"{path}.weight"] = old + strength * (expected_weight(old, layer) - old)
    return {key: tensor.to(dtype).float() for key, tensor in state.items()}


def loaded_state(path: Path) -> State:
    components = load_components(find_model(str(path)), "float32")
    return {(part, n): t for part, module in components.modules().items() for n, t in module.state_dict().items()}


def assert_same(found: State, wanted: State, *, atol: float) -> None:
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        torch.testing.assert_close(found[key], tensor, atol=atol, rtol=1e-3, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float16, 1e-3)])
def test_a_merged_folder_loads_back_with_the_changed_weights(
    dtype: torch.dtype, atol: float, base: Components, update: LoraWeights, tmp_path: Path
) -> None:
    merge_loras(base, [(update, 0.8)], tmp_path / "merged", dtype=dtype)
    wanted = expected_state(base, update, dtype, strength=0.8)
    assert_same(loaded_state(tmp_path / "merged"), wanted, atol=atol)
    for file in (tmp_path / "merged").glob("*/*.safetensors"):
        assert {tensor.dtype for tensor in load_file(file).values()} == {dtype}


def test_two_loras_and_a_dora_are_merged_one_after_the_other(
    base: Components, update: LoraWeights, manager: PipelineManager
) -> None:
    dora = random_update(base, dora=True)
    path = next(iter(update.unet))
    weight = base.unet.get_submodule(path).weight
    first = weight + 0.5 * (expected_weight(weight, update.unet[path]) - weight)
    wanted = first + 0.7 * (expected_weight(first, dora.unet[path]) - first)
    merged = {(m.part, m.name): m.tensor for m in merged_tensors(base, [(update, 0.5), (dora, 0.7)])}
    torch.testing.assert_close(merged["unet", f"{path}.weight"], wanted, atol=1e-5, rtol=1e-4)


def test_the_text_encoder_has_the_prefix_that_other_programs_need_and_loads_with_transformers(
    base: Components, update: LoraWeights, tmp_path: Path
) -> None:
    merge_loras(base, [(update, 1.0)], tmp_path / "merged", dtype=torch.float32)
    folder = tmp_path / "merged" / "text_encoder"
    names = read_header(folder / "model.safetensors").tensors
    assert names
    assert all(name.startswith("text_model.") for name in names)
    model, loading = CLIPTextModel.from_pretrained(folder, output_loading_info=True)
    assert (list(loading["missing_keys"]), list(loading["unexpected_keys"])) == ([], [])
    wanted = expected_state(base, update, torch.float32)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, wanted["text_encoder", name], atol=1e-6, rtol=1e-3)


def test_a_merged_folder_has_what_other_programs_read_and_no_path_of_this_machine(
    base: Components, tmp_path: Path
) -> None:
    merge_loras(base, [], tmp_path / "merged", dtype=torch.float16)
    files = {str(path.relative_to(tmp_path / "merged")) for path in (tmp_path / "merged").rglob("*") if path.is_file()}
    assert {
        "model_index.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "scheduler/scheduler_config.json",
    } <= files
    assert not [path for path in (tmp_path / "merged").rglob("*.json") if str(assets_folder()) in path.read_text()]
    assert json.loads((tmp_path / "merged/text_encoder/config.json").read_text())["dtype"] == "float16"
    words = "professional product photo of black casual shoes"
    theirs = CLIPTokenizer.from_pretrained(tmp_path / "merged" / "tokenizer")
    assert theirs(words).input_ids == base.tokenizer(words).input_ids


@pytest.mark.usefixtures("shoes_configuration")
def test_a_checkpoint_has_the_original_names(base: Components, tmp_path: Path) -> None:
    """Compared with the tests' own converter, which is written the other way round."""
    write_checkpoint(base, [], tmp_path / "model.safetensors", dtype=torch.float16)
    found, wanted = load_file(tmp_path / "model.safetensors"), original_checkpoint(SHOES)
    for extra in ("model_ema.decay", "alphas_cumprod"):
        del wanted[extra]
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_every_weight_of_stable_diffusion_15_has_its_original_name() -> None:
    """Names alone: the models have no memory. As many as the published checkpoints have."""
    config = configuration_folder()
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(config / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(config / "vae"))
    layout = OriginalLayout(
        num_blocks=4,
        layers_per_block=2,
        num_vae_blocks=4,
        vae_layers_per_block=2,
        up_attention=(False, True, True, True),
    )
    unet_names = {layout.unet(name) for name in unet.state_dict()}
    vae_state = dict(layout.vae(name, tensor) for name, tensor in vae.state_dict().items())
    assert unet_names == original_unet(unet.state_dict(), layers=2).keys()
    wanted = original_vae(vae.state_dict(), levels=4)
    assert {n: t.shape for n, t in vae_state.items()} == {n: t.shape for n, t in wanted.items()}
    assert (len(unet_names), len(vae_state)) == (686, 248)


@pytest.mark.usefixtures("shoes_configuration")
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float16, 1e-3)])
def test_a_checkpoint_loads_back_with_the_changed_weights(
    dtype: torch.dtype, atol: float, base: Components, update: LoraWeights, tmp_path: Path
) -> None:
    write_checkpoint(base, [(update, 1.0)], tmp_path / "model.safetensors", dtype=dtype)
    assert_same(loaded_state(tmp_path / "model.safetensors"), expected_state(base, update, dtype), atol=atol)


@pytest.mark.usefixtures("shoes_configuration")
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_checkpoint_says_what_its_unet_predicts(prediction: str, tmp_path: Path) -> None:
    components = load_components(find_model(SHIPPED_MODEL), "float32", prediction_type=prediction)
    write_checkpoint(components, [], tmp_path / "model.safetensors", dtype=torch.float16)
    assert said_prediction_type(check_checkpoint(tmp_path / "model.safetensors")) == prediction


def test_a_model_of_another_size_cannot_be_a_checkpoint(base: Components, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"its unet has block_out_channels .* Export a model folder instead"):
        write_checkpoint(base, [], tmp_path / "model.safetensors", dtype=torch.float16)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(base: Components, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    with pytest.raises(LoraError, match="is there already, and nothing is overwritten"):
        merge_loras(base, [], tmp_path / "merged", dtype=torch.float16)
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


@pytest.mark.usefixtures("shoes_configuration")
def test_what_came_to_the_target_meanwhile_is_not_overwritten(
    base: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model.safetensors"

    def saves_while_another_does(state: Mapping[str, torch.Tensor], file: Path, **_: object) -> None:
        file.write_bytes(b"ours")
        target.write_bytes(b"theirs")

    monkeypatch.setattr("studio.engine.lora_merge.save_file", saves_while_another_does)
    with pytest.raises(LoraError, match="is there already"):
        write_checkpoint(base, [], target, dtype=torch.float16)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"theirs"]


def test_a_full_disk_leaves_nothing(base: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("studio.engine.lora_merge.save_file", fails)
    with pytest.raises(OSError, match="No space left"):
        merge_loras(base, [], tmp_path / "merged", dtype=torch.float16)
    assert not list(tmp_path.iterdir())


def test_weights_that_do_not_fit_into_half_precision_are_said(base: Components, tmp_path: Path) -> None:
    path = "conv_in"
    shape = base.unet.get_submodule(path).weight.shape
    huge = LayerWeights(torch.full((1, *shape[1:]), 1e3), torch.full((shape[0], 1, 1, 1), 1e3), 1.0)
    with pytest.raises(LoraError, match=r"unet conv_in\.weight holds NaN or infinite values"):
        merge_loras(base, [(LoraWeights({path: huge}, {}), 1.0)], tmp_path / "merged", dtype=torch.float16)
    assert not list(tmp_path.iterdir())


def test_the_base_is_only_read(base: Components, update: LoraWeights, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in base.unet.state_dict().items()}
    merge_loras(base, [(update, 1.0)], tmp_path / "merged", dtype=torch.float16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.unet.state_dict().items())


@pytest.mark.parametrize("kind", ["lora", "model"])
def test_what_reads_back_differently_is_not_put_in_place(
    kind: str, base: Components, update: LoraWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / ("a.safetensors" if kind == "lora" else "merged")
    strict = {"float16": 0.0, "float32": 0.0}
    monkeypatch.setattr(lora_conversion, "UPDATE_LIMITS", strict)
    monkeypatch.setattr(lora_conversion, "WEIGHT_LIMITS", strict)
    with pytest.raises(LoraError, match="was not written: read back, it differs by"):
        if kind == "lora":
            convert_lora(update, target, components=base, dialect="kohya", dtype="float16", metadata={})
        else:
            export_model(base, [(update, 1.0)], target, form="merged", dtype="float16")
    assert not list(tmp_path.iterdir())


def test_a_converted_file_says_the_truth_about_itself_and_keeps_what_was_said(
    base: Components, update: LoraWeights, tmp_path: Path
) -> None:
    said = {"ss_tag_frequency": "{}", "ss_network_dim": "64", "lora_adapter_metadata": "{}", "sshs_model_hash": "0"}
    convert_lora(
        update, tmp_path / "shoes.safetensors", components=base, dialect="kohya", dtype="float16", metadata=said
    )
    metadata = read_header(tmp_path / "shoes.safetensors").metadata
    assert metadata["ss_tag_frequency"] == "{}"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("Dynamic", "Dynamic")
    assert (metadata["ss_output_name"], metadata["ss_base_model_version"]) == ("shoes", "sd_v1")
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert len(metadata["sshs_model_hash"]) == 64
    assert "lora_adapter_metadata" not in metadata


def test_a_strength_goes_into_alpha(base: Components, update: LoraWeights, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    weaker = at_strength("a", update, -0.5)
    convert_lora(weaker, file, components=base, dialect="diffusers", dtype="float32", metadata={})
    wanted = LoraWeights(
        {path: LayerWeights(w.down, w.up * -0.5, w.alpha) for path, w in update.unet.items()},
        {path: LayerWeights(w.down, w.up * -0.5, w.alpha) for path, w in update.text_encoder.items()},
    )
    assert largest_difference(wanted, read_weights("a", file, base)) < 1e-6


def test_a_doras_strength_cannot_go_into_a_file(base: Components) -> None:
    dora = random_update(base, dora=True)
    assert at_strength("a", dora, 1.0) is dora
    with pytest.raises(LoraError, match=r"a is a DoRA, whose strength cannot be put into a LoRA file"):
        at_strength("a", dora, 0.5)
