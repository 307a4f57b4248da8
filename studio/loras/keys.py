"""The names of tensors in LoRA files: the dialects of kohya, diffusers and peft, and what is none of them.

All dialects are brought to one name for a layer: its path in diffusers' modules with `_` for `.`, without the
`text_model` that only some versions of CLIP's module have. Names of the original layout (LDM) are those of Stable
Diffusion 1's U-Net.
"""

import json
import math
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from studio.core.language import N_, _
from studio.loras.files import adapter_config_text, config_beside, unusable_strength
from studio.loras.weights_file import ADAPTER_CONFIG, TensorInfo, WeightsHeader

Part = Literal["unet", "text_encoder"]
# From `hada_w1_a` on they are LyCORIS' own names.
# fmt: off
Role = Literal[
    "down", "up", "mid", "alpha", "magnitude", "ia3",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
    "diff", "diff_b", "w_norm", "b_norm", "on_input",
]
# fmt: on
LYCORIS_ROLES: tuple[Role, ...] = get_args(Role)[6:]


@dataclass(frozen=True)
class LoraKey:
    """What one tensor is: which side of which layer of which part."""

    part: Part
    layer: str
    role: Role


# kohya and LyCORIS: lora_unet_<path with _>.lora_down.weight; LyCORIS' own wrapper begins with lycoris_
_KOHYA = re.compile(
    r"(?:lora_(unet|te1?)|lycoris)_(.+?)\.(lora_(?:down|up|mid)\.weight|alpha|dora_scale|weight|"
    + "|".join(LYCORIS_ROLES)
    + ")"
)
_KOHYA_PARTS: dict[str, Part] = {"unet": "unet", "te": "text_encoder", "te1": "text_encoder"}
# diffusers and peft: unet.<path>.lora_A.weight; without `unet.` where the U-Net's own layers were saved alone.
# diffusion_model: ComfyUI's, before original names
_DOTTED = re.compile(
    r"(?!lora_|lycoris_)(?:base_model\.model\.)?(?:(unet|text_encoder|diffusion_model)\.)?(?:base_model\.model\.)?(.+?)\."
    r"(lora_A(?:\.[^.]+)?\.weight|lora_B(?:\.[^.]+)?\.weight|lora\.down\.weight|lora\.up\.weight"
    r"|lora_(?:linear_layer\.)?(?:down|up)\.weight|lora_linear_layer\.down\.weight|alpha"
    r"|lora_magnitude_vector(?:\.[^.]+)?(?:\.weight)?)"
)
# diffusers before peft: unet.<path>.attn1.processor.to_q_lora.down.weight
_PROCESSOR = re.compile(r"(?:unet\.)?(.+)\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight")

# Other kinds of files, by a piece of a tensor's name that only they have.
_SDXL = N_("a LoRA for Stable Diffusion XL")
_FOREIGN: tuple[tuple[str, str], ...] = (
    ("oft_", N_("an OFT adapter")),
    ("ia3_l", N_("an (IA)³ of peft")),
    (".a1.weight", N_("a GLoRA (LyCORIS)")),
    ("lora_te2_", _SDXL),
    ("text_encoder_2.", _SDXL),
    ("lora_transformer_", N_("a LoRA for another kind of model (a diffusion transformer)")),
    ("transformer.transformer_blocks.", N_("a LoRA for another kind of model (a diffusion transformer)")),
    ("double_blocks", N_("a LoRA for Flux")),
    ("single_transformer_blocks", N_("a LoRA for Flux")),
    ("joint_blocks", N_("a LoRA for Stable Diffusion 3")),
    ("model.diffusion_model.", N_("a whole model, not a LoRA")),
    ("first_stage_model.", N_("a whole model, not a LoRA")),
    ("emb_params", N_("a textual inversion embedding")),
    ("control_model.", N_("a ControlNet")),
)
# The width of the text that the U-Net's cross-attention reads tells which Stable Diffusion it is.
_TEXT_WIDTHS = {2048: _SDXL, 1024: N_("a LoRA for Stable Diffusion 2")}
_SD1_TEXT_WIDTH = 768
_CROSS_ATTENTION = re.compile(
    r"attn2[._](?:processor\.)?to_[kv](?:[._](?:lora_down|lora_A|lora\.down)|\.hada_w1_b|\.diff$)"
)
# Original names: Stable Diffusion 1 has attention in blocks, and blocks, that XL has not.
_ORIGINAL = re.compile(r"(?:input|output)_blocks[._]\d|middle_block[._]\d")
_SD1_BLOCK = re.compile(r"input_blocks[._](?:[12][._]1|9|10|11)[._]|output_blocks[._](?:9|10|11|[678][._]1)[._]")
# Where there are as many inputs as outputs, only the place of the 1 tells (1, in) from (out, 1).
_DORA_OF_INPUTS = N_("a DoRA with one magnitude for each input (LyCORIS without wd_on_output), not for each output")


