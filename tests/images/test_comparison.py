"""What a comparison found, in words and as one image; a damaged one does not hide the one before."""

import io
import random
import struct
import time
import zlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from studio.core.settings import CompareSettings, GenerationSettings, LoraChoice
from studio.images.comparison import (
    CELL,
    JSON_NAME,
    LABEL_HEIGHT,
    MARGIN,
    ComparedPair,
    ComparedPicture,
    CompareReport,
    Difference,
    SavedComparison,
    StripPicture,
    comparison_grid,
    latest_comparison,
    new_comparison_folder,
    save_comparison,
    side_name,
)

ROW = 2 * LABEL_HEIGHT + CELL + MARGIN
RED, BLUE, GREEN = (200, 0, 0), (0, 0, 200), (0, 150, 0)
NOW = datetime(2026, 5, 4, 3, 2, 1, 654321)


def difference(pixels: float, changed_share: float = 0.5, latents: float = 0.25) -> Difference:
    return Difference(pixels=pixels, changed_share=changed_share, latents=latents)


def picture(file: str = "", *, prompt: str = "a shoe", seed: int = 7) -> ComparedPicture:
    return ComparedPicture(settings=GenerationSettings(prompt=prompt, seed=seed), file=file)


def report(
    pairs: Sequence[ComparedPair] = (),
    strip: Sequence[StripPicture] = (),
    *,
    left: Sequence[LoraChoice] = (),
    right: Sequence[LoraChoice] = (LoraChoice(name="white-ground", strength=0.8),),
    cancelled: bool = False,
) -> CompareReport:
    generation = GenerationSettings(prompt="")
    settings = CompareSettings(prompts=("a shoe",), generation=generation, left=tuple(left), right=tuple(right))
    return CompareReport(
        started_at=NOW, settings=settings, model="m", pairs=tuple(pairs), strip=tuple(strip), cancelled=cancelled
    )


def pair(found: Difference | None) -> ComparedPair:
    return ComparedPair(left=picture(), right=picture(), difference=found)


def file_of(folder: Path, name: str, colour: tuple[int, int, int], size: tuple[int, int] = (CELL, CELL)) -> str:
    Image.new("RGB", size, colour).save(folder / name)
    return name


def grid(folder: Path, *pairs: ComparedPair, strip: Sequence[StripPicture] = ()) -> Image.Image:
    saved = SavedComparison(folder=folder, report=report(pairs, strip))
    opened = Image.open(io.BytesIO(comparison_grid(saved)), formats=("PNG",))
    opened.load()
    return opened


def place(row: int, column: int) -> tuple[int, int]:
    """Where an image begins: right and down."""
    return MARGIN + column * (CELL + MARGIN), MARGIN + row * ROW + 2 * LABEL_HEIGHT


def cell(image: Image.Image, row: int, column: int) -> Image.Image:
    left, top = place(row, column)
    return image.crop((left, top, left + CELL, top + CELL))


def colours(image: Image.Image) -> set[tuple[int, int, int]]:
    return {tuple(colour) for colour in np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()}


# Words


def test_two_pictures_that_are_the_same_are_said_to_be_so() -> None:
    assert difference(0, 0, 0).words == "changes nothing: both images are the same, to the last bit"


def test_a_change_that_no_pixel_shows_is_said_to_be_so() -> None:
    assert "nothing visible: only the latents differ" in difference(0, 0, 1e-6).words


@pytest.mark.parametrize(("pixels", "words"), [(0.0123, "0.012 of 255"), (1.26, "1.3 of 255")])
def test_a_change_of_few_pixels_is_hardly_any(pixels: float, words: str) -> None:
    assert difference(pixels, 0.0099).words == f"changes hardly anything: pixels differ by {words} on average"


@pytest.mark.parametrize(("share", "percent"), [(0.01, 1), (0.126, 13), (1, 100)])
def test_a_change_that_is_seen_is_told_in_per_cent(share: float, percent: int) -> None:
    assert difference(9, share).words == f"changes {percent}% of the pixels noticeably"


