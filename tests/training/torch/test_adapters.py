"""The layers that learn: which they are, what they do, and that the model without them is the base's to the bit."""

import copy
import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.real_size_model import make_text_encoder, make_unet
from studio.core.errors import TrainingError
from studio.core.settings import LoraChoice
from studio.datasets.snapshot import Snapshot
from studio.engine.lora_export import write_kohya, write_peft
from studio.engine.lora_file import LoraWeights
from studio.engine.lora_layers import LoraLayers
from studio.engine.models import Components
from studio.engine.pipeline import PipelineManager
from studio.loras.library import LoraLibrary
from studio.training.events import LAYER_GROUPS
from studio.training.presets import PRESETS
from studio.training.settings import TARGET_NAMES
from studio.training.torch.adapters import Adapters, reader_notes
from studio.training.torch.batches import TrainingBatch
from studio.training.torch.loss import Denoiser
from studio.ui.training.results import EXPORT_WORDS
from tests.training.torch.parts import (
    give_effect,
    make_adapters,
    make_bench,
    parameters_of,
    prediction_of,
    settings_of,
    state_of,
)

ALL_LAYERS = "attention + feed-forward + convolutions"
# What a LoRA may be, for what must hold for every one of them.
KINDS: dict[str, dict[str, object]] = {
    "attention": {},
    "feed-forward": {"targets": "attention + feed-forward"},
    "convolutions": {"targets": ALL_LAYERS},
    "rsLoRA": {"use_rslora": True, "targets": ALL_LAYERS},
    "DoRA": {"use_dora": True},
    "DoRA of convolutions": {"use_dora": True, "targets": ALL_LAYERS},
    "text encoder": {"train_text_encoder": True},
    "everything": {"train_text_encoder": True, "use_dora": True, "use_rslora": True, "targets": ALL_LAYERS},
}


def adapters_of(components: Components, *, seed: int = 3, **changes: object) -> Adapters:
    torch.manual_seed(seed)
    return Adapters(components, settings_of(**changes))


def effect(components: Components, base: torch.Tensor) -> torch.Tensor:
    return prediction_of(components) - base


# Which layers


@pytest.mark.parametrize(
    ("changes", "layers", "parameters"),
    [
        # rank · (in + out) summed over SD 1.5's attention: 1,594,368 at rank 8, as diffusers' own script counts.
        ({"rank": 8}, 128, 1_594_368),
        ({"rank": 4}, 128, 797_184),
        ({"rank": 8, "targets": "attention + feed-forward"}, 192, None),
        ({"rank": 8, "targets": "attention + feed-forward", "train_text_encoder": True}, 192 + 72, None),
        ({"rank": 8, "targets": "attention + feed-forward + resnets"}, 192 + 2 * 22, None),
        ({"rank": 8, "targets": ALL_LAYERS}, 192 + 2 * 22 + 2, None),
    ],
)
def test_the_real_model_gets_so_many_layers(
    changes: dict[str, object], layers: int, parameters: int | None, training_manager: PipelineManager
) -> None:
    """128 as in the seed report; kohya's U-Net has 192, its text encoder 72.

    22 resnets have two convolutions each, the ends one.
    """
    adapters = real_size_adapters(training_manager, **changes)
    assert adapters.num_layers == layers
    assert parameters is None or adapters.num_parameters == parameters


def real_size_adapters(manager: PipelineManager, **changes: object) -> Adapters:
    """In a U-Net and a text encoder of Stable Diffusion 1.5's shapes that take no memory."""
    pipeline = manager.components.pipeline
    with torch.device("meta"):
        real = Components(pipeline, make_unet(), pipeline.vae, make_text_encoder(), pipeline.tokenizer)
        return Adapters(real, settings_of(**changes))


# What sd-scripts' networks.lora looks into, for linear layers and convolutions. It puts no layers elsewhere, and its
# reader drops theirs.
KOHYAS_MODULES = {"Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"}


