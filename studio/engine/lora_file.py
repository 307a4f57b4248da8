"""LoRA weights in memory, and reading a file against the loaded model.

A LoRA's weights as they are in memory: what training makes, what files hold, what is merged.

Reading a LoRA file against the loaded model: every tensor is accounted for before anything is attached.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from studio.core.errors import LoraError
from studio.engine.models import Components
from studio.loras.keys import LoraKey, Part, Role, ScaleRule, layer_name, read_key, scale_rules
from studio.loras.library import check_kind
from studio.loras.weights_file import WeightsHeader, read_header, sha256_of


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """One layer's update: up @ down · alpha / rank, and with DoRA the length of each output's weights.

    Attributes:
        down: (rank, in, …) as the layer's weight has it: (rank, in) or (rank, in, height, width).
        up: (out, rank) or (out, rank, 1, 1).
        alpha: of this file's rule alpha / rank. rsLoRA's alpha / sqrt(rank) is alpha · sqrt(rank) here.
        magnitude: (out,) for DoRA (arXiv 2402.09353), else None.
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    magnitude: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


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


@dataclass(frozen=True, eq=False)
class Lora:
    """A file that fits the model, read whole: for each layer's module path its weights, in the model's precision."""

    name: str
    path: Path
    sha256: str
    unet: Mapping[str, LayerWeights]
    text_encoder: Mapping[str, LayerWeights]
    notes: tuple[str, ...] = ()

    @property
    def num_parameters(self) -> int:
        layers = [*self.unet.values(), *self.text_encoder.values()]
        return sum(tensor.numel() for layer in layers for tensor in _tensors(layer))


def read_lora(name: str, path: Path, components: Components) -> Lora:
    """Read a LoRA, check all of it, and bring it to the model's device and precision; the model is not touched.

    Raises:
        LoraError: where it is of another kind, is not complete, does not fit the model, or is not finite.
        WeightsFileError: where the file is damaged or no safetensors file.
    """
    weights = read_weights(name, path, components)
    found: dict[Part, dict[str, LayerWeights]] = {"unet": {}, "text_encoder": {}}
    modules = _modules(components)
    for part, module_path, layer in weights.layers():
        _, module = modules[part][layer_name(module_path)]
        found[part][module_path] = _like(layer, module.weight)
    notes = _notes(name, weights, num_unet_layers=len(modules["unet"]))
    return Lora(name, path, sha256_of(path), found["unet"], found["text_encoder"], notes)


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
    layers, rules, modules = _group(name, header), scale_rules(header), _modules(components)
    _assert_known(name, layers, modules)
    found: dict[Part, dict[str, LayerWeights]] = {"unet": {}, "text_encoder": {}}
    try:
        with safe_open(path, framework="pt") as file:
            for (part, layer), names in sorted(layers.items()):
                module_path, module = modules[part][layer]
                stored = {role: file.get_tensor(tensor) for role, tensor in names.items()}
                _assert_sound(name, module_path, stored)
                found[part][module_path] = _layer(name, module_path, module, stored, rules[part])
    except (SafetensorError, RuntimeError, OSError) as error:
        raise LoraError(f"{path.name} cannot be read: {error}. Copy or download it again.") from error
    return LoraWeights(found["unet"], found["text_encoder"])


Layers = dict[tuple[Part, str], dict[Role, str]]
Layer = nn.Linear | nn.Conv2d
Adaptable = Mapping[str, tuple[str, Layer]]
Stored = Mapping[Role, torch.Tensor]


