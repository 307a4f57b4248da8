"""A DoRA changes weights as peft's own layers do, at any strength, beside other LoRAs, and leaves no trace."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from studio.core.errors import LoraError
from studio.core.settings import LoraChoice
from studio.engine.lora_export import kohya_state, peft_state, read_weights, write_kohya, write_peft
from studio.engine.lora_file import LayerWeights, LoraWeights
from studio.engine.lora_layers import LoraLayers, WeightSum, changed_weight
from studio.engine.pipeline import PipelineManager
from studio.loras.library import LoraLibrary, read_card
from tests.engine.lora_updates import expected_weight, merge_expected, noise_prediction, random_update

ALPHA, RANK = 6.0, 4
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def dora(manager: PipelineManager) -> LoraWeights:
    return random_update(manager.components, dora=True)


@pytest.fixture(params=[2**30, 0], ids=["sums", "hooks"])
def layers(request: pytest.FixtureRequest, manager: PipelineManager, tmp_path: Path) -> Iterator[LoraLayers]:
    """The shipped model with a library of its own; afterwards its weights are as they were, to the bit."""
    manager.loras.use(())
    before = {name: (p.data_ptr(), p.clone()) for name, p in manager.components.unet.named_parameters()}
    layers = LoraLayers(manager.components, LoraLibrary(tmp_path), sum_limit_bytes=request.param)
    yield layers
    layers.use(())
    for name, parameter in manager.components.unet.named_parameters():
        pointer, values = before[name]
        assert parameter.data_ptr() == pointer
        assert torch.equal(parameter, values)
    assert not any(module._forward_hooks for module in manager.components.unet.modules())


def predicted(manager: PipelineManager) -> torch.Tensor:
    return noise_prediction(manager.components.unet, manager.components.text_encoder)


def merged_prediction(manager: PipelineManager, *updates: tuple[LoraWeights, float]) -> torch.Tensor:
    """Of a copy whose weights went `strength` of the way to each update's, one after the other."""
    parts = copy.deepcopy(manager.components.modules())
    for weights, strength in updates:
        before = copy.deepcopy(parts)
        merge_expected(parts, weights)
        for part, path, _ in weights.layers():
            old, new = before[part].get_submodule(path).weight, parts[part].get_submodule(path).weight
            new.data = old.data + strength * (new.data - old.data)
    return noise_prediction(parts["unet"], parts["text_encoder"])


def random_dora(layer: nn.Linear | nn.Conv2d) -> LayerWeights:
    generator = torch.Generator().manual_seed(4)
    shape = layer.weight.shape
    down = torch.randn(RANK, *shape[1:], generator=generator)
    up = torch.randn(shape[0], RANK, *(1 for _ in shape[2:]), generator=generator)
    return LayerWeights(down, up, ALPHA, torch.rand(shape[0], generator=generator) + 0.5)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.Linear(6, 5), (3, 6)),
        (nn.Linear(5, 5), (3, 5)),
        (nn.Conv2d(4, 5, 3, padding=1), (2, 4, 8, 8)),
        (nn.Conv2d(4, 4, 1), (2, 4, 8, 8)),
    ],
    ids=["linear", "square linear", "convolution", "square 1 × 1 convolution"],
)
def test_a_layer_computes_what_pefts_own_layer_computes(layer: nn.Linear | nn.Conv2d, inputs: tuple[int, ...]) -> None:
    weights = random_dora(layer)
    theirs = nn.Sequential(copy.deepcopy(layer))
    inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=ALPHA, use_dora=True, target_modules=["0"]), theirs)
    adapter = theirs[0]
    adapter.lora_A["default"].weight.data = weights.down.clone()
    adapter.lora_B["default"].weight.data = weights.up.clone()
    magnitude = adapter.lora_magnitude_vector["default"].weight
    assert weights.magnitude is not None
    magnitude.data = weights.magnitude.reshape(magnitude.shape)
    x = torch.randn(inputs, generator=torch.Generator().manual_seed(1))
    attached = WeightSum(layer, [(weights, 1.0)])
    try:
        with torch.no_grad():
            torch.testing.assert_close(layer(x), theirs(x), atol=1e-5, rtol=1e-5)
    finally:
        attached.remove()


