"""The checks that every image passes before anyone sees it. There is no switch to turn them off.

They stand where the fault can still be seen: NaN is gone once an image is uint8 (the cast makes it 0, the black
image of the seed report), and inf is gone once the decoder's output is clamped.

Copies of invalid images, kept for diagnosis and never among the good ones.
"""

import io
import json
import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from studio.core.errors import InvalidImageError
from studio.core.files import write_atomically
from studio.core.language import N_, _, percent
from studio.core.results import Check
from studio.core.settings import GenerationSettings

# The decoder is trained to give [-1, 1]. Real models overshoot by a few tenths (the shipped one to 1.24 at
# guidance 30); at 5 it is far outside what it ever learned, and the clamp would hide it as plain white.
DECODED_LIMIT = 5.0
BLACK_LEVEL = 3  # of 255: what a viewer sees as a black image, JPEG noise included
FLAT_DEVIATION = 1.0  # of 255, per channel: below it nothing can be seen but one colour

_CHANNELS = (N_("red"), N_("green"), N_("blue"))


@dataclass(frozen=True)
class Fault:
    """Why a check failed: which one, what was seen, what to try."""

    check: str
    finding: str
    advice: str


_PRECISION_ADVICE = N_("Use float32; if it is float32 already, the model's files or the device are at fault.")


def check_latents(latents_BCHW: torch.Tensor) -> Fault | None:
    """All latents must be finite.

    One sum: it is finite only if every value is (a sum of finite latents cannot overflow float32, and
    float16 is summed in float32), and it costs one synchronisation.
    """
    if bool(torch.isfinite(latents_BCHW.sum(dtype=torch.float32))):
        return None
    share = 100 * float((~torch.isfinite(latents_BCHW)).float().mean())
    finding = _("{share:.3g}% of the latents are NaN or infinite.", share=share)
    return Fault("latents", finding, _(_PRECISION_ADVICE))


def check_decoded(decoded_CHW: torch.Tensor) -> Fault | None:
    """The decoder's raw output, before any clamp or cast: finite in every channel, and in a sane range."""
    finite = torch.isfinite(decoded_CHW)
    if not bool(finite.all()):
        bad = (~finite).flatten(1).float().mean(1).cpu()
        shares = zip(_CHANNELS, map(float, bad), strict=False)
        where = ", ".join(f"{_(name)} {percent(share, '.3g')}" for name, share in shares if share)
        return Fault("decoded", _("The VAE gave NaN or infinite values ({where}).", where=where), _(_PRECISION_ADVICE))
    largest = float(decoded_CHW.abs().max())
    if largest > DECODED_LIMIT:
        finding = _(
            "The VAE gave values up to {largest:.3g}, where about 1 is normal and {limit:g} the limit.",
            largest=largest,
            limit=DECODED_LIMIT,
        )
        return Fault("decoded", finding, _("Lower the guidance scale; check that the VAE fits the model."))
    return None


def check_picture(picture_HWC: np.ndarray, *, height: int, width: int) -> Fault | None:
    """The final image: its shape, its type, not black, not one flat colour."""
    if picture_HWC.shape != (height, width, 3) or picture_HWC.dtype != np.uint8:
        finding = _(
            "The image is {shape} of {dtype}, expected {wanted} of uint8.",
            shape=picture_HWC.shape,
            dtype=picture_HWC.dtype,
            wanted=(height, width, 3),
        )
        return Fault("image", finding, _("The VAE does not fit the model: load a matching one."))
    if picture_HWC.max() <= BLACK_LEVEL:
        finding = _("The image is black: no value is above {level} of 255.", level=BLACK_LEVEL)
        return Fault("image", finding, _(_PRECISION_ADVICE))
    if picture_HWC.reshape(-1, 3).std(axis=0).max() < FLAT_DEVIATION:
        red, green, blue = picture_HWC.reshape(-1, 3).mean(axis=0)
        finding = _(
            "The image is one flat colour (about {red:.0f}, {green:.0f}, {blue:.0f}).", red=red, green=green, blue=blue
        )
        return Fault("image", finding, _("Try another seed; if all are flat, the model is at fault."))
    return None


def passed_checks(*, num_steps: int, decoded_CHW: torch.Tensor, picture_HWC: np.ndarray) -> tuple[Check, ...]:
    """What the checks of a good image saw, for the report."""
    low, high = float(decoded_CHW.min()), float(decoded_CHW.max())
    return (
        Check(name="latents", passed=True, finding=_("finite through all {num_steps} steps", num_steps=num_steps)),
        Check(
            name="decoded",
            passed=True,
            finding=_("finite, {low:.2f} to {high:.2f} before the clamp", low=low, high=high),
        ),
        Check(
            name="image",
            passed=True,
            finding=_("{low} to {high}, not black, not flat", low=picture_HWC.min(), high=picture_HWC.max()),
        ),
    )


def failed_checks(error: InvalidImageError) -> tuple[Check, ...]:
    """The checks of an image that failed: those before the fault passed, those after it were not reached."""
    order = ("latents", "decoded", "image")
    reached = order[: order.index(error.check)]
    return (
        *(Check(name=name, passed=True, finding=_("passed")) for name in reached),
        Check(name=error.check, passed=False, finding=error.finding),
    )


logger = logging.getLogger(__name__)

NOT_FINITE_COLOUR = (255, 0, 255)  # magenta: no channel's NaN can hide in it


def reject(
    folder: Path,
    fault: Fault,
    settings: GenerationSettings,
    latents_BCHW: torch.Tensor,
    *,
    step: int | None = None,
    decoded_CHW: torch.Tensor | None = None,
) -> NoReturn:
    """Keep a copy of an invalid image for diagnosis, and say which check failed.

    Raises:
        InvalidImageError: always.
    """
    file = keep_rejected(folder, fault, settings, latents_BCHW=latents_BCHW, decoded_CHW=decoded_CHW)
    raise InvalidImageError(
        check=fault.check, step=step, finding=fault.finding, advice=fault.advice, rejected_file=file
    )


def keep_rejected(
    folder: Path,
    fault: Fault,
    settings: GenerationSettings,
    *,
    latents_BCHW: torch.Tensor,
    decoded_CHW: torch.Tensor | None = None,
) -> Path | None:
    """Write what is known of an invalid image: a `.json` with the reason, its latents, an image where there is one.

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
    """The image as it would have been, with every pixel that is not finite in magenta."""
    decoded = decoded_CHW.float().cpu().numpy().transpose(1, 2, 0)
    broken = ~np.isfinite(decoded).all(axis=2)
    levels = (np.clip(np.nan_to_num(decoded), -1, 1) + 1) * 127.5
    picture = levels.round().astype(np.uint8)
    picture[broken] = NOT_FINITE_COLOUR
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()
