"""Files with random damage: each is usable or rejected with a sentence, and none crashes or hangs the studio.

A sample runs each time; `STUDIO_MUTATED_FILES=20000` runs as many as it says.
"""

import os
import random
from pathlib import Path

import pytest
from PIL import features

from studio.core.errors import PictureFileError
from studio.datasets.checker import PictureChecker
from studio.images.decoding import open_rgb
from studio.images.records import PictureFacts
from tests.datasets.bad_inputs import encoded, picture

NUM_FILES = int(os.environ.get("STUDIO_MUTATED_FILES", "400"))
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", *(("AVIF",) if features.check("avif") else ()))
WHITE = "#ffffff"
CHUNK = 2000


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One to eight damages: flipped bits, cut, zeroed, doubled or foreign bytes."""
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(damaged))
        length = rng.randint(1, max(1, len(damaged) // 8))
        kind = rng.choice(("flip", "flip", "byte", "cut", "zero", "insert", "double"))
        if kind == "flip":
            damaged[place] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            damaged[place] = rng.randrange(256)
        elif kind == "cut" and rng.random() < 0.3:
            del damaged[max(1, place) :]
        elif kind == "zero":
            damaged[place : place + length] = bytes(len(damaged[place : place + length]))
        elif kind == "insert":
            damaged[place:place] = rng.randbytes(length)
        elif kind == "double":
            damaged[place:place] = damaged[place : place + length]
    return bytes(damaged)


@pytest.mark.timeout(3600)
def test_damaged_files_are_used_or_rejected_and_nothing_else(tmp_path: Path) -> None:
    rng = random.Random(20)
    whole = [encoded(picture(mode=mode), name) for name in FORMATS for mode in ("RGB", "L")]
    checker = PictureChecker(tmp_path / "checks.db", tmp_path / "thumbnails", num_workers=2)
    num_usable = num_checked = 0
    try:
        for start in range(0, NUM_FILES, CHUNK):
            folder = tmp_path / f"{start}"
            folder.mkdir()
            paths = [folder / f"{i}.{rng.choice(('jpg', 'png', 'tif'))}" for i in range(min(CHUNK, NUM_FILES - start))]
            for path in paths:
                path.write_bytes(mutated(rng.choice(whole), rng))
            found: dict[Path, PictureFacts] = {}
            checker.check(paths, background=WHITE, on_checked=found.__setitem__)
            assert found.keys() == set(paths)
            num_checked += len(found)
            num_usable += sum(facts.is_usable for facts in found.values())
            _agrees_with_training(rng.sample(paths, min(60, len(paths))), found)
    finally:
        checker.close()
    assert num_checked == NUM_FILES
    assert 0 < num_usable < num_checked


def _agrees_with_training(paths: list[Path], found: dict[Path, PictureFacts]) -> None:
    """What the check calls usable can be read for training, and nothing else can."""
    for path in paths:
        try:
            image = open_rgb(path)
        except PictureFileError:
            assert not found[path].is_usable, path
        else:
            assert found[path].is_usable, (path, found[path])
            assert (found[path].width, found[path].height) == image.size
