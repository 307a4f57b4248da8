"""Pictures that we made ourselves, small enough to be sent with the page: nothing on the disk is served for them."""

import io
from functools import lru_cache
from pathlib import Path

from PIL import Image

from studio.ui.html import data_url

THUMBNAIL_PIXELS = 192


def small_picture_url(path: Path, *, pixels: int = THUMBNAIL_PIXELS) -> str:
    """A picture with its longer side made that small, as a URL; "" where it is gone, or too large to be opened."""
    try:
        return _small(path, path.stat().st_mtime_ns, pixels)
    except (OSError, Image.DecompressionBombError):
        return ""


@lru_cache(maxsize=128)
def _small(path: Path, _modified_ns: int, pixels: int) -> str:
    with Image.open(path, formats=["PNG", "JPEG", "WEBP"]) as image:
        image.draft("RGB", (pixels, pixels))
        small = image.convert("RGB")
    small.thumbnail((pixels, pixels))
    content = io.BytesIO()
    small.save(content, format="JPEG", quality=88)
    return data_url(content.getvalue(), "image/jpeg")
