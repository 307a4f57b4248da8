"""Every kind of bad image file, made when it is needed: each with what must be said of it."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, PngImagePlugin, features

Severity = str | None
"""`reject`, `convert` or `note`; None where nothing is to be said."""


@dataclass(frozen=True)
class BadInput:
    """A file by its name, how bad it must be said to be, and by which code."""

    name: str
    severity: Severity
    code: str | None
    write: Callable[[Path], object]


def picture(width: int = 96, height: int = 64, mode: str = "RGB") -> Image.Image:
    """Something to see: no two quarters are alike."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (x + y) % 256], axis=2)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    """An image's file as bytes."""
    content = io.BytesIO()
    image.save(content, format=format, **options)
    return content.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG, with the right checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(chunk: bytes) -> bytes:
    """A sound PNG with one more chunk behind its header."""
    content = encoded(picture(), "PNG")
    return content[:33] + chunk + content[33:]


def png_declaring(width: int, height: int) -> bytes:
    """A PNG whose header says one size and whose data is that of another."""
    content = encoded(picture(), "PNG")
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return content[:8] + header + content[33:]


def with_bad_checksum() -> bytes:
    """A PNG with one flipped bit in its pixels' data."""
    content = bytearray(encoded(picture(), "PNG"))
    place = content.index(b"IDAT") + 20
    content[place] ^= 0x10
    return bytes(content)


def turned(orientation: int) -> bytes:
    """A JPEG that says that the camera was turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(), "JPEG", exif=exif)


def floats(value: float | None = None) -> bytes:
    """A float TIFF; with a value that is none, where asked for."""
    pixels = np.linspace(-2, 3, 64 * 64, dtype=np.float32).reshape(64, 64)
    if value is not None:
        pixels[5, 7] = value
    return encoded(Image.fromarray(pixels), "TIFF")


def sixteen_bits() -> Image.Image:
    """Grey from 0 to 65535."""
    return Image.fromarray(np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64))


def whole_numbers() -> Image.Image:
    """32-bit grey, below zero too."""
    return Image.fromarray(np.linspace(-70_000, 70_000, 64 * 64).astype(np.int32).reshape(64, 64))


def transparent_palette() -> bytes:
    """A palette image whose first colour is transparent."""
    image = picture(mode="P")
    return encoded(image, "PNG", transparency=0)


def animated(format: str) -> bytes:
    """Three frames."""
    frames = [picture().rotate(angle) for angle in (0, 20, 40)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100)


def text_bomb() -> bytes:
    """A PNG with a compressed text of 64 MB in a few kB."""
    return png_with(png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 64_000_000, 9)))


def lab() -> bytes:
    """A LAB TIFF."""
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    converted = ImageCms.applyTransform(picture(), transform)
    assert converted is not None
    return encoded(converted, "TIFF")


def junk_exif() -> bytes:
    """A JPEG whose EXIF is no EXIF."""
    return encoded(picture(), "JPEG", exif=b"Exif\0\0" + bytes(range(200)))


def with_preview() -> bytes:
    """A JPEG with a small JPEG in its EXIF, as cameras write them: it has an end marker of its own."""
    small = b"Exif\0\0MM\0*\0\0\0\x08" + b"\0\x01\x01\x12\0\x03\0\0\0\x01\0\x01\0\0\0\0\0\0" + JPEG
    return encoded(picture(), "JPEG", exif=small)


def junk_profile(format: str) -> bytes:
    """An image with a colour profile of random bytes."""
    return encoded(picture(), format, icc_profile=b"not a profile " * 20)


def digital_negative() -> bytes:
    """A TIFF with the tag that makes it a DNG."""
    return encoded(picture(), "TIFF", tiffinfo={50706: b"\1\4\0\0"})


def heic(orientation: int = 1) -> bytes:
    """What an iPhone takes; the camera turned where asked for."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = pillow_heif.from_pillow(picture())
    content = io.BytesIO()
    image.save(content, quality=95, exif=exif.tobytes())
    return content.getvalue()


def latin_text() -> bytes:
    """A PNG with a text chunk, as most tools write them: nothing is wrong with it."""
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a shoe\nSteps: 20")
    return encoded(picture(), "PNG", pnginfo=info)


def file(content: bytes | Callable[[], bytes]) -> Callable[[Path], object]:
    """Writes the content."""
    return lambda path: path.write_bytes(content() if callable(content) else content)


JPEG, PNG = encoded(picture(), "JPEG"), encoded(picture(), "PNG")
WEBP, GIF, TIFF, BMP = (encoded(picture(), name) for name in ("WEBP", "GIF", "TIFF", "BMP"))
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/tmp/studio-was-here) (w) file closefile\nshowpage\n"
SVG = b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"


def links(target: str) -> Callable[[Path], object]:
    """Makes a link."""
    return lambda path: path.symlink_to(target)


