"""Copies of invalid images, kept for diagnosis and never among the good ones."""

import io
import json
import logging
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from studio.engine.validation import Fault
from studio.files import write_atomically
from studio.settings import GenerationSettings

logger = logging.getLogger(__name__)

NOT_FINITE_COLOUR = (255, 0, 255)  # magenta: no channel's NaN can hide in it


def keep_rejected(
    folder: Path,
    fault: Fault,
    settings: GenerationSettings,
    *,
    latents_BCHW: torch.Tensor,
    decoded_CHW: torch.Tensor | None = None,
) -> Path | None:
    """Write what is known of an invalid image: a `.json` with the reason, its latents, a picture where there is one.

    Returns:
        The `.json` file; None where the disk would not take it, which is logged: the image is invalid either way.
    """
    stem = f"{datetime.now():%Y%m%d-%H%M%S-%f}-{fault.check}-seed{settings.seed}"
    record = {
        "check": fault.check,
        "finding": fault.finding,
        "advice": fault.advice,
        "settings": settings.model_dump(),
    }
    try:
        write_atomically(folder / f"{stem}.safetensors", save({"latents": latents_BCHW.cpu().contiguous()}))
        if decoded_CHW is not None:
            write_atomically(folder / f"{stem}.png", _diagnosis_picture(decoded_CHW))
        report = folder / f"{stem}.json"
        write_atomically(report, json.dumps(record, indent=2).encode())
    except OSError as error:
        logger.warning("The copy of an invalid image could not be kept in %s: %s", folder, error)
        return None
    return report


def _diagnosis_picture(decoded_CHW: torch.Tensor) -> bytes:
    """The picture as it would have been, with every pixel that is not finite in magenta."""
    decoded = decoded_CHW.float().cpu().numpy().transpose(1, 2, 0)
    broken = ~np.isfinite(decoded).all(axis=2)
    levels = (np.clip(np.nan_to_num(decoded), -1, 1) + 1) * 127.5
    picture = levels.round().astype(np.uint8)
    picture[broken] = NOT_FINITE_COLOUR
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()
