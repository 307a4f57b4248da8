"""The peer of the dataset bench: thumbnails with plain Pillow. It imports nothing of ours, and so starts fast."""

from pathlib import Path

from PIL import Image


def save_plain_thumbnails(part: tuple[tuple[str, ...], str]) -> int:
    """Decode each image whole, save a thumbnail of 256 pixels below a folder; how many."""
    paths, folder = part
    for path in paths:
        with Image.open(path) as image:
            image.load()
            small = image.convert("RGB")
        small.thumbnail((256, 256))
        small.save(Path(folder) / f"{Path(path).stem}.jpg", quality=85)
    return len(paths)
