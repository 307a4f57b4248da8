"""Encode the pictures once, so that the U-Net's training never runs the autoencoder.

Pictures on white are left out: the model is to know nothing of white grounds.
"""

# Upper-case endings of names are shapes: N pictures, B of them in a batch, C channels, H × W.

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from architecture import make_autoencoder
from diffusers import AutoencoderKL
from latent_set import save_latent_set
from numpy.typing import NDArray
from picture_set import load_picture_set
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The command line of this script."""

    pictures: Path
    autoencoder: Path
    output: Path
    batch_size: int
    device: str


def parse_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line, or the given arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True, help="folder that make_pictures.py filled")
    parser.add_argument("--autoencoder", type=Path, required=True, help="folder that train_autoencoder.py filled")
    parser.add_argument("--output", type=Path, required=True, help="folder for the latents")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures at a time (default: 64)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    return Settings(**vars(parser.parse_args(arguments)))


@torch.inference_mode()
def encode(autoencoder: AutoencoderKL, pictures_NHWC: NDArray[np.uint8], *, mirrored: bool, batch_size: int) -> Tensor:
    """Return the means (N, 4, H/8, W/8) of the pictures' latent distributions, not scaled, on the CPU."""
    means = []
    for start in range(0, len(pictures_NHWC), batch_size):
        batch = torch.from_numpy(pictures_NHWC[start : start + batch_size]).permute(0, 3, 1, 2).float() / 127.5 - 1
        if mirrored:
            batch = batch.flip(3)
        batch = batch.to(autoencoder.device).contiguous(memory_format=torch.channels_last)
        means.append(autoencoder.encode(batch).latent_dist.mean.cpu())
    return torch.cat(means)


def main(arguments: Sequence[str] | None = None) -> None:
    """Encode every picture that is not on white, and its mirror image."""
    settings = parse_settings(arguments)
    picture_set = load_picture_set(settings.pictures)
    chosen = [index for index, shoe in enumerate(picture_set.attributes) if shoe.ground != "white"]
    pictures_NHWC = picture_set.pictures_NHWC[chosen]
    autoencoder = make_autoencoder(start_from=settings.autoencoder)
    autoencoder.to(settings.device, memory_format=torch.channels_last)
    halves = []
    for mirrored in (False, True):
        halves.append(encode(autoencoder, pictures_NHWC, mirrored=mirrored, batch_size=settings.batch_size))
        print(f"encoded {len(chosen)} pictures{', mirrored' if mirrored else ''}", flush=True)
    attributes = [picture_set.attributes[index] for index in chosen]
    save_latent_set(settings.output, latents_NCHW=torch.cat(halves), attributes=attributes)
    print(f"the latents are in {settings.output}")


if __name__ == "__main__":
    main()
