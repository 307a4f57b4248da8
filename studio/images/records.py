"""What one look at an image file found: its figures, what is wrong with it, how bad that is, what one click can do.

Which format a file's first bytes are of, whatever it is called.
"""

import re
from typing import Annotated, Literal

from pydantic import Field

from studio.core.results import Record

Severity = Literal["reject", "convert", "note"]


Remedy = Literal["exclude", "convert", "recode caption"]


class Problem(Record):
    """One finding about one file.

    Attributes:
        code: what it is, in a few words that a filter can show: `cut short`, `transparent`, `caption missing`.
        severity: `reject`: the image is not trained on until this is mended. `convert`: it is read rightly, but
            only because we convert it, and how is said. `note`: it is trained on as it is; worth knowing.
        sentence: what was seen, what it means and what to do. It does not name the file: whoever shows it does.
        remedies: what one click can do.
    """

    code: str
    severity: Severity
    sentence: str
    remedies: tuple[Remedy, ...] = ()


class PictureFacts(Record):
    """One image file, fully decoded once.

    Attributes:
        sha256: of the file's bytes, in hexadecimal; "" where it could not be read.
        num_bytes: the file's size.
        format: Pillow's name for it (`JPEG`); None where it is no image.
        mode: Pillow's mode before conversion (`RGBA`).
        width, height: in pixels, upright (EXIF rotation applied); 0 where it could not be decoded.
        perceptual_hash: 64 bits of the difference hash, as 16 hexadecimal digits; "" where not decoded.
        tiny: 8 × 8 pixels of RGB, row by row, as 384 hexadecimal digits; "" where not decoded. Tells lookalikes in
            other colours apart, which the hash of grey levels cannot.
        brightness: mean luminance, 0 to 1, on the dataset's background.
        border_whiteness: share of border pixels (2 % of the shorter side, at least 1 px) whose channels are all ≥ 245.
        problems: of the file and the image.
    """

    sha256: str = ""
    num_bytes: int = 0
    format: str | None = None
    mode: str | None = None
    width: int = 0
    height: int = 0
    perceptual_hash: str = ""
    tiny: str = ""
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.0
    border_whiteness: Annotated[float, Field(ge=0, le=1)] = 0.0
    problems: tuple[Problem, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether it can be trained on as it is read."""
        return not any(problem.severity == "reject" for problem in self.problems)


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
