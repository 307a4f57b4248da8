"""Which pixels are the subject, and how far from the middle it stands."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from studio.results import Fact
from studio.scoring.border import border_mask
from studio.scoring.ground import distance_from_ground
from studio.scoring.working import WorkingPicture

MIN_DISTANCE = 4.0
"""From the ground, in multiples of what the ground varies, at which a pixel is the subject's."""
MIN_SUBJECT_SHARE = 0.006
MAX_SUBJECT_SHARE = 0.8
MAX_BORDER_SHARE = 0.6
"""Of the border: where the subject would have more than that, the border is no ground to tell it from."""
MIN_PART = 0.2
"""Of the largest part: smaller parts are specks of the ground."""
MIN_MATERIAL = 0.4
"""Of the subject: where less of it differs from the ground, only its outline does, and it is of the ground's colour."""
FLAT_GROUND, FLAT_NOISE = 0.5, 0.4
"""A border that varies less than the first, in CIELAB, is looked at again with less noise allowed for, where no subject
was found: white on white shows by its shading."""
_SMOOTHING = 0.8
_AROUND = 3

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Subject:
    """The subject in a working picture.

    Attributes:
        mask_HW: its pixels, holes filled; None where it cannot be told from the ground.
        material_HW: those of them that differ from the ground: without what is seen through a sandal.
        reason: why there is none, in a sentence; "" where there is.
    """

    mask_HW: Mask | None
    material_HW: Mask | None = None
    reason: str = ""


class Centring(Fact):
    """Where the subject's centroid is from the picture's middle, as shares of the shorter side.

    Attributes:
        dx, dy: to the right and downwards.
        offset: the distance.
        box_offset: the same distance of the middle of the subject's bounding box: 0 for a shoe that is laid out
            evenly, whose centroid lies towards its heel.
    """

    dx: float
    dy: float
    offset: Annotated[float, Field(ge=0)]
    box_offset: Annotated[float, Field(ge=0)]


def find_subject(working: WorkingPicture) -> Subject:
    """Tell the subject from the ground, which is what the border shows; shadows partly count as subject.

    Holes are filled, so what is seen through a sandal is its own.
    """
    smooth_HWC = ndimage.gaussian_filter(working.lab_HWC, (_SMOOTHING, _SMOOTHING, 0))
    border_HW = border_mask(*smooth_HWC.shape[:2])
    far_HW, mask_HW = _tell(smooth_HWC, border_HW, noise=1.0)
    is_flat = float(smooth_HWC[border_HW].std(axis=0).max()) < FLAT_GROUND
    if is_flat and mask_HW.mean() < MIN_SUBJECT_SHARE:
        far_HW, mask_HW = _tell(smooth_HWC, border_HW, noise=FLAT_NOISE)
    if reason := _why_none(mask_HW, border_HW):
        return Subject(None, reason=reason)
    material_HW = mask_HW & far_HW
    return Subject(mask_HW, material_HW if material_HW.sum() >= MIN_MATERIAL * mask_HW.sum() else mask_HW)


def _tell(smooth_HWC: NDArray[np.float32], border_HW: Mask, *, noise: float) -> tuple[Mask, Mask]:
    """(what differs from the ground, the subject): learned from the border, then from all but the subject."""
    far_HW = distance_from_ground(smooth_HWC, border_HW, noise=noise) > MIN_DISTANCE
    mask_HW = _largest_parts(far_HW)
    if mask_HW.any():
        ground_HW = ~ndimage.binary_dilation(mask_HW, iterations=_AROUND)
        if ground_HW.mean() > 1 - MAX_SUBJECT_SHARE:
            far_HW = distance_from_ground(smooth_HWC, ground_HW, noise=noise) > MIN_DISTANCE
            mask_HW = _largest_parts(far_HW)
    return far_HW, mask_HW


def measure_centring(mask_HW: Mask) -> Centring:
    """Where the centroid of a mask lies; the mask is not empty."""
    height, width = mask_HW.shape
    rows, columns = np.nonzero(mask_HW)
    short = min(height, width)
    dx = (float(columns.mean()) + 0.5 - width / 2) / short
    dy = (float(rows.mean()) + 0.5 - height / 2) / short
    box_dx = (float(columns.min() + columns.max() + 1) - width) / 2 / short
    box_dy = (float(rows.min() + rows.max() + 1) - height) / 2 / short
    offset, box_offset = float(np.hypot(dx, dy)), float(np.hypot(box_dx, box_dy))
    return Centring(dx=dx, dy=dy, offset=offset, box_offset=box_offset)


def _largest_parts(mask_HW: Mask) -> Mask:
    """Without specks and hairs, with gaps closed and holes filled: the largest part and what is not much smaller."""
    opened = ndimage.binary_opening(mask_HW)
    pad = 3
    closed = ndimage.binary_closing(np.pad(opened, pad), iterations=2)[pad:-pad, pad:-pad]
    filled = ndimage.binary_fill_holes(closed)
    labels, number = ndimage.label(filled)
    if number < 2:
        return np.asarray(filled, np.bool_)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return np.asarray((areas >= MIN_PART * areas.max())[labels], np.bool_)


def _why_none(mask_HW: Mask, border_HW: Mask) -> str:
    share = float(mask_HW.mean())
    if share < MIN_SUBJECT_SHARE:
        return "No subject stands out from the ground: there is none, or it has the ground's own colours."
    if share > MAX_SUBJECT_SHARE or float(mask_HW[border_HW].mean()) > MAX_BORDER_SHARE:
        return "No ground can be seen at the border: the subject fills the picture, or the ground is too restless."
    return ""
