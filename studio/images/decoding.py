"""The one way in which an image file becomes RGB: for training, thumbnails and export alike.

Only formats that are named here are tried (Pillow would start Ghostscript for a PostScript file that is called .png),
every file is decoded whole, and whatever a plain `convert("RGB")` gets silently wrong is converted rightly.
"""

import io
import os
import stat
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageCms, ImageOps, UnidentifiedImageError, features

from studio.core.errors import PictureFileError
from studio.core.files import read_file
from studio.core.language import N_, _
from studio.images.colours import flat_rows, rgb_of
from studio.images.formats import (
    FORMAT_WORDS,
    RAW_MESSAGE,
    START_BYTES,
    end_of,
    foreign_kind,
    is_cut_webp,
    lacks_scans,
    picture_kind,
)
from studio.images.records import Problem, Severity

FORMATS = (
    *("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM"),
    *(("AVIF",) if features.check("avif") else ()),
    *(("JPEG2000",) if features.check("jpg_2000") else ()),
)
MAX_FILE_BYTES = 1024**3
MAX_PIXELS = 50_000_000
MIN_SIDE = 16
MAX_ASPECT = 20
NEARLY_BLACK = 24

# What is found at several places; what is found is known by its English words, in files too.
NO_IMAGE, TOO_MANY_PIXELS, CUT_SHORT = N_("not an image"), N_("too many pixels"), N_("cut short")
_RARELY_READ = {"AVIF": N_("AVIF file"), "BMP": N_("BMP file"), "DIB": N_("DIB file")}

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo", ".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "DIB": (".dib", ".bmp"),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
}
_DNG_VERSION = 50706  # the tag by which a TIFF says that it is a RAW file
_JPEG_BLOCK = 16  # pixels; of the last ones alone, an encoder may leave bits out
# More data, and each of the eight restart markers, so that a decoder that waits for one goes on.
_MORE_JPEG_DATA = b"".join(bytes(range(i, 255, 2)) + bytes((0xFF, 0xD0 + i)) for i in range(8)) + bytes(range(255))
_CUT_WORDS = ("truncated", "premature", "end of file", "broken data stream")

# What Pillow raises for damaged files, besides its own errors.
DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    NotImplementedError,
    AttributeError,
    RuntimeError,
    ZeroDivisionError,
    Image.DecompressionBombError,
    ImageCms.PyCMSError,
)


@dataclass
class ReadPicture:
    """An image file as it was read.

    Attributes:
        image: RGB, upright; None where a problem of severity `reject` says why there is none.
        format, mode: Pillow's names, before conversion; None where it is no image.
        width, height: upright, in pixels; 0 where not known.
        problems: all that was seen.
    """

    image: Image.Image | None = None
    format: str | None = None
    mode: str | None = None
    width: int = 0
    height: int = 0
    problems: list[Problem] = field(default_factory=list)

    def add(self, code: str, severity: Severity, sentence: str) -> None:
        """Note a finding, with what one click can do about one of its severity."""
        remedies = {"reject": ("exclude",), "convert": ("convert", "exclude"), "note": ()}[severity]
        self.problems.append(
            Problem.model_validate({"code": code, "severity": severity, "sentence": sentence, "remedies": remedies})
        )

    @property
    def is_rejected(self) -> bool:
        """Whether it cannot be trained on."""
        return any(problem.severity == "reject" for problem in self.problems)


def open_rgb(path: Path, *, background: str = "#ffffff") -> Image.Image:
    """An image as training reads it: RGB, 8 bits, upright, whole; transparency laid on the background.

    Raises:
        PictureFileError: where it cannot be trained on; the sentence says why.
    """
    content, problem = read_bytes(path)
    if problem is not None:
        raise PictureFileError(problem.sentence)
    read = read_picture(content, path.name, background=background)
    if read.image is None or read.is_rejected:
        raise PictureFileError(next(p.sentence for p in read.problems if p.severity == "reject"))
    return read.image


def read_bytes(path: Path) -> tuple[bytes, Problem | None]:
    """An image file's bytes, or why there are none. Nothing but a regular file is opened."""
    read = ReadPicture()
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            read.add(N_("folder"), "reject", _("It is a folder with the name of an image. Rename it."))
        elif not stat.S_ISREG(status.st_mode):
            read.add(N_("not a file"), "reject", _("It is a pipe, socket or device with the name of an image."))
        elif path.name.startswith("._"):
            what = _("It is what a Mac keeps beside a file on a foreign disk (AppleDouble), not the image itself.")
            read.add(NO_IMAGE, "reject", " ".join([what, _("Delete it, or exclude it.")]))
        elif status.st_size == 0:
            read.add(N_("empty file"), "reject", _("The file is empty. Copy it again from where it came from."))
        elif status.st_size > MAX_FILE_BYTES:
            sentence = _("The file has {size:.1f} GB; up to 1 GB is read.", size=status.st_size / 1e9)
            read.add(N_("file too large"), "reject", sentence)
        else:
            return read_file(path, max_bytes=MAX_FILE_BYTES), None
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if path.is_symlink():
            read.add(N_("broken link"), "reject", _("The link leads nowhere ({reason}).", reason=reason))
        else:
            read.add(N_("unreadable"), "reject", _("The file cannot be read ({reason}).", reason=reason))
    return b"", read.problems[0]


