"""Pixels become RGB rightly for every pair of depth, alpha, profile, turn and animation, by a reference of our own."""

import io
import itertools
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from studio.images.decoding import ReadPicture, read_picture

BACKGROUND = np.array([0xC8, 0x64, 0x32])
SRGB_FROM_XYZ_D50 = np.array(
    [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
)
P3_TO_XYZ_D50 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
GAMMA = 1.8  # of the profiles here, which is ProPhoto's too


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def icc(space: bytes, curves: list[bytes], matrix: np.ndarray | None = None, table: np.ndarray | None = None) -> bytes:
    """A profile of version 2: a gamma or a table for each curve, and a matrix to XYZ."""
    tags = [(b"wtpt", b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in (0.9642, 1, 0.8249)))]
    points = [round(GAMMA * 256)] if table is None else np.rint(table * 65535).astype(int).tolist()
    curve = b"curv\0\0\0\0" + struct.pack(f">I{len(points)}H", len(points), *points)
    tags += [(name, curve) for name in curves]
    if matrix is not None:
        for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True):
            tags.append((name, b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in column)))
    tags.append((b"desc", b"desc\0\0\0\0" + struct.pack(">I", 5) + b"Test\0" + bytes(78)))
    tags.append((b"cprt", b"text\0\0\0\0none\0"))
    place, index, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags:
        content += bytes(-len(content) % 4)
        index += name + struct.pack(">II", place + len(data), len(content))
        data += content
    head = struct.pack(">I4sI4s4s4s", place + len(data), b"lcms", 0x02100000, b"mntr", space, b"XYZ ") + bytes(12)
    head += b"acsp" + bytes(28) + b"".join(struct.pack(">i", round(v * 65536)) for v in (0.9642, 1, 0.8249))
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + index + data


RGB_PROFILE = icc(b"RGB ", [b"rTRC", b"gTRC", b"bTRC"], P3_TO_XYZ_D50)
GREY_PROFILE = icc(b"GRAY", [b"kTRC"])


def srgb(linear: np.ndarray) -> np.ndarray:
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def packed(samples_HWC: np.ndarray, depth: int) -> bytes:
    height = samples_HWC.shape[0]
    rows = b""
    for row in samples_HWC.reshape(height, -1):
        if depth >= 8:
            rows += b"\0" + row.astype(f">u{depth // 8}").tobytes()
        else:
            bits = "".join(f"{value:0{depth}b}" for value in row)
            bits += "0" * (-len(bits) % 8)
            rows += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    return zlib.compress(rows)


def png(samples_HWC: np.ndarray, depth: int, colour_type: int, *chunks: bytes, animated: bool = False) -> bytes:
    """One frame, or two, of which the second has every sample turned about."""
    height, width = samples_HWC.shape[:2]
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)), *chunks]
    frames = [chunk(b"IDAT", packed(samples_HWC, depth))]
    if animated:
        controls = [
            chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, 0, 0, 1, 10, 0, 0)) for number in (0, 1)
        ]
        second = chunk(b"fdAT", struct.pack(">I", 2) + packed(2**depth - 1 - samples_HWC, depth))
        frames = [chunk(b"acTL", struct.pack(">II", 2, 0)), controls[0], *frames, controls[1], second]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, *frames, chunk(b"IEND", b"")])


