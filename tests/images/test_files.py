"""An image keeps the settings that made it, and no file can do harm by being read."""

import errno
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from studio.core.errors import PictureFileError
from studio.core.settings import GenerationSettings, LoraChoice
from studio.images.files import RECORD_KEY, open_picture, read_picture_text, save_picture
from tests.images.test_a1111 import A1111_TEXT, FULL, make_record

PICTURE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


def png_with(path: Path, **texts: str) -> Path:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key.replace("_", "-"), text)
    Image.fromarray(PICTURE).save(path, pnginfo=info)
    return path


def with_comment(path: Path, comment: bytes) -> Path:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    Image.fromarray(PICTURE).save(path, exif=exif)
    return path


def picture_with_settings(path: Path) -> Path:
    if path.suffix == ".png":
        return png_with(path, parameters=A1111_TEXT)
    return with_comment(path, A1111_TEXT.encode())


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk_before_pixels(path: Path, extra: bytes) -> Path:
    content = png_with(path).read_bytes()
    place = content.index(b"IDAT") - 4
    path.write_bytes(content[:place] + extra + content[place:])
    return path


@pytest.mark.parametrize("settings", [FULL, GenerationSettings(prompt="plain"), GenerationSettings(prompt="a\0b \r\n")])
def test_a_saved_picture_gives_back_its_record(tmp_path: Path, settings: GenerationSettings) -> None:
    record = make_record(settings)
    save_picture(tmp_path / "a" / "p.png", PICTURE, record)
    read = read_picture_text(tmp_path / "a" / "p.png")
    assert (read.settings, read.record, read.model) == (settings, record, "shoes-demo")
    assert (read.source, read.skipped) == ("LoRA Studio", ())


def test_a_saved_picture_has_its_pixels(tmp_path: Path) -> None:
    save_picture(tmp_path / "p.png", PICTURE, make_record(FULL))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "p.png")), PICTURE)


@pytest.mark.parametrize("prompt", ["a shoe", "très", "靴 👟"])
def test_a1111s_readers_find_the_text_of_ours(tmp_path: Path, prompt: str) -> None:
    save_picture(tmp_path / "p.png", PICTURE, make_record(GenerationSettings(prompt=prompt)))
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.info["parameters"].startswith(f"{prompt}\nSteps: 25, Sampler: PLMS")


def test_the_text_lies_before_the_pixels(tmp_path: Path) -> None:
    save_picture(tmp_path / "p.png", PICTURE, make_record(FULL))
    content = (tmp_path / "p.png").read_bytes()
    assert max(content.index(b"parameters"), content.index(RECORD_KEY.encode())) < content.index(b"IDAT")


