"""CIELAB, and the difference of two colours as people see it.

sRGB: IEC 61966-2-1, white point D65. CIEDE2000: Sharma, Wu, Dalal, "The CIEDE2000 Color-Difference Formula:
Implementation Notes, Supplementary Test Data, and Mathematical Observations", Color Research & Application 30 (2005).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LEVELS = np.arange(256) / 255
_LINEAR = np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4).astype(np.float32)
_WHITE = np.array([0.95047, 1.0, 1.08883])
# Columns of X, Y, Z, each as a share of the white point's.
_TO_XYZ = (
    np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    ).T
    / _WHITE
).astype(np.float32)
_EPSILON, _KAPPA = 216 / 24389, 24389 / 27

SHADED = 2.0
"""kL for things in uneven light: lightness counts half, as CIEDE2000 (2:1:1) has it for textiles."""


def rgb_to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(..., 3) uint8 sRGB to (..., 3) float32 L* (0 to 100), a*, b*."""
    xyz = _LINEAR[rgb] @ _TO_XYZ
    f = np.where(xyz > _EPSILON, np.cbrt(xyz), (_KAPPA * xyz + 16) / 116)
    lab = np.empty_like(f)
    lab[..., 0] = 116 * f[..., 1] - 16
    lab[..., 1] = 500 * (f[..., 0] - f[..., 1])
    lab[..., 2] = 200 * (f[..., 1] - f[..., 2])
    return np.asarray(lab, np.float32)


def ciede2000(first: ArrayLike, second: ArrayLike, *, k_lightness: float = 1.0) -> NDArray[np.float64]:
    """ΔE₀₀ between (..., 3) CIELAB colours, broadcast: about 1 is just noticeable, 10 and more another colour."""
    l1, a1, b1 = np.moveaxis(np.asarray(first, np.float64), -1, 0)
    l2, a2, b2 = np.moveaxis(np.asarray(second, np.float64), -1, 0)
    mean_chroma7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(mean_chroma7 / (mean_chroma7 + 25.0**7))
    c1, c2 = np.hypot(a1 * stretch, b1), np.hypot(a2 * stretch, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a * stretch)) % 360 for a, b in ((a1, b1), (a2, b2)))
    is_grey = c1 * c2 == 0
    turn = np.where(is_grey, 0, (h2 - h1 + 180) % 360 - 180)
    # Exactly opposite hues: the formula takes +180 where h2 is the larger one.
    turn = np.where((np.abs(turn) == 180) & (h2 > h1), 180, turn)
    total = h1 + h2
    far = np.abs(h1 - h2) > 180
    mean_hue = np.where(far, np.where(total < 360, total + 360, total - 360), total) / 2
    mean_hue = np.where(is_grey, total, mean_hue)

    delta_l, delta_c = l2 - l1, c2 - c1
    delta_h = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    weight_l = 1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2)
    weight_c = 1 + 0.045 * mean_c
    hue_part = 1 - 0.17 * _cosine(mean_hue - 30) + 0.24 * _cosine(2 * mean_hue)
    hue_part += 0.32 * _cosine(3 * mean_hue + 6) - 0.20 * _cosine(4 * mean_hue - 63)
    weight_h = 1 + 0.015 * mean_c * hue_part
    rotation = np.radians(60 * np.exp(-(((mean_hue - 275) / 25) ** 2)))
    rotation = -2 * np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7)) * np.sin(rotation)
    lightness, chroma, hue = delta_l / (k_lightness * weight_l), delta_c / weight_c, delta_h / weight_h
    squared = lightness**2 + chroma**2 + hue**2 + rotation * chroma * hue
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


def _cosine(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.cos(np.radians(degrees)))
