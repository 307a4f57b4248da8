"""A plain LoRA training as diffusers' example does it: VAE and text encoder in every step, nothing cached.

The peer where no checkout of diffusers' own script is given. `--cached` keeps latents and embeddings: the plainest
loop that does the same work as ours.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from PIL import Image
from torch import Tensor

from studio.training.settings import TARGET_NAMES
from studio.training.torch.adapters import TARGET_MODULES


def read_pictures(folder: Path, resolution: int) -> tuple[Tensor, list[str]]:
    """(N, 3, resolution, resolution) in [-1, 1], and captions."""
    pictures, captions = [], []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            levels = np.asarray(image.convert("RGB").resize((resolution, resolution)), dtype=np.float32)
        pictures.append(torch.from_numpy(levels / 127.5 - 1).permute(2, 0, 1))
        captions.append(path.with_suffix(".txt").read_text(encoding="utf-8"))
    return torch.stack(pictures), captions


class Encoded:
    """Pictures and captions as the U-Net sees them, encoded in every step or once."""

    def __init__(self, pipe: StableDiffusionPipeline, folder: Path, resolution: int, *, cached: bool) -> None:
        self._pipe = pipe
        self._pixels_N3HW, self._captions = read_pictures(folder, resolution)
        self._kept = [self._encode([i]) for i in range(len(self._captions))] if cached else None
        if cached:
            pipe.vae = pipe.text_encoder = None

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """(latents, embeddings) of some images."""
        if self._kept is None:
            return self._encode(indices)
        kept = [self._kept[i] for i in indices]
        return torch.cat([latents for latents, _ in kept]), torch.cat([text for _, text in kept])

    @torch.no_grad()
    def _encode(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        pipe = self._pipe
        posterior = pipe.vae.encode(self._pixels_N3HW[indices].to(pipe.device)).latent_dist
        captions = [self._captions[i] for i in indices]
        tokens = pipe.tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        text: Tensor = pipe.text_encoder(tokens.input_ids.to(pipe.device))[0]
        return posterior.sample() * pipe.vae.config.scaling_factor, text


def main() -> None:
    """Train a few steps, nothing saved."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--targets", choices=TARGET_NAMES, required=True)
    parser.add_argument("--resolution", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--cached", action="store_true")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    pipe = StableDiffusionPipeline.from_pretrained(options.model, safety_checker=None, dtype=torch.float32)
    pipe.to(options.device)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False)
    unet = pipe.unet
    targets = list(TARGET_MODULES[options.targets])
    unet.add_adapter(LoraConfig(r=options.rank, lora_alpha=2 * options.rank, target_modules=targets))
    if options.checkpointing:
        unet.enable_gradient_checkpointing()
    encoded = Encoded(pipe, options.pictures, options.resolution, cached=options.cached)
    noise_scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    unet.train()
    for step in range(options.steps):
        latents, text = encoded.batch([(step * options.batch + i) % 4 for i in range(options.batch)])
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (options.batch,), device=latents.device)
        prediction = unet(noise_scheduler.add_noise(latents, noise, timesteps), timesteps, text).sample
        loss = torch.nn.functional.mse_loss(prediction.float(), noise.float())
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    main()
