"""What an image file's bytes tell before they are decoded: what it is not, and where it ends."""

import re

from PIL import features

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", *(("AVIF",) if features.check("avif") else ()))
FORMAT_WORDS = "JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF and PPM"

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_BARE_MARKERS = frozenset((0x01, 0xD8))


def foreign_kind(content: bytes) -> str:
    """A sentence where the bytes are plainly something else; "" where they may be an image."""
    start = content[:512].lstrip().lower()
    if content.startswith(b"version https://git-lfs"):
        return "It is a pointer of Git LFS, not the image. Fetch the real file with `git lfs pull`."
    if start.startswith((b"<!doctype html", b"<html")):
        return "It is a web page with the name of an image: the download failed. Fetch it again."
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in content[:4096].lower()):
        return "It is SVG, which is drawn, not photographed. Save it as PNG."
    if content.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "It is PostScript, which is a program and is not run. Save it as PNG."
    if content.startswith(b"%PDF"):
        return "It is a PDF. Save its image as PNG."
    if content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return f"It is HEIC, which is not read here: only {FORMAT_WORDS} are. Export it as JPEG."
    if content.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")):
        return f"It is JPEG XL, which is not read here: only {FORMAT_WORDS} are. Save it as PNG."
    if content.startswith((b"8BPS", b"\x00\x00\x01\x00")):
        return f"It is a Photoshop or icon file, which is not read here: only {FORMAT_WORDS} are. Save it as PNG."
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


def is_cut_webp(content: bytes) -> bool:
    """Whether it is a WebP that says it is longer than it is."""
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP" and (end_of("WEBP", content) or 0) > len(content)
