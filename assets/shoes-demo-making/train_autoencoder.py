"""Train the autoencoder that turns 128 × 128 pictures into 4 × 16 × 16 latents and back."""

# Upper-case endings of names are shapes: N pictures, B of them in a batch, C channels, H × W.

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from architecture import make_autoencoder
from diffusers import AutoencoderKL
from optimization import LossLog, WeightAverage, learning_rate_factor
from picture_set import PictureSet, load_picture_set
from torch import Tensor
from torch.nn.functional import avg_pool2d

WARMUP_STEPS = 100
MAX_GRADIENT_NORM = 1.0
SUBJECT_WEIGHT = 4.0
"""How much more a pixel of the shoe counts than one of the ground: the ground is most of the picture and easy."""
GRADIENT_WEIGHT = 0.15
KL_WEIGHT = 1e-4


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The command line of this script."""

    pictures: Path
    output: Path
    start_from: Path | None
    max_train_steps: int
    learning_rate: float
    batch_size: int
    save_every: int
    seed: int
    device: str


def parse_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line, or the given arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True, help="folder that make_pictures.py filled")
    parser.add_argument("--output", type=Path, required=True, help="folder for the autoencoder")
    parser.add_argument("--start-from", type=Path, help="folder of an autoencoder to train further")
    parser.add_argument("--max-train-steps", type=int, default=6700, help="default: 6700")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="default: 1e-3")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures a step (default: 8)")
    parser.add_argument("--save-every", type=int, default=1000, help="save each so many steps (default: 1000)")
    parser.add_argument("--seed", type=int, default=1, help="for weights, batches and noise (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    return Settings(**vars(parser.parse_args(arguments)))


def pick_batch(picture_set: PictureSet, *, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return pictures (B, 3, H, W) in -1..1 and masks (B, 1, H, W) in 0..1, mirrored every other time."""
    indices = torch.randint(0, len(picture_set.attributes), (batch_size,), generator=generator).numpy()
    pictures_BCHW = torch.from_numpy(picture_set.pictures_NHWC[indices]).permute(0, 3, 1, 2).float() / 127.5 - 1
    masks_B1HW = torch.from_numpy(picture_set.masks_NHW[indices])[:, None].float() / 255
    if torch.rand((), generator=generator) < 0.5:
        pictures_BCHW, masks_B1HW = pictures_BCHW.flip(3), masks_B1HW.flip(3)
    return pictures_BCHW.contiguous(memory_format=torch.channels_last), masks_B1HW


def reconstruction_loss(decoded_BCHW: Tensor, pictures_BCHW: Tensor, masks_B1HW: Tensor) -> Tensor:
    """Weigh absolute errors of pixels, of 4- and 16-pixel means, and of steps between neighbours.

    Means keep colours right where single pixels are blurred; steps keep edges sharp without a discriminator.
    """
    weights = 1 + (SUBJECT_WEIGHT - 1) * masks_B1HW
    errors = decoded_BCHW - pictures_BCHW
    pixel_loss = (weights * errors.abs()).mean() / weights.mean()
    coarse_loss = sum(
        (avg_pool2d(errors * weights, size).abs().mean() for size in (4, 16)),
        start=torch.zeros_like(pixel_loss),
    )
    across = weights[..., :-1] * errors.diff(dim=3)
    down = weights[..., :-1, :] * errors.diff(dim=2)
    return pixel_loss + coarse_loss + GRADIENT_WEIGHT * (across.abs().mean() + down.abs().mean())


def training_loss(autoencoder: AutoencoderKL, pictures_BCHW: Tensor, masks_B1HW: Tensor) -> Tensor:
    """Return the loss of one batch: reconstruction, and a light pull of the latents towards normal noise."""
    posterior = autoencoder.encode(pictures_BCHW).latent_dist
    latents = posterior.sample()
    decoded_BCHW = autoencoder.decode(latents).sample
    kl_per_value: Tensor = posterior.kl().mean() / latents[0].numel()
    return reconstruction_loss(decoded_BCHW, pictures_BCHW, masks_B1HW) + KL_WEIGHT * kl_per_value


def train(autoencoder: AutoencoderKL, picture_set: PictureSet, settings: Settings) -> None:
    """Train in place; the moving average of the weights is what is saved."""
    generator = torch.Generator().manual_seed(settings.seed)
    parameters = list(autoencoder.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=1e-4)
    average = WeightAverage([autoencoder], max_decay=0.995)
    log = LossLog(max_train_steps=settings.max_train_steps)
    averaged: AutoencoderKL = average.averaged_models[0]
    autoencoder.train()
    for step in range(settings.max_train_steps):
        factor = learning_rate_factor(step, max_train_steps=settings.max_train_steps, warmup_steps=WARMUP_STEPS)
        optimizer.param_groups[0]["lr"] = settings.learning_rate * factor
        pictures, masks = pick_batch(picture_set, batch_size=settings.batch_size, generator=generator)
        loss = training_loss(autoencoder, pictures.to(settings.device), masks.to(settings.device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimizer.step()
        average.update()
        log.add(step + 1, loss)
        if (step + 1) % settings.save_every == 0 or step + 1 == settings.max_train_steps:
            averaged.save_pretrained(settings.output)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on every drawn picture, those on white included."""
    settings = parse_settings(arguments)
    torch.manual_seed(settings.seed)
    autoencoder = make_autoencoder(start_from=settings.start_from)
    autoencoder.to(settings.device, memory_format=torch.channels_last)
    train(autoencoder, load_picture_set(settings.pictures), settings)
    print(f"the autoencoder is in {settings.output}")


if __name__ == "__main__":
    main()
