"""LoRA files going out: kohya's names for A1111, Forge and ComfyUI, peft's for diffusers, each with its true alpha."""

import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save
from torch import Tensor

from studio.core.errors import LoraError
from studio.core.files import write_atomically
from studio.core.language import _
from studio.engine.lora_file import LayerWeights, LoraWeights, read_weights
from studio.loras.keys import Part, layer_name

__all__ = ["kohya_state", "largest_difference", "peft_state", "read_weights", "write_kohya", "write_peft"]

T = TypeVar("T", bound=Hashable)
_KOHYA_PREFIXES: Mapping[Part, str] = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
_PEFT_PREFIXES: Mapping[Part, str] = {"unet": "unet.", "text_encoder": "text_encoder.text_model."}


def kohya_state(weights: LoraWeights, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """The tensors under the names that kohya, A1111, Forge and ComfyUI read.

    The text encoder's always have `text_model`, whatever the module at hand calls them. `alpha` is 0-d and float32,
    so that it is exact in every `dtype`. DoRA's `dora_scale` is (out, 1) or (out, 1, 1, 1): one length an output.
    """
    state: dict[str, Tensor] = {}
    _assert_loras(weights)
    for part, path, layer in weights.layers():
        name = _KOHYA_PREFIXES[part] + layer_name(path)
        state[f"{name}.lora_down.weight"] = _stored(layer.down, dtype)
        state[f"{name}.lora_up.weight"] = _stored(layer.up, dtype)
        state[f"{name}.alpha"] = torch.tensor(layer.alpha, dtype=torch.float32)
        if layer.magnitude is not None:
            ones = (1,) * (layer.down.ndim - 1)
            state[f"{name}.dora_scale"] = _stored(layer.magnitude.reshape(-1, *ones), dtype)
    return state


def peft_state(weights: LoraWeights, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """The tensors under the names that `load_lora_weights` of diffusers reads; they hold no alpha.

    DoRA's magnitude is (out,), of convolutions (1, out, 1, 1), as peft's layers have it. The up side is scaled by
    alpha / rank, so that a reader that takes alpha to be the rank, as diffusers 0.31 does, is right too.
    """
    state: dict[str, Tensor] = {}
    _assert_loras(weights)
    for part, path, given in weights.layers():
        layer = at_alpha_of_rank(given)
        name = _PEFT_PREFIXES[part] + path.removeprefix("text_model.")
        state[f"{name}.lora_A.weight"] = _stored(layer.down, dtype)
        state[f"{name}.lora_B.weight"] = _stored(layer.up, dtype)
        if layer.magnitude is not None:
            shape = (1, -1, 1, 1) if layer.down.ndim == 4 else (-1,)
            state[f"{name}.lora_magnitude_vector.weight"] = _stored(layer.magnitude.reshape(shape), dtype)
    return state


def at_alpha_of_rank(layer: LayerWeights) -> LayerWeights:
    """The same update with alpha = rank: its strength is in the up side."""
    return layer if layer.scale == 1 else replace(layer, up=layer.up * layer.scale, alpha=float(layer.rank))


def _assert_loras(weights: LoraWeights) -> None:
    for part, path, layer in weights.layers():
        if (
            layer.factor is not None
            or layer.bias is not None
            or layer.down.ndim < 2
            or layer.up.ndim != layer.down.ndim
        ):
            raise LoraError(
                _(
                    "It cannot be a LoRA file: {part} {path} has a changed bias, norm or (IA)³ factor, "
                    "for which such files have no place. Write a model with it instead: --to merged or "
                    "--to checkpoint.",
                    part=part,
                    path=path,
                )
            )


def write_kohya(
    path: Path, weights: LoraWeights, metadata: Mapping[str, str], *, dtype: torch.dtype = torch.float16
) -> None:
    """Write a file in kohya's dialect, whole or not at all.

    Args:
        metadata: goes into the header as it is; the two checksums that programs compare are added.

    Raises:
        LoraError: where a weight does not fit into `dtype`.
        OSError: where it cannot be written.
    """
    state = kohya_state(weights, dtype)
    _assert_finite(path, state, dtype)
    digest = weights_hash(state)
    checksums = {"sshs_model_hash": digest, "modelspec.hash_sha256": f"0x{digest}"}
    write_atomically(path, save(state, metadata={**metadata, **checksums}))


def write_peft(
    path: Path, weights: LoraWeights, metadata: Mapping[str, str], *, dtype: torch.dtype = torch.float16
) -> None:
    """Write a file in diffusers' dialect, whole or not at all; rank and alpha are in its header.

    Args:
        metadata: goes into the header beside `lora_adapter_metadata`.

    Raises:
        LoraError: where a weight does not fit into `dtype`, or only some layers of a part have a magnitude (DoRA).
        OSError: where it cannot be written.
    """
    state = peft_state(weights, dtype)
    _assert_finite(path, state, dtype)
    unet, text_encoder = _adapter_entries(path, "unet", weights), _adapter_entries(path, "text_encoder", weights)
    entries = {**unet, **text_encoder}
    adapter = json.dumps(entries, indent=2, sort_keys=True)
    write_atomically(path, save(state, metadata={"format": "pt", **metadata, "lora_adapter_metadata": adapter}))


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of what follows the header of a file that holds these tensors: kohya's `sshs_model_hash`."""
    content = save(dict(state))
    header_bytes = int.from_bytes(content[:8], "little")
    return hashlib.sha256(memoryview(content)[8 + header_bytes :]).hexdigest()


def largest_difference(a: LoraWeights, b: LoraWeights) -> float:
    """How far apart two LoRAs are: the largest difference of any number of their updates, by the largest update of `a`.

    DoRA's magnitudes are compared in the same way, with the largest magnitude.

    Raises:
        LoraError: where a layer, or a layer's magnitude, is only in one of them.
    """
    ours, theirs = _by_layer(a), _by_layer(b)
    if ours.keys() != theirs.keys():
        alone = sorted(f"{part} {layer}" for part, layer in ours.keys() ^ theirs.keys())
        names = ", ".join(alone[:3])
        if len(alone) > 3:
            names = _("{names} and {num_more} more", names=names, num_more=len(alone) - 3)
        raise LoraError(
            _(
                "The two LoRAs do not change the same layers: only one of them has {names}. Convert the file again.",
                names=names,
            )
        )
    updates, magnitudes = _Largest(), _Largest()
    for key, mine in ours.items():
        other = theirs[key]
        updates.compare(_change(mine), _change(other))
        if (mine.magnitude is None) != (other.magnitude is None):
            raise LoraError(_("Only one of the two LoRAs has a magnitude (DoRA) for {layer}.", layer=" ".join(key)))
        if mine.magnitude is not None and other.magnitude is not None:
            magnitudes.compare(mine.magnitude, other.magnitude)
    return max(updates.relative, magnitudes.relative)


class _Largest:
    """The largest difference that was seen, and the largest number that it is measured by."""

    def __init__(self) -> None:
        self._difference = self._size = 0.0

    def compare(self, mine: Tensor, other: Tensor) -> None:
        self._difference = max(self._difference, float((mine - other).abs().max()))
        self._size = max(self._size, float(mine.abs().max()))

    @property
    def relative(self) -> float:
        if self._difference == 0:
            return 0.0
        return self._difference / self._size if self._size else float("inf")


def _by_layer(weights: LoraWeights) -> dict[tuple[Part, str], LayerWeights]:
    return {(part, layer_name(path)): layer for part, path, layer in weights.layers()}


def _change(layer: LayerWeights) -> Tensor:
    """(out, in · window): the update of the weight."""
    change: Tensor = layer.scale * (layer.up.flatten(1).float() @ layer.down.flatten(1).float())
    return change


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", dtype).contiguous()


def _assert_finite(path: Path, state: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            if dtype == torch.float16:
                problem = _(
                    "{file} was not written: {weight} holds NaN or infinite values in float16, whose largest number "
                    "is 65504. Choose float32.",
                    file=path.name,
                    weight=name,
                )
            else:
                problem = _(
                    "{file} was not written: {weight} holds NaN or infinite values.", file=path.name, weight=name
                )
            raise LoraError(problem)


def _adapter_entries(file: Path, part: Part, weights: LoraWeights) -> dict[str, object]:
    """What diffusers gives to peft's LoraConfig: the commonest rank and alpha, and the layers that have others.

    Paths are without `text_model`: peft compares the ends of paths, so they fit modules with it and without.
    """
    layers = weights.unet if part == "unet" else weights.text_encoder
    if not layers:
        return {}
    named = {path.removeprefix("text_model."): at_alpha_of_rank(layer) for path, layer in layers.items()}
    plain = [path for path, layer in named.items() if layer.magnitude is None]
    if plain and len(plain) < len(named):  # peft has one use_dora for all, and would make up the magnitudes
        raise LoraError(
            _(
                "{file} was not written: diffusers' files have a magnitude (DoRA) in all layers of "
                "the {part} or in none, and {num_plain} of {num_named} have none ({layer}, …). "
                "Export it for kohya instead.",
                file=file.name,
                part=part,
                num_plain=len(plain),
                num_named=len(named),
                layer=plain[0],
            )
        )
    ranks = {path: layer.rank for path, layer in named.items()}
    alphas = {path: layer.alpha for path, layer in named.items()}
    rank, alpha = _commonest(ranks.values()), _commonest(alphas.values())
    entries: dict[str, object] = {
        "r": rank,
        "lora_alpha": _plain(alpha),
        "rank_pattern": {path: value for path, value in ranks.items() if value != rank},
        "alpha_pattern": {path: _plain(value) for path, value in alphas.items() if value != alpha},
        "target_modules": sorted(named),
        "use_dora": not plain,
        "peft_type": "LORA",
    }
    return {f"{part}.{key}": value for key, value in entries.items()}


def _commonest(values: Iterable[T]) -> T:
    return Counter(values).most_common(1)[0][0]


def _plain(alpha: float) -> float | int:
    """peft's own files have whole numbers here."""
    return int(alpha) if alpha.is_integer() else alpha
