"""How far two images are apart: as a whole, where their subject is, and where it is not."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from studio.images.comparison import NOTICEABLE, PartDifference, Parts
from studio.images.scores.subject import find_subject, make_working

RIM = 2  # working pixels along the outline, which the smoothing in `find_subject` blurs: they count for neither


def difference_by_part(left_HWC: NDArray[np.uint8], right_HWC: NDArray[np.uint8]) -> Parts | None:
    """Of two uint8 RGB images of one size, each by `find_subject`: an estimate, from what the borders show.

    The subject is where either image has it, so that a subject that moved or grew counts as such. None where one of
    the images has none that can be told from its background.
    """
    masks = [find_subject(make_working(picture_HWC)).mask_HW for picture_HWC in (left_HWC, right_HWC)]
    told = [mask_HW for mask_HW in masks if mask_HW is not None]
    if len(told) < len(masks):
        return None
    height, width, _ = left_HWC.shape
    ground_HW = _in_full(~np.any(told, axis=0), height, width)
    subject_HW = _in_full(np.any([_without_rim(mask_HW) for mask_HW in told], axis=0), height, width)
    apart_HWC = np.abs(left_HWC.astype(np.int16) - right_HWC.astype(np.int16))
    if not ground_HW.any():
        return None
    return Parts(background=_part(apart_HWC[ground_HW]), subject=_part(apart_HWC[subject_HW]))


def _without_rim(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of a subject that is nothing but rim, as straps are, all of it."""
    inner_HW = np.asarray(ndimage.binary_erosion(mask_HW, iterations=RIM, border_value=1), np.bool_)
    return inner_HW if inner_HW.any() else mask_HW


def _in_full(mask_HW: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """A working image's mask at the image's own size."""
    return np.asarray(Image.fromarray(mask_HW).resize((width, height), Image.Resampling.NEAREST))


def _part(apart_NC: NDArray[np.int16]) -> PartDifference:
    return PartDifference(
        pixels=float(apart_NC.mean()), changed_share=float((apart_NC.max(axis=1) >= NOTICEABLE).mean())
    )


def rms_distance(picture_HWC: NDArray[np.uint8], other_HWC: NDArray[np.uint8]) -> float:
    """Root mean square of the difference of two images of one size, of 255."""
    difference = picture_HWC.astype(np.float64) - other_HWC.astype(np.float64)
    return float(np.sqrt(np.square(difference).mean()))