def dropped_by_kohya(manager: PipelineManager, targets: str) -> set[str]:
    with torch.device("meta"):
        kinds = {path: type(module).__name__ for path, module in make_unet().named_modules()}
    names = [name for name, _ in real_size_adapters(manager, targets=targets).named_parameters("unet")]
    paths = {name.removeprefix("unet.").partition(".lora_")[0] for name in names}
    parents = {path: {kind for at, kind in kinds.items() if path.startswith(f"{at}.")} for path in paths}
    return {path for path in paths if not KOHYAS_MODULES & parents[path]}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_trains_what_every_reader_reads(preset: str, training_manager: PipelineManager) -> None:
    settings = settings_of(**PRESETS[preset].changes)
    assert dropped_by_kohya(training_manager, settings.targets) == set()
    assert reader_notes(settings) == ()


@pytest.mark.parametrize("targets", TARGET_NAMES)
def test_it_is_said_which_layers_a_reader_drops(targets: str, training_manager: PipelineManager) -> None:
    dropped = dropped_by_kohya(training_manager, targets)
    (note,) = reader_notes(settings_of(targets=targets)) or ("",)
    assert {"conv_in", "conv_out"} & set(re.findall(r"\w+", note)) == dropped
    assert ("sd-scripts" in note) == bool(dropped)


def test_layers_are_of_the_kinds_that_were_chosen(components: Components) -> None:
    adapters = adapters_of(components, targets=ALL_LAYERS)
    groups = {group.split(",")[0] for group in adapters.effects()}
    assert groups == {"self-attention", "cross-attention", "feed-forward", "convolutions"}


@pytest.mark.parametrize(("fewer", "more"), [*pairwise(TARGET_NAMES[:4]), (TARGET_NAMES[2], TARGET_NAMES[4])])
def test_more_targets_keep_the_layers_of_fewer(fewer: str, more: str, training_manager: PipelineManager) -> None:
    base = training_manager.components
    few, many = (set(adapters_of(copy.deepcopy(base), targets=targets).weights().unet) for targets in (fewer, more))
    assert few < many


def test_of_a_dora_it_is_said_where_it_is_chosen_who_computes_it_otherwise() -> None:
    (note,) = reader_notes(settings_of(use_dora=True))
    assert all(word in note for word in ("A1111", "Forge", "ComfyUI before 0.3.77", "sd-scripts", "diffusers"))
    assert all(f"“{words}”" in note for words in EXPORT_WORDS.values()), "the buttons that write a whole model"
    assert len(reader_notes(settings_of(use_dora=True, targets=ALL_LAYERS))) == 2


@pytest.mark.parametrize("rank", [1, 4, 32])
def test_rank_is_the_width_of_every_layer(rank: int, components: Components) -> None:
    adapters = adapters_of(components, rank=rank, targets=ALL_LAYERS)
    for _, path, layer in adapters.weights().layers():
        weight = components.unet.get_submodule(path).base_layer.weight
        assert layer.down.shape == (rank, *weight.shape[1:])
        assert layer.up.shape[:2] == (weight.shape[0], rank)
    counted = sum(p.numel() for p in components.unet.parameters() if p.requires_grad)
    assert adapters.num_parameters == counted > 0


def test_only_the_layers_learn(components: Components) -> None:
    adapters = adapters_of(components, use_dora=True, train_text_encoder=True)
    learning = {
        f"{part}.{name}"
        for part, module in components.modules().items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    assert learning == {name for name, _ in adapters.named_parameters()}
    assert {parameter.dtype for parameter in adapters.parameters()} == {torch.float32}
    assert all(".lora_" in name for name in learning)


def test_what_learns_is_float32_in_a_half_precision_model(components: Components) -> None:
    components.unet.to(torch.bfloat16)
    adapters = adapters_of(components, targets=ALL_LAYERS, use_dora=True)
    assert {parameter.dtype for parameter in adapters.parameters()} == {torch.float32}
    assert components.unet.conv_in.base_layer.weight.dtype == torch.bfloat16


def test_a_model_without_such_layers_is_refused(components: Components) -> None:
    bare = replace(components, unet=nn.Sequential(nn.Linear(2, 2)))  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="This model has none of the layers 'attention'"):
        adapters_of(bare)


