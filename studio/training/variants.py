"""The variants of an image that training sees: other crops, scales and brightness, and the mirror image.

They follow from the image's bytes and the settings alone, so each is encoded once, and other runs find it again. Which
of them a step sees follows from the run's seed and the batch's number (`torch/batches.py`).
"""

import base64
import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import log2
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le
from pydantic import Field

from studio.core.language import N_
from studio.core.settings import Settings
from studio.datasets.rows import Bucket, BucketFit

if TYPE_CHECKING:  # the command line reads these settings without Pillow
    from PIL import Image

CropName = Literal["centre", "random"]
Box = tuple[int, int, int, int]  # left, top, right, bottom in the upright image's pixels


class VariantSettings(Settings):
    """The part of a training's settings that says which variants there are."""

    crop: CropName = Field(
        "centre",
        title=N_("Crop"),
        description=N_(
            "Which part of an image is kept. random: another one in each variant. A crop that you moved stays."
        ),
        json_schema_extra={"group": N_("Images and captions")},
    )
    horizontal_flip: bool = Field(
        False,
        title=N_("Mirror"),
        description=N_(
            "Mirrors half of the images, for twice the cache. Leave off for lettering, or where sides matter."
        ),
    )
    scale_jitter_percent: Annotated[int, Ge(0), Le(50)] = Field(
        0,
        title=N_("Vary the scale"),
        description=N_(
            "Variants show up to this much less of an image, so its subject is larger. Nothing is enlarged beyond its "
            "own pixels. Leave at 0 where whole products must be seen."
        ),
        json_schema_extra={"unit": "%"},
    )
    brightness_jitter_percent: Annotated[int, Ge(0), Le(50)] = Field(
        0,
        title=N_("Vary the brightness"),
        description=N_(
            "In variants, medium grey is up to this much lighter or darker; black and white stay. Leave at 0 where "
            "shades matter."
        ),
        json_schema_extra={"unit": "%"},
    )
    num_variants: Annotated[int, Ge(1), Le(64)] = Field(
        4,
        title=N_("Variants"),
        description=N_(
            "Number of variants of each image with random crops, scale or brightness. Each is encoded once, so time "
            "and disk space of the cache grow with it; the preflight shows both."
        ),
    )


@dataclass(frozen=True)
class Variant:
    """One way in which an image is seen.

    Attributes:
        crop: the part that is kept.
        flip: mirrored.
        brightness: by which fraction medium grey is lighter; below 0 darker.
    """

    crop: Box
    flip: bool = False
    brightness: float = 0.0


def make_variants(
    size: tuple[int, int], fit: BucketFit, settings: VariantSettings, *, sha256: str, is_moved: bool
) -> tuple[Variant, ...]:
    """Each different one once, the mirrored ones last. The first has the image's own scale and brightness.

    Args:
        size: width and height of the upright image, in pixels.
        fit: its training size, and the part that is kept without variants.
        sha256: of the image's bytes, from which crops are drawn.
        is_moved: a person chose the part that is kept: it is kept in every variant.
    """
    is_random = settings.crop == "random" and not is_moved
    scale = 0 if is_moved else settings.scale_jitter_percent / 100
    brightness = settings.brightness_jitter_percent / 100
    num = settings.num_variants if is_random or scale or brightness else 1
    boxes = _boxes(size, fit, num, scale=scale, is_random=is_random, sha256=sha256)
    levels = _spread(f"brightness {sha256}", num, _GOLDEN)
    variants = [
        Variant(box, brightness=round(brightness * (2 * level - 1), 4) if i else 0.0)
        for i, (box, level) in enumerate(zip(boxes, levels, strict=True))
    ]
    mirrored = [replace(variant, flip=True) for variant in variants if settings.horizontal_flip]
    return tuple(dict.fromkeys([*variants, *mirrored]))


def _boxes(
    size: tuple[int, int], fit: BucketFit, num: int, *, scale: float, is_random: bool, sha256: str
) -> Iterator[Box]:
    """Crops of the bucket's shape, never smaller than the bucket unless the whole image is."""
    left, top, right, bottom = fit.crop
    width, height = right - left, bottom - top
    least = min(1.0, max(1 - scale, fit.bucket.width / width, fit.bucket.height / height))
    rng = random.Random(f"crop {sha256}")
    for i, amount in enumerate(_spread(f"scale {sha256}", num, _SILVER)):
        factor = 1 - (1 - least) * amount if i else 1.0
        kept_width, kept_height = round(width * factor), round(height * factor)
        x, y = left + (width - kept_width) // 2, top + (height - kept_height) // 2
        if is_random:
            x, y = rng.randint(0, size[0] - kept_width), rng.randint(0, size[1] - kept_height)
        yield x, y, x + kept_width, y + kept_height


# In steps of an irrational number, amounts lie evenly however many there are, and more of them begin with the fewer.
_GOLDEN, _SILVER = (5**0.5 - 1) / 2, 2**0.5 - 1


def _spread(seed: str, num: int, step: float) -> list[float]:
    """So many numbers in [0, 1), from a random first one on."""
    first = random.Random(seed).random()
    return [(first + i * step) % 1 for i in range(num)]


def cut(image: "Image.Image", variant: Variant, bucket: Bucket) -> "Image.Image":
    """What training sees of an upright RGB image, in the size of its bucket."""
    from PIL import Image, ImageOps

    kept = image.crop(variant.crop).resize((bucket.width, bucket.height), Image.Resampling.LANCZOS)
    if variant.brightness:  # 0.5 to the exponent is 0.5 * (1 + brightness)
        exponent = 1 - log2(1 + variant.brightness)
        kept = kept.point([round(255 * (level / 255) ** exponent) for level in range(256)] * 3)
    return ImageOps.mirror(kept) if variant.flip else kept


SMALL_PIXELS = 120


def small_jpegs(image: "Image.Image", variants: Sequence[Variant], bucket: Bucket) -> tuple[str, ...]:
    """Variants of an upright RGB image for a person to see: JPEG, as base64."""
    jpegs = []
    for variant in variants:
        small, buffer = cut(image, variant, bucket), io.BytesIO()
        small.thumbnail((SMALL_PIXELS, SMALL_PIXELS))
        small.save(buffer, "JPEG", quality=85)
        jpegs.append(base64.b64encode(buffer.getvalue()).decode())
    return tuple(jpegs)
