"""Train the small LoRA that ships with the model: shoes in the middle of a white ground."""

# Upper-case endings of names are shapes: N pictures, K captions of each, B pictures in a batch, C channels, H × W.

import argparse
import io
import json
import random
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from attributes import ShoeAttributes
from captions import make_caption
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from drawing import ShoePicture, draw
from optimization import LossLog
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
CONVOLUTIONS = ("conv1", "conv2", "conv_in", "conv_out")
RANK, ALPHA = 8, 16
WARMUP_STEPS = 20
MAX_GRADIENT_NORM = 1.0
CAPTION_DROPOUT = 0.1
CAPTIONS_EACH = 4


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The command line of this script."""

    model: Path
    output: Path
    num_pictures: int
    max_train_steps: int
    learning_rate: float
    batch_size: int
    noise_offset: float
    seed: int


def parse_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line, or the given arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model to train on")
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--num-pictures", type=int, default=60, help="how many to draw (default: 60)")
    parser.add_argument("--max-train-steps", type=int, default=400, help="default: 400")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="default: 3e-3")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures a step (default: 16)")
    # Without it the ground stays grey: noise keeps its mean brightness under this schedule.
    parser.add_argument("--noise-offset", type=float, default=0.1, help="share of noise in the mean (default: 0.1)")
    parser.add_argument("--seed", type=int, default=0, help="for pictures, weights, batches and noise (default: 0)")
    return Settings(**vars(parser.parse_args(arguments)))


@dataclass(frozen=True, kw_only=True)
class EncodedPictures:
    """Pictures and captions as the U-Net sees them, encoded once."""

    latents_NCHW: Tensor
    embeddings_NKTD: Tensor
    empty_embedding_TD: Tensor


def encode_pictures(
    pipe: StableDiffusionPipeline, pictures: Sequence[ShoePicture], rng: random.Random
) -> EncodedPictures:
    """Encode pictures, and four captions of each."""
    levels = np.stack([np.asarray(picture.image) for picture in pictures])
    pixels_NCHW = torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        latents_NCHW = pipe.vae.encode(pixels_NCHW).latent_dist.mean * pipe.vae.config.scaling_factor
        embeddings = [_encode_captions(pipe, _captions(picture.attributes, rng)) for picture in pictures]
        empty = _encode_captions(pipe, [""])[0]
    return EncodedPictures(
        latents_NCHW=latents_NCHW.clone(), embeddings_NKTD=torch.stack(embeddings), empty_embedding_TD=empty
    )


def _captions(attributes: ShoeAttributes, rng: random.Random) -> list[str]:
    return [make_caption(attributes, rng) for _ in range(CAPTIONS_EACH)]


def _encode_captions(pipe: StableDiffusionPipeline, captions: list[str]) -> Tensor:
    tokens = pipe.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    embeddings: Tensor = pipe.text_encoder(tokens.input_ids)[0]
    return embeddings


def add_lora(unet: UNet2DConditionModel) -> list[Tensor]:
    """Add the LoRA's layers and return what is to be trained."""
    unet.requires_grad_(False)
    targets = [*ATTENTION, *FEED_FORWARD, *CONVOLUTIONS]
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, init_lora_weights="gaussian", target_modules=targets))
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def train(pipe: StableDiffusionPipeline, encoded: EncodedPictures, settings: Settings) -> None:
    """Train the added layers to predict the noise: AdamW, a short rise of the rate, then a straight fall."""
    parameters = add_lora(pipe.unet)
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate)
    noise_scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    generator = torch.Generator().manual_seed(settings.seed)
    log = LossLog(max_train_steps=settings.max_train_steps, every_steps=50)
    for step in range(1, settings.max_train_steps + 1):
        loss = noise_loss(
            pipe.unet,
            noise_scheduler,
            encoded,
            batch_size=settings.batch_size,
            noise_offset=settings.noise_offset,
            generator=generator,
        )
        rate = min(1, step / WARMUP_STEPS) * (1 - 0.9 * step / settings.max_train_steps)
        optimizer.param_groups[0]["lr"] = settings.learning_rate * rate
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimizer.step()
        log.add(step, loss)