def read_key(name: str) -> LoraKey | None:
    """The meaning of a tensor's name; None where it is of no known dialect."""
    if match := _KOHYA.fullmatch(name):
        prefix, path, role = match.groups()
        return _key(_KOHYA_PARTS[prefix] if prefix else None, path, "ia3" if role == "weight" else _role(role))
    if match := _PROCESSOR.fullmatch(name):
        path, projection, role = match.groups()
        return _key("unet", f"{path}.{'to_out.0' if projection == 'to_out' else projection}", _role(role))
    if match := _DOTTED.fullmatch(name):
        prefix, path, role = match.groups()
        part: Part | None = "text_encoder" if prefix == "text_encoder" else "unet" if prefix else None
        return _key(part, path, _role(role))
    return None


def _key(part: Part | None, path: str, role: Role) -> LoraKey:
    """Where a name has no part, its path tells: CLIP's layers are all below `encoder`."""
    layer = layer_name(path)
    part = part or ("text_encoder" if layer.startswith("encoder_layers_") else "unet")
    return LoraKey(part, _from_original(layer) if part == "unet" else layer, role)


def layer_name(path: str) -> str:
    """`text_model.encoder.layers.0.mlp.fc1` -> `encoder_layers_0_mlp_fc1`."""
    return path.replace(".", "_").removeprefix("text_model_")


_BLOCK = re.compile(r"(input|middle|output)_blocks?_(\d+)(?:_(\d+))?_(.+)")
_RESNET = {
    "in_layers_0": "norm1",
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_0": "norm2",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ENDS = {
    "input_blocks_0_0": "conv_in",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "out_0": "conv_norm_out",
    "out_2": "conv_out",
}
_MIDDLE = ("resnets_0", "attentions_0", "resnets_1")
_LAYERS = 2  # of each block of Stable Diffusion 1's U-Net on its way down


def _from_original(layer: str) -> str:
    """`input_blocks_1_1_proj_in` -> `down_blocks_0_attentions_0_proj_in`; other names are diffusers' and stay."""
    if layer in _ENDS:
        return _ENDS[layer]
    match = _BLOCK.fullmatch(layer)
    if match is None:
        return layer
    side, first, second, rest = match.groups()
    rest = _RESNET.get(rest, rest)
    if side == "middle":
        place = _MIDDLE[int(first)] if second is None and int(first) < len(_MIDDLE) else None
        return f"mid_block_{place}_{rest}" if place else layer
    number = int(first) - (side == "input")
    block, index = divmod(number, _LAYERS + 1)
    blocks = f"{'down' if side == 'input' else 'up'}_blocks_{block}"
    if rest == "op":
        return f"{blocks}_downsamplers_0_conv"
    if rest == "conv":
        return f"{blocks}_upsamplers_0_conv"
    return f"{blocks}_{'attentions' if second == '1' else 'resnets'}_{index}_{rest}"


def _role(words: str) -> Role:
    if words in LYCORIS_ROLES or words == "alpha":
        return cast(Role, words)
    if words.startswith(("dora_scale", "lora_magnitude_vector")):
        return "magnitude"
    if words.startswith(("lora_A", "lora_B")):  # first: an adapter may have any name, `down` too
        return "down" if words.startswith("lora_A") else "up"
    return "mid" if "mid" in words else "down" if "down" in words else "up"


