"""Image files with the settings that made them inside: saved so, and read without decoding a pixel."""

import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile
from pydantic import ValidationError

from studio.core.errors import PictureFileError
from studio.core.files import open_file, write_atomically
from studio.core.language import _
from studio.core.results import ImageRecord
from studio.core.settings import PictureFormatName
from studio.images.a1111 import MAX_TEXT_LENGTH, PictureText, has_settings_line, parse_parameters, to_parameters
from studio.images.programs import COMMENT_KEY, OTHER_PROGRAMS, decode_comment, fix_encoding, read_program

PARAMETERS_KEY = "parameters"
RECORD_KEY = "lora-studio"

_EXIF_FOLDER, _USER_COMMENT, _MAKER_NOTE = 0x8769, 0x9286, 0x927C
_MAX_FILE_BYTES = 512 * 2**20
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER_BYTES = 33  # with the first chunk, IHDR
_RECORD_START = b'{"settings":'  # a camera's MakerNote, or another program's, is not our record
# All that Pillow raises of files that are broken or mean harm.
PILLOW_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
)


def save_picture(path: Path, picture: np.ndarray, record: ImageRecord) -> None:
    """Save a (h, w, 3) uint8 image as PNG with `parameters` for A1111's readers and the whole record as JSON.

    Raises:
        OSError: where the disk is full or the folder cannot be written.
    """
    texts = {PARAMETERS_KEY: to_parameters(record), RECORD_KEY: record.model_dump_json()}
    write_atomically(path, encode_picture(picture, texts))


def encode_picture(
    picture_HWC: np.ndarray, texts: Mapping[str, str], *, picture_format: PictureFormatName = "png", quality: int = 95
) -> bytes:
    """A (h, w, 3) uint8 image as a file's bytes, always the same for the same image and texts.

    Args:
        texts: a PNG keeps each as a text chunk. A JPEG or WebP keeps `parameters` in EXIF's UserComment, where
            A1111's readers look, and the first other one in its MakerNote.
        quality: of JPEG and WebP, 1 to 100.
    """
    assert picture_HWC.dtype == np.uint8
    assert picture_HWC.ndim == 3
    picture, buffer = Image.fromarray(picture_HWC), io.BytesIO()
    if picture_format == "png":
        chunks = PngImagePlugin.PngInfo()
        for key, content in texts.items():
            # As Latin-1, "Ã©" would have the bytes of "é" in UTF-8, which is what other programs write there.
            (chunks.add_text if content.isascii() else chunks.add_itxt)(key, content)
        picture.save(buffer, format="PNG", pnginfo=chunks)
        return buffer.getvalue()
    exif = Image.Exif()
    folder = exif.get_ifd(_EXIF_FOLDER)
    for key, content in texts.items():
        if key == PARAMETERS_KEY:
            folder[_USER_COMMENT] = b"UNICODE\0" + content.encode("utf-16-be")
        else:
            folder[_MAKER_NOTE] = content.encode()
    picture.save(buffer, format=picture_format.upper(), quality=quality, exif=exif)
    return buffer.getvalue()


def read_picture_text(path: Path) -> PictureText:
    """The settings inside a PNG, JPEG or WebP file: ours, else A1111's, else another known program's.

    No pixel is decoded, so size does not matter. A PNG's text may stand before or after its pixels.

    Raises:
        PictureFileError: not such an image, cut short, no settings inside, or text without measure.
    """
    with open_picture(path) as picture:
        try:
            texts = _texts(picture)
        except PILLOW_ERRORS as error:
            raise PictureFileError(
                _("{name} has broken metadata: {reason}.", name=shown_name(path), reason=_reason(error))
            ) from error
    return _understand(path, texts)


def _texts(picture: ImageFile) -> dict[str, str]:
    """All that a file holds as text, by its key; EXIF's comment as `COMMENT_KEY`."""
    info = picture.info
    if isinstance(picture, PngImagePlugin.PngImageFile) and RECORD_KEY not in info:
        info = {**info, **_info_after_pixels(picture)}
    exif = Image.Exif()
    if isinstance(info.get("exif"), bytes):
        exif.load(info["exif"])
    folder = exif.get_ifd(_EXIF_FOLDER)
    texts = {f"EXIF {tag}": value for tag, value in exif.items() if isinstance(value, str)}
    if isinstance(info.get("xmp"), bytes):
        texts["XML:com.adobe.xmp"] = info["xmp"].decode("utf-8", "replace")
    texts[COMMENT_KEY] = decode_comment(folder.get(_USER_COMMENT))
    texts |= {key: value for key, value in info.items() if isinstance(key, str) and isinstance(value, str)}
    own, note = texts.pop(RECORD_KEY, None), folder.get(_MAKER_NOTE)
    texts = {key: fix_encoding(value) for key, value in texts.items()}
    if own is None and isinstance(note, bytes) and note.startswith(_RECORD_START):
        own = note.decode("utf-8", "replace")
    return texts if own is None else {**texts, RECORD_KEY: own}


def _info_after_pixels(picture: PngImagePlugin.PngImageFile) -> dict[str | tuple[int, int], object]:
    """What Pillow would find after the pixels had it decoded them: it is shown those chunks before an empty IDAT."""
    file = picture.fp
    assert file is not None
    file.seek(0)
    small, total, is_after = [file.read(_PNG_HEADER_BYTES)], 0, False
    for kind, length in _png_chunks(file):
        is_after = is_after or kind == b"IDAT"
        if is_after and kind in (b"tEXt", b"zTXt", b"iTXt", b"eXIf"):
            total += length
            if total > PngImagePlugin.MAX_TEXT_MEMORY:
                raise ValueError(_("Too much memory used in text chunks"))
            small.append(length.to_bytes(4, "big") + kind + file.read(length + 4))
    if len(small) == 1:
        return {}
    small += [bytes(4) + kind + zlib.crc32(kind).to_bytes(4, "big") for kind in (b"IDAT", b"IEND")]
    return PngImagePlugin.PngImageFile(io.BytesIO(b"".join(small))).info