def _modules(components: Components) -> dict[Part, Adaptable]:
    """Layers that a LoRA can change, by their name in all dialects."""
    parts: dict[Part, nn.Module] = {"unet": components.unet, "text_encoder": components.text_encoder}
    return {
        part: {
            layer_name(path): (path, module)
            for path, module in whole.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
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
    for (_, layer), names in layers.items():
        missing = {"down", "up"} - set(names)
        if missing:
            raise LoraError(
                f"{name} is not complete: the layer {layer} has no {' and no '.join(sorted(missing))} "
                "weight. None of it is used; copy or download it again."
            )
    return layers


def _put(name: str, layers: Layers, key: LoraKey, tensor: str) -> None:
    names = layers.setdefault((key.part, key.layer), {})
    if key.role in names:
        raise LoraError(f"{name} is ambiguous: {names[key.role]} and {tensor} are the same weight of the same layer.")
    names[key.role] = tensor


def _assert_known(name: str, layers: Layers, modules: Mapping[Part, Adaptable]) -> None:
    unknown = [layer for part, layer in layers if layer not in modules[part]]
    if unknown:
        raise LoraError(
            f"{name} does not fit this model: {len(unknown)} of its {len(layers)} layers are not in it "
            f"({unknown[0]}, …). It was made for a model of another size or kind."
        )


def _assert_sound(name: str, layer: str, stored: Stored) -> None:
    """Numbers that are numbers: floating point, and finite."""
    for role, tensor in stored.items():
        if role == "alpha":
            if tensor.numel() != 1 or not bool(torch.isfinite(tensor).all()):
                raise LoraError(f"{name} is broken: the alpha of {layer} is {tensor.tolist()}.")
            continue
        if tensor.dtype not in FLOATS:
            raise LoraError(f"{name} cannot be used: {layer} is stored as {tensor.dtype}, where floats belong.")
        if not bool(torch.isfinite(tensor).all()):
            raise LoraError(f"{name} is broken: {layer} holds NaN or infinite values. Its training went wrong.")


def _layer(name: str, path: str, module: Layer, stored: Stored, rule: ScaleRule) -> LayerWeights:
    """One layer's tensors, in the shapes that the module needs."""
    down, up = _fitted(name, path, module, stored["down"].float(), stored["up"].float())
    alpha = float(stored["alpha"]) if "alpha" in stored else None
    magnitude = _magnitude(name, path, module, stored["magnitude"].float()) if "magnitude" in stored else None
    return LayerWeights(down, up, rule.effective_alpha(layer_name(path), down.shape[0], alpha), magnitude)


def _fitted(
    name: str, path: str, module: Layer, down: torch.Tensor, up: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sides in the shapes that the module needs. 1 × 1 convolutions are stored as matrices by some programs."""
    rank = down.shape[0] if down.ndim else 0
    wanted_down = (rank, *module.weight.shape[1:])
    wanted_up = (module.weight.shape[0], rank, *(1 for _ in module.weight.shape[2:]))
    same_rank = up.ndim > 1 and up.shape[1] == rank
    if not same_rank or down.numel() != _size(wanted_down) or up.numel() != _size(wanted_up) or rank == 0:
        raise LoraError(
            f"{name} does not fit this model: {path} is {tuple(up.shape)} · {tuple(down.shape)}, where "
            f"{tuple(module.weight.shape)} belongs. It was made for a model of another size."
        )
    return down.reshape(wanted_down), up.reshape(wanted_up)


def _magnitude(name: str, path: str, module: Layer, magnitude: torch.Tensor) -> torch.Tensor:
    """DoRA's lengths as (out,): kohya's files have (out, 1, …), peft's (out,) or, of a convolution, (1, out, 1, 1)."""
    num_outputs = module.weight.shape[0]
    if magnitude.numel() != num_outputs:
        raise LoraError(
            f"{name} does not fit this model: the magnitude of {path} has the shape {tuple(magnitude.shape)}, where "
            f"one number for each of {num_outputs} outputs belongs. It was made for a model of another size."
        )
    return magnitude.reshape(num_outputs)


def _size(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _tensors(layer: LayerWeights) -> tuple[torch.Tensor, ...]:
    return (layer.down, layer.up) if layer.magnitude is None else (layer.down, layer.up, layer.magnitude)


def _like(layer: LayerWeights, weight: torch.Tensor) -> LayerWeights:
    """On the device and in the precision of the weight that it changes."""
    down, up, *magnitude = (tensor.to(weight.device, weight.dtype) for tensor in _tensors(layer))
    return LayerWeights(down, up, layer.alpha, magnitude[0] if magnitude else None)


def _notes(name: str, weights: LoraWeights, *, num_unet_layers: int) -> tuple[str, ...]:
    """How much of the model it changes, and whether it can change anything at all."""
    num_unet, num_text = len(weights.unet), len(weights.text_encoder)
    share = 100 * num_unet / num_unet_layers
    words = f"{name} changes {num_unet} of the U-Net's {num_unet_layers} layers ({share:.0f} %)"
    words += f" and {num_text} of the text encoder's." if num_text else "; the text encoder stays as it is."
    if not any(_acts(layer) for _, _, layer in weights.layers()):
        return (words, f"{name} changes nothing: its weights are all zero, as before the first training step.")
    return (words,)


def _acts(layer: LayerWeights) -> bool:
    """A magnitude alone can change a layer."""
    if layer.magnitude is not None:
        return True
    return bool(layer.up.any()) and bool(layer.down.any()) and layer.scale != 0