def test_the_seed_decides_the_first_weights(training_manager: PipelineManager) -> None:
    first, same, other = (
        parameters_of(adapters_of(copy.deepcopy(training_manager.components), seed=seed)) for seed in (1, 1, 2)
    )
    for name, value in first.items():
        assert torch.equal(value, same[name])
        assert torch.equal(value, other[name]) == ("lora_B" in name)


# What they do


@pytest.mark.parametrize("kind", KINDS)
def test_layers_have_no_effect_before_the_first_step(kind: str, components: Components) -> None:
    base = prediction_of(components)
    adapters_of(components, **KINDS[kind])
    tolerance = 1e-5 if "use_dora" in KINDS[kind] else 0  # DoRA divides by a length and multiplies with it again
    assert float(effect(components, base).abs().max()) <= tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_layers_with_weights_have_an_effect(kind: str, components: Components) -> None:
    base = prediction_of(components)
    give_effect(adapters_of(components, **KINDS[kind]))
    assert float(effect(components, base).abs().max()) > 1e-3


def layer_change(components: Components, path: str, weight: torch.Tensor) -> torch.Tensor:
    """What the layer adds to the weight, read from what it makes of unit vectors."""
    layer = components.unet.get_submodule(path)
    inputs = torch.eye(weight.shape[1])
    bias = layer.base_layer.bias
    outputs = layer(inputs).T if bias is None else (layer(inputs) - bias).T
    change: torch.Tensor = outputs - weight
    return change.detach()


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({"rank": 4, "lora_alpha": 16}, 4.0),
        ({"rank": 4, "lora_alpha": 1}, 0.25),
        ({"rank": 16, "lora_alpha": 16}, 1.0),
        ({"rank": 16, "lora_alpha": 16, "use_rslora": True}, 4.0),
        ({"rank": 4, "lora_alpha": 16, "use_rslora": True}, 8.0),
    ],
)
def test_alpha_and_rank_scale_the_update(changes: dict[str, object], scale: float, components: Components) -> None:
    """alpha / rank; with rsLoRA alpha / √rank. `weights()` tells a file's rule the same."""
    adapters = adapters_of(components, **changes)
    give_effect(adapters)
    weights = adapters.weights().unet
    for path in list(weights)[:8]:
        layer = weights[path]
        base = components.unet.get_submodule(path).base_layer.weight
        torch.testing.assert_close(
            layer_change(components, path, base), scale * layer.up @ layer.down, atol=1e-5, rtol=1e-4
        )
        assert layer.scale == pytest.approx(scale)


def test_dora_keeps_the_length_of_each_output_apart(components: Components) -> None:
    """W' = m · (W + BA·s) / ‖W + BA·s‖ for each output (arXiv 2402.09353)."""
    adapters = adapters_of(components, use_dora=True)
    give_effect(adapters, strength=0.2)
    weights = adapters.weights().unet
    for path in list(weights)[:8]:
        layer = weights[path]
        base = components.unet.get_submodule(path).base_layer.weight
        moved = base + layer.scale * layer.up @ layer.down
        assert layer.magnitude is not None
        wanted = layer.magnitude[:, None] * moved / moved.norm(dim=1, keepdim=True)
        found = base + layer_change(components, path, base)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
        assert (found.norm(dim=1) / base.norm(dim=1) - 1).abs().max() > 0.05


