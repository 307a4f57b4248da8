"""One image file inspected once: its records and its thumbnail.

What one look at an image file found; kept in a cache, so that the look is taken once.

Thumbnails: made once for each content and background, named by both, in a folder that the page may serve.
One look at one image file: what it is, what is wrong with it, its thumbnail and its figures.
"""

import hashlib
import io
import os
from pathlib import Path, PurePosixPath

import imagehash
import numpy as np
from PIL import Image

from studio.images.decoding import read_bytes, read_picture
from studio.images.records import PictureFacts, Problem
from studio.images.scores.image import measure_words

THUMBNAIL_SIDE = 256
THUMBNAIL_QUALITY = 85


def thumbnail_path(folder: Path, sha256: str, background: str) -> Path:
    """Where the thumbnail of a content lies, there or not."""
    return folder / sha256[:2] / f"{sha256}-{background.lstrip('#')}-2.jpg"


def save_thumbnail(image: Image.Image, path: Path) -> None:
    """Write a small RGB image. It is a cache: whole or not there, but not worth waiting for the disk.

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


def copy_name(key: str, content: bytes) -> str:
    """Short enough for any file system, readable, another one for every key and content: undo needs the one before."""
    hashes = (hashlib.sha256(of).hexdigest() for of in (key.encode(), content))
    return f"{PurePosixPath(key).stem[:40]}-{'-'.join(one[:12] for one in hashes)}.png"


def png_of(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG file."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()


WHITE_LEVEL = 245
BORDER_SHARE = 0.02
TINY_SIDE = 8


def inspect(path: Path, *, background: str, thumbnails: Path) -> PictureFacts:
    """Read a file once, decode it once, keep its thumbnail.

    Raises:
        MemoryError: where there is too little for this image.
        OSError: where the thumbnail cannot be written.
    """
    content, problem = read_bytes(path)
    if problem is not None:
        return PictureFacts(problems=(problem,))
    sha256 = hashlib.sha256(content).hexdigest()
    read = read_picture(content, path.name, background=background)
    facts = PictureFacts(
        sha256=sha256,
        num_bytes=len(content),
        format=read.format,
        mode=read.mode,
        width=read.width,
        height=read.height,
        problems=tuple(read.problems),
    )
    if read.image is None:
        return facts
    border_whiteness = measure_border_whiteness(read.image)
    small = read.image
    # A gap of 1: whole factors are averaged, which is quick, and only what remains is resampled.
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC, reducing_gap=1.0)
    place = thumbnail_path(thumbnails, sha256, background)
    if not place.is_file():
        save_thumbnail(small, place)
    grey = small.convert("L")
    return facts.model_copy(
        update={
            "perceptual_hash": str(imagehash.dhash(grey)),
            "tiny": small.resize((TINY_SIDE, TINY_SIDE), Image.Resampling.BOX).tobytes().hex(),
            "brightness": float(np.asarray(grey).mean()) / 255,
            "border_whiteness": border_whiteness,
            "measured": measure_words(
                np.asarray(small), size=(facts.width, facts.height), border_whiteness=border_whiteness
            ),
        }
    )


def measure_border_whiteness(image: Image.Image) -> float:
    """Share of the border's pixels whose channels are all at least 245; the border is 2 % of the shorter side wide.

    Args:
        image: RGB.
    """
    width, height = image.size
    edge = max(1, round(min(width, height) * BORDER_SHARE))
    boxes = (
        (0, 0, width, edge),
        (0, height - edge, width, height),
        (0, edge, edge, height - edge),
        (width - edge, edge, width, height - edge),
    )
    strips_NC = np.concatenate([np.asarray(image.crop(box)).reshape(-1, 3) for box in boxes])
    red, green, blue = (strips_NC[:, channel] >= WHITE_LEVEL for channel in range(3))
    return float((red & green & blue).mean())


def rejected(code: str, sentence: str) -> PictureFacts:
    """What is known of a file that could not be looked at."""
    return PictureFacts(problems=(Problem(code=code, severity="reject", sentence=sentence, remedies=("exclude",)),))