def foreign_kind(tensors: Mapping[str, TensorInfo]) -> str:
    """What a file is that the studio cannot attach, in words; empty where it looks like a LoRA for SD 1.x."""
    widths = set[int]()
    for name, info in tensors.items():
        for piece, kind in _FOREIGN:
            if piece in name:
                return _(kind)
        if name.startswith("base_model.") and (".hada_w" in name or ".lokr_w" in name):
            return _("a LoHa or LoKr of peft")
        if name.endswith(".dora_scale") and len(info.shape) > 1 and info.shape[0] == 1:
            return _(_DORA_OF_INPUTS)
        width = info.shape[1] if len(info.shape) > 1 else 0
        if _CROSS_ATTENTION.search(name):
            if width in _TEXT_WIDTHS:
                return _(_TEXT_WIDTHS[width])
            widths.add(width)
    if _SD1_TEXT_WIDTH in widths or not any(_ORIGINAL.search(name) for name in tensors):
        return ""
    # Most files with original names are for XL; one without cross-attention is so only where no block says otherwise.
    return "" if any(_SD1_BLOCK.search(name) for name in tensors) else _(_SDXL)


@dataclass(frozen=True)
class ScaleRule:
    """How strong a layer's update is where the file has no alpha tensor for it: peft keeps that in the metadata.

    `layer_alphas` has those that differ from `alpha`.
    """

    alpha: float | None = None
    layer_alphas: Mapping[str, float] = field(default_factory=dict)
    use_rslora: bool = False

    def knows(self, layer: str) -> bool:
        """Whether it says how strong a layer is; else alpha is taken to be the rank."""
        return self.layer_alphas.get(layer, self.alpha) is not None

    def effective_alpha(self, layer: str, rank: int, alpha: float | None) -> float:
        """The alpha that makes alpha / rank right: with rsLoRA (arXiv 2312.03732) the file means alpha / sqrt(rank).

        Where no alpha is known it is the rank, and the scale so 1.
        """
        chosen = alpha if alpha is not None else self.layer_alphas.get(layer, self.alpha)
        if chosen is None:
            return float(rank)
        return chosen * math.sqrt(rank) if self.use_rslora else chosen


def scale_rules(header: WeightsHeader) -> dict[Part, ScaleRule]:
    """The rule of each part, from the JSON that diffusers writes into the file's metadata, or peft beside the file.

    Raises:
        LoraError: where that JSON is damaged: without it the LoRA would act at a wrong strength.
    """
    text = header.metadata.get("lora_adapter_metadata")
    config = config_beside(header) if text is None else None
    if config is not None:
        text = adapter_config_text(config, header)
    try:
        entries = json.loads("{}" if text is None else text)
    except (ValueError, RecursionError) as error:
        raise unusable_strength(header, config, _("is not JSON")) from error
    if not isinstance(entries, dict):
        raise unusable_strength(header, config, _("is not a JSON object"))
    alone = {key: value for key, value in entries.items() if "." not in key}
    of_unet, of_text_encoder = {**alone, **_below("unet.", entries)}, _below("text_encoder.", entries)
    try:
        if config is not None:
            _assert_lora(entries, header)
            of_unet = of_text_encoder = entries
        paths = _paths(header)
        return {
            "unet": _scale_rule(of_unet, paths["unet"]),
            "text_encoder": _scale_rule(of_text_encoder, paths["text_encoder"]),
        }
    except ValueError as error:
        raise unusable_strength(header, config, str(error)) from error


def _assert_lora(entries: Mapping[str, object], header: WeightsHeader) -> None:
    kind = entries.get("peft_type", "LORA")
    if kind != "LORA":
        raise ValueError(_("has peft_type {kind!r}, where the studio reads LORA", kind=kind))
    if entries.get("use_dora") is True and not any("lora_magnitude_vector" in name for name in header.tensors):
        raise ValueError(_("has use_dora, but the weights have no lora_magnitude_vector"))


