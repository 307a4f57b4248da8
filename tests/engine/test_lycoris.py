"""LyCORIS' files change weights by what their papers say, written out here with numpy."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from lycoris import LycorisNetwork, create_lycoris
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from studio.core.errors import LoraError
from studio.core.settings import LoraChoice
from studio.engine.lora_export import peft_state, read_weights, write_kohya
from studio.engine.lora_layers import LoraLayers
from studio.engine.lora_merge import merged_tensors
from studio.engine.pipeline import PipelineManager
from studio.loras.library import LoraLibrary, read_card

Numbers = NDArray[np.float64]
State = dict[str, Numbers]
RANK, ALPHA = 3, 1.5
LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "down_blocks.0.resnets.0.conv1"
NORM = "down_blocks.0.resnets.0.norm1"


def numbers(*shape: int, seed: int = 0) -> Numbers:
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(np.float32).astype(np.float64) * 0.3


def loha(weight: Numbers) -> tuple[State, Numbers]:
    out, inputs = weight.shape[0], weight[0].size
    a1, b1, a2, b2 = (
        numbers(*shape, seed=i) for i, shape in enumerate([(out, RANK), (RANK, inputs), (out, RANK), (RANK, inputs)])
    )
    change = ALPHA / RANK * np.einsum("or,ri->oi", a1, b1) * np.einsum("or,ri->oi", a2, b2)
    return {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2, "alpha": np.array(ALPHA)}, change


def loha_tucker(weight: Numbers) -> tuple[State, Numbers]:
    out, inputs, *window = weight.shape
    state = {
        **{f"hada_w{i}_a": numbers(RANK, out, seed=i) for i in (1, 2)},
        **{f"hada_w{i}_b": numbers(RANK, inputs, seed=i + 4) for i in (1, 2)},
        **{f"hada_t{i}": numbers(RANK, RANK, *window, seed=i) for i in (1, 2)},
    }
    first, second = (
        np.einsum("stkl,so,ti->oikl", state[f"hada_t{i}"], state[f"hada_w{i}_a"], state[f"hada_w{i}_b"]) for i in (1, 2)
    )
    return {**state, "alpha": np.array(ALPHA)}, ALPHA / RANK * first * second


def kron(left: Numbers, right: Numbers) -> Numbers:
    """By its definition: block (a, b) is left[a, b] · right."""
    rows = [np.concatenate([left[a, b] * right for b in range(left.shape[1])], axis=1) for a in range(left.shape[0])]
    return np.concatenate(rows, axis=0)


def lokr(weight: Numbers) -> tuple[State, Numbers]:
    out, inputs, *window = weight.shape
    first, second = numbers(2, 2), (numbers(out // 2, RANK), numbers(RANK, inputs // 2 * int(np.prod(window)), seed=1))
    right = (second[0] @ second[1]).reshape(out // 2, inputs // 2, *window)
    state = {"lokr_w1": first, "lokr_w2_a": second[0], "lokr_w2_b": second[1].reshape(RANK, inputs // 2, *window)}
    return {**state, "alpha": np.array(ALPHA)}, ALPHA / RANK * kron(first, right)


def lokr_of_two_products(weight: Numbers) -> tuple[State, Numbers]:
    out, inputs = weight.shape
    a1, b1 = numbers(2, RANK), numbers(RANK, 4)
    a2, b2 = numbers(out // 2, RANK, seed=1), numbers(RANK, inputs // 4, seed=2)
    state = {"lokr_w1_a": a1, "lokr_w1_b": b1, "lokr_w2_a": a2, "lokr_w2_b": b2, "alpha": np.array(ALPHA)}
    return state, ALPHA / RANK * kron(a1 @ b1, a2 @ b2)


def lokr_of_two_matrices(weight: Numbers) -> tuple[State, Numbers]:
    """Its alpha means nothing: LyCORIS writes any."""
    first, second = numbers(2, 2), numbers(weight.shape[0] // 2, weight.shape[1] // 2)
    return {"lokr_w1": first, "lokr_w2": second, "alpha": np.array(1e6)}, kron(first, second)


def tucker(weight: Numbers) -> tuple[State, Numbers]:
    out, inputs, *window = weight.shape
    up, down, mid = numbers(out, RANK), numbers(RANK, inputs), numbers(RANK, RANK, *window)
    state = {
        "lora_up.weight": up[..., None, None],
        "lora_down.weight": down[..., None, None],
        "lora_mid.weight": mid,
        "alpha": np.array(ALPHA),
    }
    return state, ALPHA / RANK * np.einsum("or,rskl,si->oikl", up, mid, down)


def full(weight: Numbers) -> tuple[State, Numbers]:
    change = numbers(*weight.shape)
    return {"diff": change}, change


def ia3(weight: Numbers) -> tuple[State, Numbers]:
    factor = numbers(weight.shape[0])
    return {"weight": factor, "on_input": np.array(0.0)}, factor.reshape(-1, *[1] * (weight.ndim - 1)) * weight


def ia3_of_inputs(weight: Numbers) -> tuple[State, Numbers]:
    factor = numbers(weight.shape[1])
    return {"weight": factor, "on_input": np.array(1.0)}, factor.reshape(1, -1, *[1] * (weight.ndim - 2)) * weight


def norm(weight: Numbers) -> tuple[State, Numbers]:
    change = numbers(*weight.shape)
    return {"w_norm": change, "b_norm": numbers(*weight.shape, seed=9)}, change


CASES = [
    *((make, LINEAR) for make in (loha, lokr, lokr_of_two_products, lokr_of_two_matrices, full, ia3, ia3_of_inputs)),
    *((make, CONV) for make in (loha, loha_tucker, lokr, tucker, full, ia3, ia3_of_inputs)),
    (norm, NORM),
]


def saved(path: Path, layer: str, state: Mapping[str, Numbers], *, prefix: str = "lora_unet_") -> Path:
    name = prefix + layer.replace(".", "_")
    save_file({f"{name}.{role}": torch.tensor(value, dtype=torch.float32) for role, value in state.items()}, path)
    return path


@pytest.fixture
def layers(manager: PipelineManager, tmp_path: Path) -> Iterator[LoraLayers]:
    """With hooks where hooks can do it; afterwards the model is as it was, to the bit."""
    manager.loras.use(())
    before = {name: p.clone() for name, p in manager.components.unet.named_parameters()}
    layers = LoraLayers(manager.components, LoraLibrary(tmp_path), sum_limit_bytes=0)
    yield layers
    layers.use(())
    assert all(torch.equal(p, before[name]) for name, p in manager.components.unet.named_parameters())


def base_weight(manager: PipelineManager, layer: str) -> Numbers:
    weight = manager.components.unet.get_submodule(layer).get_parameter("weight")
    return weight.detach().double().numpy().copy()


@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize(("make", "layer"), CASES, ids=[f"{make.__name__} {layer[-5:]}" for make, layer in CASES])
def test_what_is_attached_is_the_change_computed_by_hand(
    make: object, layer: str, strength: float, layers: LoraLayers, manager: PipelineManager, tmp_path: Path
) -> None:
    assert callable(make)
    weight = base_weight(manager, layer)
    state, change = make(weight)
    change = change.reshape(weight.shape)
    saved(tmp_path / "a.safetensors", layer, state, prefix="lycoris_")
    module = manager.components.unet.get_submodule(layer)
    assert isinstance(module, nn.Linear | nn.Conv2d | nn.GroupNorm)
    shape = (2, module.num_channels if isinstance(module, nn.GroupNorm) else weight.shape[1], 6, 6)
    x = torch.randn(shape[:2] if isinstance(module, nn.Linear) else shape, generator=torch.Generator().manual_seed(1))
    by_hand = torch.tensor(weight + strength * change, dtype=torch.float32)
    parameters = {"weight": by_hand}
    if "b_norm" in state:
        assert module.bias is not None
        parameters["bias"] = module.bias + strength * torch.tensor(state["b_norm"], dtype=torch.float32)
    wanted = torch.func.functional_call(module, parameters, (x,))
    base = module(x)
    layers.use((LoraChoice(name="a", strength=strength),))
    torch.testing.assert_close(module(x), wanted, atol=2e-5, rtol=1e-4)
    assert (wanted - base).abs().max() > 1e-2
    layers.use(())
    merged = {t.name: t.tensor for t in merged_tensors(manager.components, [(layers.read("a"), strength)])}  # type: ignore[list-item]
    torch.testing.assert_close(merged[f"{layer}.weight"], by_hand, atol=2e-5, rtol=1e-4)


def test_a_changed_bias_alone_acts(layers: LoraLayers, manager: PipelineManager, tmp_path: Path) -> None:
    module = manager.components.unet.get_submodule(CONV)
    assert isinstance(module, nn.Conv2d)
    assert module.bias is not None
    change = numbers(len(module.bias))
    saved(tmp_path / "a.safetensors", CONV, {"diff_b": change})
    before = module.bias.detach().clone()
    layers.use((LoraChoice(name="a", strength=0.5),))
    torch.testing.assert_close(module.bias.detach(), before + 0.5 * torch.tensor(change, dtype=torch.float32))


def test_the_model_predicts_something_else_with_ia3_although_another_lora_is_on(
    layers: LoraLayers, manager: PipelineManager, tmp_path: Path
) -> None:
    """Its change is read while another's weights stand in the layer: it must not be made of those."""
    weight = base_weight(manager, CONV)
    state, _ = full(weight)
    saved(tmp_path / "full.safetensors", CONV, {**state, "diff_b": numbers(weight.shape[0])})
    factors, _ = ia3(weight)
    saved(tmp_path / "ia3.safetensors", CONV, factors)
    layers.use((LoraChoice(name="full"),))
    layers.use((LoraChoice(name="ia3"),))
    wanted = weight * (1 + factors["weight"].reshape(-1, 1, 1, 1))
    attached = manager.components.unet.get_submodule(CONV).get_parameter("weight").detach()
    np.testing.assert_allclose(attached.double().numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("options", [{"algo": "ia3"}, {"algo": "lora", "rs_lora": True}, {"algo": "lokr"}], ids=str)
def test_a_file_that_lycoris_itself_writes_acts_as_its_network(
    options: dict[str, object], layers: LoraLayers, manager: PipelineManager, tmp_path: Path
) -> None:
    """It keeps on which side (IA)³ acts as a whole number, where a LoRA has floats."""
    unet = copy.deepcopy(manager.components.unet)
    LycorisNetwork.apply_preset({"unet_target_module": ["Transformer2DModel"], "target_module": ["Transformer2DModel"]})
    network = create_lycoris(unet, 1.0, linear_dim=4, linear_alpha=2.0, **options)
    network.apply_to()
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.05)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, tmp_path / "a.safetensors")
    rng = torch.Generator().manual_seed(1)
    latents = torch.randn(1, unet.config.in_channels, 8, 8, generator=rng)
    text = torch.randn(1, 4, unet.config.cross_attention_dim, generator=rng)
    with torch.no_grad():
        base, wanted = manager.components.unet(latents, 500, text).sample, unet(latents, 500, text).sample
        layers.use((LoraChoice(name="a"),))
        made = manager.components.unet(latents, 500, text).sample
    assert (wanted - base).norm() > 1e-3 * base.norm()
    assert (made - wanted).norm() < 1e-3 * (wanted - base).norm()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"hada_w1_a": numbers(8, 2), "hada_w1_b": numbers(2, 8)}, "has no hada_w2_a and no hada_w2_b"),
        ({"lokr_w1": numbers(2, 2), "lokr_w2_a": numbers(4, 2)}, "has no lokr_w2_b"),
        ({"lora_mid.weight": numbers(2, 2, 3, 3)}, "has no down and no up"),
        ({"diff": numbers(5, 7)}, r"does not fit this model: .* is diff \(5, 7\), where"),
        ({"weight": numbers(7)}, r"does not fit this model: .* is ia3 \(7,\), where"),
    ],
)
def test_what_is_not_whole_or_does_not_fit_is_said(
    state: Mapping[str, Numbers], words: str, manager: PipelineManager, tmp_path: Path
) -> None:
    file = saved(tmp_path / "a.safetensors", LINEAR, state)
    with pytest.raises(LoraError, match=words):
        read_weights("a", file, manager.components)