@pytest.mark.parametrize("write", [write_kohya, write_peft])
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_the_whole_model_predicts_what_merged_weights_predict(
    write: Callable[..., None],
    strength: float,
    layers: LoraLayers,
    manager: PipelineManager,
    dora: LoraWeights,
    tmp_path: Path,
) -> None:
    """The same weights that diffusers' own loading is compared with in test_lora_export.py."""
    write(tmp_path / "dora.safetensors", dora, {}, dtype=torch.float32)
    base, wanted = predicted(manager), merged_prediction(manager, (dora, strength))
    layers.use((LoraChoice(name="dora", strength=strength),))
    torch.testing.assert_close(predicted(manager), wanted, atol=1e-4, rtol=1e-4)
    assert (wanted - base).abs().max() > 0.05
    layers.use(())
    assert torch.equal(predicted(manager), base)


def test_a_lora_and_a_dora_act_one_after_the_other(
    layers: LoraLayers, manager: PipelineManager, dora: LoraWeights, tmp_path: Path
) -> None:
    lora = random_update(manager.components)
    write_kohya(tmp_path / "dora.safetensors", dora, {}, dtype=torch.float32)
    write_kohya(tmp_path / "lora.safetensors", lora, {}, dtype=torch.float32)
    first = merged_prediction(manager, (lora, 0.5), (dora, 0.7))
    second = merged_prediction(manager, (dora, 0.7), (lora, 0.5))
    assert (first - second).abs().max() > 1e-3, "the order counts"
    layers.use((LoraChoice(name="lora", strength=0.5), LoraChoice(name="dora", strength=0.7)))
    torch.testing.assert_close(predicted(manager), first, atol=1e-4, rtol=1e-4)
    layers.use((LoraChoice(name="dora", strength=0.7), LoraChoice(name="lora", strength=0.5)))
    torch.testing.assert_close(predicted(manager), second, atol=1e-4, rtol=1e-4)


def test_the_norm_is_of_each_outputs_weights() -> None:
    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(3))  # square: the other axis would fit as well
    dora = LayerWeights(torch.zeros(1, 4), torch.zeros(4, 1), 1.0, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    lengths = changed_weight(weight, [(dora, 1.0)]).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([1.0, 2.0, 3.0, 4.0]))


def test_an_output_without_weights_stays_so_instead_of_becoming_nan() -> None:
    dora = LayerWeights(torch.zeros(1, 4), torch.zeros(3, 1), 1.0, torch.ones(3))
    assert torch.equal(changed_weight(torch.zeros(3, 4), [(dora, 1.0)]), torch.zeros(3, 4))


def test_weights_in_half_precision_are_changed_in_float32() -> None:
    layer = nn.Linear(6, 5)
    weights = random_dora(layer)
    half = layer.weight.data.half()
    changed = changed_weight(half, [(weights, 1.0)])
    assert changed.dtype == torch.float32
    torch.testing.assert_close(changed, expected_weight(half.float(), weights))


def reshape_scales(state: State, shape: Callable[[torch.Tensor], torch.Tensor]) -> State:
    return {key: shape(value) if key.endswith("dora_scale") else value for key, value in state.items()}


@pytest.mark.parametrize("trailing", [0, 1, 3])
def test_kohyas_lengths_are_read_with_or_without_dimensions_of_one(
    trailing: int, manager: PipelineManager, dora: LoraWeights, tmp_path: Path
) -> None:
    state = reshape_scales(kohya_state(dora, torch.float32), lambda scale: scale.reshape(-1, *[1] * trailing))
    save_file(state, tmp_path / "a.safetensors")
    assert_same_magnitudes(read_weights("a", tmp_path / "a.safetensors", manager.components), dora)


@pytest.mark.parametrize("ending", ["", ".weight", ".default", ".default_0.weight"])
def test_pefts_lengths_are_read_under_every_name_it_gave_them(
    ending: str, manager: PipelineManager, dora: LoraWeights, tmp_path: Path
) -> None:
    state = {
        key.replace("lora_magnitude_vector.weight", f"lora_magnitude_vector{ending}"): value
        for key, value in peft_state(dora, torch.float32).items()
    }
    save_file(state, tmp_path / "a.safetensors")
    assert_same_magnitudes(read_weights("a", tmp_path / "a.safetensors", manager.components), dora)


