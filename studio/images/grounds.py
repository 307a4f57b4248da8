"""The subject of an image cut out of its ground: put on pure white, centred, larger or smaller, or as a mask."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pydantic import Field
from scipy import ndimage

from studio.core.errors import PictureFileError
from studio.core.language import N_
from studio.core.settings import Settings
from studio.images.scores.subject import border_width, find_subject, make_working

STRIP = 256
"""Rows that are computed at once: a large image then takes little memory."""
_SHADOW_BLUR = 1 / 60
"""Of the shorter side: finer than that, what is darker than the ground is its texture and no shadow."""

Grey = NDArray[np.uint8]
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


class GroundSettings(Settings):
    """What becomes of an image's ground, and of the subject's place in it."""

    white: bool = Field(
        True, title=N_("White background"), description=N_("Replaces the background with pure white, with a soft edge.")
    )
    shadow: bool = Field(
        False, title=N_("Keep the shadow"), description=N_("What is darker than the background beside the subject.")
    )
    subject_percent: Annotated[int, Ge(0), Le(100)] = Field(
        0,
        title=N_("Subject size (%)"),
        description=N_(
            "Centres the subject and cuts the image so that it takes this much of its width or height, such as 80. "
            "0 leaves it as it is."
        ),
    )
    masks: bool = Field(
        False,
        title=N_("Write masks"),
        description=N_("Grey images for a training's Masks: white where the subject is."),
    )


@dataclass(frozen=True)
class ChangedImage:
    """An image as it was changed, and the mask of its subject, of the same size: mode L, 255 where it is."""

    image: Image.Image
    mask: Image.Image


def change_ground(image: Image.Image, settings: GroundSettings) -> ChangedImage:
    """Change an RGB image of at least 16 × 16 pixels; it stays as it is itself.

    Raises:
        PictureFileError: where no subject can be told from the ground; the sentence says why.
    """
    pixels_HWC = np.asarray(image)
    cutout = cut_out(pixels_HWC)
    changed_HWC = _on_white(pixels_HWC, cutout, shadow=settings.shadow) if settings.white else pixels_HWC
    window = _window(cutout.alpha_HW, settings) if settings.subject_percent else (0, 0, *image.size)
    paper = Image.fromarray(changed_HWC).crop(window)
    if settings.white and window != (0, 0, *image.size):
        paper = _framed(Image.fromarray(changed_HWC), window)
    mask = Image.fromarray(cutout.alpha_HW).crop(window)  # black beyond the image
    return ChangedImage(paper, mask)


@dataclass(frozen=True)
class Cutout:
    """Where the subject is, and what would be behind it.

    Attributes:
        alpha_HW: how much of each pixel is the subject's, of 255.
        ground_HWC: RGB of the ground, also where the subject hides it.
    """

    alpha_HW: Grey
    ground_HWC: Pixels


def cut_out(pixels_HWC: Pixels) -> Cutout:
    """Tell the subject of a uint8 RGB image from its ground.

    Raises:
        PictureFileError: where it cannot be told; the sentence says why.
    """
    height, width, __ = pixels_HWC.shape
    working = make_working(pixels_HWC)
    subject = find_subject(working)
    if subject.mask_HW is None or subject.material_HW is None:
        raise PictureFileError(subject.reason)
    alpha = Image.fromarray(subject.material_HW.astype(np.uint8) * 255).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    ground_HWC = _ground_behind(working.rgb_HWC, ndimage.binary_dilation(subject.mask_HW, iterations=2))
    ground = Image.fromarray(ground_HWC).resize((width, height), Image.Resampling.BICUBIC)
    return Cutout(np.asarray(alpha), np.asarray(ground))


def _ground_behind(rgb_HWC: Pixels, hidden_HW: NDArray[np.bool_]) -> Pixels:
    """The ground, where it is hidden as it is around it: means over ever larger surroundings."""
    known_HW = (~hidden_HW).astype(np.float32)
    ground_HWC = rgb_HWC.astype(np.float32)
    missing_HW = hidden_HW.copy()
    sigma = 2.0
    while missing_HW.any() and sigma < 4 * max(rgb_HWC.shape):
        weight_HW = ndimage.gaussian_filter(known_HW, sigma)
        near_HW = missing_HW & (weight_HW > 0.02)
        for channel in range(3):
            mean_HW = ndimage.gaussian_filter(rgb_HWC[..., channel] * known_HW, sigma) / np.maximum(weight_HW, 1e-6)
            ground_HWC[..., channel][near_HW] = mean_HW[near_HW]
        missing_HW &= ~near_HW
        sigma *= 2
    return np.clip(np.rint(ground_HWC), 0, 255).astype(np.uint8)


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
    """
    height, width = alpha_HW.shape
    rows, columns = np.nonzero(alpha_HW > 127)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    times = max((right - left) / width, (bottom - top) / height) * 100 / settings.subject_percent
    if not settings.white:
        times = min(1.0, times)
    wide, high = max(right - left, round(width * times)), max(bottom - top, round(height * times))
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
