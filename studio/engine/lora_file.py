"""LoRA weights in memory, and reading a file against the loaded model.

A LoRA's weights as they are in memory: what training makes, what files hold, what is merged.

Reading a LoRA file against the loaded model: every tensor is accounted for before anything is attached.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from studio.core.errors import LoraError
from studio.core.language import N_, _
from studio.engine.lycoris_updates import change_of, nothing_of, pair_of
from studio.engine.models import Components
from studio.loras.keys import LoraKey, Part, Role, ScaleRule, layer_name, read_key, scale_rules
from studio.loras.library import check_kind
from studio.loras.weights_file import WeightsHeader, read_header


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """One layer's update: up @ down · alpha / rank, and with DoRA the length of each output's weights.

    Attributes:
        down: (rank, in, …) as the layer's weight has it: (rank, in) or (rank, in, height, width).
        up: (out, rank) or (out, rank, 1, 1).
        alpha: of this file's rule alpha / rank. rsLoRA's alpha / sqrt(rank) is alpha · sqrt(rank) here.
        magnitude: (out,) for DoRA (arXiv 2402.09353), else None.
        factor: by how much more of itself the weight becomes, (IA)³ (arXiv 2205.05638): (out, 1, …) or (1, in, …).
        bias: (out,), added to the layer's bias.

    A dense update is a pair of full rank, one side of which is the identity. Of a norm's weights, up is (out, 1).
    Rank 0 adds nothing.
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    magnitude: torch.Tensor | None = None
    factor: torch.Tensor | None = None
    bias: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank if self.rank else 0.0

    @property
    def is_addition(self) -> bool:
        """Whether up and down say all: such a layer can be attached by a hook."""
        return self.magnitude is None and self.factor is None and self.bias is None

    @property
    def acts(self) -> bool:
        """Whether it changes anything; a magnitude alone can."""
        if self.magnitude is not None:
            return True
        if any(tensor is not None and bool(tensor.any()) for tensor in (self.factor, self.bias)):
            return True
        return bool(self.up.any()) and bool(self.down.any()) and self.scale != 0


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """Layers by their path in diffusers' and transformers' modules (`mid_block.attentions.0…`, without a prefix).

    Text encoder paths start with `encoder.` or `text_model.encoder.`, as the module at hand has them.
    """

    unet: Mapping[str, LayerWeights]
    text_encoder: Mapping[str, LayerWeights]

    def layers(self) -> Iterator[tuple[Part, str, LayerWeights]]:
        """Every layer, the U-Net's first."""
        for path, layer in self.unet.items():
            yield "unet", path, layer
        for path, layer in self.text_encoder.items():
            yield "text_encoder", path, layer


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_weights(name: str, path: Path, components: Components) -> LoraWeights:
    """A file of any dialect as it was stored: float32, on the CPU, by the paths of the model's modules.

    Args:
        name: what messages call it.
        path: kohya's, peft's or old diffusers' names.
        components: the model it is for; only its layers' names and shapes are looked at.

    Raises:
        LoraError: where it is of another kind, is not complete, does not fit the model, or is not finite.
        WeightsFileError: where the file is damaged or no safetensors file.
    """
    header = read_header(path)
    check_kind(header)
    layers, rules, modules = _group(name, header), scale_rules(header), modules_of(components)
    _assert_known(name, layers, modules)
    found: dict[Part, dict[str, LayerWeights]] = {"unet": {}, "text_encoder": {}}
    try:
        with safe_open(path, framework="pt") as file:
            for (part, layer), names in sorted(layers.items()):
                module_path, module = modules[part][layer]
                stored = {role: file.get_tensor(tensor) for role, tensor in names.items()}
                _assert_sound(name, module_path, stored)
                found[part][module_path] = _layer(name, module_path, module, stored, rules[part])
    except (SafetensorError, OSError) as error:
        raise LoraError(
            _("{name} cannot be read: {error}. Copy or download it again.", name=path.name, error=error)
        ) from error
    return LoraWeights(found["unet"], found["text_encoder"])


Layers = dict[tuple[Part, str], dict[Role, str]]
Layer = nn.Linear | nn.Conv2d | nn.GroupNorm | nn.LayerNorm
Adaptable = Mapping[str, tuple[str, Layer]]
Stored = Mapping[Role, torch.Tensor]


