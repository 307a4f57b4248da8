"""The subject of an image cut out of its ground: put on pure white, centred, larger or smaller, or as a mask."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from studio.core.errors import PictureFileError
from studio.core.language import _
from studio.images.cutout import Cutout, cut_out
from studio.images.decoding import MAX_PIXELS
from studio.images.records import GroundSettings
from studio.images.scores.subject import border_width

STRIP = 256
"""Rows that are computed at once: a large image then takes little memory."""
_SHADOW_BLUR = 1 / 60
"""Of the shorter side: finer than that, what is darker than the ground is its texture and no shadow."""

Grey = NDArray[np.uint8]
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ChangedImage:
    """An image as it was changed, and the mask of its subject, of the same size: mode L, 255 where it is."""

    image: Image.Image
    mask: Image.Image


def change_ground(image: Image.Image, settings: GroundSettings) -> ChangedImage:
    """Change an RGB image of at least 16 × 16 pixels; it stays as it is itself.

    Raises:
        PictureFileError: where no subject can be told from the ground, or the image would be too large.
    """
    pixels_HWC = np.asarray(image)
    cutout = cut_out(pixels_HWC)
    changed_HWC = _on_white(pixels_HWC, cutout, shadow=settings.shadow) if settings.white else pixels_HWC
    window = _window(cutout.alpha_HW, settings) if settings.subject_percent else (0, 0, *image.size)
    changed = Image.fromarray(changed_HWC)
    paper = _framed(changed, window) if settings.white else changed.crop(window)
    mask = Image.fromarray(cutout.alpha_HW).crop(window)  # black beyond the image
    return ChangedImage(paper, mask)


def _on_white(pixels_HWC: Pixels, cutout: Cutout, *, shadow: bool) -> Pixels:
    """The subject before white, its edge without what of the ground shows through it."""
    shade_HW = _shadow(pixels_HWC, cutout) if shadow else None
    on_white_HWC = np.empty_like(pixels_HWC)
    for top in range(0, len(pixels_HWC), STRIP):
        rows = slice(top, top + STRIP)
        alpha_HW1 = cutout.alpha_HW[rows, :, None].astype(np.float32) / 255
        seen_HWC, behind_HWC = pixels_HWC[rows].astype(np.float32), cutout.ground_HWC[rows].astype(np.float32)
        # What is seen is α · subject + (1 - α) · ground.
        subject_HWC = np.clip((seen_HWC - (1 - alpha_HW1) * behind_HWC) / np.maximum(alpha_HW1, 0.1), 0, 255)
        white_HW1 = np.float32(255) if shade_HW is None else 255 * shade_HW[rows, :, None]
        on_white_HWC[rows] = np.rint(alpha_HW1 * subject_HWC + (1 - alpha_HW1) * white_HW1)
    return on_white_HWC


def _shadow(pixels_HWC: Pixels, cutout: Cutout) -> Floats:
    """(height, width): how bright the ground is beside what it is without a shadow, 1 at the border."""
    height, width = cutout.alpha_HW.shape
    grey, behind = (Image.fromarray(rgb_HWC).convert("L") for rgb_HWC in (pixels_HWC, cutout.ground_HWC))
    shown = Image.composite(behind, grey, Image.fromarray(cutout.alpha_HW))
    radius = min(height, width) * _SHADOW_BLUR
    grey_HW, behind_HW = (
        np.asarray(one.filter(ImageFilter.GaussianBlur(radius)), np.float32) for one in (shown, behind)
    )
    shade_HW = np.clip(grey_HW / np.maximum(behind_HW, 1), 0, 1)
    edge = border_width(height, width)
    from_edge_HW = np.minimum(*(np.minimum(axis, axis.max() - axis) for axis in np.mgrid[:height, :width]))
    fade_HW = np.clip((from_edge_HW - edge) / edge, 0, 1).astype(np.float32)
    return np.asarray(1 - (1 - shade_HW) * fade_HW, np.float32)


def _window(alpha_HW: Grey, settings: GroundSettings) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part, in the image's shape, in whose middle the subject has the wanted size.

    Beyond the image only where the ground becomes white. No pixel is computed anew: training scales by itself.

    Raises:
        PictureFileError: where the part has more pixels than an image may have.
    """
    height, width = alpha_HW.shape
    rows, columns = np.nonzero(alpha_HW > 127)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    times = max((right - left) / width, (bottom - top) / height) * 100 / settings.subject_percent
    if not settings.white:
        times = min(1.0, times)
    wide, high = max(right - left, round(width * times)), max(bottom - top, round(height * times))
    if wide * high > MAX_PIXELS:
        raise PictureFileError(
            _(
                "The image would become too large: the subject takes up too much of it for {percent}%.",
                percent=settings.subject_percent,
            )
        )
    x, y = (left + right - wide) // 2, (top + bottom - high) // 2
    if not settings.white:
        x, y = min(max(0, x), width - wide), min(max(0, y), height - high)
    return int(x), int(y), int(x + wide), int(y + high)


def _framed(image: Image.Image, window: tuple[int, int, int, int]) -> Image.Image:
    """That part of an image, on white beyond it."""
    left, top, right, bottom = window
    paper = Image.new("RGB", (right - left, bottom - top), "white")
    paper.paste(image, (-left, -top))
    return paper
