"""Where the subject of an image is, pixel by pixel, and what is behind it: finer than the mask that scores need.

A subject is what cannot be reached from the border without crossing an edge, or is rougher than the ground. Ground is
told from it by a model of what is behind each pixel: colours around the subject, carried on along rows, as horizons and
planks lie, and from all sides. A shadow is darker ground that begins without an edge. The soft edge comes from α in
seen = α · subject + (1 - α) · ground.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from studio.core.errors import PictureFileError
from studio.core.language import _
from studio.images.scores.colour import rgb_to_lab
from studio.images.scores.subject import (
    MAX_SUBJECT_SHARE,
    border_mask,
    distance_from_ground,
    find_subject,
    make_working,
)

CUTOUT_SIDE = 256
"""Of the shorter side: what the subject is looked for in; its edge is then as soft as a pixel of that."""
MIN_SUBJECT_PIXELS = 24
SMOOTHING = 0.8
SHADOW_BRIGHTNESS = 0.58
"""Of the ground's: what is darker than that is no soft shadow."""
NEAR, NEAR_HOLE = 3.5, 1.8
"""From the ground, in multiples of what it varies: nearer is ground where it is around the subject, or seen through it.
"""
EDGE_RATIO, ROUGH_RATIO = 5.0, 2.0
"""Of what is usual in an image's rows and columns: from there on there is an edge, or another material."""
MIN_EDGE, MIN_ROUGHNESS, MIN_NOISE = 1.5, 0.25, 2.0
MIN_SLOPE = 2.5
"""In multiples of the ground's noise from pixel to pixel: less is a shadow's, also on a ground without noise."""
MIN_GROUND = 0.15
MIN_PART, MIN_HOLE = 0.04, 0.0015

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Pixels = NDArray[np.uint8]
_SQUARE = np.ones((3, 3), np.bool_)


@dataclass(frozen=True)
class Cutout:
    """Where the subject is, and what would be behind it, of the image's size.

    Attributes:
        alpha_HW: how much of each pixel is the subject's, of 255.
        ground_HWC: RGB of the ground, also where the subject hides it.
    """

    alpha_HW: Pixels
    ground_HWC: Pixels