def test_without_loras_a_side_is_the_base() -> None:
    assert side_name(()) == "base"


def test_a_side_is_named_by_its_loras() -> None:
    loras = (LoraChoice(name="white-ground", strength=0.8), LoraChoice(name="sketch"), LoraChoice(name="x", strength=0))
    assert side_name(loras) == "white-ground 0.8 + sketch + x 0"


def test_without_a_pair_there_is_nothing_to_say() -> None:
    assert report().sentence == "There is no finished pair yet."


def test_a_pair_without_a_difference_is_not_finished() -> None:
    assert report([pair(None)]).sentence == "There is no finished pair yet."


def test_cancelled_before_a_pair_is_said_to_be_so() -> None:
    assert report(cancelled=True).sentence == "Cancelled before a pair was finished."


def test_the_sentence_of_one_pair_tells_its_difference() -> None:
    assert report([pair(difference(12.345, 0.5, 0.25))]).sentence == (
        "white-ground 0.8 changes 50% of the pixels noticeably. "
        "Mean difference: 12.3 of 255 in pixels, 0.25 in latents."
    )


def test_the_sentence_of_several_pairs_tells_their_means() -> None:
    pairs = [pair(difference(10, 0.2, 0.1)), pair(None), pair(difference(20, 0.4, 0.3))]
    assert report(pairs).sentence == (
        "white-ground 0.8 changes 30% of the pixels noticeably, on average of 2 pairs. "
        "Mean difference: 15 of 255 in pixels, 0.2 in latents."
    )


def test_every_picture_is_counted() -> None:
    strip = [StripPicture(strength=0.5, picture=picture())]
    assert report([pair(None), ComparedPair(left=picture())], strip).num_finished == 4


# Saving and finding


def saved_at(outputs: Path, now: datetime, kept: CompareReport) -> SavedComparison:
    saved = SavedComparison(folder=new_comparison_folder(outputs, now=now), report=kept)
    save_comparison(saved)
    return saved


def test_a_folder_is_named_by_the_time(tmp_path: Path) -> None:
    folder = new_comparison_folder(tmp_path, now=NOW)
    assert folder == tmp_path / "2026-05-04" / "compare-030201-654321"
    assert folder.is_dir()


def test_what_was_saved_is_found_again(tmp_path: Path) -> None:
    strip = [StripPicture(strength=-0.5, picture=picture("c.png"), difference=difference(float("inf")))]
    saved = saved_at(tmp_path, NOW, report([pair(difference(1 / 3))], strip))
    assert latest_comparison(tmp_path) == saved


def test_the_newest_is_found(tmp_path: Path) -> None:
    days = [(4, 5), (11, 30), (12, 1), (12, 2)]
    newest = [saved_at(tmp_path, datetime(2026, month, day), report()) for month, day in days][-1]
    saved_at(tmp_path, datetime(2025, 12, 31), report())
    found = latest_comparison(tmp_path)
    assert found is not None
    assert found.folder == newest.folder


def test_without_comparisons_none_is_found(tmp_path: Path) -> None:
    assert latest_comparison(tmp_path / "nowhere") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"started_at": 1, "more": 2}'])
def test_a_damaged_comparison_is_passed_over(tmp_path: Path, content: bytes) -> None:
    good = saved_at(tmp_path, datetime(2026, 1, 1), report())
    (new_comparison_folder(tmp_path, now=NOW) / JSON_NAME).write_bytes(content)
    assert latest_comparison(tmp_path) == good


def test_a_folder_in_place_of_a_report_is_passed_over(tmp_path: Path) -> None:
    good = saved_at(tmp_path, datetime(2026, 1, 1), report())
    (new_comparison_folder(tmp_path, now=NOW) / JSON_NAME).mkdir()
    assert latest_comparison(tmp_path) == good


# The grid


