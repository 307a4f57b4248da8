"""How the numbers of a decoded image become RGB: depth first, then the colour profile, then transparency."""

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from studio.core.language import N_, _
from studio.images.records import Severity

Add = Callable[[str, Severity, str], None]
"""Takes a finding: its code, severity and sentence."""

_PLAIN_MODES = frozenset(("RGB", "L", "P", "1", "YCbCr"))
_ALPHA_MODES = {"RGBA": "RGB", "LA": "L", "PA": "RGB", "RGBa": "RGB", "La": "L"}
_SAME = 2
"""Of 255: a profile that moves no colour further is sRGB under another name."""
_NEUTRAL_MARGIN = 8
"""Of 255: white backgrounds and black bars are flat in intact images too."""


def rgb_of(image: Image.Image, background: str, add: Add, *, png_bits: int = 8) -> Image.Image | None:
    """The image as opaque 8-bit sRGB; None if its pixels are unusable, and `add` was told why.

    Args:
        background: `#rrggbb`, what transparency is laid on.
        png_bits: of a PNG's samples, as its header says: its transparent colour is given in these.
    """
    alpha = _alpha(image, png_bits)
    colours = _in_8_bits(image, add)
    if colours is None:
        return None
    rgb = _in_srgb(colours, image.info.get("icc_profile"), add)
    if alpha is None:
        # A file of several frames would read on where its image is changed: it is copied.
        return rgb.copy() if rgb is image and getattr(image, "n_frames", 1) > 1 else rgb
    low, high = alpha.getextrema()
    if high == 0:
        add(
            N_("nothing visible"), "note", _("Every pixel is transparent: only the dataset's background is left of it.")
        )
    if isinstance(low, int | float) and low < 255:
        add(
            N_("transparent"),
            "convert",
            _("It is transparent: it is laid on {background}, the dataset's background.", background=background),
        )
    ground = Image.new("RGBA", rgb.size, background)
    rgb.putalpha(alpha)
    return Image.alpha_composite(ground, rgb).convert("RGB")


def _alpha(image: Image.Image, png_bits: int) -> Image.Image | None:
    """How opaque each pixel is, `L`; None where the file holds nothing of the kind."""
    if image.mode in ("RGBA", "LA"):
        return image.getchannel("A")
    key = image.info.get("transparency")
    if image.mode in _ALPHA_MODES or (image.mode in ("P", "1") and key is not None) or isinstance(key, bytes):
        return image.convert("RGBA").getchannel("A")
    if key is None:
        return None
    pixels = np.asarray(image)
    if image.mode == "L" and png_bits < 8:
        key = key * 255 // (2**png_bits - 1)
    elif image.mode == "RGB" and png_bits == 16:
        key = [value >> 8 for value in key]  # Pillow keeps the upper half of such samples
    transparent_HW = (pixels == np.asarray(key)).reshape(*pixels.shape[:2], -1).all(axis=2)
    return Image.fromarray(np.where(transparent_HW, 0, 255).astype(np.uint8))


