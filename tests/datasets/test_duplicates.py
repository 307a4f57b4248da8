"""Duplicates: copies and re-encoded copies are found, other colours of one shape are not, and it stays quick."""

import io
import random
import time
from pathlib import Path

import pytest
from PIL import Image

from studio.core.paths import assets_folder
from studio.datasets.inspection import inspect
from studio.datasets.report import MAX_PAIRS, find_duplicates
from tests.datasets.rows import make_facts, make_row

SHOES = assets_folder() / "casual-shoes" / "images"


def row_of(key: str, content: bytes, folder: Path):  # noqa: ANN201 - a row
    path = folder / key
    path.write_bytes(content)
    return make_row(key, path=path, facts=inspect(path, background="#ffffff", thumbnails=folder / "thumbnails"))


def jpeg(image: Image.Image, quality: int) -> bytes:
    content = io.BytesIO()
    image.save(content, format="JPEG", quality=quality)
    return content.getvalue()


def test_the_same_file_is_found_by_its_bytes(tmp_path: Path) -> None:
    content = (SHOES / "10001.jpg").read_bytes()
    rows = [row_of(name, content, tmp_path) for name in ("a.jpg", "b.jpg", "c.jpg")]
    pairs = find_duplicates(rows).pairs
    assert [(pair.first_key, pair.second_key, pair.exact) for pair in pairs] == [
        ("a.jpg", "b.jpg", True),
        ("a.jpg", "c.jpg", True),
    ]


@pytest.mark.parametrize("number", [10001, 10002, 10005, 10011, 10049, 10052])
def test_a_resized_and_re_encoded_copy_is_found(number: int, tmp_path: Path) -> None:
    shoe = Image.open(SHOES / f"{number}.jpg")
    rows = [
        row_of("a.jpg", (SHOES / f"{number}.jpg").read_bytes(), tmp_path),
        row_of("b.jpg", jpeg(shoe, 60), tmp_path),
        row_of("c.jpg", jpeg(shoe.resize((160, 160), Image.Resampling.LANCZOS), 85), tmp_path),
    ]
    pairs = {(pair.first_key, pair.second_key) for pair in find_duplicates(rows).pairs}
    assert {("a.jpg", "b.jpg"), ("a.jpg", "c.jpg")} <= pairs


def test_one_shape_in_other_colours_is_no_duplicate(tmp_path: Path) -> None:
    shoe = Image.open(SHOES / "10005.jpg").convert("RGB")
    red, green, blue = shoe.split()
    other = Image.merge("RGB", (green, red, blue))
    rows = [row_of("a.jpg", jpeg(shoe, 95), tmp_path), row_of("b.jpg", jpeg(other, 95), tmp_path)]
    assert find_duplicates(rows).pairs == ()


def test_other_proportions_are_no_duplicate() -> None:
    rows = [make_row("a"), make_row("b", facts=make_facts(sha256="b" * 64, width=1024))]
    assert find_duplicates(rows).pairs == ()
    assert len(find_duplicates([make_row("a"), make_row("b", facts=make_facts(sha256="b" * 64))]).pairs) == 1


def test_flat_pictures_do_not_pair_by_looks() -> None:
    rows = [make_row(f"{i}", facts=make_facts(sha256=f"{i:064}", perceptual_hash="0" * 16)) for i in range(50)]
    assert find_duplicates(rows).pairs == ()


def test_what_is_beyond_the_list_is_counted() -> None:
    rows = [make_row(f"{i}", facts=make_facts(sha256=f"{i:064}")) for i in range(60)]
    search = find_duplicates(rows)
    assert len(search.pairs) == MAX_PAIRS
    assert search.num_left_out == 60 * 59 // 2 - MAX_PAIRS


def test_ten_thousand_are_compared_in_seconds() -> None:
    rng = random.Random(1)
    rows = [
        make_row(f"{i}", facts=make_facts(sha256=f"{i:064}", perceptual_hash=f"{rng.getrandbits(64):016x}"))
        for i in range(10_000)
    ]
    start = time.monotonic()
    find_duplicates(rows)
    assert (
        time.monotonic() - start < 20
    )  # about 1 on an idle machine: this only sees that it is not quadratic in Python
