"""The names of tensors in LoRA files: the dialects of kohya, diffusers and peft, and what is none of them.

All dialects are brought to one name for a layer: its path in diffusers' modules with `_` for `.`, without the
`text_model` that only some versions of CLIP's module have.
"""

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from studio.core.errors import LoraError
from studio.loras.weights_file import TensorInfo, WeightsHeader

Part = Literal["unet", "text_encoder"]
Role = Literal["down", "up", "alpha", "magnitude"]


@dataclass(frozen=True)
class LoraKey:
    """What one tensor is: which side of which layer of which part."""

    part: Part
    layer: str
    role: Role


# kohya: lora_unet_<path with _>.lora_down.weight
_KOHYA = re.compile(r"lora_(unet|te1?)_(.+?)\.(lora_down\.weight|lora_up\.weight|alpha|dora_scale)")
_KOHYA_PARTS: dict[str, Part] = {"unet": "unet", "te": "text_encoder", "te1": "text_encoder"}
# diffusers and peft: unet.<path>.lora_A.weight; without `unet.` where the U-Net's own layers were saved alone
_DOTTED = re.compile(
    r"(?:base_model\.model\.)?(?:(unet|text_encoder)\.)?(?:base_model\.model\.)?(.+?)\."
    r"(lora_A(?:\.[^.]+)?\.weight|lora_B(?:\.[^.]+)?\.weight|lora\.down\.weight|lora\.up\.weight"
    r"|lora_linear_layer\.down\.weight|lora_linear_layer\.up\.weight|alpha"
    r"|lora_magnitude_vector(?:\.[^.]+)?(?:\.weight)?)"
)
# diffusers before peft: unet.<path>.attn1.processor.to_q_lora.down.weight
_PROCESSOR = re.compile(r"(?:unet\.)?(.+)\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight")

# Other kinds of files, by a piece of a tensor's name that only they have.
_FOREIGN: tuple[tuple[str, str], ...] = (
    ("hada_w1", "a LoHa (LyCORIS)"),
    ("lokr_w", "a LoKr (LyCORIS)"),
    ("oft_", "an OFT adapter"),
    (".a1.weight", "a GLoRA (LyCORIS)"),
    ("lora_mid.", "a LoCon with Tucker decomposition (LyCORIS)"),
    ("lora_te2_", "a LoRA for Stable Diffusion XL"),
    ("text_encoder_2.", "a LoRA for Stable Diffusion XL"),
    ("lora_unet_input_blocks_", "a LoRA for Stable Diffusion XL"),
    ("lora_unet_middle_block_", "a LoRA for Stable Diffusion XL"),
    ("lora_unet_output_blocks_", "a LoRA for Stable Diffusion XL"),
    ("lora_transformer_", "a LoRA for another kind of model (a diffusion transformer)"),
    ("transformer.transformer_blocks.", "a LoRA for another kind of model (a diffusion transformer)"),
    ("double_blocks", "a LoRA for Flux"),
    ("single_transformer_blocks", "a LoRA for Flux"),
    ("joint_blocks", "a LoRA for Stable Diffusion 3"),
    ("model.diffusion_model.", "a whole model, not a LoRA"),
    ("first_stage_model.", "a whole model, not a LoRA"),
    ("emb_params", "a textual inversion embedding"),
    ("control_model.", "a ControlNet"),
)
# The width of the text that the U-Net's cross-attention reads tells which Stable Diffusion it is.
_TEXT_WIDTHS = {2048: "a LoRA for Stable Diffusion XL", 1024: "a LoRA for Stable Diffusion 2"}
# Where there are as many inputs as outputs, only the place of the 1 tells (1, in) from (out, 1).
_DORA_OF_INPUTS = "a DoRA with one magnitude for each input (LyCORIS without wd_on_output), not for each output"
_CROSS_ATTENTION = re.compile(r"attn2[._](?:processor\.)?to_[kv][._](?:lora_down|lora_A|lora\.down)")


def read_key(name: str) -> LoraKey | None:
    """The meaning of a tensor's name; None where it is of no known dialect."""
    if match := _KOHYA.fullmatch(name):
        part, layer, role = match.groups()
        return LoraKey(_KOHYA_PARTS[part], layer_name(layer), _role(role))
    if match := _PROCESSOR.fullmatch(name):
        path, projection, role = match.groups()
        return LoraKey(
            "unet", layer_name(f"{path}.{'to_out.0' if projection == 'to_out' else projection}"), _role(role)
        )
    if match := _DOTTED.fullmatch(name):
        prefix, path, role = match.groups()
        return LoraKey("text_encoder" if prefix == "text_encoder" else "unet", layer_name(path), _role(role))
    return None