def test_what_has_no_place_in_a_lora_file_is_not_written(manager: PipelineManager, tmp_path: Path) -> None:
    state, _ = ia3(base_weight(manager, LINEAR))
    weights = read_weights("a", saved(tmp_path / "a.safetensors", LINEAR, state), manager.components)
    with pytest.raises(LoraError, match="--to merged or --to checkpoint"):
        write_kohya(tmp_path / "b.safetensors", weights, {})
    with pytest.raises(LoraError, match="--to merged or --to checkpoint"):
        peft_state(weights)


def test_a_loha_becomes_a_lora_that_does_the_same(manager: PipelineManager, tmp_path: Path) -> None:
    state, change = loha(base_weight(manager, LINEAR))
    weights = read_weights("a", saved(tmp_path / "a.safetensors", LINEAR, state), manager.components)
    write_kohya(tmp_path / "b.safetensors", weights, {}, dtype=torch.float32)
    back = read_weights("b", tmp_path / "b.safetensors", manager.components).unet[LINEAR]
    np.testing.assert_allclose((back.scale * back.up @ back.down).numpy(), change, atol=1e-6)


@pytest.mark.parametrize("make", [loha, lokr])
def test_a_file_without_alpha_says_that_its_strength_is_assumed(make: object, tmp_path: Path) -> None:
    assert callable(make)
    state, _ = make(numbers(8, 8))
    assert read_card("a", saved(tmp_path / "a.safetensors", LINEAR, state)).notes == ()
    del state["alpha"]
    (note,) = read_card("a", saved(tmp_path / "a.safetensors", LINEAR, state)).notes
    assert "does not say how strong 1 of its 1 layers are: alpha is taken to be the rank" in note
