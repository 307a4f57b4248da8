"""Train the text encoder and the U-Net together, and save the whole model as a diffusers folder."""

# Upper-case endings of names are shapes: N pictures, B of them in a batch, C channels, H × W.

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from architecture import make_autoencoder, make_text_encoder, make_unet, rounded_copy
from attributes import ShoeAttributes
from captions import make_caption
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from latent_set import LatentSet, load_latent_set
from optimization import LossLog, WeightAverage, learning_rate_factor
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

WARMUP_STEPS = 150
MAX_GRADIENT_NORM = 1.0
MAX_SNR = 5.0
CAPTION_DROPOUT = 0.1
"""The share of captions left empty, so that classifier-free guidance has something to compare with."""
BETA_START, BETA_END, BETA_SCHEDULE = 0.00085, 0.012, "scaled_linear"
"""Stable Diffusion 1.5's noise, so that its samplers and recipes fit."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The command line of this script."""

    latents: Path
    autoencoder: Path
    tokenizer: Path
    output: Path
    start_from: Path | None
    max_train_steps: int
    learning_rate: float
    batch_size: int
    noise_offset: float
    save_every: int
    save_dtype: str
    seed: int
    device: str


def parse_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line, or the given arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latents", type=Path, required=True, help="folder that encode_pictures.py filled")
    parser.add_argument("--autoencoder", type=Path, required=True, help="folder that train_autoencoder.py filled")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder that make_tokenizer.py filled")
    parser.add_argument("--output", type=Path, required=True, help="folder for the model")
    parser.add_argument("--start-from", type=Path, help="folder of a model to train further")
    parser.add_argument("--max-train-steps", type=int, default=5437, help="default: 5437")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="default: 1e-3")
    parser.add_argument("--batch-size", type=int, default=24, help="pictures a step (default: 24)")
    parser.add_argument("--noise-offset", type=float, default=0.0, help="share of noise in the mean (default: 0)")
    parser.add_argument("--save-every", type=int, default=500, help="save each so many steps (default: 500)")
    parser.add_argument(
        "--save-dtype",
        choices=("float16", "float32"),
        default="float16",
        help="of the saved files (default: float16)",
    )
    parser.add_argument("--seed", type=int, default=0, help="for weights, batches and noise (default: 0)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    return Settings(**vars(parser.parse_args(arguments)))


def min_snr_weights(noise_scheduler: DDPMScheduler) -> Tensor:
    """Return the weight of each timestep's loss, (num_train_timesteps,): https://arxiv.org/abs/2303.09556."""
    signal: Tensor = noise_scheduler.alphas_cumprod
    snr = signal / (1 - signal)
    return snr.clamp(max=MAX_SNR) / snr


def pick_captions(attributes: Sequence[ShoeAttributes], indices: Sequence[int], rng: random.Random) -> list[str]:
    """Caption the chosen pictures in fresh words; index N + i is the mirror image of picture i of N."""
    return [
        "" if rng.random() < CAPTION_DROPOUT else make_caption(attributes[index % len(attributes)], rng)
        for index in indices
    ]


class NoisePrediction:
    """The loss of predicting the noise in captioned latents; owns the random state of the training."""

    def __init__(
        self, *, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, seed: int
    ) -> None:
        self._unet = unet
        self._text_encoder = text_encoder
        self._tokenizer = tokenizer
        self._noise_scheduler = DDPMScheduler(beta_start=BETA_START, beta_end=BETA_END, beta_schedule=BETA_SCHEDULE)
        self._timestep_weights = min_snr_weights(self._noise_scheduler)
        self._generator = torch.Generator().manual_seed(seed)
        self._caption_rng = random.Random(seed)

    def loss(self, latent_set: LatentSet, *, batch_size: int, noise_offset: float) -> Tensor:
        """Return the weighted squared error of one random batch; latent_set holds scaled latents."""
        indices = torch.randint(0, len(latent_set.latents_NCHW), (batch_size,), generator=self._generator)
        captions = pick_captions(latent_set.attributes, indices.tolist(), self._caption_rng)
        latents_BCHW = latent_set.latents_NCHW[indices]
        noise_BCHW = torch.randn(latents_BCHW.shape, generator=self._generator)
        noise_BCHW += noise_offset * torch.randn(*latents_BCHW.shape[:2], 1, 1, generator=self._generator)
        timesteps_B = torch.randint(0, len(self._timestep_weights), (batch_size,), generator=self._generator)
        noisy_BCHW = self._noise_scheduler.add_noise(latents_BCHW, noise_BCHW, timesteps_B)
        predicted_BCHW = self._predict(noisy_BCHW, timesteps_B, captions)
        squared_error_B = ((predicted_BCHW - noise_BCHW.to(predicted_BCHW.device)) ** 2).mean((1, 2, 3))
        return (squared_error_B * self._timestep_weights[timesteps_B].to(squared_error_B.device)).mean()

    def _predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, captions: list[str]) -> Tensor:
        device = self._unet.device
        tokens = self._tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        hidden_states = self._text_encoder(tokens.input_ids.to(device))[0]
        noisy_BCHW = noisy_BCHW.to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            predicted: Tensor = self._unet(noisy_BCHW, timesteps_B.to(device), hidden_states).sample
        return predicted.float()