def read_picture(content: bytes, name: str, *, background: str) -> ReadPicture:
    """Decode an image file whole. Never raises for what it holds, except for want of memory.

    Args:
        content: the file's bytes.
        name: its name; the ending tells what it says it is.
        background: `#rrggbb`, what transparency is laid on.
    """
    read = ReadPicture()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what matters of them is checked here, and said of the file
        try:
            _read(read, content, name, background)
        except DECODER_ERRORS as error:
            if not read.is_rejected:
                _say_broken(read, content, error)
    if read.is_rejected:
        read.image = None
    return read


def _read(read: ReadPicture, content: bytes, name: str, background: str) -> None:
    foreign = foreign_kind(content, name)
    if foreign:
        read.add(NO_IMAGE, "reject", foreign)
        return
    with _open(content) as image:
        if _DNG_VERSION in getattr(image, "tag_v2", ()):
            read.add(NO_IMAGE, "reject", _(RAW_MESSAGE))
            return
        read.format, read.mode = image.format, image.mode
        read.width, read.height = image.size
        _check_size(read)
        _check_end(read, content)
        if read.is_rejected:
            return
        image.load()
        _check_name(read, name)
        _check_data(read, image, content)
        num_frames = getattr(image, "n_frames", 1)
        if num_frames > 1 and read.format != "MPO":
            sentence = _("It has {num_frames} frames; the first is used.", num_frames=num_frames)
            read.add(N_("several frames"), "convert", sentence)
        upright = _turned_upright(read, image)
        read.width, read.height = upright.size
        read.image = rgb_of(upright, background, read.add, png_bits=content[24] if read.format == "PNG" else 8)
        if read.image is not None and not read.is_rejected:
            _check_content(read, read.image)


def _open(content: bytes) -> Image.Image:
    """Open an image and read its header. HEIC goes through pillow-heif, which also applies the rotation."""
    if picture_kind(content[:START_BYTES]) == "HEIF":
        from pillow_heif import HeifImageFile  # here: it loads a decoder that few datasets need

        image: Image.Image = HeifImageFile(io.BytesIO(content))  # type: ignore[no-untyped-call]
        return image
    return Image.open(io.BytesIO(content), formats=FORMATS)


def _check_size(read: ReadPicture) -> None:
    width, height = read.width, read.height
    if width * height > MAX_PIXELS:
        sentence = _("{w:,} × {h:,} pixels are over the limit of 50 million. Save a smaller copy.", w=width, h=height)
        read.add(TOO_MANY_PIXELS, "reject", sentence)
    elif min(width, height) < MIN_SIDE:
        sentence = _("{width} × {height} pixels are too few to learn from.", width=width, height=height)
        read.add(N_("too small"), "reject", sentence)
    elif max(width, height) > MAX_ASPECT * min(width, height):
        sentence = _("{width} × {height} pixels: no crop of it shows a subject. Cut it.", width=width, height=height)
        read.add(N_("extreme shape"), "reject", sentence)


def _check_end(read: ReadPicture, content: bytes) -> None:
    """JPEG, PNG and WebP say where they end: a file cut by two bytes decodes without a word."""
    end = end_of(read.format, content)
    if end is None:
        return
    if end < 0 or end > len(content):
        sentence = _("The file is cut short: its end is missing, and a part of the image with it. Copy it again.")
        read.add(CUT_SHORT, "reject", sentence)
    elif content[end:].strip(b"\0\r\n ") and read.format != "MPO":
        sentence = _("{num_bytes:,} bytes follow the end of the image.", num_bytes=len(content) - end)
        read.add(N_("bytes after the end"), "note", sentence)