def assert_same_magnitudes(found: LoraWeights, wanted: LoraWeights) -> None:
    theirs = {(part, path): layer.magnitude for part, path, layer in found.layers()}
    for part, path, layer in wanted.layers():
        assert layer.magnitude is not None
        magnitude = theirs[part, path]
        assert magnitude is not None
        assert torch.equal(magnitude, layer.magnitude)


def test_lengths_of_inputs_are_refused_by_name(manager: PipelineManager, dora: LoraWeights, tmp_path: Path) -> None:
    """Of a square layer, no other sign tells them from lengths of outputs."""
    state = reshape_scales(kohya_state(dora), lambda scale: scale.reshape(1, *scale.shape[:1], *scale.shape[2:]))
    file = tmp_path / "a.safetensors"
    save_file(state, file)
    with pytest.raises(LoraError, match="is a DoRA with one magnitude for each input"):
        read_weights("a", file, manager.components)
    assert "for each input" in read_card("a", file).problem


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda scale: scale[:-1], "the magnitude of .* where one number for each of .* outputs belongs"),
        (lambda scale: scale * torch.nan, "holds NaN or infinite values"),
        (lambda scale: scale.to(torch.int32), r"stored as torch\.int32, where floats belong"),
    ],
)
def test_bad_lengths_say_why(
    spoil: Callable[[torch.Tensor], torch.Tensor],
    words: str,
    manager: PipelineManager,
    dora: LoraWeights,
    tmp_path: Path,
) -> None:
    save_file(reshape_scales(kohya_state(dora), spoil), tmp_path / "a.safetensors")
    with pytest.raises(LoraError, match=words):
        read_weights("a", tmp_path / "a.safetensors", manager.components)


def test_a_length_without_its_pair_is_not_complete(manager: PipelineManager, dora: LoraWeights, tmp_path: Path) -> None:
    state = kohya_state(dora)
    first = next(key for key in state if key.endswith("lora_up.weight"))
    del state[first]
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(LoraError, match=r"is not complete: the layer .* has no up weight"):
        read_weights("a", tmp_path / "a.safetensors", manager.components)


def test_a_dora_is_a_card_like_others_and_its_lengths_count_as_parameters(
    layers: LoraLayers, dora: LoraWeights, tmp_path: Path
) -> None:
    write_kohya(tmp_path / "dora.safetensors", dora, {})
    card = read_card("dora", tmp_path / "dora.safetensors")
    assert (card.problem, card.rank) == ("", 4)
    stored = sum(t.numel() for key, t in load_file(card.path).items() if not key.endswith("alpha"))
    assert layers.read("dora").num_parameters == stored


def test_lengths_alone_change_something(layers: LoraLayers, dora: LoraWeights, tmp_path: Path) -> None:
    still = LoraWeights({path: replace(layer, up=layer.up * 0) for path, layer in dora.unet.items()}, {})
    write_kohya(tmp_path / "still.safetensors", still, {})
    assert "changes nothing" not in " ".join(layers.read("still").notes)


def test_a_layer_with_a_dora_has_a_sum_whatever_its_size(
    layers: LoraLayers, manager: PipelineManager, dora: LoraWeights, tmp_path: Path
) -> None:
    path, weights = next(iter(dora.unet.items()))
    plain = {name: replace(layer, magnitude=None) for name, layer in dora.unet.items() if name != path}
    write_kohya(tmp_path / "mixed.safetensors", LoraWeights({path: weights, **plain}, {}), {})
    layers.use((LoraChoice(name="mixed"),))
    changed = manager.components.unet.get_submodule(path)
    other = manager.components.unet.get_submodule(next(iter(plain)))
    assert not changed._forward_hooks
    assert bool(other._forward_hooks) == (layers.sum_limit_bytes == 0)
    layers.use(())


def test_expected_weights_are_the_papers(manager: PipelineManager, dora: LoraWeights) -> None:
    """The tests' own reference, checked by a second way: m · (W + s·BA) / ‖W + s·BA‖."""
    path, layer = next((p, w) for p, w in dora.unet.items() if w.down.ndim == 2)
    weight = manager.components.unet.get_submodule(path).weight
    assert layer.magnitude is not None
    moved = weight + layer.scale * functional.linear(layer.up, layer.down.T)
    wanted = layer.magnitude[:, None] * moved / moved.pow(2).sum(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(expected_weight(weight, layer), wanted, atol=1e-5, rtol=1e-5)