def save_model(
    folder: Path,
    *,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    autoencoder: AutoencoderKL,
    dtype: torch.dtype,
) -> None:
    """Write a Stable Diffusion folder that samples with DPM++ 2M; the models given stay as they are."""
    scheduler = DPMSolverMultistepScheduler(
        beta_start=BETA_START, beta_end=BETA_END, beta_schedule=BETA_SCHEDULE, steps_offset=1
    )
    pipe = StableDiffusionPipeline(
        vae=rounded_copy(autoencoder, dtype),
        text_encoder=rounded_copy(text_encoder, dtype),
        tokenizer=tokenizer,
        unet=rounded_copy(unet, dtype),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)
    # transformers 5 writes tokenizer.json alone; programs with an older one read vocab.json and merges.txt.
    tokenizer.backend_tokenizer.model.save(str(folder / "tokenizer"))


def train(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    *,
    tokenizer: CLIPTokenizer,
    autoencoder: AutoencoderKL,
    latent_set: LatentSet,
    settings: Settings,
) -> None:
    """Train both models in place; the moving average of their weights is what is saved."""
    objective = NoisePrediction(unet=unet, text_encoder=text_encoder, tokenizer=tokenizer, seed=settings.seed)
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=1e-2)
    average = WeightAverage([unet, text_encoder], max_decay=0.999)
    log = LossLog(max_train_steps=settings.max_train_steps)
    for step in range(settings.max_train_steps):
        factor = learning_rate_factor(step, max_train_steps=settings.max_train_steps, warmup_steps=WARMUP_STEPS)
        optimizer.param_groups[0]["lr"] = settings.learning_rate * factor
        loss = objective.loss(latent_set, batch_size=settings.batch_size, noise_offset=settings.noise_offset)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimizer.step()
        average.update()
        log.add(step + 1, loss)
        if (step + 1) % settings.save_every == 0 or step + 1 == settings.max_train_steps:
            averaged_unet, averaged_text_encoder = average.averaged_models
            save_model(
                settings.output,
                unet=averaged_unet,
                text_encoder=averaged_text_encoder,
                tokenizer=tokenizer,
                autoencoder=autoencoder,
                dtype=torch.float16 if settings.save_dtype == "float16" else torch.float32,
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Scale the latents to a deviation of 1, train, and save."""
    settings = parse_settings(arguments)
    torch.manual_seed(settings.seed)
    tokenizer = CLIPTokenizer.from_pretrained(settings.tokenizer)
    autoencoder = make_autoencoder(start_from=settings.autoencoder)
    encoded = load_latent_set(settings.latents)
    scaling_factor = 1 / encoded.latents_NCHW.std().item()
    autoencoder.register_to_config(scaling_factor=scaling_factor)
    scaled = LatentSet(latents_NCHW=encoded.latents_NCHW * scaling_factor, attributes=encoded.attributes)
    unet = make_unet(start_from=settings.start_from)
    text_encoder = make_text_encoder(tokenizer, start_from=settings.start_from)
    unet.to(settings.device, memory_format=torch.channels_last)
    text_encoder.to(settings.device)
    train(unet, text_encoder, tokenizer=tokenizer, autoencoder=autoencoder, latent_set=scaled, settings=settings)
    print(f"the model is in {settings.output}")


if __name__ == "__main__":
    main()