REJECTED = (
    BadInput("empty.png", "reject", "empty file", file(b"")),
    BadInput("empty.jpg", "reject", "empty file", file(b"")),
    BadInput("text.jpg", "reject", "not an image", file(b"this is not an image\n")),
    BadInput("page.jpg", "reject", "not an image", file(b"<!DOCTYPE html><html><body>404</body></html>")),
    BadInput("page2.png", "reject", "not an image", file(b"\n  <html>not found</html>")),
    BadInput("binary.png", "reject", "not an image", file(bytes(range(256)) * 8)),
    BadInput("zeros.jpg", "reject", "not an image", file(bytes(4096))),
    BadInput("cut2.jpg", "reject", "cut short", file(JPEG[:-2])),
    BadInput("cut-with-preview.jpg", "reject", "cut short", file(lambda: with_preview()[:-2])),
    BadInput("cut1.jpg", "reject", "cut short", file(JPEG[:-1])),
    BadInput("half-with-end.jpg", "reject", "cut short", file(JPEG[: len(JPEG) // 2] + b"\xff\xd9")),
    BadInput("half.jpg", "reject", "cut short", file(JPEG[: len(JPEG) // 2])),
    BadInput("head.jpg", "reject", None, file(JPEG[:20])),
    BadInput("cut2.png", "reject", "cut short", file(PNG[:-2])),
    BadInput("cut12.png", "reject", "cut short", file(PNG[:-12])),
    BadInput("half.png", "reject", "cut short", file(PNG[: len(PNG) // 2])),
    BadInput("head.png", "reject", None, file(PNG[:10])),
    BadInput("cut2.webp", "reject", "cut short", file(WEBP[:-2])),
    BadInput("half.webp", "reject", None, file(WEBP[: len(WEBP) // 2])),
    BadInput("half.gif", "reject", None, file(GIF[: len(GIF) // 2])),
    BadInput("half.tif", "reject", None, file(TIFF[: len(TIFF) // 2])),
    BadInput("half.bmp", "reject", None, file(BMP[: len(BMP) // 2])),
    BadInput("checksum.png", "reject", None, file(with_bad_checksum)),
    BadInput("huge.png", "reject", "too many pixels", file(lambda: png_declaring(60_000, 60_000))),
    BadInput("vast.png", "reject", "too many pixels", file(lambda: png_declaring(2**31 - 1, 2**31 - 1))),
    BadInput("over.png", "reject", "too many pixels", file(lambda: encoded(Image.new("L", (8000, 6500)), "PNG"))),
    BadInput("bomb.png", "reject", "text bomb", file(text_bomb)),
    BadInput("._shoe.png", "reject", "not an image", file(b"\0\x05\x16\x07\0\x02\0\0Mac OS X" + bytes(80))),
    BadInput("._whole.jpg", "reject", "not an image", file(JPEG)),
    BadInput("drawing.svg", "reject", "not an image", file(SVG)),
    BadInput("drawing.png", "reject", "not an image", file(SVG)),
    BadInput("program.eps", "reject", "not an image", file(EPS)),
    BadInput("program.png", "reject", "not an image", file(EPS)),
    BadInput("program.ps", "reject", "not an image", file(b"%!PS-Adobe-3.0\nshowpage\n")),
    BadInput("binary-eps.jpg", "reject", "not an image", file(b"\xc5\xd0\xd3\xc6" + bytes(26) + EPS)),
    BadInput("page.pdf.png", "reject", "not an image", file(b"%PDF-1.7\n" + bytes(100))),
    BadInput("pointer.png", "reject", "not an image", file(LFS)),
    BadInput("head.heic", "reject", "damaged", file(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))),
    BadInput("cut2.heic", "reject", "cut short", file(lambda: heic()[:-2])),
    BadInput("cut2.jp2", "reject", "cut short", file(lambda: encoded(picture(), "JPEG2000")[:-2])),
    BadInput("camera.nef", "reject", "not an image", file(TIFF)),
    BadInput("camera.tif", "reject", "not an image", file(digital_negative)),
    BadInput("camera.png", "reject", "not an image", file(b"II*\0\x10\0\0\0CR\2\0" + bytes(100))),
    BadInput("new.jxl", "reject", "not an image", file(b"\xff\x0a" + bytes(100))),
    BadInput("layers.psd", "reject", "not an image", file(b"8BPS\0\x01" + bytes(100))),
    BadInput("icon.ico", "reject", "not an image", file(lambda: encoded(picture(64, 64), "ICO"))),
    BadInput("dangling.png", "reject", "broken link", links("nowhere.png")),
    BadInput("loop.png", "reject", "broken link", links("loop.png")),
    BadInput("folder.png", "reject", "folder", lambda path: path.mkdir()),
    BadInput("pipe.png", "reject", "not a file", lambda path: os.mkfifo(path)),
    BadInput("dot.png", "reject", "too small", file(lambda: encoded(Image.new("RGB", (1, 1)), "PNG"))),
    BadInput("line.png", "reject", None, file(lambda: encoded(Image.new("RGB", (1, 20_000)), "PNG"))),
    BadInput("strip.png", "reject", "extreme shape", file(lambda: encoded(Image.new("RGB", (20, 2000)), "PNG"))),
    BadInput("nan.tif", "reject", "not finite", file(lambda: floats(float("nan")))),
    BadInput("inf.tif", "reject", "not finite", file(lambda: floats(float("inf")))),
)
CONVERTED = (
    BadInput("grey16.png", "convert", "16-bit", file(lambda: encoded(sixteen_bits(), "PNG"))),
    BadInput("grey16.tif", "convert", "16-bit", file(lambda: encoded(sixteen_bits(), "TIFF"))),
    BadInput("float.tif", "convert", "32-bit", file(floats)),
    BadInput("int32.tif", "convert", "32-bit", file(lambda: encoded(whole_numbers(), "TIFF"))),
    BadInput("rgba.png", "convert", "transparent", file(lambda: encoded(Image.new("RGBA", (64, 64)), "PNG"))),
    BadInput("rgba.webp", "convert", "transparent", file(lambda: encoded(Image.new("RGBA", (64, 64)), "WEBP"))),
    BadInput("la.png", "convert", "transparent", file(lambda: encoded(Image.new("LA", (64, 64)), "PNG"))),
    BadInput("palette.png", "convert", "transparent", file(transparent_palette)),
    BadInput("cmyk.jpg", "convert", "CMYK", file(lambda: encoded(picture(mode="CMYK"), "JPEG"))),
    BadInput("cmyk.tif", "convert", "CMYK", file(lambda: encoded(picture(mode="CMYK"), "TIFF"))),
    BadInput("lab.tif", "convert", "LAB", file(lab)),
    BadInput("turned6.jpg", "convert", "turned", file(lambda: turned(6))),
    BadInput("turned3.jpg", "convert", "turned", file(lambda: turned(3))),
    BadInput("mirrored.jpg", "convert", "turned", file(lambda: turned(2))),
    BadInput("phone.heic", "convert", "HEIC", file(lambda: heic())),
    BadInput("phone.jpg", "convert", "HEIC", file(lambda: heic())),
    BadInput("scan.jp2", "convert", "JPEG 2000", file(lambda: encoded(picture(), "JPEG2000"))),
    BadInput("moving.gif", "convert", "several frames", file(lambda: animated("GIF"))),
    BadInput("moving.webp", "convert", "several frames", file(lambda: animated("WEBP"))),
    BadInput("moving.png", "convert", "several frames", file(lambda: animated("PNG"))),
    BadInput("pages.tif", "convert", "several frames", file(lambda: animated("TIFF"))),
)
ACCEPTED = (
    BadInput("png-named.jpg", "note", "wrong ending", file(PNG)),
    BadInput("jpeg-named.png", "note", "wrong ending", file(JPEG)),
    BadInput("webp-named.png", "note", "wrong ending", file(WEBP)),
    BadInput("phone.dng", "note", "wrong ending", file(JPEG)),
    BadInput("tail.jpg", "note", "bytes after the end", file(JPEG + b"and then some" * 9)),
    BadInput("tail.png", "note", "bytes after the end", file(PNG + b"and then some" * 9)),
    BadInput("profile.jpg", "note", "damaged profile", file(lambda: junk_profile("JPEG"))),
    BadInput("profile.png", "note", "damaged profile", file(lambda: junk_profile("PNG"))),
    BadInput("exif.jpg", "note", "damaged EXIF", file(junk_exif)),
    BadInput("preview.jpg", None, None, file(with_preview)),
    BadInput("1bit.png", "note", "1-bit", file(lambda: encoded(picture(mode="1"), "PNG"))),
    BadInput("plain.bmp", "note", "BMP file", file(BMP)),
    BadInput("texts.png", None, None, file(latin_text)),
    BadInput("opaque.png", None, None, file(lambda: encoded(picture(mode="RGBA"), "PNG"))),
    BadInput("grey.jpg", None, None, file(lambda: encoded(picture(mode="L"), "JPEG"))),
    *(
        (BadInput("new.avif", "note", "AVIF file", file(lambda: encoded(picture(), "AVIF"))),)
        if features.check("avif")
        else ()
    ),
)
NAMES = (
    "-dash.png",
    "quote'\"s.png",
    "$(touch x).png",
    "line\nbreak.png",
    "übung.png",
    "u\u0308bung 2.png",
    "🥾 shoe.png",
)
NAMED = tuple(BadInput(name, None, None, file(PNG)) for name in NAMES)

BAD_INPUTS = (*REJECTED, *CONVERTED, *ACCEPTED, *NAMED)