def test_dropout_acts_in_training_alone(components: Components) -> None:
    """A layer's input is zero with the probability given, and larger otherwise."""
    adapters = adapters_of(components, lora_dropout=0.5, targets="attention")
    give_effect(adapters)
    path = next(iter(adapters.weights().unet))
    layer, weights = components.unet.get_submodule(path), adapters.weights().unet[path]
    inputs = torch.ones(400, weights.down.shape[1])
    full = weights.scale * inputs @ weights.down.T @ weights.up.T
    with torch.no_grad():
        layer.eval()
        base = layer.base_layer(inputs)
        torch.testing.assert_close(layer(inputs) - base, full, atol=1e-4, rtol=1e-4)
        layer.train()
        dropped = layer(inputs) - base
    assert (dropped - full).abs().max() > 0.01
    torch.testing.assert_close(dropped.mean(dim=0), full.mean(dim=0), atol=0.3, rtol=0.3)
    share = float((layer.lora_dropout["default"](torch.ones(100_000)) == 0).float().mean())
    assert share == pytest.approx(0.5, abs=0.01)


def test_dropout_changes_the_loss_of_a_step(snapshot: Snapshot, components: Components, cache: Path) -> None:
    bench = make_bench(snapshot, settings_of(lora_dropout=0.5), components, cache)
    give_effect(make_adapters(bench))
    denoiser = Denoiser(components, train_text_encoder=False)
    batch = bench.maker.batch(0)

    def losses() -> list[float]:
        with torch.no_grad():
            prediction = denoiser(batch.noisy_BCHW, batch.timesteps_B, batch.text_BND)
        return bench.noise_loss.weighted(prediction, batch).tolist()

    denoiser.train()
    assert losses() != losses()
    denoiser.eval()
    assert losses() == losses()


def test_the_text_encoder_learns_only_where_it_is_asked_for(
    snapshot: Snapshot, training_manager: PipelineManager, cache: Path
) -> None:
    for asked in (False, True):
        bench = make_bench(
            snapshot, settings_of(train_text_encoder=asked), copy.deepcopy(training_manager.components), cache
        )
        adapters = make_adapters(bench)
        give_effect(adapters)
        batch: TrainingBatch = bench.maker.batch(0)
        denoiser = Denoiser(bench.components, train_text_encoder=asked)
        prediction = denoiser(batch.noisy_BCHW, batch.timesteps_B, batch.text_BND)
        bench.noise_loss.weighted(prediction, batch).mean().backward()
        text = adapters.parameters("text_encoder")
        assert bool(text) == asked
        assert all(p.grad is not None and float(p.grad.norm()) > 0 for p in [*text, *adapters.parameters("unet")])


# Taking them out, and putting weights in


@pytest.mark.parametrize("kind", KINDS)
def test_taken_out_the_model_is_the_base_to_the_bit(kind: str, components: Components) -> None:
    modules = {part: dict(module.named_modules()) for part, module in components.modules().items()}
    states = {part: state_of(module) for part, module in components.modules().items()}
    base = prediction_of(components)
    adapters = adapters_of(components, **KINDS[kind])
    give_effect(adapters)
    changed = prediction_of(components)
    with_layers = {part: dict(module.named_modules()) for part, module in components.modules().items()}
    with adapters.taken_out():
        assert torch.equal(prediction_of(components), base)
        for part, module in components.modules().items():
            assert dict(module.named_modules()) == modules[part]  # the very same objects, in the same order
            assert list(dict(module.named_modules())) == list(modules[part])
            assert module.state_dict().keys() == states[part].keys()
            for name, value in module.state_dict().items():
                assert torch.equal(value, states[part][name]), name
    for part, module in components.modules().items():
        assert dict(module.named_modules()) == with_layers[part]
    assert torch.equal(prediction_of(components), changed)


def test_layers_come_back_after_an_error(components: Components) -> None:
    adapters = adapters_of(components)
    give_effect(adapters)
    changed = prediction_of(components)
    with pytest.raises(KeyError), adapters.taken_out():
        raise KeyError
    assert torch.equal(prediction_of(components), changed)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_put_into_other_layers_are_the_same_to_the_bit(
    kind: str, components: Components, training_manager: PipelineManager
) -> None:
    adapters = adapters_of(components, **KINDS[kind])
    give_effect(adapters)
    other = copy.deepcopy(training_manager.components)
    others = adapters_of(other, seed=77, **KINDS[kind])
    others.put(adapters.weights())
    mine, theirs = parameters_of(adapters), parameters_of(others)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name
    assert torch.equal(prediction_of(other), prediction_of(components))