def modules_of(components: Components) -> dict[Part, Adaptable]:
    """Layers that a LoRA can change, by their name in all dialects."""
    parts: dict[Part, nn.Module] = {"unet": components.unet, "text_encoder": components.text_encoder}
    return {
        part: {
            layer_name(path): (path, module)
            for path, module in whole.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d | nn.GroupNorm | nn.LayerNorm)
        }
        for part, whole in parts.items()
    }


def _group(name: str, header: WeightsHeader) -> Layers:
    """The names of each layer's tensors.

    Raises:
        LoraError: where one side of a pair is missing, or two tensors mean the same.
    """
    layers: Layers = {}
    for tensor in header.tensors:
        key = read_key(tensor)
        assert key is not None, "check_kind lets only known names through"
        _put(name, layers, key, tensor)
    for (__, layer), names in layers.items():
        missing = _missing_sides(names)
        if missing:
            raise LoraError(
                _(
                    "{name} is not complete: the layer {layer} has no {sides} weight. None of it is "
                    "used; copy or download it again.",
                    name=name,
                    layer=layer,
                    sides=_(" and no ").join(sorted(missing)),
                )
            )
    return layers


def _put(name: str, layers: Layers, key: LoraKey, tensor: str) -> None:
    names = layers.setdefault((key.part, key.layer), {})
    if key.role in names:
        raise LoraError(
            _(
                "{name} is ambiguous: {first} and {second} are the same weight of the same layer.",
                name=name,
                first=names[key.role],
                second=tensor,
            )
        )
    names[key.role] = tensor


def _assert_known(name: str, layers: Layers, modules: Mapping[Part, Adaptable]) -> None:
    unknown = [layer for part, layer in layers if layer not in modules[part]]
    if unknown:
        raise LoraError(
            _(
                "{name} does not fit this model: {num_unknown} of its {num_layers} layers are not in "
                "it ({layer}, …). It was made for a model of another size or kind.",
                name=name,
                num_unknown=len(unknown),
                num_layers=len(layers),
                layer=unknown[0],
            )
        )


def _assert_sound(name: str, layer: str, stored: Stored) -> None:
    """Numbers that are numbers: floating point, and finite."""
    for role, tensor in stored.items():
        if role in ("alpha", "on_input"):  # one number, of any type: LyCORIS keeps (IA)³'s side as a whole one
            if tensor.numel() != 1 or not bool(torch.isfinite(tensor).all()):
                found = tensor.tolist()
                raise LoraError(
                    _(
                        "{name} is broken: the {role} of {layer} is {found}.",
                        name=name,
                        role=role,
                        layer=layer,
                        found=found,
                    )
                )
            continue
        if tensor.dtype not in FLOATS:
            raise LoraError(
                _(
                    "{name} cannot be used: {layer} is stored as {dtype}, where floats belong.",
                    name=name,
                    layer=layer,
                    dtype=tensor.dtype,
                )
            )
        if not bool(torch.isfinite(tensor).all()):
            broken = N_("{name} is broken: {layer} holds NaN or infinite values. Its training went wrong.")
            raise LoraError(_(broken, name=name, layer=layer))


def _missing_sides(roles: Iterable[Role]) -> set[Role]:
    """What a layer's tensors lack to be an update; a bias alone is one."""
    found = set(roles)
    for whole in _WHOLES:
        if whole & found:
            if any(role.startswith("lokr") for role in whole):
                return _missing_of_lokr(found)
            return set(whole - found)
    return set() if found & {"diff", "diff_b", "w_norm", "b_norm", "ia3"} else {"down", "up"}


_WHOLES: tuple[frozenset[Role], ...] = (
    frozenset({"down", "up"}),
    frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),
    frozenset({"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"}),
)


def _missing_of_lokr(found: set[Role]) -> set[Role]:
    """Each side is one matrix, or the product of two."""
    first, second = set[Role](), set[Role]()
    if "lokr_w1" not in found:
        first = set[Role](("lokr_w1_a", "lokr_w1_b")) - found
    if "lokr_w2" not in found:
        second = set[Role](("lokr_w2_a", "lokr_w2_b")) - found
    return first | second