def _in_8_bits(image: Image.Image, add: Add) -> Image.Image | None:
    """The colours alone, in a mode of 8 bits that a profile of the file's can be for: L, RGB, CMYK or LAB."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _scaled(image, add)
    if mode == "CMYK":
        add("CMYK", "convert", _("It is CMYK, for printing: its colours are converted, and may look paler."))
        return image
    if mode == "LAB":
        add("LAB", "convert", _("It is LAB: its colours are converted to RGB."))
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return ImageCms.applyTransform(image, transform)
    if mode in _ALPHA_MODES:
        straight = {"RGBa": "RGBA", "La": "LA"}.get(mode, mode)
        return (image if straight == mode else image.convert(straight)).convert(_ALPHA_MODES[mode])
    if mode == "1":
        add(N_("1-bit"), "note", _("It has two colours only, black and white."))
        return image.convert("L")
    if mode not in _PLAIN_MODES:
        add(N_("rare mode"), "convert", _("Its colours ({mode}) are converted to RGB.", mode=mode))
    if mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image if mode in ("RGB", "L") else image.convert("RGB")


def _scaled(image: Image.Image, add: Add) -> Image.Image | None:
    """16 bits to 8 by their highest value; 32 bits and floats by what they hold. `convert("RGB")` clips all at 255."""
    pixels_HW = np.asarray(image).astype(np.float64)
    if not np.isfinite(pixels_HW).all():
        add(N_("not finite"), "reject", _("Some of its pixels are no numbers (NaN or infinity). Export it again."))
        return None
    bits = _bits_of_samples(image)
    is_16 = image.mode.startswith("I;16") or (
        image.mode == "I" and 255 < pixels_HW.max() <= 65535 and pixels_HW.min() >= 0
    )
    if is_16:
        add(N_("16-bit"), "convert", _("It has {bits} bits a pixel, which are scaled to 8.", bits=bits))
        low, high = 0.0, 2.0**bits - 1
    elif image.mode == "F" and pixels_HW.min() >= 0 and 0 < pixels_HW.max() <= 1:
        add(N_("32-bit"), "convert", _("Its pixels are numbers from 0 to 1, which are scaled to 0 to 255."))
        low, high = 0.0, 1.0
    else:
        low, high = float(pixels_HW.min()), float(pixels_HW.max())
        add(
            N_("32-bit"),
            "convert",
            _("Its pixels are numbers from {low:g} to {high:g}, which are scaled to 0 to 255.", low=low, high=high),
        )
    span = (high - low) or 1.0
    return Image.fromarray(np.rint((pixels_HW - low) / span * 255).clip(0, 255).astype(np.uint8))


def _bits_of_samples(image: Image.Image) -> int:
    """As a TIFF says, where it says fewer than 16: Pillow unpacks 12 bits into 16 without scaling them."""
    bits = getattr(image, "tag_v2", {}).get(258)
    first = bits[0] if isinstance(bits, tuple) and bits else bits
    return first if isinstance(first, int) and 8 < first < 16 else 16


def _in_srgb(colours: Image.Image, profile: bytes | None, add: Add) -> Image.Image:
    """RGB through the profile that the file carries; as sRGB where it carries none that is one."""
    if not profile:
        return colours.convert("RGB") if colours.mode != "RGB" else colours
    grey = colours.convert("L")
    if colours.mode == "RGB" and _transform(profile, "L") and grey.convert("RGB").tobytes() == colours.tobytes():
        colours = grey  # Pillow reads grey with 16 bits and transparency as RGB
    transform = _transform(profile, colours.mode)
    if transform is None:
        words = _("Its colour profile (ICC) is damaged or of other colours, and is left out.")
        add(N_("damaged profile"), "note", words)
        return colours.convert("RGB")
    if colours.mode != "CMYK":
        if _is_srgb(profile, colours.mode):
            return colours.convert("RGB") if colours.mode != "RGB" else colours
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip()[:60]
        words = _("Its colours are in the profile {name}, and are converted to sRGB.", name=name or _("unnamed"))
        add(N_("colour profile"), "convert", words)
    return ImageCms.applyTransform(colours, transform) or colours.convert("RGB")


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """To sRGB; None where it is no profile, or not one for images of that mode."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, TypeError, ValueError, ImageCms.PyCMSError):
        return None


@lru_cache(maxsize=16)
def _is_srgb(profile: bytes, mode: str) -> bool:
    """Whether it leaves a palette of colours as they are."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    if mode == "L":
        probe = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    else:
        grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
        probe = Image.fromarray(grid.reshape(1, -1, 3))
    transform = _transform(profile, mode)
    moved = ImageCms.applyTransform(probe, transform) if transform else None
    if moved is None:
        return False
    difference = np.asarray(moved).astype(int) - np.asarray(probe.convert("RGB")).astype(int)
    return int(np.abs(difference).max()) <= _SAME


def flat_rows(image: Image.Image) -> int:
    """How many of the lowest rows of an RGB image are one colour that is neither nearly white nor nearly black.

    Where a JPEG's data ends too early, libjpeg repeats the last block's colour down to the end.
    """
    pixels_HWC = np.asarray(image)
    last = pixels_HWC[-1, -1]
    if last.min() >= 255 - _NEUTRAL_MARGIN or last.max() <= _NEUTRAL_MARGIN:
        return 0
    is_flat_H = (pixels_HWC == last).all(axis=(1, 2))
    return int(len(is_flat_H) if is_flat_H.all() else np.argmin(is_flat_H[::-1]))