def exif_turn(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return chunk(b"eXIf", exif.tobytes()[6:])


def read(content: bytes, name: str = "a.png") -> ReadPicture:
    found = read_picture(content, name, background="#c86432")
    assert found.image is not None, found.problems
    return found


KINDS = [("grey", depth) for depth in (1, 2, 4, 8, 16)] + [("rgb", 8), ("rgb", 16)]
KINDS += [("grey+alpha", 8), ("grey+alpha", 16), ("rgb+alpha", 8), ("rgb+alpha", 16)]
KINDS += [("palette", depth) for depth in (1, 2, 4, 8)]


@pytest.mark.parametrize(
    ("kind", "depth", "keyed", "profiled", "turned", "animated"),
    [(*kind, *more) for kind in KINDS for more in itertools.product((False, True), repeat=4)],
)
def test_every_kind_of_png_is_read_as_a_reference_of_our_own(
    kind: str, depth: int, keyed: bool, profiled: bool, turned: bool, animated: bool
) -> None:
    """The reference works on the first frame's samples, in floats: scale, then the profile, then transparency."""
    top, random = 2**depth - 1, np.random.default_rng(depth)
    channels = {"grey": 1, "rgb": 3, "grey+alpha": 2, "rgb+alpha": 4, "palette": 1}[kind]
    samples = random.integers(0, top, (20, 24, channels), endpoint=True)
    key = samples[3, 4].copy()
    chunks = []
    alpha_HW = np.ones((20, 24))
    if profiled:
        profile = GREY_PROFILE if kind.startswith("grey") else RGB_PROFILE
        chunks.append(chunk(b"iCCP", b"x\0\0" + zlib.compress(profile)))
    if kind == "palette":
        palette = random.integers(0, 256, (top + 1, 3))
        chunks.append(chunk(b"PLTE", palette.astype("u1").tobytes()))
        colours = palette[samples[..., 0]] / 255
        if keyed:
            alphas = random.integers(0, 256, top + 1)
            chunks.append(chunk(b"tRNS", alphas.astype("u1").tobytes()))
            alpha_HW = alphas[samples[..., 0]] / 255
    elif "alpha" in kind:
        colours, alpha_HW = samples[..., :-1] / top, samples[..., -1] / top
    else:
        colours = samples / top
        if keyed:
            chunks.append(chunk(b"tRNS", key.astype(">u2").tobytes()))
            alpha_HW = 1.0 - (samples == key).all(axis=-1)
    colour_type = {"grey": 0, "rgb": 2, "palette": 3, "grey+alpha": 4, "rgb+alpha": 6}[kind]
    if turned:
        chunks.append(exif_turn(6))
    rgb = np.repeat(colours, 3 // colours.shape[-1], axis=-1)
    if profiled and kind.startswith("grey"):
        rgb = srgb(rgb**GAMMA)
    elif profiled:
        rgb = srgb(rgb**GAMMA @ P3_TO_XYZ_D50.T @ SRGB_FROM_XYZ_D50.T)
    wanted = rgb * 255 * alpha_HW[..., None] + BACKGROUND * (1 - alpha_HW[..., None])
    if turned:
        wanted = np.rot90(wanted, -1)
    found = read(png(samples, depth, colour_type, *chunks, animated=animated))
    assert ("several frames" in {problem.code for problem in found.problems}) == animated
    got = np.asarray(found.image).astype(float)
    # 16 bits are cut to 8 before a profile, and steep curves magnify that near black.
    assert np.abs(got - wanted).max() <= (6 if profiled else 2)
    assert np.abs(got - wanted).mean() <= 1


def test_display_p3_and_prophoto_grey_come_out_as_srgb() -> None:
    """By CSS Color 4, Display P3's 200,60,60 is 217,42,52 in sRGB; grey 120 of gamma 1.8 is 139."""
    level = np.linspace(0, 1, 1024)
    curve = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    display_p3 = icc(b"RGB ", [b"rTRC", b"gTRC", b"bTRC"], P3_TO_XYZ_D50, curve)
    samples = np.broadcast_to([200, 60, 60], (20, 20, 3))
    found = read(png(samples, 8, 2, chunk(b"iCCP", b"x\0\0" + zlib.compress(display_p3))))
    assert np.abs(np.asarray(found.image)[0, 0].astype(int) - [217, 42, 52]).max() <= 1
    assert "colour profile" in {problem.code for problem in found.problems}
    grey = png(np.full((20, 20, 1), 120), 8, 0, chunk(b"iCCP", b"x\0\0" + zlib.compress(GREY_PROFILE)))
    assert np.asarray(read(grey).image)[0, 0].tolist() == [139, 139, 139]


def test_a_profile_that_is_srgb_changes_nothing_and_is_not_said() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 20, 3), dtype=np.uint8))
    content = io.BytesIO()
    image.save(content, "PNG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    found = read(content.getvalue())
    assert found.problems == []
    assert np.array_equal(np.asarray(found.image), np.asarray(image))


def test_16_bit_grey_with_a_transparent_value_keeps_its_mean() -> None:
    samples = np.linspace(0, 65535, 64 * 64).round().astype(int).reshape(64, 64, 1)
    found = read(png(samples, 16, 0, chunk(b"tRNS", struct.pack(">H", 7))))
    assert np.asarray(found.image).mean() == pytest.approx(127.5, abs=0.5)


def test_floats_from_0_to_1_and_12_bits_are_scaled_by_what_they_mean() -> None:
    ramp = np.linspace(0, 0.5, 32 * 32, dtype=np.float32).reshape(32, 32)
    content = io.BytesIO()
    Image.fromarray(ramp).save(content, "TIFF")
    assert np.asarray(read(content.getvalue(), "a.tif").image).max() == 128
    values = np.linspace(0, 4095, 32 * 32).round().astype(int).ravel()
    packed = bytearray()
    for first, second in zip(values[::2], values[1::2], strict=True):
        packed += bytes((first >> 4, (first & 15) << 4 | second >> 8, second & 255))
    tags = [(256, 4, 32), (257, 4, 32), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, 32), (279, 4, len(packed))]
    tiff = b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags))
    tiff += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags) + bytes(4)
    got = np.asarray(read(tiff, "a.tif").image)[..., 0].ravel().astype(float)
    assert np.abs(got - values / 4095 * 255).max() <= 1


