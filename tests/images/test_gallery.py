"""Past images are what lies on the disk: found, paged and searched without an index, and never in silence dropped."""

import os
import random
import shutil
import threading
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.core.errors import PictureFileError
from studio.core.records import Label, label_beside, write_label
from studio.core.results import ImageRecord, LoraUsed
from studio.core.settings import GenerationSettings, LoraChoice
from studio.images import files as picture_files
from studio.images import gallery as history
from studio.images.files import read_picture_text, save_picture
from studio.images.gallery import History, new_picture_path, picture_name, thumbnail
from tests.images.test_a1111 import A1111_TEXT, make_record

PICTURE = np.random.default_rng(0).integers(0, 255, (40, 64, 3), dtype=np.uint8)


def add(outputs: Path, name: str, prompt: str = "a shoe", **changes: object) -> Path:
    """An image of the history: `2025-01-02/030405-000000-seed1.png`."""
    seed = int(name.partition("-seed")[2].removesuffix(".png").partition("-")[0])
    settings = GenerationSettings.model_validate({"prompt": prompt, "seed": seed, **changes})
    save_picture(outputs / name, PICTURE, make_record(settings))
    return outputs / name


def add_many(outputs: Path, count: int, day: str = "2025-01-02") -> list[Path]:
    """Newest first."""
    return [add(outputs, f"{day}/{i:06}-000000-seed{i}.png") for i in range(count)][::-1]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file whose settings are read."""
    paths: list[Path] = []

    def read(path: Path) -> picture_files.PictureText:
        paths.append(path)
        return read_picture_text(path)

    monkeypatch.setattr(history, "read_picture_text", read)
    return paths


def test_no_folder_is_an_empty_page(tmp_path: Path) -> None:
    page = History(tmp_path / "missing").page(1)
    assert (page.pictures, page.number, page.num_pages, page.num_pictures, page.unreadable) == ((), 1, 1, 0, ())


def test_who_looks_again_reads_nothing_until_a_folder_changes(tmp_path: Path, opened: list[Path]) -> None:
    (path,) = add_many(tmp_path, 1)
    history = History(tmp_path)

    def settled(at: int) -> None:
        os.utime(path.parent, (at, at))

    settled(1)
    assert [past.path for past in history.look(1).pictures] == [path]
    assert history.look(1).pictures[0].label == Label()
    assert opened == [path]
    write_label(label_beside(path), Label(note="new"))
    assert history.look(1).pictures[0].label == Label(note="new")
    assert len(opened) == 2
    history.look(1)
    assert len(opened) == 3, "of a folder that has just changed, more may come at the same time"
    settled(2)
    history.look(1)
    history.look(1)
    assert len(opened) == 4
    assert history.look(1, search="nothing").pictures == ()


@pytest.mark.parametrize(
    "name", ["", "x.png", "../studio.db", "2025-01-02/../x.png", "2025-01-02/x.png", "/2025-01-02"]
)
def test_only_names_of_our_own_images_have_a_path(tmp_path: Path, name: str) -> None:
    history = History(tmp_path)
    (path,) = add_many(tmp_path, 1)
    assert history.path_of(picture_name(path)) == path
    with pytest.raises(PictureFileError, match="not one of the studio's images"):
        history.path_of(name)


def test_the_newest_come_first(tmp_path: Path) -> None:
    names = [
        "2025-01-03/000000-000000-seed1.png",
        "2025-01-02/235959-000001-seed9.png",
        "2025-01-02/235959-000000-seed9-10.png",
        "2025-01-02/235959-000000-seed9-2.png",
        "2025-01-02/235959-000000-seed9.png",
        "2024-12-31/235959-999999-seed1.png",
    ]
    for name in sorted(names):
        add(tmp_path, name)
    assert [p.path for p in History(tmp_path).page(1).pictures] == [tmp_path / name for name in names]


def test_a_picture_comes_with_its_record(tmp_path: Path) -> None:
    add(tmp_path, "2025-01-02/000000-000000-seed7.png", "red boots")
    (picture,) = History(tmp_path).page(1).pictures
    assert isinstance(picture.record, ImageRecord)
    assert (picture.record.settings.prompt, picture.record.settings.seed) == ("red boots", 7)


def test_smoke_tests_comparisons_and_other_files_are_not_history(tmp_path: Path) -> None:
    path = add(tmp_path, "2025-01-02/000000-000000-seed1.png")
    for other in (
        "2025-01-02/smoke-000000-000000/000000-000000-seed1.png",
        "2025-01-02/compare-000000-000000/000000-000000-seed1.png",
        "other/000000-000000-seed1.png",
        "2025-01-02/picture.png",
        "2025-01-02/.000000-000000-seed1.png.abc.part",
        "000000-000000-seed1.png",
    ):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / other)
    page = History(tmp_path).page(1)
    assert ([p.path for p in page.pictures], page.num_pictures, page.unreadable) == ([path], 1, ())


def test_pages_follow_each_other(tmp_path: Path) -> None:
    paths = add_many(tmp_path, 5)
    pages = [History(tmp_path).page(number, per_page=2) for number in (1, 2, 3)]
    assert [p.path for page in pages for p in page.pictures] == paths
    assert {(page.num_pages, page.num_pictures) for page in pages} == {(3, 5)}


@pytest.mark.parametrize(("asked", "given"), [(0, 1), (-3, 1), (4, 3), (99, 3)])
def test_a_page_past_either_end_is_the_one_there(tmp_path: Path, asked: int, given: int) -> None:
    add_many(tmp_path, 5)
    page = History(tmp_path).page(asked, per_page=2)
    assert page.number == given
    assert page.pictures


def test_of_ten_thousand_pictures_only_those_of_the_page_are_opened(tmp_path: Path, opened: list[Path]) -> None:
    (tmp_path / "2025-01-02").mkdir()
    for i in range(10_000):
        (tmp_path / "2025-01-02" / f"{i:06}-000000-seed{i}.png").touch()
    page = History(tmp_path).page(2)
    assert page.num_pictures == 10_000
    assert len(opened) == len(page.unreadable) == 24


@pytest.mark.parametrize(
    "query",
    ["red", "RED boots", "boots red", "Dark", "shoes-demo", "my-lora", "euler", "PNDM", "7", "ro\u0308tlich", "  "],
)
def test_a_search_finds_what_the_record_has(tmp_path: Path, query: str) -> None:
    path = add(
        tmp_path,
        "2025-01-02/000000-000000-seed7.png",
        "Red boots, r\u00f6tlich",
        negative_prompt="dark",
        scheduler="Euler a",
        loras=(LoraChoice(name="My-LoRA"),),
    )
    assert [p.path for p in History(tmp_path).page(1, search=query).pictures] == [path]


@pytest.mark.parametrize("query", ["green", "red green", "1", "77"])
def test_a_search_finds_nothing_else(tmp_path: Path, query: str) -> None:
    add(tmp_path, "2025-01-02/000000-000000-seed17.png", "red boots")
    page = History(tmp_path).page(1, search=query)
    assert (page.pictures, page.num_pictures, page.num_pages) == ((), 0, 1)


def test_a_lora_from_a_tag_in_the_prompt_is_found(tmp_path: Path) -> None:
    record = make_record(GenerationSettings(prompt="a"), loras=(LoraUsed(name="tagged", strength=1, sha256="0" * 64),))
    save_picture(tmp_path / "2025-01-02" / "000000-000000-seed42.png", PICTURE, record)
    assert History(tmp_path).page(1, search="tagged").num_pictures == 1


def test_a_search_is_paged(tmp_path: Path) -> None:
    paths = add_many(tmp_path, 5)
    page = History(tmp_path).page(2, per_page=2, search="shoe")
    assert ([p.path for p in page.pictures], page.num_pages, page.num_pictures) == (paths[2:4], 3, 5)


def test_a_second_search_opens_only_the_files_of_its_page(tmp_path: Path, opened: list[Path]) -> None:
    add_many(tmp_path, 6)
    past = History(tmp_path)
    past.page(1, per_page=2, search="shoe")
    opened.clear()
    past.page(1, per_page=2, search="a")
    assert len(opened) == 2


def test_a_search_sees_a_file_that_changed(tmp_path: Path) -> None:
    add(tmp_path, "2025-01-02/000000-000000-seed1.png", "red")
    past = History(tmp_path)
    assert past.page(1, search="red").num_pictures == 1
    add(tmp_path, "2025-01-02/000000-000000-seed1.png", "a green one")
    assert past.page(1, search="red").num_pictures == 0
    assert past.page(1, search="green").num_pictures == 1


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Path]) -> None:
    monkeypatch.setattr(history, "_MAX_CACHED", 2)
    add_many(tmp_path, 5)
    past = History(tmp_path)
    past.page(1, search="nothing")
    past.page(1, search="nothing")
    assert len(opened) == 5 + 3


def test_the_cache_forgets_files_that_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_MAX_CACHED", 1)
    old = add(tmp_path, "2025-01-02/000000-000000-seed1.png")
    past = History(tmp_path)
    past.page(1, search="nothing")
    old.unlink()
    add(tmp_path, "2025-01-02/000001-000000-seed2.png")
    past.page(1, search="nothing")
    reads: list[Path] = []
    monkeypatch.setattr(history, "read_picture_text", reads.append)
    past.page(1, search="nothing")
    assert reads == []


@pytest.mark.parametrize("search", ["", "shoe"])
def test_what_cannot_be_read_is_named(tmp_path: Path, search: str) -> None:
    good = add(tmp_path, "2025-01-02/000000-000000-seed1.png")
    (tmp_path / "2025-01-02" / "000001-000000-seed2.png").write_bytes(good.read_bytes()[:-2])
    (tmp_path / "2025-01-02" / "000002-000000-seed3.png").mkdir()
    (tmp_path / "2025-01-02" / "000003-000000-seed4.png").symlink_to("nowhere")
    Image.fromarray(PICTURE).save(tmp_path / "2025-01-02" / "000004-000000-seed5.png")
    page = History(tmp_path).page(1, search=search)
    assert [p.path for p in page.pictures] == [good]
    assert len(page.unreadable) == 4
    assert all(f"00000{i}-000000-seed{i + 1}.png" in page.unreadable[4 - i] for i in (1, 2, 3, 4))


def test_a_picture_of_another_program_is_named(tmp_path: Path) -> None:
    path = tmp_path / "2025-01-02" / "000000-000000-seed1.png"
    path.parent.mkdir()
    info = picture_files.PngImagePlugin.PngInfo()
    info.add_text("parameters", A1111_TEXT)
    Image.fromarray(PICTURE).save(path, pnginfo=info)
    assert "no record of this version" in History(tmp_path).page(1).unreadable[0]


def test_a_file_in_the_place_of_a_day_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "2025-01-02").touch()
    assert History(tmp_path).page(1).num_pictures == 0


def test_many_threads_may_search_at_once(tmp_path: Path, opened: list[Path]) -> None:
    add_many(tmp_path, 20)
    past, counts = History(tmp_path), []
    threads = [
        threading.Thread(target=lambda: counts.append(past.page(1, per_page=1, search="shoe").num_pictures))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [20] * 8
    assert len(opened) == 20 + 8  # each file once for all searches, and each page its image


def test_a_new_picture_has_its_day_its_time_and_its_seed(tmp_path: Path) -> None:
    path = new_picture_path(tmp_path, now=datetime(2025, 1, 2, 3, 4, 5, 6), seed=42)
    assert path == tmp_path / "2025-01-02" / "030405-000006-seed42.png"
    assert not path.parent.exists()


def test_a_new_picture_takes_no_name_that_is_taken(tmp_path: Path) -> None:
    now, names = datetime(2025, 1, 2, 3, 4, 5, 6), []
    for _ in range(3):
        names.append(new_picture_path(tmp_path, now=now, seed=1).name)
        add(tmp_path, f"2025-01-02/{names[-1]}")
    assert names == [f"030405-000006-seed1{end}.png" for end in ("", "-2", "-3")]
    assert History(tmp_path).page(1).num_pictures == 3


def test_a_thumbnail_is_small_and_keeps_its_shape(tmp_path: Path) -> None:
    path = add(tmp_path, "2025-01-02/000000-000000-seed1.png")
    with Image.open(thumbnail(path, size=32, cache=tmp_path / "cache")) as small:
        assert (small.format, small.size) == ("JPEG", (32, 20))


def test_a_thumbnail_is_made_once(tmp_path: Path) -> None:
    path = add(tmp_path, "2025-01-02/000000-000000-seed1.png")
    first = thumbnail(path, cache=tmp_path / "cache")
    made = first.stat().st_mtime_ns
    time.sleep(0.02)
    assert thumbnail(path, cache=tmp_path / "cache") == first
    assert first.stat().st_mtime_ns == made


def test_a_changed_picture_or_another_size_gets_a_new_thumbnail(tmp_path: Path) -> None:
    path = add(tmp_path, "2025-01-02/000000-000000-seed1.png")
    made = {thumbnail(path, cache=tmp_path / "cache"), thumbnail(path, size=32, cache=tmp_path / "cache")}
    add(tmp_path, "2025-01-02/000000-000000-seed1.png", "another prompt")
    assert len(made | {thumbnail(path, cache=tmp_path / "cache")}) == 3


def test_a_transparent_picture_has_a_white_ground(tmp_path: Path) -> None:
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "p.png")
    with Image.open(thumbnail(tmp_path / "p.png", cache=tmp_path / "cache")) as small:
        assert small.getpixel((5, 5)) == (255, 255, 255)


def test_a_turned_picture_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(tmp_path / "p.jpg", exif=exif)
    with Image.open(thumbnail(tmp_path / "p.jpg", cache=tmp_path / "cache")) as small:
        assert small.size == (40, 64)


def test_a_picture_that_is_too_large_gets_no_thumbnail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_MAX_THUMBNAIL_PIXELS", 100)
    path = add(tmp_path, "2025-01-02/000000-000000-seed1.png")
    with pytest.raises(PictureFileError, match="64 × 40 pixels"):
        thumbnail(path, cache=tmp_path / "cache")


def test_a_missing_picture_has_no_thumbnail(tmp_path: Path) -> None:
    with pytest.raises(PictureFileError, match="cannot be opened"):
        thumbnail(tmp_path / "p.png", cache=tmp_path / "cache")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_damaged_picture_gets_a_thumbnail_or_a_sentence(tmp_path: Path, ending: str) -> None:
    chooser = random.Random(5)
    Image.fromarray(PICTURE).save(tmp_path / f"p.{ending}")
    whole = (tmp_path / f"p.{ending}").read_bytes()
    path, broken = tmp_path / "damaged", 0
    for _ in range(100):
        content = bytearray(whole)
        for _ in range(8):
            content[chooser.randrange(12, len(content))] = chooser.randrange(256)
        path.write_bytes(content)
        try:
            thumbnail(path, cache=tmp_path / "cache")
        except PictureFileError:
            broken += 1
    assert broken
    assert not list((tmp_path / "cache").glob("*.part"))