def _png_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Kind and length of each chunk, up to and with IEND; the file then stands at the chunk's content."""
    place = len(_PNG_SIGNATURE)
    while True:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        length = int.from_bytes(head[:4], "big")
        yield head[4:], length
        if head[4:] == b"IEND":
            return
        place += length + 12


def _understand(path: Path, texts: Mapping[str, str]) -> PictureText:
    skipped: tuple[str, ...] = ()
    if RECORD_KEY in texts:
        if record := _read_record(texts[RECORD_KEY]):
            return PictureText(record.settings, record, "LoRA Studio", record.model, ())
        skipped = (_("Its full record is broken or of another version, so its settings were read from its text."),)
    for key in (PARAMETERS_KEY, COMMENT_KEY):
        if has_settings_line(texts.get(key, "")):
            text = parse_parameters(texts[key])
            return PictureText(text.settings, None, text.source, text.model, (*skipped, *text.skipped))
    if (found := read_program(texts, shown_name(path))) is not None:
        return found
    if skipped:
        reason = _("its record is broken or of another version")
    else:
        reason = _("its text is no program's settings") if any(texts.values()) else _("it has no settings")
    raise PictureFileError(
        _(
            "{name} cannot tell how it was made: {reason}. Images of LoRA Studio, of AUTOMATIC1111 and of "
            "{other_programs} have them, unless they were saved again.",
            name=shown_name(path),
            reason=reason,
            other_programs=_(OTHER_PROGRAMS),
        )
    )


def _read_record(text: str) -> ImageRecord | None:
    if len(text) > MAX_TEXT_LENGTH:  # none of ours is; pydantic would list millions of errors
        return None
    try:
        return ImageRecord.model_validate_json(text)
    except ValidationError:
        return None


@contextmanager
def open_picture(path: Path) -> Iterator[ImageFile]:
    """A PNG, JPEG or WebP file with its header read and its end found, and no pixel decoded.

    Unlike `Image.open` it takes any declared size: look at `size` before decoding.

    Raises:
        PictureFileError: not a file, not such an image, broken or cut short.
    """
    with _open_file(path) as file:
        try:
            picture = _open_header(path, file)
            whole = _is_whole(picture, file)
        except PILLOW_ERRORS as error:
            raise PictureFileError(
                _(
                    "{name} cannot be read as an image: {reason}. Choose another file.",
                    name=shown_name(path),
                    reason=_reason(error),
                )
            ) from error
        if not whole:
            raise PictureFileError(
                _(
                    "{name} is truncated: its end is missing. Copy or download it again.",
                    name=shown_name(path),
                )
            )
        yield picture


def is_whole_png(path: Path) -> bool:
    """Whether a PNG is what was written: all of it is there, and its own checksums hold."""
    try:
        with open_picture(path) as picture:
            if not isinstance(picture, PngImagePlugin.PngImageFile):
                return False
            picture.verify()
    except (PictureFileError, *PILLOW_ERRORS):
        return False
    return True


@contextmanager
def _open_file(path: Path) -> Iterator[BinaryIO]:
    try:
        found = path.stat()  # before opening: opening a FIFO waits for ever
        if not stat.S_ISREG(found.st_mode):
            raise PictureFileError(_("{name} is not a file. Choose a PNG, JPEG or WebP image.", name=shown_name(path)))
        if found.st_size > _MAX_FILE_BYTES:
            raise PictureFileError(
                _(
                    "{name} is larger than {limit} MiB. Choose another.",
                    name=shown_name(path),
                    limit=_MAX_FILE_BYTES // 2**20,
                )
            )
        file = open_file(path)
    except (OSError, ValueError) as error:
        raise PictureFileError(
            _("{name} cannot be opened: {reason}.", name=shown_name(path), reason=_reason(error))
        ) from error
    with file:
        yield file


def _open_header(path: Path, file: BinaryIO) -> ImageFile:
    start = file.read(12)
    file.seek(0)
    # The three classes themselves: `Image.open` refuses or warns of sizes that do not matter before decoding.
    if start.startswith(_PNG_SIGNATURE):
        return PngImagePlugin.PngImageFile(file)
    if start.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile(file)
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return WebPImagePlugin.WebPImageFile(file)
    raise PictureFileError(_("{name} is not a PNG, JPEG or WebP image. Choose one that is.", name=shown_name(path)))


def _is_whole(picture: ImageFile, file: BinaryIO) -> bool:
    """Whether the file goes on to its end mark; the place in the file is as before. Bytes after the end are fine."""
    place = file.tell()
    if isinstance(picture, PngImagePlugin.PngImageFile):
        whole = _has_png_end(file)
    elif isinstance(picture, JpegImagePlugin.JpegImageFile):
        whole = b"\xff\xd9" in file.read()  # after the header: a preview inside EXIF has an end mark too
    else:
        file.seek(4)
        whole = os.fstat(file.fileno()).st_size >= int.from_bytes(file.read(4), "little") + 8
    file.seek(place)
    return whole


def _has_png_end(file: BinaryIO) -> bool:
    return any(kind == b"IEND" and len(file.read(length + 4)) == length + 4 for kind, length in _png_chunks(file))


def shown_name(path: Path) -> str:
    """The file's name, in characters that can be shown and stored."""
    return path.name.encode("utf-8", "replace").decode()


def _reason(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (reason or type(error).__name__).rstrip(".")