def test_a_failed_write_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_picture(tmp_path / "p.png", PICTURE, make_record(FULL))
    before = (tmp_path / "p.png").read_bytes()

    def full_disk(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_picture(tmp_path / "p.png", PICTURE, make_record(GenerationSettings(prompt="b")))
    assert (tmp_path / "p.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_picture_of_a1111_is_read(tmp_path: Path) -> None:
    read = read_picture_text(png_with(tmp_path / "p.png", parameters=A1111_TEXT))
    assert (read.source, read.record, read.settings.seed) == ("A1111", None, 965400086)
    assert read.settings.loras == (LoraChoice(name="shoes", strength=0.7),)


@pytest.mark.parametrize("ending", ["jpg", "webp"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + f"{A1111_TEXT} 靴".encode("utf-16-be"),
        b"UNICODE\0" + f"{A1111_TEXT} 靴".encode("utf-16-le"),
        b"UNICODE\0" + f"{A1111_TEXT} 靴".encode("utf-16"),
        b"ASCII\0\0\0" + A1111_TEXT.encode() + b"\0",
        bytes(8) + A1111_TEXT.encode(),
        A1111_TEXT.encode(),
    ],
)
def test_the_user_comment_is_read_in_every_encoding(tmp_path: Path, ending: str, comment: bytes) -> None:
    read = read_picture_text(with_comment(tmp_path / f"p.{ending}", comment))
    assert read.settings.negative_prompt == "blurry,\ndark"
    assert read.settings.seed == 965400086
    assert read.skipped == ()


def test_no_pixel_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(_picture: ImageFile.ImageFile) -> None:
        raise AssertionError("pixels were decoded")

    paths = [picture_with_settings(tmp_path / f"p.{ending}") for ending in ("png", "jpg", "webp")]
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    for path in paths:
        assert read_picture_text(path).settings.seed == 965400086


@pytest.mark.filterwarnings("error")
def test_a_huge_declared_size_does_not_matter(tmp_path: Path) -> None:
    content = bytearray(png_with(tmp_path / "p.png", parameters=A1111_TEXT).read_bytes())
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + content[24:29]
    content[12:33] = header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "p.png").write_bytes(content)
    assert read_picture_text(tmp_path / "p.png").settings.seed == 965400086


@pytest.mark.parametrize("own", ["{}", "{", "null", "[" * 100_000, '{"settings": 1}'])
def test_a_record_of_another_version_gives_way_to_the_text(tmp_path: Path, own: str) -> None:
    read = read_picture_text(png_with(tmp_path / "p.png", lora_studio=own, parameters=A1111_TEXT))
    assert read.settings.seed == 965400086
    assert "of another version" in read.skipped[0]


def test_a_huge_record_is_not_parsed(tmp_path: Path) -> None:
    own = make_record(FULL).model_dump_json() + " " * 1_000_001
    read = read_picture_text(png_with(tmp_path / "p.png", lora_studio=own, parameters=A1111_TEXT))
    assert read.source == "A1111"


def test_a_record_of_another_version_alone_is_said_to_be_that(tmp_path: Path) -> None:
    with pytest.raises(PictureFileError, match="another version"):
        read_picture_text(png_with(tmp_path / "p.png", lora_studio="{}"))


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_picture_without_settings_is_told_which_have_them(tmp_path: Path, ending: str) -> None:
    Image.fromarray(PICTURE).save(tmp_path / f"p.{ending}")
    with pytest.raises(PictureFileError, match=r"no settings.*LoRA Studio, of AUTOMATIC1111"):
        read_picture_text(tmp_path / f"p.{ending}")


@pytest.mark.parametrize(
    "content", [b"", b"text", b"<html>", b"<svg/>", b"%!PS-Adobe-3.0 EPSF", b"GIF89a", b"RIFF1234WAVE"]
)
def test_what_is_not_a_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(PictureFileError, match=r"p\.png is not a PNG, JPEG or WebP image"):
        read_picture_text(tmp_path / "p.png")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@pytest.mark.parametrize("missing", [1, 2, 300, 0.5, 0.9])
def test_a_picture_cut_short_is_refused(tmp_path: Path, ending: str, missing: float) -> None:
    path = picture_with_settings(tmp_path / f"p.{ending}")
    content = path.read_bytes()
    path.write_bytes(content[: -int(missing if missing >= 1 else missing * len(content))])
    with pytest.raises(PictureFileError, match=r"truncated|cannot be read"):
        read_picture_text(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_bytes_after_the_end_do_not_matter(tmp_path: Path, ending: str) -> None:
    path = picture_with_settings(tmp_path / f"p.{ending}")
    path.write_bytes(path.read_bytes() + b"junk" * 100)
    assert read_picture_text(path).settings.seed == 965400086


def test_a_compressed_text_that_unpacks_without_measure_is_refused(tmp_path: Path) -> None:
    bomb = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 50_000_000))
    with pytest.raises(PictureFileError, match="cannot be read as an image"):
        read_picture_text(with_chunk_before_pixels(tmp_path / "p.png", bomb))


def test_many_texts_that_unpack_without_measure_are_refused(tmp_path: Path) -> None:
    bomb = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 1_000_000)) * 70
    with pytest.raises(PictureFileError, match="Too much memory"):
        read_picture_text(with_chunk_before_pixels(tmp_path / "p.png", bomb))


def test_a_bad_checksum_is_refused(tmp_path: Path) -> None:
    path = png_with(tmp_path / "p.png", parameters=A1111_TEXT)
    path.write_bytes(path.read_bytes().replace(b"Seed: 96", b"Seed: 97"))
    with pytest.raises(PictureFileError, match="checksum"):
        read_picture_text(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureFileError, match="is not a file"):
        read_picture_text(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs in folders")
@pytest.mark.timeout(10)
def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.png")
    with pytest.raises(PictureFileError, match="is not a file"):
        read_picture_text(tmp_path / "p.png")


def test_missing_dangling_and_looping_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    for name in ("loop.png", "dangling.png", "missing.png", "nul\0.png"):
        with pytest.raises(PictureFileError, match="cannot be opened"):
            read_picture_text(tmp_path / name)


def test_a_file_without_measure_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "p.png").open("wb") as file:
        file.truncate(600 * 2**20)  # sparse: it takes no space
    with pytest.raises(PictureFileError, match="larger than 512 MiB"):
        read_picture_text(tmp_path / "p.png")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_no_damage_raises_anything_else(tmp_path: Path, ending: str) -> None:
    chooser = random.Random(3)
    whole = picture_with_settings(tmp_path / f"p.{ending}").read_bytes()
    path = tmp_path / "damaged"
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(chooser.randrange(1, 8)):
            content[chooser.randrange(12, min(len(content), 700))] = chooser.randrange(256)
        path.write_bytes(content)
        try:
            read_picture_text(path)
        except PictureFileError as error:
            assert str(error).endswith(".")


def test_an_error_inside_the_block_is_not_taken_for_the_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), open_picture(png_with(tmp_path / "p.png")):
        raise ValueError("mine")
