"""A model of Stable Diffusion 1.5's real size with random weights: its speed and memory, without its download."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from studio.core.errors import StudioError
from studio.core.paths import assets_folder
from studio.core.settings import SHIPPED_MODEL
from studio.core.text import gigabytes

WEIGHTS_SEED = 0
REAL_SIZE_PIXELS = 512
NEEDED_BYTES = 3 * 2**30


def make_unet() -> UNet2DConditionModel:
    """Stable Diffusion 1.5's UNet, 859,520,964 parameters."""
    return UNet2DConditionModel(
        sample_size=REAL_SIZE_PIXELS // 8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        cross_attention_dim=768,
        attention_head_dim=8,
    )


def make_vae() -> AutoencoderKL:
    """Stable Diffusion 1.5's autoencoder, 83,653,863 parameters."""
    return AutoencoderKL(
        sample_size=REAL_SIZE_PIXELS,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        scaling_factor=0.18215,
    )


def make_text_encoder() -> CLIPTextModel:
    """The text half of CLIP ViT-L/14, 123,060,480 parameters."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49_408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            projection_dim=768,
        )
    )


def make_scheduler() -> PNDMScheduler:
    """PNDM as Stable Diffusion 1.5's own folder sets it."""
    return PNDMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def write_real_size_model(folder: Path) -> None:
    """Write the model into `folder` in diffusers' layout: float16 safetensors, 2 GiB on disk, from 4 GiB of memory.

    The weights are the layers' own random starting values under a fixed seed. Their group norms keep every output
    finite and give an image of coloured noise, which passes validation.

    The tokenizer is the shipped model's: its 703 ids lie within the encoder's 49,408, and what a prompt means does
    not matter to random weights.
    """
    transformers_logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(WEIGHTS_SEED)
        unet, vae, text_encoder = make_unet(), make_vae(), make_text_encoder()
    tokenizer = CLIPTokenizer.from_pretrained(assets_folder() / SHIPPED_MODEL / "tokenizer", local_files_only=True)
    StableDiffusionPipeline(
        unet=unet.half(),
        vae=vae.half(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


@contextmanager
def real_size_model(cache: Path) -> Iterator[Path]:
    """The model's folder below `cache` during the `with` block.

    Raises:
        StudioError: where the disk has no room for it.
    """
    free_bytes = shutil.disk_usage(cache).free
    if free_bytes < NEEDED_BYTES:
        raise StudioError(
            f"The model of real size needs {gigabytes(NEEDED_BYTES)} of disk for a while, {cache} has "
            f"{gigabytes(free_bytes)}. Free some, or give --no-real-size."
        )
    with tempfile.TemporaryDirectory(dir=cache, prefix="bench-") as folder:
        write_real_size_model(Path(folder))
        yield Path(folder)
