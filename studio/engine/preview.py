"""A rough picture of unfinished latents, in a fraction of a millisecond: one matrix, fitted to the VAE itself."""

import numpy as np
import torch
from diffusers import AutoencoderKL

PATCHES = 16  # a card of 16 × 16 random colours is enough to fit 5 × 3 numbers


class LatentPreview:
    """A linear map from latents to colours, so that any VAE (not only Stable Diffusion 1.5's) has previews.

    It is fitted by least squares on a card of colours that the VAE encodes once.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        generator = torch.Generator().manual_seed(0)
        scale = 2 ** (len(vae.config.block_out_channels) - 1)
        colours = torch.rand(3, PATCHES, PATCHES, generator=generator) * 2 - 1
        card = colours.repeat_interleave(scale, 1).repeat_interleave(scale, 2)[None]
        with torch.inference_mode():
            latents = vae.encode(card.to(vae.device, vae.dtype)).latent_dist.mean * vae.config.scaling_factor
        features = _with_constant(latents[0].float().cpu())
        self._matrix = torch.linalg.lstsq(features, colours.flatten(1).T).solution

    def picture(self, latents_CHW: torch.Tensor) -> np.ndarray:
        """(4, h, w) latents -> (h, w, 3) uint8, an eighth of the picture's size. Only to be looked at."""
        _, height, width = latents_CHW.shape
        colours = _with_constant(latents_CHW.float().cpu()) @ self._matrix
        levels = ((colours.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        picture: np.ndarray = levels.reshape(height, width, 3).numpy()
        return picture


def _with_constant(latents_CHW: torch.Tensor) -> torch.Tensor:
    """(4, h, w) -> (h · w, 5): each place's latents, and a one."""
    pixels = latents_CHW.flatten(1).T
    return torch.cat([pixels, torch.ones(len(pixels), 1)], dim=1)
