"""Reading a LoRA file against the loaded model: every tensor is accounted for before anything is attached."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from studio.engine.models import Components
from studio.errors import LoraError
from studio.loras.keys import LoraKey, Part, Role, layer_name, read_key, scale_rules
from studio.loras.library import check_kind
from studio.weights_file import WeightsHeader, read_header, sha256_of

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class LoraPair:
    """One layer's update: up @ down · scale. down is (rank, in, …), up is (out, rank, …)."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True, eq=False)
class Lora:
    """A file that fits the model, read whole: for each layer's module path its pair, in the model's precision."""

    name: str
    path: Path
    sha256: str
    unet: Mapping[str, LoraPair]
    text_encoder: Mapping[str, LoraPair]
    notes: tuple[str, ...] = ()

    @property
    def num_parameters(self) -> int:
        pairs = [*self.unet.values(), *self.text_encoder.values()]
        return sum(pair.down.numel() + pair.up.numel() for pair in pairs)


def read_lora(name: str, path: Path, components: Components) -> Lora:
    """Read a LoRA and check all of it; the model is not touched.

    Raises:
        LoraError: where it is of another kind, is not complete, does not fit the model, or is not finite.
        WeightsFileError: where the file is damaged or no safetensors file.
    """
    header = read_header(path)
    check_kind(header)
    layers = _group(header)
    rules = scale_rules(header)
    found: dict[Part, dict[str, LoraPair]] = {"unet": {}, "text_encoder": {}}
    modules = {part: _adaptable(module) for part, module in _parts(components).items()}
    _assert_known(path.name, layers, modules)
    try:
        with safe_open(path, framework="pt") as file:
            for (part, layer), names in sorted(layers.items()):
                module_path, module = modules[part][layer]
                down, up = file.get_tensor(names["down"]), file.get_tensor(names["up"])
                alpha = float(file.get_tensor(names["alpha"])) if "alpha" in names else None
                _assert_sound(path.name, module_path, down=down, up=up, alpha=alpha)
                down, up = _fitted(path.name, module_path, module, down, up)
                weight = module.weight
                found[part][module_path] = LoraPair(
                    down.to(weight.device, weight.dtype),
                    up.to(weight.device, weight.dtype),
                    rules[part].scale(layer, down.shape[0], alpha),
                )
    except (SafetensorError, RuntimeError, OSError) as error:
        raise LoraError(f"{path.name} cannot be read: {error}. Copy or download it again.") from error
    return Lora(name, path, sha256_of(path), found["unet"], found["text_encoder"], _notes(name, found, modules))


Layers = dict[tuple[Part, str], dict[Role, str]]
Adaptable = Mapping[str, tuple[str, nn.Linear | nn.Conv2d]]


def _parts(components: Components) -> dict[Part, nn.Module]:
    return {"unet": components.unet, "text_encoder": components.text_encoder}


def _adaptable(part: nn.Module) -> Adaptable:
    """Layers that a LoRA can change, by their name in all dialects."""
    return {
        layer_name(path): (path, module)
        for path, module in part.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def _group(header: WeightsHeader) -> Layers:
    """The names of each layer's tensors.

    Raises:
        LoraError: where one side of a pair is missing, or two tensors mean the same.
    """
    layers: Layers = {}
    for name in header.tensors:
        key = read_key(name)
        assert key is not None, "check_kind lets only known names through"
        _put(header.path.name, layers, key, name)
    for (_, layer), names in layers.items():
        missing = {"down", "up"} - set(names)
        if missing:
            raise LoraError(
                f"{header.path.name} is not complete: the layer {layer} has no {' and no '.join(sorted(missing))} "
                "weight. Nothing of it is used; copy or download it again."
            )
    return layers


def _put(file: str, layers: Layers, key: LoraKey, name: str) -> None:
    names = layers.setdefault((key.part, key.layer), {})
    if key.role in names:
        raise LoraError(f"{file} is ambiguous: {names[key.role]} and {name} are the same weight of the same layer.")
    names[key.role] = name


def _assert_known(file: str, layers: Layers, modules: Mapping[Part, Adaptable]) -> None:
    unknown = [layer for part, layer in layers if layer not in modules[part]]
    if unknown:
        raise LoraError(
            f"{file} does not fit this model: {len(unknown)} of its {len(layers)} layers are not in it "
            f"({unknown[0]}, …). It was made for a model of another size or kind."
        )


def _assert_sound(file: str, layer: str, *, down: torch.Tensor, up: torch.Tensor, alpha: float | None) -> None:
    """Numbers that are numbers: floating point, and finite."""
    for side in (down, up):
        if side.dtype not in FLOATS:
            raise LoraError(f"{file} cannot be used: {layer} is stored as {side.dtype}, where floats belong.")
        if not bool(torch.isfinite(side).all()):
            raise LoraError(f"{file} is broken: {layer} holds NaN or infinite values. Its training went wrong.")
    if alpha is not None and not torch.isfinite(torch.tensor(alpha)):
        raise LoraError(f"{file} is broken: the alpha of {layer} is {alpha}.")


def _fitted(
    file: str, path: str, module: nn.Linear | nn.Conv2d, down: torch.Tensor, up: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sides in the shapes that the module needs. 1 × 1 convolutions are stored as matrices by some programs."""
    rank = down.shape[0] if down.ndim else 0
    wanted_down = (rank, *module.weight.shape[1:])
    wanted_up = (module.weight.shape[0], rank, *(1 for _ in module.weight.shape[2:]))
    same_rank = up.ndim > 1 and up.shape[1] == rank
    if not same_rank or down.numel() != _size(wanted_down) or up.numel() != _size(wanted_up) or rank == 0:
        raise LoraError(
            f"{file} does not fit this model: {path} is {tuple(up.shape)} · {tuple(down.shape)}, where "
            f"{tuple(module.weight.shape)} belongs. It was made for a model of another size."
        )
    return down.reshape(wanted_down), up.reshape(wanted_up)


def _size(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _notes(
    name: str, found: Mapping[Part, Mapping[str, LoraPair]], modules: Mapping[Part, Adaptable]
) -> tuple[str, ...]:
    """How much of the model it changes, and whether it can change anything at all."""
    unet, text = found["unet"], found["text_encoder"]
    share = 100 * len(unet) / len(modules["unet"])
    words = f"{name} changes {len(unet)} of the U-Net's {len(modules['unet'])} layers ({share:.0f} %)"
    words += f" and {len(text)} of the text encoder's." if text else "; the text encoder stays as it is."
    pairs = [*unet.values(), *text.values()]
    if all(not bool(pair.up.any()) or not bool(pair.down.any()) or pair.scale == 0 for pair in pairs):
        return (words, f"{name} changes nothing: its weights are all zero, as before the first training step.")
    return (words,)