def _check_data(read: ReadPicture, image: Image.Image, content: bytes) -> None:
    """Whether a JPEG's data reach its last pixel: where they end early, libjpeg fills the rest without a word.

    A decoder that has all pixels leaves what else stands before the end marker unread. One that has not takes it for
    pixels, and the image is another.
    """
    end = end_of(read.format, content) if read.format in ("JPEG", "MPO") else None
    if end is None or end < 0:
        return
    if lacks_scans(content[:end]):
        sentence = _("The file is cut short: scans of it are missing, so that all of it is blurred. Copy it again.")
        read.add(CUT_SHORT, "reject", sentence)
        return
    corner = np.asarray(image.crop((image.width - 4, image.height - 4, image.width, image.height)))
    if np.ptp(corner, axis=(0, 1)).any() and not image.info.get("progressive"):  # what is filled in is flat
        return
    more = content[: end - 2] + _MORE_JPEG_DATA + content[end - 2 :]
    try:
        changed = ImageChops.difference(image, _open(more).convert(image.mode)).getbbox()
    except DECODER_ERRORS:
        changed = (0, 0, *image.size)
    num_rows = 0 if changed is None else image.height - changed[1]
    if num_rows > _JPEG_BLOCK:
        sentence = _(
            "The file is cut short: its lowest {num_rows:,} rows are missing or blurred. Copy it again.",
            num_rows=num_rows,
        )
        read.add(CUT_SHORT, "reject", sentence)


def _check_name(read: ReadPicture, name: str) -> None:
    suffix = Path(name).suffix.lower()
    if read.format in _SUFFIXES and suffix not in _SUFFIXES[read.format]:
        sentence = _("It is a {format} file, though its name has no ending.", format=read.format)
        if suffix:
            sentence = _("It is a {format} file, though its name ends in {end}.", format=read.format, end=suffix)
        read.add(N_("wrong ending"), "note", sentence)
    if read.format in ("HEIF", "JPEG2000"):
        title = "HEIC" if read.format == "HEIF" else "JPEG 2000"
        read.add(title, "convert", _("It is {title}, which few tools read: exports hold it as PNG.", title=title))
    if code := _RARELY_READ.get(read.format or ""):
        read.add(code, "note", _("It is {format}, which is read here, but not by every tool.", format=read.format))


def _turned_upright(read: ReadPicture, image: Image.Image) -> Image.Image:
    try:
        exif = image.getexif()
        orientation = exif.get(0x0112, 1)
        is_damaged = not exif and len(image.info.get("exif") or b"") > len(b"Exif\0\0")
    except DECODER_ERRORS:
        is_damaged, orientation = True, 1
    if is_damaged:
        sentence = _("What the camera noted (EXIF) is damaged, so it is not known which way is up.")
        read.add(N_("damaged EXIF"), "note", sentence)
    if orientation in (2, 3, 4, 5, 6, 7, 8):
        read.add(N_("turned"), "convert", _("The camera was turned (EXIF): the image is turned upright."))
        return ImageOps.exif_transpose(image)
    return image


def _check_content(read: ReadPicture, image: Image.Image) -> None:
    """What decodes without a word and teaches nothing."""
    extrema = [low_high for low_high in image.getextrema() if isinstance(low_high, tuple)]
    if all(low == high for low, high in extrema):
        if not any(problem.code == "nothing visible" for problem in read.problems):
            read.add(N_("one colour"), "note", _("It is one colour and nothing else."))
    elif (brightest := max(high for __, high in extrema)) <= NEARLY_BLACK:
        sentence = _("Its brightest value is {value} of 255: nearly black.", value=brightest)
        read.add(N_("nearly black"), "note", sentence)
    elif read.format in ("JPEG", "MPO") and (rows := flat_rows(image)) >= image.height / 8:
        sentence = _("Its lowest {n} rows are one flat colour, as in a download that was cut off. Look at it.", n=rows)
        read.add(N_("flat lower part"), "note", sentence)


def _say_broken(read: ReadPicture, content: bytes, error: Exception) -> None:
    """An error of the decoder as a finding."""
    words = str(error).lower()
    if isinstance(error, Image.DecompressionBombError):
        sentence = _("It says it has more pixels than memory would hold. Save a smaller copy.")
        read.add(TOO_MANY_PIXELS, "reject", sentence)
    elif isinstance(error, UnidentifiedImageError):
        is_text = b"\0" not in content[:512] and content[:512].isascii()
        what = _("It is text with the name of an image.") if is_text else _("It is not an image in a supported format.")
        read.add(NO_IMAGE, "reject", " ".join([what, _("Only {formats} are read.", formats=_(FORMAT_WORDS))]))
    elif "text chunk" in words or "text_chunk" in words:
        read.add(N_("text bomb"), "reject", _("A text inside it unpacks to megabytes, as in malicious files."))
    elif is_cut_webp(content) or any(word in words for word in _CUT_WORDS) or isinstance(error, EOFError):
        read.add(CUT_SHORT, "reject", _("The file is cut short: a part of the image is missing. Copy it again."))
    else:
        said = f"{type(error).__name__}: {error!s:.120}"
        sentence = _(
            "The file is damaged and cannot be decoded ({error}). Copy it again from where it came from.", error=said
        )
        read.add(N_("damaged"), "reject", sentence)