def cut_out(pixels_HWC: Pixels) -> Cutout:
    """Tell the subject of a uint8 RGB image from its ground.

    Raises:
        PictureFileError: where it cannot be told; the sentence says why.
    """
    height, width, __ = pixels_HWC.shape
    scale = min(1.0, CUTOUT_SIDE / min(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small_HWC = np.asarray(Image.fromarray(pixels_HWC).resize(size, Image.Resampling.BOX))
    lab_HWC = rgb_to_lab(small_HWC)
    around_HW = _candidate(small_HWC, lab_HWC)
    seen_HWC = small_HWC.astype(np.float32)
    known_HW = _known(around_HW)
    ground_HWC = _behind(_blurred(seen_HWC), known_HW)
    subject_HW, sure_HW = _without_ground(seen_HWC, lab_HWC, ground_HWC, around_HW, known_HW)
    if subject_HW.sum() < MIN_SUBJECT_PIXELS:
        raise PictureFileError(_("No subject stands out: the image has none, or its colours are the background's."))
    if subject_HW.mean() > MAX_SUBJECT_SHARE:
        raise PictureFileError(
            _("No background is visible at the border: the subject fills the image, or the background is too busy.")
        )
    if any(side.any() for side in (subject_HW[0], subject_HW[-1], subject_HW[:, 0], subject_HW[:, -1])):
        raise PictureFileError(
            _("The subject reaches the edge of the image, where it cannot be told from the background.")
        )
    alpha_HW = _alpha(seen_HWC, ground_HWC, subject_HW, sure_HW)
    alpha, ground = (
        Image.fromarray(np.rint(np.clip(levels, 0, 255)).astype(np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for levels in (255 * alpha_HW, ground_HWC)
    )
    return Cutout(np.asarray(alpha), np.asarray(ground))


def _blurred(image_HWC: Floats) -> Floats:
    return np.asarray(ndimage.gaussian_filter(image_HWC, (SMOOTHING, SMOOTHING, 0)), np.float32)


def _candidate(small_HWC: Pixels, lab_HWC: Floats) -> Mask:
    """What is surely not all ground: enclosed by edges, rougher, or of other colours than the border."""
    height, width = lab_HWC.shape[:2]
    steep_HW = np.sqrt(sum(ndimage.gaussian_gradient_magnitude(lab_HWC[..., c], 1.0) ** 2 for c in range(3)))
    edges_HW = _closed(steep_HW > np.maximum(EDGE_RATIO * _usual(steep_HW), MIN_EDGE))
    outside_HW = _touching(~edges_HW, border_mask(height, width) & ~edges_HW)
    enclosed_HW = ndimage.binary_opening(~outside_HW)
    roughness_HW = _roughness(lab_HWC)
    usual_HW = np.maximum(_usual(roughness_HW), MIN_ROUGHNESS)
    rough_HW = ndimage.binary_opening(roughness_HW > ROUGH_RATIO * usual_HW, iterations=2)
    found_HW = _large_parts(enclosed_HW, 0.1) | rough_HW
    known = find_subject(make_working(small_HWC)).mask_HW
    if known is not None:
        found_HW |= np.asarray(Image.fromarray(known).resize((width, height), Image.Resampling.NEAREST))
    return _large_parts(np.asarray(ndimage.binary_fill_holes(_closed(found_HW)), np.bool_), 0.1)


def _usual(levels_HW: Floats) -> Floats:
    """Of each pixel's row, column and the whole image: edges of a ground, as between planks, run through all of it."""
    rows_H1 = np.median(levels_HW, axis=1, keepdims=True)
    columns_1W = np.median(levels_HW, axis=0, keepdims=True)
    return np.asarray(np.maximum(np.maximum(rows_H1, 0.7 * columns_1W), np.median(levels_HW)), np.float32)


def _roughness(lab_HWC: Floats) -> Floats:
    """How far pixels are from their surroundings; the median of a few, so that an edge is not taken for a texture."""
    fine_HWC = lab_HWC - ndimage.gaussian_filter(lab_HWC, (1.2, 1.2, 0))
    return np.asarray(ndimage.median_filter(np.sqrt((fine_HWC**2).sum(axis=-1)), 7), np.float32)


def _known(around_HW: Mask) -> Mask:
    """What is surely ground."""
    height, width = around_HW.shape
    known_HW = ~ndimage.binary_dilation(around_HW, iterations=max(2, height // 40))
    return np.asarray(known_HW if known_HW.mean() >= MIN_GROUND else border_mask(height, width), np.bool_)


def _behind(image_HWC: Floats, known_HW: Mask) -> Floats:
    """The ground at each pixel, from what is known of it: along its row or from all sides, whichever fits better."""
    from_rows_HWC, from_sides_HWC = _along_rows(image_HWC, known_HW), _from_all_sides(image_HWC, known_HW)
    from_rows_HWC = np.where(np.isnan(from_rows_HWC), from_sides_HWC, from_rows_HWC)
    off_rows_HW, off_sides_HW = (
        ndimage.gaussian_filter(np.abs(image_HWC - one_HWC).sum(axis=-1), 2)
        for one_HWC in (from_rows_HWC, from_sides_HWC)
    )
    return np.where((off_sides_HW < off_rows_HW)[..., None], from_sides_HWC, from_rows_HWC).astype(np.float32)


def _along_rows(image_HWC: Floats, known_HW: Mask) -> Floats:
    """Each row's known colours, a line between them; NaN in rows of which too little is known."""
    width = known_HW.shape[1]
    weight_HW = ndimage.uniform_filter1d(known_HW.astype(np.float32), 9, axis=1)
    mean_HWC = ndimage.uniform_filter1d(image_HWC * known_HW[..., None], 9, axis=1)
    mean_HWC /= np.maximum(weight_HW, 1e-6)[..., None]
    columns, filled_HWC = np.arange(width), np.full_like(image_HWC, np.nan)
    for row, known_W in enumerate(known_HW):
        if known_W.sum() >= max(4, 0.05 * width):
            for channel in range(3):
                filled_HWC[row, :, channel] = np.interp(columns, columns[known_W], mean_HWC[row, known_W, channel])
    return filled_HWC


def _from_all_sides(image_HWC: Floats, known_HW: Mask) -> Floats:
    """Means over ever larger surroundings: near what is known over small ones, else over large ones."""
    height, width = known_HW.shape
    known_HW1 = known_HW[..., None].astype(np.float32)
    filled_HWC = np.zeros_like(image_HWC)
    missing_HW1 = np.ones_like(known_HW1)
    sigma = height / 24
    while sigma < 2 * max(height, width):
        weight_HW1 = ndimage.gaussian_filter(known_HW1, (sigma, sigma, 0))
        mean_HWC = ndimage.gaussian_filter(image_HWC * known_HW1, (sigma, sigma, 0)) / np.maximum(weight_HW1, 1e-6)
        trusted_HW1 = missing_HW1 * np.clip(weight_HW1 / 0.2, 0, 1)
        filled_HWC += trusted_HW1 * mean_HWC
        missing_HW1 = missing_HW1 - trusted_HW1
        sigma *= 2
    return np.asarray(filled_HWC + missing_HW1 * image_HWC[known_HW].mean(axis=0), np.float32)


def _without_ground(
    seen_HWC: Floats, lab_HWC: Floats, ground_HWC: Floats, around_HW: Mask, known_HW: Mask
) -> tuple[Mask, Mask]:
    """(the subject, what of it is surely not ground): without shadows, and without what is seen through it."""
    image_HWC = _blurred(seen_HWC)
    whitening_CC = _whitening((image_HWC - ground_HWC)[known_HW])
    off_HWC = (image_HWC - ground_HWC) @ whitening_CC
    by_model_HW = distance_from_ground(_blurred(lab_HWC), known_HW) * np.float32(NEAR / 4)
    away_HW = np.minimum(np.sqrt((off_HWC**2).sum(axis=-1)), by_model_HW)
    slope_HW = np.sqrt(sum(ndimage.sobel(off_HWC[..., c], axis) ** 2 for c in range(3) for axis in (0, 1))) / 8
    usual_slopes = slope_HW[known_HW]
    edge_HW = slope_HW > max(6 * np.median(usual_slopes), np.percentile(usual_slopes, 99.5), MIN_SLOPE)
    brightness_HW = (image_HWC * ground_HWC).sum(axis=-1) / np.maximum((ground_HWC**2).sum(axis=-1), 1)
    darker_HWC = np.minimum(brightness_HW, 1)[..., None] * ground_HWC
    off_shadow_HW = np.sqrt((((image_HWC - darker_HWC) @ whitening_CC) ** 2).sum(axis=-1))
    shadow_HW = (off_shadow_HW < NEAR) & (brightness_HW > SHADOW_BRIGHTNESS)
    near_HW = away_HW < NEAR
    soft_HW = ndimage.binary_opening((near_HW | shadow_HW) & ~edge_HW) | known_HW
    reached_HW = _touching(soft_HW, known_HW)
    holes_HW = _holes(ndimage.binary_opening(near_HW & ~edge_HW) & ~reached_HW, away_HW)
    roughness_HW = _roughness(lab_HWC)
    usual = max(float(np.median(roughness_HW[known_HW])), MIN_ROUGHNESS)
    rough_HW = ndimage.binary_opening(roughness_HW > 2.2 * usual, iterations=2)
    subject_HW = ndimage.binary_opening(around_HW & (~(reached_HW | holes_HW) | rough_HW))
    return _large_parts(subject_HW, MIN_PART), away_HW > 3 * NEAR


def _whitening(residuals_NC: Floats) -> Floats:
    """(3, 3): makes of a difference from the ground multiples of what the ground varies."""
    length_N = np.abs(residuals_NC).sum(axis=1)
    usual_NC = residuals_NC[length_N <= np.percentile(length_N, 95)]
    covariance = 1.3 * np.cov(usual_NC.T) + np.eye(3) * MIN_NOISE**2
    return np.asarray(np.linalg.cholesky(np.linalg.inv(covariance)), np.float32)


def _holes(near_HW: Mask, away_HW: Floats) -> Mask:
    """Those of the parts that are large, and ground on the whole."""
    labels_HW, number = ndimage.label(near_HW)
    if number == 0:
        return near_HW
    areas_N = np.bincount(labels_HW.ravel())
    means_N = np.asarray(ndimage.mean(away_HW, labels_HW, np.arange(number + 1)))
    is_hole_N = (areas_N > MIN_HOLE * near_HW.size) & (means_N < NEAR_HOLE)
    is_hole_N[0] = False
    return np.asarray(is_hole_N[labels_HW], np.bool_)


def _alpha(seen_HWC: Floats, ground_HWC: Floats, subject_HW: Mask, sure_HW: Mask) -> Floats:
    """How much of each pixel is the subject's, 0 to 1; where subject and ground look alike, by the distance alone."""
    inside_HW = ndimage.binary_erosion(subject_HW, iterations=3, border_value=1)
    sure_HW = inside_HW | (ndimage.binary_erosion(subject_HW) & sure_HW)
    nearest = ndimage.distance_transform_edt(~sure_HW, return_distances=False, return_indices=True)
    own_HWC = _blurred(seen_HWC)[tuple(nearest)] if sure_HW.any() else seen_HWC
    apart_HWC = own_HWC - ground_HWC
    squared_HW = (apart_HWC**2).sum(axis=-1)
    seen_HW = np.clip(((seen_HWC - ground_HWC) * apart_HWC).sum(axis=-1) / np.maximum(squared_HW, 1), 0, 1)
    deep_HW = np.clip(ndimage.distance_transform_edt(subject_HW) - 1, 0, 1)
    trust_HW = np.clip((np.sqrt(squared_HW) - 12) / 30, 0, 1)
    rim_HW = np.where(subject_HW, trust_HW * seen_HW + (1 - trust_HW) * deep_HW, 0)
    return np.where(inside_HW, 1, rim_HW).astype(np.float32)


def _closed(mask_HW: Mask) -> Mask:
    """With gaps closed, also at the image's edge."""
    padded = np.pad(mask_HW, 3, mode="edge")
    return np.asarray(ndimage.binary_closing(padded, _SQUARE, iterations=3)[3:-3, 3:-3], np.bool_)


def _touching(mask_HW: Mask, seeds_HW: Mask) -> Mask:
    """The connected parts that touch a seed."""
    labels_HW, number = ndimage.label(mask_HW)
    touches_N = np.zeros(number + 1, np.bool_)
    touches_N[np.unique(labels_HW[seeds_HW])] = True
    touches_N[0] = False
    return np.asarray(touches_N[labels_HW], np.bool_)


def _large_parts(mask_HW: Mask, share: float) -> Mask:
    """The largest part, and those that have this share of it."""
    labels_HW, number = ndimage.label(mask_HW, _SQUARE)
    if number == 0:
        return mask_HW
    areas_N = np.bincount(labels_HW.ravel())
    areas_N[0] = 0
    return np.asarray((areas_N >= share * areas_N.max())[labels_HW], np.bool_)
