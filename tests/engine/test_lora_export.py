"""Files that leave the studio mean the same to diffusers itself, and come back as they were."""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from studio.core.errors import LoraError
from studio.engine.lora_export import (
    at_alpha_of_rank,
    kohya_state,
    largest_difference,
    peft_state,
    read_weights,
    write_kohya,
    write_peft,
)
from studio.engine.lora_file import LayerWeights, LoraWeights
from studio.engine.pipeline import PipelineManager
from studio.loras.weights_file import read_header
from tests.engine.lora_files import ALPHA, DIALECTS, known_update
from tests.engine.lora_updates import merge_expected, noise_prediction, random_update

WRITERS = {"kohya": write_kohya, "peft": write_peft}


def layer(rank: int = 2, alpha: float = 1.0, *, magnitude: bool = False, outputs: int = 3) -> LayerWeights:
    generator = torch.Generator().manual_seed(rank)
    down, up = torch.randn(rank, 4, generator=generator), torch.randn(outputs, rank, generator=generator)
    return LayerWeights(down, up, alpha, torch.ones(outputs) if magnitude else None)


def convolution(*, magnitude: bool = False) -> LayerWeights:
    return LayerWeights(torch.ones(2, 4, 3, 3), torch.ones(3, 2, 1, 1), 1.0, torch.ones(3) if magnitude else None)


def loaded_by_diffusers(manager: PipelineManager, file: Path) -> StableDiffusionPipeline:
    manager.loras.use(())
    pipe = copy.deepcopy(manager.components.pipeline)
    pipe.load_lora_weights(str(file))
    return pipe


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_diffusers_makes_of_a_peft_file_what_merged_weights_make(
    dora: bool, manager: PipelineManager, tmp_path: Path
) -> None:
    """Ranks and alphas that differ from layer to layer, convolutions, both parts."""
    weights = random_update(manager.components, dora=dora)
    write_peft(tmp_path / "a.safetensors", weights, {}, dtype=torch.float32)
    theirs = loaded_by_diffusers(manager, tmp_path / "a.safetensors")
    merged = copy.deepcopy(manager.components.modules())
    merge_expected(merged, weights)
    wanted = noise_prediction(merged["unet"], merged["text_encoder"])
    torch.testing.assert_close(noise_prediction(theirs.unet, theirs.text_encoder), wanted, atol=1e-4, rtol=1e-4)
    base = noise_prediction(manager.components.unet, manager.components.text_encoder)
    assert (base - wanted).abs().max() > 0.1, "the update must be large enough to see"