def layer_name(path: str) -> str:
    """`text_model.encoder.layers.0.mlp.fc1` -> `encoder_layers_0_mlp_fc1`."""
    return path.replace(".", "_").removeprefix("text_model_")


def _role(words: str) -> Role:
    if words == "alpha":
        return "alpha"
    if words.startswith(("dora_scale", "lora_magnitude_vector")):
        return "magnitude"
    if words.startswith(("lora_A", "lora_B")):  # first: an adapter may have any name, `down` too
        return "down" if words.startswith("lora_A") else "up"
    return "down" if "down" in words else "up"


def foreign_kind(tensors: Mapping[str, TensorInfo]) -> str:
    """What a file is that the studio cannot attach, in words; empty where it looks like a LoRA for SD 1.x."""
    for name, info in tensors.items():
        for piece, kind in _FOREIGN:
            if piece in name:
                return kind
        if name.endswith(".dora_scale") and len(info.shape) > 1 and info.shape[0] == 1:
            return _DORA_OF_INPUTS
        width = info.shape[1] if len(info.shape) > 1 else 0
        if width in _TEXT_WIDTHS and _CROSS_ATTENTION.search(name):
            return _TEXT_WIDTHS[width]
    return ""


def unknown_names(names: Iterable[str]) -> tuple[str, ...]:
    """Those that are of no known dialect."""
    return tuple(name for name in names if read_key(name) is None)


@dataclass(frozen=True)
class ScaleRule:
    """How strong a layer's update is where the file has no alpha tensor for it: peft keeps that in the metadata."""

    alpha: float | None = None
    alpha_pattern: Mapping[str, float] | None = None
    use_rslora: bool = False

    def effective_alpha(self, layer: str, rank: int, alpha: float | None) -> float:
        """The alpha that makes alpha / rank right: with rsLoRA (arXiv 2312.03732) the file means alpha / sqrt(rank).

        Where no alpha is known it is the rank, and the scale so 1.
        """
        chosen = alpha if alpha is not None else self._pattern_alpha(layer)
        if chosen is None:
            return float(rank)
        return chosen * math.sqrt(rank) if self.use_rslora else chosen

    def _pattern_alpha(self, layer: str) -> float | None:
        for pattern, alpha in (self.alpha_pattern or {}).items():
            name = layer_name(pattern)
            if layer == name or layer.endswith("_" + name):
                return alpha
        return self.alpha


def scale_rules(header: WeightsHeader) -> dict[Part, ScaleRule]:
    """The rule of each part, from the JSON that diffusers and peft write into the file's metadata.

    Raises:
        LoraError: where that JSON is damaged: without it the LoRA would act at a wrong strength.
    """
    damaged = f"{header.path.name} is damaged: its lora_adapter_metadata"
    try:
        entries = json.loads(header.metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError) as error:
        raise LoraError(f"{damaged} is not JSON.") from error
    if not isinstance(entries, dict):
        raise LoraError(f"{damaged} is not a JSON object.")
    alone = {key: value for key, value in entries.items() if "." not in key}
    try:
        return {
            "unet": _scale_rule({**alone, **_below("unet.", entries)}),
            "text_encoder": _scale_rule(_below("text_encoder.", entries)),
        }
    except ValueError as error:
        raise LoraError(f"{damaged} has {error}.") from error


def _below(prefix: str, entries: Mapping[str, object]) -> dict[str, object]:
    return {key.removeprefix(prefix): value for key, value in entries.items() if key.startswith(prefix)}


def _scale_rule(entries: Mapping[str, object]) -> ScaleRule:
    alpha, pattern = entries.get("lora_alpha"), entries.get("alpha_pattern")
    if not isinstance(pattern, dict | None):
        raise ValueError("no table in alpha_pattern")
    return ScaleRule(
        alpha=None if alpha is None else _finite("lora_alpha", alpha),
        alpha_pattern={str(layer): _finite("alpha_pattern", value) for layer, value in (pattern or {}).items()},
        use_rslora=entries.get("use_rslora") is True,
    )


def _finite(name: str, value: object) -> float:
    """Of a whole number too large for a float, too, it is said where it stands."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"no finite number in {name}")
    return float(value)
