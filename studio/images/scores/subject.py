"""Subject and background of an image: border, segmentation, centring, sharpness.

How white an image's border is.

A model of an image's ground, learned from where the ground is: how far is each pixel from it?

Two views, and the kinder one counts: a few clusters of colours (planks, a horizon, grass), and one smooth surface of
colour over the image (light that falls off). Distances are Mahalanobis': in multiples of what the ground varies.
An image at the size at which it is looked at: 128 pixels on its shorter side, so that the size does not matter.
How sharp an image is: how much of its differences between neighbours a blur takes away.

After Crete, Dolmiere, Ladret, Nicolas, "The blur effect: perception and estimation with a new no-reference perceptual
blur metric", SPIE 6492 (2007). What is blurred already loses little by another blur. Contrast cancels out, unlike in
the variance of the Laplacian; the size does not: only images of one size can be compared.
Which pixels are the subject, and how far from the middle it stands.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from scipy import ndimage

from studio.core.language import _
from studio.core.records import Record
from studio.images.scores.colour import rgb_to_lab

BORDER_SHARE = 6 / 128
"""The border's width as a share of the shorter side."""
WHITE_LEVEL = 245


class Border(Record):
    """The border of an image, 4.7 % of its shorter side wide, at least a pixel.

    Attributes:
        whiteness: share of its pixels whose every channel is at least 245.
        mean: of all its channels, 0 to 255.
    """

    whiteness: Annotated[float, Field(ge=0, le=1)]
    mean: Annotated[float, Field(ge=0, le=255)]


def border_width(height: int, width: int) -> int:
    """In pixels."""
    return max(1, round(min(height, width) * BORDER_SHARE))


def border_mask(height: int, width: int) -> NDArray[np.bool_]:
    """(height, width): True in the border."""
    edge = border_width(height, width)
    mask = np.ones((height, width), np.bool_)
    mask[edge:-edge, edge:-edge] = False
    return mask


def measure_border(picture_HWC: NDArray[np.uint8]) -> Border:
    """Look at the border of a uint8 RGB image, at its full size."""
    height, width, __ = picture_HWC.shape
    edge = border_width(height, width)
    middle = picture_HWC[edge:-edge]
    strips = (picture_HWC[:edge], picture_HWC[-edge:], middle[:, :edge], middle[:, -edge:])
    pixels_NC = np.concatenate([strip.reshape(-1, 3) for strip in strips])
    return Border(
        whiteness=float((pixels_NC.min(axis=1) >= WHITE_LEVEL).mean()),
        mean=float(pixels_NC.mean()),
    )


NUM_CLUSTERS = 4
MIN_CLUSTER_SHARE = 0.04
"""Of the samples: smaller ones are the subject that reaches into the border."""
NOISE_LAB = np.array([2.5, 1.5, 1.5], np.float32)
"""Standard deviation that every ground has at least, of noise and JPEG."""
_MAX_SAMPLES = 800
_ROUNDS = 6
_FITS = 4
_FAR_PERCENTILE = 97  # not the farthest: that is an outlier

Floats = NDArray[np.float32]


def distance_from_ground(lab_HWC: Floats, ground_HW: NDArray[np.bool_], *, noise: float = 1.0) -> Floats:
    """(height, width): each pixel's distance from the ground, which is known at `ground_HW`.

    Args:
        noise: how much of NOISE_LAB the ground has at least.
    """
    noise_C = NOISE_LAB * np.float32(noise)
    by_clusters_HW = _from_clusters(lab_HWC, lab_HWC[ground_HW], noise_C)
    return np.minimum(by_clusters_HW, _from_surface(lab_HWC, ground_HW, noise_C))