def test_every_row_makes_the_grid_higher(tmp_path: Path) -> None:
    assert grid(tmp_path, pair(None)).size == (MARGIN + 2 * (CELL + MARGIN), MARGIN + ROW)
    assert grid(tmp_path, *[pair(None)] * 64).size == (MARGIN + 2 * (CELL + MARGIN), MARGIN + 64 * ROW)


def test_a_strip_is_a_row_as_wide_as_it_needs(tmp_path: Path) -> None:
    strip = [StripPicture(strength=0.5 * i, picture=picture()) for i in range(9)]
    assert grid(tmp_path, pair(None), strip=strip).size == (MARGIN + 9 * (CELL + MARGIN), MARGIN + 2 * ROW)


def test_a_grid_of_nothing_is_a_picture(tmp_path: Path) -> None:
    image = grid(tmp_path)
    assert image.size == (MARGIN + CELL + MARGIN, MARGIN + ROW)
    assert colours(image) == {(255, 255, 255)}


def test_pictures_are_where_they_belong(tmp_path: Path) -> None:
    red, blue, green = (file_of(tmp_path, f"{c}.png", c) for c in (RED, BLUE, GREEN))
    pairs = [
        ComparedPair(left=picture(red), right=picture(blue)),
        ComparedPair(left=picture(blue), right=picture(green)),
    ]
    strip = [StripPicture(strength=0.5, picture=picture(file)) for file in (green, red, blue)]
    image = grid(tmp_path, *pairs, strip=strip)
    rows = [[RED, BLUE], [BLUE, GREEN], [GREEN, RED, BLUE]]
    for row, expected in enumerate(rows):
        assert [colours(cell(image, row, column)) for column in range(len(expected))] == [{c} for c in expected]


def test_a_picture_is_shown_to_the_pixel(tmp_path: Path) -> None:
    noise = Image.frombytes("RGB", (CELL, CELL), random.Random(1).randbytes(CELL * CELL * 3))
    noise.save(tmp_path / "a.png")
    image = grid(tmp_path, ComparedPair(left=picture("a.png")))
    assert ImageChops.difference(cell(image, 0, 0), noise).getbbox() is None


def test_a_small_picture_is_enlarged_in_whole_steps(tmp_path: Path) -> None:
    small = Image.frombytes("RGB", (100, 60), random.Random(1).randbytes(100 * 60 * 3))
    small.save(tmp_path / "a.png")
    shown = cell(grid(tmp_path, ComparedPair(left=picture("a.png"))), 0, 0)
    expected = Image.new("RGB", (CELL, CELL), "white")
    expected.paste(small.resize((200, 120), Image.Resampling.NEAREST))
    assert ImageChops.difference(shown, expected).getbbox() is None


