"""The peer: diffusers' own pipeline, as its documentation uses it. It imports nothing of our engine."""

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from studio.core.settings import GenerationSettings


def load_plain_pipeline(folder: Path, device: torch.device) -> StableDiffusionPipeline:
    """The model in float32 on the device, without progress bars."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def plain_picture(pipeline: StableDiffusionPipeline, settings: GenerationSettings) -> np.ndarray:
    """(height, width, 3) uint8; noise from the CPU as in ours, or the seed would mean another image."""
    made = pipeline(
        prompt=settings.prompt,
        negative_prompt=settings.negative_prompt,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        width=settings.width,
        height=settings.height,
        generator=torch.Generator("cpu").manual_seed(settings.seed),
    )
    return np.asarray(made.images[0])
