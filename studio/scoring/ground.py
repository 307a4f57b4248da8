"""A model of a picture's ground, learned from where the ground is: how far is each pixel from it?

Two views, and the kinder one counts: a few clusters of colours (planks, a horizon, grass), and one smooth surface of
colour over the picture (light that falls off). Distances are Mahalanobis': in multiples of what the ground varies.
"""

import numpy as np
from numpy.typing import NDArray

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
    for _ in range(NUM_CLUSTERS - 1):
        apart_N = _squared_distances(samples_NC, centres_KC).min(axis=1)
        rank = int(len(apart_N) * _FAR_PERCENTILE / 100)
        farthest = np.argsort(apart_N, kind="stable")[min(rank, len(apart_N) - 1)]
        centres_KC = np.concatenate([centres_KC, samples_NC[farthest][None]])
    labels_N = _squared_distances(samples_NC, centres_KC).argmin(axis=1)
    for _ in range(_ROUNDS):
        for label in np.unique(labels_N):
            centres_KC[label] = samples_NC[labels_N == label].mean(axis=0)
        labels_N = _squared_distances(samples_NC, centres_KC).argmin(axis=1)
    return np.asarray(labels_N, np.intp)


def _squared_distances(samples_NC: Floats, centres_KC: Floats) -> Floats:
    away_NKC = samples_NC[:, None] - centres_KC[None]
    return np.asarray(np.einsum("nkc,nkc->nk", away_NKC, away_NKC))


def _from_surface(lab_HWC: Floats, ground_HW: NDArray[np.bool_], noise_C: Floats) -> Floats:
    """From a quadratic in x and y for each channel, by least squares that forget outliers (Cauchy weights, squared)."""
    height, width, _ = lab_HWC.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    terms_HWT = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    stride = max(1, int(ground_HW.sum()) // (2 * _MAX_SAMPLES))
    terms_NT, values_NC = terms_HWT[ground_HW][::stride], lab_HWC[ground_HW][::stride]
    weights_N = np.ones(len(terms_NT), np.float32)
    for _ in range(_FITS):
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
