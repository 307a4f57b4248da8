"""Aspect-ratio buckets: the sizes at which images are trained on, and the part of each that is kept.

The rule is sd-scripts': for a target area and a step, every width has the height ⌊area / width / step⌋ · step. A
image takes the bucket with the least aspect error, is scaled to cover it, cut at its centre, and never enlarged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

SMALL_RESOLUTION = 256


@dataclass(frozen=True, order=True)
class Bucket:
    """A training size in pixels, both sides multiples of the step."""

    width: int
    height: int


@dataclass(frozen=True)
class BucketFit:
    """How an image gets into a bucket.

    Attributes:
        bucket: the size that training sees; below the bucket's where the image is smaller.
        crop: left, top, right, bottom of the part that is kept, in the upright image's own pixels.
        too_small: the image does not cover its bucket, and is not enlarged.
    """

    bucket: Bucket
    crop: tuple[int, int, int, int]
    too_small: bool


def step_of(resolution: int) -> int:
    """The step between sizes: 64, or 16 for models smaller than Stable Diffusion's."""
    return 64 if resolution >= SMALL_RESOLUTION else 16


@lru_cache(maxsize=16)
def buckets_for(resolution: int) -> tuple[Bucket, ...]:
    """All buckets of an area of resolution², from half the resolution to twice as wide, narrowest first.

    Args:
        resolution: side of a square of that area, in pixels.
    """
    step = step_of(resolution)
    least, most = max(step, resolution // 2 // step * step), resolution * 2
    sizes = set()
    for width in range(least, most + 1, step):
        height = min(most, resolution * resolution // width // step * step)
        if height >= least:
            sizes |= {Bucket(width, height), Bucket(height, width)}
    return tuple(sorted(sizes))


def assign_bucket(width: int, height: int, buckets: Sequence[Bucket]) -> BucketFit:
    """The bucket of an image, and what of it is kept.

    Args:
        width, height: of the upright image, in pixels, at least 1.
        buckets: at least one.
    """
    aspect = width / height
    # Of two that err alike the larger is taken.
    best = min(buckets, key=lambda b: (abs(b.width / b.height - aspect), -b.width * b.height))
    too_small = width < best.width or height < best.height
    if too_small:
        scale = min(width / best.width, height / best.height)
        bucket = Bucket(max(8, int(best.width * scale) // 8 * 8), max(8, int(best.height * scale) // 8 * 8))
    else:
        bucket = best
    return BucketFit(bucket, _centre_crop(width, height, bucket), too_small)


def _centre_crop(width: int, height: int, bucket: Bucket) -> tuple[int, int, int, int]:
    """The largest part of the bucket's shape, around the centre."""
    scale = min(width / bucket.width, height / bucket.height)
    kept_width, kept_height = min(width, round(bucket.width * scale)), min(height, round(bucket.height * scale))
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return left, top, left + kept_width, top + kept_height
