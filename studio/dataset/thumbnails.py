"""Thumbnails: made once for each content and background, named by both, in a folder that the page may serve."""

import io
import os
from pathlib import Path

from PIL import Image

THUMBNAIL_SIDE = 256
THUMBNAIL_QUALITY = 85


def thumbnail_path(folder: Path, sha256: str, background: str) -> Path:
    """Where the thumbnail of a content lies, there or not."""
    return folder / sha256[:2] / f"{sha256}-{background.lstrip('#')}.jpg"


def save_thumbnail(image: Image.Image, path: Path) -> None:
    """Write a small RGB picture. It is a cache: whole or not there, but not worth waiting for the disk.

    Raises:
        OSError: where it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    image.save(content, format="JPEG", quality=THUMBNAIL_QUALITY)
    partial = path.with_suffix(f".{os.getpid()}.part")
    try:
        partial.write_bytes(content.getvalue())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