def strength_notes(header: WeightsHeader) -> tuple[str, ...]:
    """That a strength is assumed, where neither the file nor what lies beside it says one.

    Raises:
        LoraError: as `scale_rules`.
    """
    rules = scale_rules(header)
    keys = [key for name in header.tensors if (key := read_key(name)) is not None]
    scaled = {(key.part, key.layer) for key in keys if key.role in ("down", "hada_w1_b", "lokr_w1_a", "lokr_w2_a")}
    silent = scaled - {(key.part, key.layer) for key in keys if key.role == "alpha"}
    num_silent = sum(not rules[part].knows(layer) for part, layer in silent)
    if not num_silent:
        return ()
    return (
        _(
            "{name} does not say how strong {num_silent} of its {num_scaled} layers are: alpha is taken to be "
            "the rank. If an {config} came with it, put that beside the file and add it again.",
            name=header.path.name,
            num_silent=num_silent,
            num_scaled=len(scaled),
            config=ADAPTER_CONFIG,
        ),
    )


def _below(prefix: str, entries: Mapping[str, object]) -> dict[str, object]:
    return {key.removeprefix(prefix): value for key, value in entries.items() if key.startswith(prefix)}


def _paths(header: WeightsHeader) -> dict[Part, dict[str, str]]:
    """The layers of each part with their paths as the file writes them, which peft's patterns are about."""
    paths: dict[Part, dict[str, str]] = {"unet": {}, "text_encoder": {}}
    for name in header.tensors:
        if (key := read_key(name)) is not None:
            dotted = _DOTTED.fullmatch(name)
            paths[key.part][key.layer] = dotted[2] if dotted else key.layer
    return paths


def _scale_rule(entries: Mapping[str, object], paths: Mapping[str, str]) -> ScaleRule:
    alpha, pattern = entries.get("lora_alpha"), entries.get("alpha_pattern")
    if not isinstance(pattern, dict | None):
        raise ValueError(_("has no table in alpha_pattern"))
    alphas = {str(layer): _finite("alpha_pattern", value) for layer, value in (pattern or {}).items()}
    return ScaleRule(
        alpha=None if alpha is None else _finite("lora_alpha", alpha),
        layer_alphas=_layer_alphas(alphas, paths),
        use_rslora=entries.get("use_rslora") is True,
    )


# What people write. Others could be searched for without end, and a file may come from anyone.
_PATTERN = re.compile(r"\^?(?:\\[.dw]|\[[\w.^-]+\]|[\w.|()-]|(?<!\))[*+?])*\$?")
_MAX_REPEATS, _MAX_CHOICES, _MAX_PATH, _MAX_SECONDS = 3, 6, 96, 1.0


def _layer_alphas(alphas: Mapping[str, float], paths: Mapping[str, str]) -> dict[str, float]:
    """The alpha of each layer that a pattern names: the first that fits its path, or the end of it after a dot.

    So does peft's `get_pattern_key`, for which they are regular expressions.
    """
    found: dict[str, float] = {}
    began = time.thread_time()
    for text, alpha in alphas.items():
        pattern = _compiled(text)
        for layer, path in paths.items():
            if layer not in found and len(path) <= _MAX_PATH and pattern.match(path):
                found[layer] = alpha
            if time.thread_time() - began > _MAX_SECONDS:
                raise ValueError(_("has {text!r} in alpha_pattern, which takes too long to search for", text=text))
    return found


def _compiled(text: str) -> re.Pattern[str]:
    is_simple = sum(map(text.count, "*+?")) <= _MAX_REPEATS and text.count("|") <= _MAX_CHOICES
    if not (is_simple and _PATTERN.fullmatch(text)):
        why = _("has the regular expression {text!r} in alpha_pattern, which is too complicated", text=text)
        raise ValueError(why)
    try:
        return re.compile(rf"(.*\.)?({text})$")
    except re.error as error:
        why = _("has {text!r} in alpha_pattern, which is no regular expression ({error})", text=text, error=error)
        raise ValueError(why) from error


def _finite(name: str, value: object) -> float:
    """Of a whole number too large for a float, too, it is said where it stands."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ValueError(_("has no finite number in {name}", name=name))
    return float(value)
