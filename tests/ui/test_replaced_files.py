"""A file that was replaced with size and time kept is noticed by all that keep something of a file in memory."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from studio.core.files import file_stamp
from studio.core.paths import assets_folder
from studio.core.settings import SHIPPED_MODEL, GenerationSettings
from studio.images.files import save_picture
from studio.images.gallery import History, thumbnail
from studio.images.tokens import TokenCounter
from studio.loras.library import LoraLibrary
from studio.ui.shell.images import run_thumbnail_url, small_picture_url
from tests.images.test_a1111 import make_record
from tests.loras.test_library import write_lora


def write_picture(path: Path, number: int) -> None:
    pixels = np.random.default_rng(number).integers(0, 255, (40, 64, 3), dtype=np.uint8)
    save_picture(path, pixels, make_record(GenerationSettings(prompt=f"shoe-{number}", seed=1)))


def write_titled(path: Path, number: int) -> None:
    write_lora(path, metadata={"modelspec.title": f"shoe {number}"})


def write_tokenizer(path: Path, number: int) -> None:
    """The second one has no merges: a token for each letter."""
    tokenizer = json.loads((assets_folder() / SHIPPED_MODEL / "tokenizer" / "tokenizer.json").read_bytes())
    if number == 2:
        tokenizer["model"]["merges"] = []
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


def found_by_prompt(path: Path) -> bool:
    outputs = path.parent.parent
    return bool(HISTORIES.setdefault(outputs, History(outputs)).page(1, search="shoe-1").pictures)


HISTORIES: dict[Path, History] = {}
READERS: dict[str, tuple[str, Callable[[Path, int], None], Callable[[Path], object]]] = {
    "small image": ("a.png", write_picture, small_picture_url),
    "thumbnail of a run": ("a.png", write_picture, lambda path: run_thumbnail_url(path, path.parent / "cache")),
    "thumbnail": ("a.png", write_picture, lambda path: thumbnail(path, cache=path.parent / "cache").read_bytes()),
    "search": ("2025-01-02/000000-000000-seed1.png", write_picture, found_by_prompt),
    "card": ("loras/a.safetensors", write_titled, lambda path: LoraLibrary(path.parent).cards()),
    "tokenizer": ("tokenizer.json", write_tokenizer, lambda path: TokenCounter(path).count("sneaker").num_tokens),
}


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_was_replaced_with_size_and_time_kept_is_read_anew(
    reader: str, in_place: bool, tmp_path: Path
) -> None:
    name, write, read = READERS[reader]
    path, other = tmp_path / name, tmp_path / "other" / Path(name).name
    other.parent.mkdir()
    write(path, 1)
    write(other, 2)
    size = max(path.stat().st_size, other.stat().st_size)
    for file in (path, other):  # what stands behind the end means nothing in any of these formats
        file.write_bytes(file.read_bytes().ljust(size))
    before, stamp, seen = path.stat(), file_stamp(path), read(path)
    assert read(path) == seen
    if in_place:
        path.write_bytes(other.read_bytes())
    else:
        other.replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file_stamp(path)[:2] == stamp[:2]
    assert read(path) != seen