def test_weights_are_a_copy(components: Components) -> None:
    adapters = adapters_of(components)
    weights = adapters.weights()
    before = {path: layer.up.clone() for path, layer in weights.unet.items()}
    give_effect(adapters)
    for path, layer in weights.unet.items():
        assert torch.equal(layer.up, before[path])


def test_weights_of_other_layers_are_refused(components: Components, training_manager: PipelineManager) -> None:
    adapters = adapters_of(components, targets="attention + feed-forward")
    base = training_manager.components
    fewer = adapters_of(copy.deepcopy(base)).weights()
    with pytest.raises(TrainingError, match=r"The checkpoint has no layer .*: it is of a run with other settings"):
        adapters.put(fewer)
    wider = adapters_of(copy.deepcopy(base), rank=8, targets="attention + feed-forward").weights()
    with pytest.raises(TrainingError, match="has another shape: other settings made it"):
        adapters.put(wider)


# Their effect as a number


@pytest.mark.parametrize("kind", ["attention", "convolutions", "rsLoRA", "text encoder"])
def test_effects_are_the_length_of_the_change_by_that_of_the_weights(kind: str, components: Components) -> None:
    """Each group against its full ΔW, written out."""
    adapters = adapters_of(components, **KINDS[kind])
    give_effect(adapters)
    changes: dict[str, float] = {}
    bases: dict[str, float] = {}
    for part, path, layer in adapters.weights().layers():
        group = group_of(part, path)
        base = components.modules()[part].get_submodule(path).base_layer.weight
        change = layer.scale * layer.up.double().flatten(1) @ layer.down.double().flatten(1)
        changes[group] = changes.get(group, 0.0) + float((change**2).sum())
        bases[group] = bases.get(group, 0.0) + float((base.double() ** 2).sum())
    wanted = {group: math.sqrt(changes[group] / bases[group]) for group in changes}
    assert adapters.effects() == pytest.approx(wanted, rel=1e-4)


def group_of(part: str, path: str) -> str:
    if part == "text_encoder":
        return "text encoder"
    kinds = {"attn1": "self-attention", "attn2": "cross-attention", "ff": "feed-forward", "proj_in": "feed-forward"}
    kinds["proj_out"] = "feed-forward"
    kind = next((name for word, name in kinds.items() if word in path.split(".")), "convolutions")
    blocks = {"down_blocks": "down", "mid_block": "middle", "up_blocks": "up"}
    return f"{kind}, {blocks.get(path.split('.')[0], 'ends')}"


def test_before_the_first_step_the_effect_is_none(components: Components) -> None:
    effects = adapters_of(components, targets=ALL_LAYERS, train_text_encoder=True).effects()
    assert set(effects.values()) == {0.0}
    assert "convolutions, ends" in effects
    assert set(effects) <= set(LAYER_GROUPS), "each has a name that can be translated"
    assert "text encoder" in effects


# Written and read back


@pytest.mark.parametrize("write", [write_kohya, write_peft])
@pytest.mark.parametrize("kind", KINDS)
def test_a_written_file_makes_the_prediction_of_the_layers_in_memory(
    kind: str,
    write: object,
    components: Components,
    training_manager: PipelineManager,
    tmp_path: Path,
) -> None:
    adapters = adapters_of(components, **KINDS[kind])
    give_effect(adapters)
    wanted = prediction_of(components)
    weights: LoraWeights = adapters.weights()
    write(tmp_path / "mine.safetensors", weights, {}, dtype=torch.float32)  # type: ignore[operator]
    layers = LoraLayers(training_manager.components, LoraLibrary(tmp_path))
    base = prediction_of(training_manager.components)
    layers.use((LoraChoice(name="mine"),))
    try:
        found = prediction_of(training_manager.components)
    finally:
        layers.use(())
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert (wanted - base).abs().max() > 1e-3
    assert torch.equal(prediction_of(training_manager.components), base)