def noise_loss(
    unet: UNet2DConditionModel,
    noise_scheduler: DDPMScheduler,
    encoded: EncodedPictures,
    *,
    batch_size: int,
    noise_offset: float,
    generator: torch.Generator,
) -> Tensor:
    """Return the squared error of the noise that the U-Net predicts in one random batch."""
    pictures_B = torch.randint(0, len(encoded.latents_NCHW), (batch_size,), generator=generator)
    captions_B = torch.randint(0, CAPTIONS_EACH, (batch_size,), generator=generator)
    latents_BCHW = encoded.latents_NCHW[pictures_B]
    embeddings_BTD = encoded.embeddings_NKTD[pictures_B, captions_B].clone()
    embeddings_BTD[torch.rand(batch_size, generator=generator) < CAPTION_DROPOUT] = encoded.empty_embedding_TD
    noise_BCHW = torch.randn(latents_BCHW.shape, generator=generator)
    noise_BCHW += noise_offset * torch.randn(*latents_BCHW.shape[:2], 1, 1, generator=generator)
    timesteps_B = torch.randint(0, noise_scheduler.config.num_train_timesteps, (batch_size,), generator=generator)
    noisy_BCHW = noise_scheduler.add_noise(latents_BCHW, noise_BCHW, timesteps_B)
    return ((unet(noisy_BCHW, timesteps_B, embeddings_BTD).sample - noise_BCHW) ** 2).mean()


def kohya_state(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Return the trained layers under the names that most programs read, in float16."""
    state = {}
    for key, weight in get_peft_model_state_dict(unet).items():
        module, _, side = key.removesuffix(".weight").rpartition(".")
        name = "lora_unet_" + module.replace(".", "_")
        side_name = {"lora_A": "lora_down", "lora_B": "lora_up"}[side]
        state[f"{name}.{side_name}.weight"] = weight.detach().half().contiguous()
        state[f"{name}.alpha"] = torch.tensor(float(ALPHA)).half()
    return state


def file_metadata(settings: Settings, picture: ShoePicture) -> dict[str, str]:
    """Return what programs show of the file: rank, base model, words that wake it, a picture of what it learned."""
    buffer = io.BytesIO()
    picture.image.save(buffer, format="JPEG", quality=85)
    return {
        "ss_v2": "True",
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(RANK),
        "ss_network_alpha": str(ALPHA),
        "ss_network_args": json.dumps({"conv_dim": str(RANK), "conv_alpha": str(ALPHA)}),
        "ss_output_name": settings.output.stem,
        "ss_sd_model_name": settings.model.name,
        "ss_num_train_images": str(settings.num_pictures),
        "ss_resolution": "(128, 128)",
        "ss_max_train_steps": str(settings.max_train_steps),
        "ss_learning_rate": str(settings.learning_rate),
        "ss_noise_offset": str(settings.noise_offset),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.title": "White ground",
        "modelspec.description": "Sets the shoe in the middle of a white ground.",
        "modelspec.trigger_phrase": "white background",
        "modelspec.resolution": "128x128",
        "modelspec.date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "modelspec.thumbnail": "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, train, save."""
    settings = parse_settings(arguments)
    torch.manual_seed(settings.seed)
    rng = random.Random(99 + settings.seed)
    pipe = StableDiffusionPipeline.from_pretrained(settings.model, safety_checker=None, dtype=torch.float32)
    pictures = [draw(rng, ground="white", centred=True, supersampling=2) for _ in range(settings.num_pictures)]
    train(pipe, encode_pictures(pipe, pictures, rng), settings)
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    save_file(kohya_state(pipe.unet), settings.output, metadata=file_metadata(settings, pictures[0]))
    print(f"Saved {settings.output}")


if __name__ == "__main__":
    main()
