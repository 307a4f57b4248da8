"""Formats of image files, by their bytes alone: which one it is, what it is instead of an image, and where it ends.

It imports nothing heavy: the command line asks it too.
"""

import re
from pathlib import Path

from studio.core.language import N_, _

FORMAT_WORDS = N_("JPEG, PNG, WebP, AVIF, HEIC, JPEG 2000, TIFF, BMP, GIF and PPM")

RAW_MESSAGE = N_("It is a camera's RAW file, which is not read here. Export it as JPEG or TIFF.")

START_BYTES = 64
"""How much of a file `picture_kind` looks at."""
RAW_SUFFIXES = frozenset(
    (
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos"),
        *(".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
    )
)
"""What cameras call their RAW files."""
_STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
)
_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"FOVb", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"\0MRM")
_PPM = re.compile(rb"P[1-6Ff]\s+(#|\d+\s+\d)")
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_BARE_MARKERS = frozenset((0x01, 0xD8))


def picture_kind(start: bytes) -> str:
    """The format of an image by its first 64 bytes: Pillow's name for it, `HEIF`, `RAW`, or "" for anything else.

    Text, films and documents are "", and so are images of formats that are never read (PSD, JPEG XL). A RAW file that
    only its tags tell from a TIFF is `TIFF`.
    """
    if start.startswith(_RAW_STARTS) or start[4:12] == b"ftypcrx " or (start[:2] == b"II" and start[8:10] == b"CR"):
        return "RAW"
    if kind := next((kind for mark, kind in _STARTS if start.startswith(mark)), ""):
        return kind
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[:2] == b"BM" and start[6:10] == bytes(4):
        return "BMP"
    if start[4:8] == b"ftyp":
        end = min(len(start), int.from_bytes(start[:4], "big"))
        brands = {start[8:12], *(start[place : place + 4] for place in range(16, end, 4))}
        return "AVIF" if brands & _AVIF_BRANDS else "HEIF" if brands & _HEIF_BRANDS else ""
    return "PPM" if _PPM.match(start) else ""


def foreign_kind(content: bytes, name: str = "") -> str:
    """A sentence where the bytes are plainly something else; "" where they may be an image.

    Most RAW files are TIFFs whose first image is a small preview: their name tells.
    """
    start = content[:512].lstrip().lower()
    if content.startswith(b"version https://git-lfs"):
        return _("It is a pointer of Git LFS, not the image. Fetch the real file with `git lfs pull`.")
    if start.startswith((b"<!doctype html", b"<html")):
        return _("It is a web page with the name of an image: the download failed. Fetch it again.")
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in content[:4096].lower()):
        return _("It is SVG, which is drawn, not photographed. Save it as PNG.")
    if content.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return _("It is PostScript, which is a program and is not run. Save it as PNG.")
    if content.startswith(b"%PDF"):
        return _("It is a PDF. Save its image as PNG.")
    kind = picture_kind(content[:START_BYTES])
    if kind == "RAW" or (Path(name).suffix.lower() in RAW_SUFFIXES and kind in ("TIFF", "")):
        return _(RAW_MESSAGE)
    if content.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")):
        return _("It is JPEG XL, which is not read here: only {formats} are. Save it as PNG.", formats=_(FORMAT_WORDS))
    if content.startswith((b"8BPS", b"\x00\x00\x01\x00")):
        return _(
            "It is a Photoshop or icon file, which is not read here: only {formats} are. Save it as PNG.",
            formats=_(FORMAT_WORDS),
        )
    return ""


def end_of(format: str | None, content: bytes) -> int | None:
    """Where the image ends; -1 where its end is missing; None for formats that do not say."""
    if format in ("JPEG", "MPO"):
        return _jpeg_end(content)
    if format == "PNG":
        place = content.rfind(b"IEND\xaeB`\x82")
        return place + 8 if place >= 0 else -1
    if format == "WEBP":
        return 8 + int.from_bytes(content[4:8], "little")
    return None


def _jpeg_end(content: bytes) -> int:
    """Behind the end marker, or -1. Segments are stepped over: the camera's preview in one has an end of its own."""
    place = 2
    while match := _JPEG_MARKER.search(content, place):
        if match.group()[1] == 0xD9:
            return match.end()
        place = match.end()
        if match.group()[1] not in _JPEG_BARE_MARKERS:
            place += int.from_bytes(content[place : place + 2], "big")
    return -1


def lacks_scans(content: bytes) -> bool:
    """Whether it is a progressive JPEG without the scans that bring its coefficients to their last bit.

    A download that ends between two scans is a whole image to every decoder, only blurred. ITU-T T.81, G.1.1.1: each
    scan says for which components and coefficients it brings which bit; the last bit is number 0.
    """
    lowest: dict[int, list[int]] = {}  # by component, of each coefficient: the lowest bit so far
    place = 2
    while match := _JPEG_MARKER.search(content, place):
        marker, place = match.group()[1], match.end()
        if marker == 0xD9:
            break
        if marker in _JPEG_BARE_MARKERS:
            continue
        length = int.from_bytes(content[place : place + 2], "big")
        segment = content[place + 2 : place + length]
        place += length
        if marker == 0xC2 and len(segment) > 5:
            lowest = {number: [99] * 64 for number in segment[6 : 6 + 3 * segment[5] : 3]}
        if marker == 0xDA and segment and len(segment) >= 4 + 2 * segment[0]:
            first, last, bits = segment[1 + 2 * segment[0] : 4 + 2 * segment[0]]
            for number in segment[1 : 1 + 2 * segment[0] : 2]:
                for coefficient in range(first, min(last, 63) + 1) if number in lowest else ():
                    lowest[number][coefficient] = bits & 15
    return any(bit for bits in lowest.values() for bit in bits)


def is_cut_webp(content: bytes) -> bool:
    """Whether it is a WebP that says it is longer than it is."""
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP" and (end_of("WEBP", content) or 0) > len(content)
