"""Small copies of a run's pictures in a folder that the page may serve: what is sent is their addresses alone."""

import hashlib
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from studio.dataset.thumbnails import save_thumbnail, thumbnail_path

THUMBNAIL_PIXELS = 256


def run_thumbnail_url(picture: Path, folder: Path) -> str:
    """Where the page finds a small copy of a picture that we made; it is made when it is first asked for.

    Raises:
        OSError: where the picture cannot be read, or there is no room for the copy.
    """
    # A resumed run makes a picture again under its old name.
    known_by = f"{picture} {picture.stat().st_mtime_ns}"
    name = hashlib.blake2b(known_by.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    small = folder / name[:2] / f"{name}.jpg"
    if not small.is_file():
        with Image.open(picture, formats=["PNG"]) as image:
            copy = image.convert("RGB")
        copy.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        save_thumbnail(copy, small)
    return _address(small)


def training_thumbnail_url(sha256: str, background: str, folder: Path) -> str:
    """Where the page finds the small copy of a training picture that its check left; "" where it is gone.

    A stranger's picture is never decoded here.
    """
    small = thumbnail_path(folder, sha256, background)
    return _address(small) if small.is_file() else ""


def _address(path: Path) -> str:
    return f"gradio_api/file={quote(str(path))}"