def test_diffusers_makes_of_a_kohya_file_what_merged_weights_make(manager: PipelineManager, tmp_path: Path) -> None:
    """One alpha for all: where alphas differ, diffusers 0.42 loses those of `to_out.0` and of the text encoder."""
    weights = random_update(manager.components, alphas=(6.0,))
    write_kohya(tmp_path / "a.safetensors", weights, {}, dtype=torch.float32)
    theirs = loaded_by_diffusers(manager, tmp_path / "a.safetensors")
    merged = copy.deepcopy(manager.components.modules())
    merge_expected(merged, weights)
    wanted = noise_prediction(merged["unet"], merged["text_encoder"])
    torch.testing.assert_close(noise_prediction(theirs.unet, theirs.text_encoder), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("dialect", WRITERS)
def test_what_was_written_is_read_back_to_the_bit(
    dialect: str, dora: bool, manager: PipelineManager, tmp_path: Path
) -> None:
    weights = random_update(manager.components, dora=dora, alphas=(1 / 3, 7.0), ranks=(3, 2))
    WRITERS[dialect](tmp_path / "a.safetensors", weights, {}, dtype=torch.float32)
    back = read_weights("a", tmp_path / "a.safetensors", manager.components)
    assert {(part, path) for part, path, _ in back.layers()} == {(part, path) for part, path, _ in weights.layers()}
    found = {(part, path): layer for part, path, layer in back.layers()}
    for part, path, mine in weights.layers():
        theirs = found[part, path]
        assert torch.equal(mine.down, theirs.down)
        if dialect == "peft":  # its strength is in the up side
            mine = at_alpha_of_rank(mine)
        assert torch.equal(mine.up, theirs.up)
        assert theirs.alpha == pytest.approx(mine.alpha, rel=1e-7)
        assert (mine.magnitude is None) == (theirs.magnitude is None)
        assert mine.magnitude is None or torch.equal(mine.magnitude, theirs.magnitude)
    assert largest_difference(weights, back) < 1e-6


@pytest.mark.parametrize("dialect", DIALECTS)
def test_files_of_every_dialect_are_read_as_they_were_stored(
    dialect: str, manager: PipelineManager, tmp_path: Path
) -> None:
    update = known_update(manager.components)
    DIALECTS[dialect](tmp_path / "a.safetensors", update)
    weights = read_weights("a", tmp_path / "a.safetensors", manager.components)
    stored = {
        "unet": {path: pair for (part, path), pair in update.items() if part == "unet"},
        "text_encoder": {path: pair for (part, path), pair in update.items() if part == "text_encoder"},
    }
    wanted = LoraWeights(
        *({path: LayerWeights(down, up, ALPHA) for path, (down, up) in part.items()} for part in stored.values())
    )
    assert largest_difference(wanted, weights) == 0
    assert {tensor.dtype for _, _, layer in weights.layers() for tensor in (layer.down, layer.up)} == {torch.float32}


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_kohyas_names_have_text_model_whatever_the_module_has(prefix: str) -> None:
    weights = LoraWeights({"mid.attn1.to_out.0": layer()}, {f"{prefix}encoder.layers.3.mlp.fc1": layer()})
    names = {name.partition(".")[0] for name in kohya_state(weights)}
    assert names == {"lora_unet_mid_attn1_to_out_0", "lora_te_text_model_encoder_layers_3_mlp_fc1"}


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_pefts_names_have_text_model_whatever_the_module_has(prefix: str) -> None:
    weights = LoraWeights({"mid.attn1.to_out.0": layer()}, {f"{prefix}encoder.layers.3.mlp.fc1": layer()})
    names = {name.partition(".lora_")[0] for name in peft_state(weights)}
    assert names == {"unet.mid.attn1.to_out.0", "text_encoder.text_model.encoder.layers.3.mlp.fc1"}


def test_alpha_is_the_true_one_without_dimensions_and_exact_in_a_half_precision_file() -> None:
    alpha = kohya_state(LoraWeights({"a": layer(rank=4, alpha=2049.0)}, {}), torch.float16)["lora_unet_a.alpha"]
    assert (alpha.shape, alpha.dtype, float(alpha)) == (torch.Size(()), torch.float32, 2049.0)


def test_a_doras_lengths_have_the_shapes_that_each_program_reads() -> None:
    weights = LoraWeights({"linear": layer(magnitude=True), "conv": convolution(magnitude=True)}, {})
    kohya, peft = kohya_state(weights), peft_state(weights)
    assert kohya["lora_unet_linear.dora_scale"].shape == (3, 1)
    assert kohya["lora_unet_conv.dora_scale"].shape == (3, 1, 1, 1)
    assert peft["unet.linear.lora_magnitude_vector.weight"].shape == (3,)
    assert peft["unet.conv.lora_magnitude_vector.weight"].shape == (1, 3, 1, 1)


def adapter(file: Path) -> dict[str, object]:
    entries = json.loads(read_header(file).metadata["lora_adapter_metadata"])
    assert isinstance(entries, dict)
    return entries


def test_the_header_says_what_peft_needs_of_each_part(tmp_path: Path) -> None:
    unet = {"a.to_q": layer(2, 6.0), "b.to_q": layer(2, 6.0), "c.to_q": layer(4, 1.5)}
    write_peft(tmp_path / "a.safetensors", LoraWeights(unet, {"encoder.fc1": layer(3, 2.0)}), {"note": "x"})
    entries = adapter(tmp_path / "a.safetensors")
    assert (entries["unet.r"], entries["unet.lora_alpha"]) == (2, 2)
    assert (entries["unet.rank_pattern"], entries["unet.alpha_pattern"]) == ({"c.to_q": 4}, {"c.to_q": 4})
    assert entries["unet.target_modules"] == ["a.to_q", "b.to_q", "c.to_q"]
    assert (entries["text_encoder.r"], entries["text_encoder.lora_alpha"]) == (3, 3)
    assert entries["unet.use_dora"] is False
    assert read_header(tmp_path / "a.safetensors").metadata["note"] == "x"
    config = LoraConfig(**{key.removeprefix("unet."): v for key, v in entries.items() if key.startswith("unet.")})
    assert (config.r, config.lora_alpha) == (2, 2)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_a_peft_file_means_the_same_to_readers_that_ignore_its_metadata(
    dora: bool, manager: PipelineManager, tmp_path: Path
) -> None:
    """diffusers 0.31 with peft 0.13 does, and takes alpha to be the rank: 6 / 4 of the update would be lost."""
    weights = random_update(manager.components, alphas=(6.0,), ranks=(4,), dora=dora)
    write_peft(tmp_path / "with.safetensors", weights, {}, dtype=torch.float32)
    save_file(load_file(tmp_path / "with.safetensors"), tmp_path / "without.safetensors", metadata={"format": "pt"})
    given = {(part, path): layer for part, path, layer in weights.layers()}
    new, old = (loaded_by_diffusers(manager, tmp_path / f"{name}.safetensors") for name in ("with", "without"))
    num_layers = 0
    for part in ("unet", "text_encoder"):
        modules = dict(getattr(old, part).named_modules())
        for path, module in getattr(new, part).named_modules():
            if isinstance(module, LoraLayer):
                mine = given[part, path]
                (adapter_name,) = module.lora_A.keys()
                wanted = mine.alpha / mine.rank * (mine.up.flatten(1) @ mine.down.flatten(1))
                for theirs in (module, modules[path]):
                    a, b = (side[adapter_name].weight.detach().flatten(1) for side in (theirs.lora_A, theirs.lora_B))
                    torch.testing.assert_close(theirs.scaling[adapter_name] * b @ a, wanted, atol=1e-6, rtol=1e-5)
                num_layers += 1
    assert num_layers == len(given)


def test_a_part_that_is_not_trained_has_no_entries(tmp_path: Path) -> None:
    write_peft(tmp_path / "a.safetensors", LoraWeights({"a": layer()}, {}), {})
    assert all(name.startswith("unet.") for name in adapter(tmp_path / "a.safetensors"))


def test_peft_files_cannot_have_magnitudes_in_some_layers_only(tmp_path: Path) -> None:
    weights = LoraWeights({"a": layer(magnitude=True), "b": layer()}, {})
    with pytest.raises(LoraError, match=r"1 of 2 have none \(b, …\)\. Export it for kohya"):
        write_peft(tmp_path / "a.safetensors", weights, {})
    write_kohya(tmp_path / "a.safetensors", weights, {})


def test_the_checksums_are_of_what_follows_the_header(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_kohya(file, LoraWeights({"a": layer(), "b": convolution()}, {}), {"ss_output_name": "a"})
    content = file.read_bytes()
    digest = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    metadata = read_header(file).metadata
    assert metadata == {
        "ss_output_name": "a",
        "sshs_model_hash": digest,
        "modelspec.hash_sha256": f"0x{digest}",
    }


@pytest.mark.parametrize("dialect", WRITERS)
def test_a_number_too_large_for_float16_is_not_written_and_the_old_file_stays(dialect: str, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"old")
    large = replace(layer(), up=torch.full((3, 2), 7e4), alpha=2.0)
    with pytest.raises(LoraError, match=r"a\.safetensors was not written: .* float16, whose largest number is 65504"):
        WRITERS[dialect](file, LoraWeights({"a": large}, {}), {})
    assert file.read_bytes() == b"old"
    WRITERS[dialect](file, LoraWeights({"a": large}, {}), {}, dtype=torch.float32)
    assert len(load_file(file)) > 1


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, 0.0),
        ({"alpha": 1.1}, 0.1),
        ({"magnitude": torch.tensor([1.0, 1.0, 1.5])}, 0.5),
    ],
)
def test_the_largest_difference_is_relative_to_the_largest_update(change: Mapping[str, object], wanted: float) -> None:
    mine = layer(alpha=1.0, magnitude=True)
    other = LoraWeights({"a": replace(mine, **change)}, {})
    assert largest_difference(LoraWeights({"a": mine}, {}), other) == pytest.approx(wanted, rel=1e-5)


def test_two_ways_to_the_same_update_do_not_differ() -> None:
    mine = layer(rank=2, alpha=1.0)
    other = LayerWeights(mine.down * 2, mine.up, 0.5)
    assert largest_difference(LoraWeights({"a": mine}, {}), LoraWeights({"a": other}, {})) < 1e-6


def test_layers_of_only_one_of_them_are_named() -> None:
    one, other = LoraWeights({"a": layer(), "b.c": layer()}, {}), LoraWeights({"a": layer()}, {"d": layer()})
    with pytest.raises(LoraError, match="only one of them has text_encoder d, unet b_c"):
        largest_difference(one, other)


def test_a_magnitude_of_only_one_of_them_is_said() -> None:
    with pytest.raises(LoraError, match=r"Only one of the two LoRAs has a magnitude \(DoRA\) for unet a"):
        largest_difference(LoraWeights({"a": layer()}, {}), LoraWeights({"a": layer(magnitude=True)}, {}))