def _layer(name: str, path: str, module: Layer, stored: Stored, rule: ScaleRule) -> LayerWeights:
    """One layer's tensors, in the shapes that the module needs."""
    alpha = float(stored["alpha"]) if "alpha" in stored else None
    numbers: dict[Role, torch.Tensor] = {role: tensor.float() for role, tensor in stored.items() if role != "alpha"}
    magnitude = _magnitude(name, path, module, numbers["magnitude"]) if "magnitude" in numbers else None
    if set(numbers) <= {"down", "up", "magnitude"}:
        down, up = _fitted(name, path, module, numbers["down"], numbers["up"])
        return LayerWeights(down, up, rule.effective_alpha(layer_name(path), down.shape[0], alpha), magnitude)
    try:
        layer = _lycoris_layer(module, numbers, alpha)
    except (RuntimeError, ValueError, IndexError) as error:
        raise _misfit(name, path, _shapes(numbers), module) from error
    return replace(layer, magnitude=magnitude)


def _misfit(name: str, path: str, shapes: str, module: Layer) -> LoraError:
    return LoraError(
        _(
            "{name} does not fit this model: {layer} is {shapes}, where {wanted} belongs. It was made for a model of "
            "another size.",
            name=name,
            layer=path,
            shapes=shapes,
            wanted=tuple(module.weight.shape),
        )
    )


def _shapes(numbers: Stored) -> str:
    return ", ".join(f"{role} {tuple(tensor.shape)}" for role, tensor in sorted(numbers.items()))


def _lycoris_layer(module: Layer, stored: Stored, alpha: float | None) -> LayerWeights:
    """What a LyCORIS file changes of a layer: LoHa, LoKr, Tucker's LoCon, (IA)³, full weights, biases, norms.

    Its magnitude (DoRA) is read apart.

    Args:
        module: whose shapes it must have.
        stored: float32; by LyCORIS' names.
        alpha: of the file; None where it has none, and the scale so is 1.

    Raises:
        RuntimeError, ValueError, IndexError: where shapes do not fit.
    """
    weight = module.weight
    bias = next((stored[role].reshape(len(weight)) for role in ("diff_b", "b_norm") if role in stored), None)
    if bias is not None and module.bias is None:
        raise ValueError("this layer has no bias")
    if "ia3" in stored:
        on_input = bool(stored["on_input"].any()) if "on_input" in stored else False
        sides = (1, -1) if on_input else (-1, 1)
        factor = stored["ia3"].reshape(*sides, *(1 for __ in weight.shape[2:]))
        factor.expand_as(weight)
        return LayerWeights(*nothing_of(weight), 0.0, factor=factor, bias=bias)
    change = change_of(stored, alpha)
    down, up = nothing_of(weight) if change is None else pair_of(change.reshape(weight.shape))
    return LayerWeights(down, up, float(down.shape[0]), bias=bias)


def _fitted(
    name: str, path: str, module: Layer, down: torch.Tensor, up: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sides in the shapes that the module needs. 1 × 1 convolutions are stored as matrices by some programs."""
    rank = down.shape[0] if down.ndim else 0
    wanted_down = (rank, *module.weight.shape[1:])
    wanted_up = (module.weight.shape[0], rank, *(1 for __ in module.weight.shape[2:]))
    same_rank = up.ndim > 1 and up.shape[1] == rank
    if not same_rank or down.numel() != _size(wanted_down) or up.numel() != _size(wanted_up) or rank == 0:
        raise _misfit(name, path, f"{tuple(up.shape)} · {tuple(down.shape)}", module)
    return down.reshape(wanted_down), up.reshape(wanted_up)


def _magnitude(name: str, path: str, module: Layer, magnitude: torch.Tensor) -> torch.Tensor:
    """DoRA's lengths as (out,): kohya's files have (out, 1, …), peft's (out,) or, of a convolution, (1, out, 1, 1)."""
    num_outputs = module.weight.shape[0]
    if magnitude.numel() != num_outputs:
        raise LoraError(
            _(
                "{name} does not fit this model: the magnitude of {layer} has the shape {shape}, "
                "where one number for each of {num_outputs} outputs belongs. It was made for a model "
                "of another size.",
                name=name,
                layer=path,
                shape=tuple(magnitude.shape),
                num_outputs=num_outputs,
            )
        )
    return magnitude.reshape(num_outputs)


def _size(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
