"""Stable Diffusion's architecture with 60,000 random weights: for all tests whose images need not look like shoes."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from studio.core.paths import assets_folder
from studio.core.settings import SHIPPED_MODEL


def write_tiny_model(folder: Path) -> None:
    """Write it in diffusers' layout. The same each time, with the shipped model's tokenizer."""
    tokenizer = CLIPTokenizer.from_pretrained(assets_folder() / SHIPPED_MODEL / "tokenizer")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        StableDiffusionPipeline(
            unet=UNet2DConditionModel(
                sample_size=8,
                block_out_channels=(8, 16),
                layers_per_block=1,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
                cross_attention_dim=16,
                attention_head_dim=2,
                norm_num_groups=4,
            ),
            vae=AutoencoderKL(
                block_out_channels=(4, 4, 4, 4),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                norm_num_groups=2,
            ),
            text_encoder=CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(tokenizer),
                    hidden_size=16,
                    intermediate_size=32,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    projection_dim=16,
                )
            ),
            tokenizer=tokenizer,
            scheduler=DDIMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                clip_sample=False,
                set_alpha_to_one=False,
                steps_offset=1,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder)