def codes(content: bytes, name: str) -> set[str]:
    return {problem.code for problem in read_picture(content, name, background="#c86432").problems}


def test_what_decodes_without_a_word_and_teaches_nothing_is_said() -> None:
    assert "nothing visible" in codes(png(np.zeros((20, 20, 4), int), 8, 6), "a.png")
    assert "one colour" in codes(png(np.full((20, 20, 3), 90), 8, 2), "a.png")
    dark = np.random.default_rng(1).integers(0, 12, (20, 20, 3))
    assert "nearly black" in codes(png(dark, 8, 2), "a.png")
    assert codes(png(dark + 60, 8, 2), "a.png") == set()


def test_a_jpeg_that_was_cut_and_given_an_end_is_said() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "JPEG", quality=80)
    whole = content.getvalue()
    assert codes(whole, "a.jpg") == set()
    cut = whole[: len(whole) // 2] + b"\xff\xd9"
    assert codes(cut, "a.jpg") == {"cut short"}
    again = io.BytesIO()
    Image.open(io.BytesIO(cut)).save(again, "JPEG", quality=95)
    assert codes(again.getvalue(), "a.jpg") == {"flat lower part"}
    noise[64:] = 255  # a white ground is flat too
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "JPEG", quality=80)
    assert "flat lower part" not in codes(content.getvalue(), "a.jpg")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_progressive_jpeg_that_ends_between_or_in_its_scans_is_cut(mode: str) -> None:
    """Every pixel is there, and blurred: a decoder finds nothing wrong with it."""
    noise = np.random.default_rng(2).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    image, content = Image.fromarray(noise).convert(mode), io.BytesIO()
    image.save(content, "JPEG", quality=90, progressive=True)
    whole = content.getvalue()
    assert "cut short" not in codes(whole, "a.jpg")
    starts = [match.start() for match in re.finditer(rb"\xff\xda", whole)]
    assert len(starts) > 3
    for cut in (*starts[1:], len(whole) // 2, len(whole) * 3 // 4):
        assert "cut short" in codes(whole[:cut] + b"\xff\xd9", "a.jpg"), cut


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("ground", [0, 128, 255])
@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 2}, {"progressive": True}, {"restart_marker_rows": 1}, {"optimize": True}], ids=str
)
def test_a_jpeg_whose_data_end_early_is_cut_whatever_its_ground(
    mode: str, ground: int, options: dict[str, object]
) -> None:
    """The part that is filled in may be of the ground's own colour, or none may be: a progressive one is blurred."""
    pixels = np.full((130, 97, 3), ground, np.uint8)
    pixels[:70, 10:80] = np.random.default_rng(1).integers(0, 256, (70, 70, 3), dtype=np.uint8)
    image, content = Image.fromarray(pixels).convert(mode), io.BytesIO()
    image.save(content, "JPEG", quality=80, **options)
    whole = content.getvalue()
    assert "cut short" not in codes(whole, "a.jpg")
    assert "cut short" not in codes(whole + b"\xff\xd9", "a.jpg")
    for part in (0.3, 0.6, 0.9):
        data = whole.rindex(b"\xff\xda") if "progressive" not in options else whole.index(b"\xff\xda")
        cut = whole[: data + 14 + int((len(whole) - data - 16) * part)]
        assert "cut short" in codes(cut + b"\xff\xd9", "a.jpg"), part