def test_a_large_picture_is_made_smaller_in_its_proportions(tmp_path: Path) -> None:
    file = file_of(tmp_path, "a.png", RED, (1024, 512))
    shown = cell(grid(tmp_path, ComparedPair(left=picture(file))), 0, 0)
    assert colours(shown.crop((0, 0, CELL, CELL // 2))) == {RED}
    assert colours(shown.crop((0, CELL // 2, CELL, CELL))) == {(255, 255, 255)}


def test_a_frame_is_as_large_as_a_picture(tmp_path: Path) -> None:
    image = np.asarray(grid(tmp_path, ComparedPair(left=picture())).convert("L"))
    left, top = place(0, 0)
    rows, columns = np.nonzero(image[top - 1 :, left - 1 :] < 255)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, CELL, 1, CELL)


def damage(path: Path, kind: str) -> None:
    if kind == "web page":
        path.write_bytes(b"<html></html>")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut short":
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.unlink()


@pytest.mark.parametrize("kind", ["missing", "empty", "web page", "cut short", "folder"])
def test_in_place_of_a_picture_that_cannot_be_read_is_a_frame(tmp_path: Path, kind: str) -> None:
    Image.frombytes("RGB", (CELL, CELL), random.Random(1).randbytes(CELL * CELL * 3)).save(tmp_path / "a.png")
    blue = file_of(tmp_path, "b.png", BLUE)
    damage(tmp_path / "a.png", kind)
    image = grid(tmp_path, ComparedPair(left=picture("a.png"), right=picture(blue)))
    left = np.asarray(cell(image, 0, 0).convert("L"))
    assert (left[0] < 128).all()
    assert (left[:, 0] < 128).all()
    assert (left[1:-1, 1:-1] == 255).all()
    assert colours(cell(image, 0, 1)) == {BLUE}


def test_in_place_of_a_picture_that_was_never_made_is_a_frame(tmp_path: Path) -> None:
    shown = np.asarray(cell(grid(tmp_path, ComparedPair(left=picture())), 0, 0).convert("L"))
    assert (shown[0] < 128).all()
    assert (shown[1:-1, 1:-1] == 255).all()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(*chunks: bytes, width: int = 8) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks)


@pytest.mark.parametrize(
    "content",
    [
        png_of(chunk(b"pHYs", b"1")),
        png_of(chunk(b"gAMA", b"")),
        png_of(chunk(b"IDAT", b""), chunk(b"\0\1\2\3", b"")),
        png_of(chunk(b"zTXt", b"a\0\1x"), chunk(b"IDAT", b"")),
        png_of(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**22))), chunk(b"IDAT", b"")),
        png_of(chunk(b"IDAT", b""), width=60_000),
    ],
)
def test_a_picture_that_means_harm_is_a_frame(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    shown = np.asarray(cell(grid(tmp_path, ComparedPair(left=picture("a.png"))), 0, 0).convert("L"))
    assert (shown[1:-1, 1:-1] == 255).all()


def test_damage_anywhere_in_a_picture_does_not_hinder_the_grid(tmp_path: Path) -> None:
    chooser = random.Random(4)
    Image.frombytes("RGB", (8, 8), chooser.randbytes(8 * 8 * 3)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    pairs = [ComparedPair(left=picture(f"{i}.png")) for i in range(300)]
    for i in range(300):
        damaged = bytearray(whole)
        for _ in range(chooser.randint(1, 4)):
            damaged[chooser.randrange(len(whole))] = chooser.randrange(256)
        (tmp_path / f"{i}.png").write_bytes(damaged[: chooser.choice([len(whole), chooser.randrange(len(whole))])])
    assert grid(tmp_path, *pairs).height == MARGIN + 300 * ROW


WIDE = ["W" * 500, "W " * 250, "mmm wwww " * 60, "靴" * 300, "—" * 300, "a\nb\tc " * 300]


@pytest.mark.parametrize("words", WIDE)
def test_a_long_prompt_stays_above_its_row(tmp_path: Path, words: str) -> None:
    long = grid(tmp_path, ComparedPair(left=picture(prompt=words), right=picture()))
    short = grid(tmp_path, ComparedPair(left=picture(prompt="a"), right=picture()))
    changed = ImageChops.difference(long, short).getbbox()
    assert changed is not None
    assert changed[0] >= MARGIN
    assert changed[2] <= long.width - MARGIN
    assert changed[3] <= MARGIN + LABEL_HEIGHT


def test_a_prompt_of_millions_of_letters_does_not_take_long(tmp_path: Path) -> None:
    started = time.monotonic()
    grid(tmp_path, ComparedPair(left=picture(prompt="WWWWWWWWW " * 300_000)))
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("words", WIDE)
def test_a_long_name_stays_above_its_picture(tmp_path: Path, words: str) -> None:
    def shown(name: str) -> Image.Image:
        named = report([ComparedPair(left=picture(), right=picture())], left=[LoraChoice(name=name)])
        return Image.open(io.BytesIO(comparison_grid(SavedComparison(folder=tmp_path, report=named))))

    changed = ImageChops.difference(shown(words), shown("a")).getbbox()
    assert changed is not None
    assert changed[1] >= MARGIN + LABEL_HEIGHT
    assert changed[2] <= MARGIN + CELL
    assert changed[3] <= place(0, 0)[1]
