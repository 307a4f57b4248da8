"""How sharp a picture is: how much of its differences between neighbours a blur takes away.

After Crete, Dolmiere, Ladret, Nicolas, "The blur effect: perception and estimation with a new no-reference perceptual
blur metric", SPIE 6492 (2007). What is blurred already loses little by another blur. Contrast cancels out, unlike in
the variance of the Laplacian; the size does not: only pictures of one size can be compared.
"""

import numpy as np
from numpy.typing import NDArray

BLUR_PIXELS = 9
MIN_DIFFERENCE = 0.05
"""Mean difference of neighbours, of 255, under which a picture has nothing that could be sharp."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def measure_sharpness(picture_HWC: NDArray[np.uint8]) -> float | None:
    """From 0, blurred beyond recognition, to 1; the worse of both directions. None for a picture of one flat colour.

    The picture is uint8 RGB and at least 16 pixels high and wide. Noise counts as sharp.
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
