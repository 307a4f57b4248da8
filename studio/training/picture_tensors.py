"""From a picture file to the pixels that the VAE reads: verified, cropped, scaled, mirrored."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from studio.dataset.buckets import Bucket
from studio.dataset.pictures import open_rgb, read_bytes, read_picture
from studio.errors import PictureFileError, TrainingError
from studio.training.training_set import Box, TrainingItem


def read_item(item: TrainingItem) -> Image.Image:
    """The whole picture, upright RGB, from the very bytes that the snapshot knows.

    Raises:
        TrainingError: where the file changed since, or cannot be read.
    """
    content, problem = read_bytes(item.path)
    if problem is not None:
        raise TrainingError(f"{item.key} can no longer be read: {problem.sentence}")
    if hashlib.sha256(content).hexdigest() != item.sha256:
        raise TrainingError(f"{item.key} is another file than when the run began. Put it back, or begin a new run.")
    read = read_picture(content, item.path.name, background=item.background)
    if read.image is None:
        raise TrainingError(f"{item.key} can no longer be read: {read.problems[0].sentence}")
    return read.image


def crop_to_pixels(image: Image.Image, crop: Box, bucket: Bucket, *, flip: bool) -> torch.Tensor:
    """(1, 3, height, width) in [-1, 1]."""
    kept = image.crop(crop).resize((bucket.width, bucket.height), Image.Resampling.LANCZOS)
    if flip:
        kept = ImageOps.mirror(kept)
    levels_HWC = np.asarray(kept, dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(levels_HWC).permute(2, 0, 1)[None]


def mask_weights(
    mask: Path, item: TrainingItem, crop: Box, *, flip: bool, vae_scale: int, unmasked_weight: float
) -> torch.Tensor:
    """(1, height / scale, width / scale) in [unmasked_weight, 1]: each latent's share of white, cut as the picture is.

    Raises:
        TrainingError: where the mask cannot be read.
    """
    try:
        grey = open_rgb(mask).convert("L")
    except PictureFileError as error:
        raise TrainingError(f"The mask {mask} cannot be read: {error}") from error
    if grey.size != (item.width, item.height):  # a mask may be of another size, as long as it shows the same
        grey = grey.resize((item.width, item.height), Image.Resampling.BOX)
    kept = grey.crop(crop)
    kept = kept.resize((item.bucket.width // vae_scale, item.bucket.height // vae_scale), Image.Resampling.BOX)
    if flip:
        kept = ImageOps.mirror(kept)
    share_HW = torch.from_numpy(np.asarray(kept, dtype=np.float32) / 255)
    return (unmasked_weight + (1 - unmasked_weight) * share_HW)[None]
