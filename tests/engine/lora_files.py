"""LoRA files of known effect in every dialect, for tests: the same update of the weights under other names."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import nn

from studio.engine.models import Components

Part = Literal["unet", "text_encoder"]
Update = Mapping[tuple[Part, str], tuple[torch.Tensor, torch.Tensor]]  # (part, path) -> (down, up)
RANK, ALPHA = 4, 6.0
UNET_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "conv1", "conv_in")
TEXT_LAYERS = ("q_proj", "v_proj", "out_proj", "fc1", "fc2")


def known_update(components: Components, *, text: bool = True, strength: float = 0.06) -> Update:
    """Random pairs for attention, feed-forward and convolutions of the U-Net, and for the text encoder."""
    generator = torch.Generator().manual_seed(5)
    parts: dict[Part, tuple[nn.Module, tuple[str, ...]]] = {"unet": (components.unet, UNET_LAYERS)}
    if text:
        parts["text_encoder"] = (components.text_encoder, TEXT_LAYERS)
    update = {}
    for part, (module, names) in parts.items():
        for path, layer in module.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d) and path.endswith(names):
                shape = layer.weight.shape
                down = torch.randn((RANK, *shape[1:]), generator=generator) * strength
                up = torch.randn((shape[0], RANK, *(1 for _ in shape[2:])), generator=generator) * strength
                update[part, path] = (down.half().float(), up.half().float())  # as they are after being stored
    return update


def merged(components: Components, update: Update, *, scale: float) -> None:
    """Change the weights themselves: what every dialect must come to."""
    for (part, path), (down, up) in update.items():
        weight = getattr(components, part).get_submodule(path).weight
        change = up.flatten(1) @ down.flatten(1)
        weight.data += scale * change.reshape(weight.shape).to(weight.dtype)


def save_kohya(path: Path, update: Update) -> None:
    """A1111's, ComfyUI's and kohya's names, with alpha tensors; text encoder with its `text_model`."""
    state = {}
    for (part, layer), (down, up) in update.items():
        prefix = "lora_unet_" if part == "unet" else "lora_te_text_model_"
        name = prefix + layer.replace(".", "_")
        state |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(ALPHA)}
    save_half(path, state, {"ss_network_dim": str(RANK), "ss_base_model_version": "sd_v1"})


def _adapter_metadata(**more: object) -> dict[str, str]:
    entries = {f"{part}.{key}": v for part in ("unet", "text_encoder") for key, v in {"r": RANK, **more}.items()}
    return {"lora_adapter_metadata": json.dumps(entries)}


def save_peft(path: Path, update: Update) -> None:
    """diffusers' names of today; alpha is in the header alone."""
    state = {}
    for (part, layer), (down, up) in update.items():
        name = f"unet.{layer}" if part == "unet" else f"text_encoder.text_model.{layer}"
        state |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_half(path, state, _adapter_metadata(lora_alpha=ALPHA))


def save_old_diffusers(path: Path, update: Update) -> None:
    """diffusers' names before peft, with alpha tensors beside them."""
    state = {}
    for (part, layer), (down, up) in update.items():
        name, side = (f"unet.{layer}", "lora") if part == "unet" else (f"text_encoder.{layer}", "lora_linear_layer")
        state |= {f"{name}.{side}.down.weight": down, f"{name}.{side}.up.weight": up}
        state[f"{name}.alpha"] = torch.tensor(ALPHA)
    save_half(path, state, {})


def save_half(path: Path, state: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write a file in float16, as most programs do."""
    save_file({key: value.half().contiguous() for key, value in state.items()}, path, metadata=metadata)


DIALECTS: Mapping[str, Callable[[Path, Update], None]] = {
    "kohya": save_kohya,
    "peft": save_peft,
    "old diffusers": save_old_diffusers,
}
