"""Encoded pictures and their attributes, kept in a folder: what the U-Net is trained on."""

# Upper-case endings of names are shapes: N pictures, B of them in a batch, C channels, H × W.

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attributes import ShoeAttributes
from picture_set import load_attributes, save_attributes
from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LatentSet:
    """The latents of N pictures and of their N mirror images."""

    latents_NCHW: Tensor
    """(2N, 4, H/8, W/8), not scaled: first the N pictures, then their mirror images in the same order."""
    attributes: list[ShoeAttributes]
    """N entries: mirroring changes nothing that a caption says."""


def save_latent_set(folder: Path, *, latents_NCHW: Tensor, attributes: Sequence[ShoeAttributes]) -> None:
    """Write the latents and attributes of a `LatentSet`."""
    assert len(latents_NCHW) == 2 * len(attributes)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"latents": latents_NCHW.contiguous()}, folder / "latents.safetensors")
    save_attributes(folder / "attributes.json", attributes)


def load_latent_set(folder: Path) -> LatentSet:
    """Read what `save_latent_set` wrote."""
    return LatentSet(
        latents_NCHW=load_file(folder / "latents.safetensors")["latents"],
        attributes=load_attributes(folder / "attributes.json"),
    )