def _from_clusters(lab_HWC: Floats, samples_NC: Floats, noise_C: Floats) -> Floats:
    samples_NC = samples_NC[:: max(1, len(samples_NC) // _MAX_SAMPLES)]
    labels_N = _cluster(samples_NC)
    pixels_PC = lab_HWC.reshape(-1, 3)
    nearest_P = np.full(len(pixels_PC), np.inf, np.float32)
    for label in range(NUM_CLUSTERS):
        members = samples_NC[labels_N == label]
        if len(members) < max(3.0, MIN_CLUSTER_SHARE * len(samples_NC)):
            continue
        covariance = np.cov(members.T) + np.diag(noise_C**2)
        # x' C⁻¹ x is the length of L' x, where L L' is C⁻¹.
        whitening = np.linalg.cholesky(np.linalg.inv(covariance)).astype(np.float32)
        away_PC = (pixels_PC - members.mean(axis=0)) @ whitening
        np.minimum(nearest_P, np.einsum("pc,pc->p", away_PC, away_PC), out=nearest_P)
    return np.sqrt(nearest_P).reshape(lab_HWC.shape[:2])


def _cluster(samples_NC: Floats) -> NDArray[np.intp]:
    """k-means; the first centres lie far apart, and nothing is left to chance."""
    centres_KC = np.median(samples_NC, axis=0)[None]
    for __ in range(NUM_CLUSTERS - 1):
        apart_N = _squared_distances(samples_NC, centres_KC).min(axis=1)
        rank = int(len(apart_N) * _FAR_PERCENTILE / 100)
        farthest = np.argsort(apart_N, kind="stable")[min(rank, len(apart_N) - 1)]
        centres_KC = np.concatenate([centres_KC, samples_NC[farthest][None]])
    labels_N = _squared_distances(samples_NC, centres_KC).argmin(axis=1)
    for __ in range(_ROUNDS):
        for label in np.unique(labels_N):
            centres_KC[label] = samples_NC[labels_N == label].mean(axis=0)
        labels_N = _squared_distances(samples_NC, centres_KC).argmin(axis=1)
    return np.asarray(labels_N, np.intp)


def _squared_distances(samples_NC: Floats, centres_KC: Floats) -> Floats:
    away_NKC = samples_NC[:, None] - centres_KC[None]
    return np.asarray(np.einsum("nkc,nkc->nk", away_NKC, away_NKC))


def _from_surface(lab_HWC: Floats, ground_HW: NDArray[np.bool_], noise_C: Floats) -> Floats:
    """From a quadratic in x and y for each channel, by least squares that forget outliers (Cauchy weights, squared)."""
    height, width, __ = lab_HWC.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    terms_HWT = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    stride = max(1, int(ground_HW.sum()) // (2 * _MAX_SAMPLES))
    terms_NT, values_NC = terms_HWT[ground_HW][::stride], lab_HWC[ground_HW][::stride]
    weights_N = np.ones(len(terms_NT), np.float32)
    for __ in range(_FITS):
        weighted_NT = terms_NT * weights_N[:, None]
        surface_TC = np.linalg.solve(weighted_NT.T @ terms_NT + 1e-3 * np.eye(6), weighted_NT.T @ values_NC)
        off_NC = values_NC - terms_NT @ surface_TC.astype(np.float32)
        length_N = np.sqrt((off_NC**2).sum(axis=1))
        scale = max(1.5, 1.4826 * float(np.median(length_N)))
        weights_N = (1 / (1 + (length_N / (2 * scale)) ** 2) ** 2).astype(np.float32)
    spread_C = 1.4826 * np.median(np.abs(off_NC), axis=0)
    spread_C = np.sqrt(spread_C**2 + noise_C**2)
    away_HWC = (lab_HWC - terms_HWT @ surface_TC.astype(np.float32)) / spread_C
    return np.asarray(np.sqrt(np.einsum("hwc,hwc->hw", away_HWC, away_HWC)), np.float32)


WORKING_SIDE = 128


@dataclass(frozen=True)
class WorkingPicture:
    """An image made small; one that is smaller stays as it is.

    Attributes:
        rgb_HWC: uint8.
        lab_HWC: float32 CIELAB.
    """

    rgb_HWC: NDArray[np.uint8]
    lab_HWC: NDArray[np.float32]


def make_working(picture_HWC: NDArray[np.uint8]) -> WorkingPicture:
    """Average a uint8 RGB image down."""
    height, width, __ = picture_HWC.shape
    scale = WORKING_SIDE / min(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture_HWC = np.asarray(Image.fromarray(picture_HWC).resize(size, Image.Resampling.BOX))
    return WorkingPicture(picture_HWC, rgb_to_lab(picture_HWC))


BLUR_PIXELS = 9
MIN_DIFFERENCE = 0.05
"""Mean difference of neighbours, of 255, under which an image has nothing that could be sharp."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def measure_sharpness(picture_HWC: NDArray[np.uint8]) -> float | None:
    """From 0, blurred beyond recognition, to 1; the worse of both directions. None for an image of one flat colour.

    The image is uint8 RGB and at least 16 pixels high and wide. Noise counts as sharp.
    """
    luma_HW = picture_HWC.astype(np.float32) @ _LUMA
    directions = [share for grey in (luma_HW, luma_HW.T) if (share := _share_lost(grey)) is not None]
    return min(directions) if directions else None


def _share_lost(grey_HW: NDArray[np.float32]) -> float | None:
    """The share of the differences along rows that a blur along rows takes away."""
    reach = BLUR_PIXELS // 2
    padded = np.pad(grey_HW, ((0, 0), (reach + 1, reach)), mode="edge")
    sums = np.cumsum(padded, axis=1, dtype=np.float64)
    blurred = (sums[:, BLUR_PIXELS:] - sums[:, :-BLUR_PIXELS]) / BLUR_PIXELS
    before = np.abs(np.diff(grey_HW, axis=1))
    after = np.abs(np.diff(blurred, axis=1))
    total = float(before.sum())
    if total < MIN_DIFFERENCE * before.size:
        return None
    return float(np.maximum(before - after, 0).sum()) / total


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
    """The subject in a working image.

    Attributes:
        mask_HW: its pixels, holes filled; None where it cannot be told from the ground.
        material_HW: those of them that differ from the ground: without what is seen through a sandal.
        reason: why there is none, in a sentence; "" where there is.
    """

    mask_HW: Mask | None
    material_HW: Mask | None = None
    reason: str = ""


class Centring(Record):
    """Where the subject's centroid is from the image's middle, as shares of the shorter side.

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
    far_HW, mask_HW = _report(smooth_HWC, border_HW, noise=1.0)
    is_flat = float(smooth_HWC[border_HW].std(axis=0).max()) < FLAT_GROUND
    if is_flat and mask_HW.mean() < MIN_SUBJECT_SHARE:
        far_HW, mask_HW = _report(smooth_HWC, border_HW, noise=FLAT_NOISE)
    if reason := _why_none(mask_HW, border_HW):
        return Subject(None, reason=reason)
    material_HW = mask_HW & far_HW
    return Subject(mask_HW, material_HW if material_HW.sum() >= MIN_MATERIAL * mask_HW.sum() else mask_HW)


def _report(smooth_HWC: NDArray[np.float32], border_HW: Mask, *, noise: float) -> tuple[Mask, Mask]:
    """(what differs from the ground, the subject): learned from the border, then from all but the subject."""
    far_HW = distance_from_ground(smooth_HWC, border_HW, noise=noise) > MIN_DISTANCE
    mask_HW = _largest_parts(far_HW)
    if mask_HW.any():
        ground_HW = ground_around(mask_HW)
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


def ground_around(mask_HW: Mask) -> Mask:
    """What is surely ground: all but the subject and a rim around it."""
    return np.asarray(~ndimage.binary_dilation(mask_HW, iterations=_AROUND), np.bool_)


def measure_roughness(working: WorkingPicture, ground_HW: Mask) -> float:
    """How far a ground's pixels are from what is around them, in CIELAB: 0 where it is plain, also where it fades."""
    away_HWC = working.lab_HWC - ndimage.gaussian_filter(working.lab_HWC, (2, 2, 0))
    return float(np.median(np.sqrt((away_HWC[ground_HW] ** 2).sum(axis=1))))


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
        return _("No subject stands out: the image has none, or its colours are the background's.")
    if share > MAX_SUBJECT_SHARE or float(mask_HW[border_HW].mean()) > MAX_BORDER_SHARE:
        return _("No background is visible at the border: the subject fills the image, or the background is too busy.")
    return ""
