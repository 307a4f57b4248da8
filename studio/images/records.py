"""What one look at an image file found: its figures, what is wrong with it, how bad that is, what one click can do.

And what can be asked to be done about its background.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import Field

from studio.core.language import N_
from studio.core.records import KeptText, Record
from studio.core.settings import Settings

Severity = Literal["reject", "convert", "note"]


Remedy = Literal["exclude", "convert", "recode caption"]


class Problem(Record):
    """One finding about one file.

    Attributes:
        code: what it is, in a few English words by which it is known, and that a filter shows as `_(code)`:
            `cut short`, `transparent`, `caption missing`.
        severity: `reject`: the image is not trained on until this is mended. `convert`: it is read rightly, but
            only because we convert it, and how is said. `note`: it is trained on as it is; worth knowing.
        sentence: what was seen, what it means and what to do. It does not name the file: whoever shows it does.
        remedies: what one click can do.
    """

    code: str
    severity: Severity
    sentence: KeptText
    remedies: tuple[Remedy, ...] = ()


MEASURED_COLUMNS = ("colour", "ground", "orientation", "subject_size", "position")
"""Columns that every checked image has, beside those of its table, which come first where they have the same name."""


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
        measured: `MEASURED_COLUMNS` in English words for captions, "" where one cannot be told; {} where not decoded.
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
    measured: Mapping[str, str] = {}
    problems: tuple[Problem, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether it can be trained on as it is read."""
        return not any(problem.severity == "reject" for problem in self.problems)


class GroundSettings(Settings):
    """What becomes of an image's ground, and of the subject's place in it."""

    white: bool = Field(
        True, title=N_("White background"), description=N_("Replaces the background with pure white, with a soft edge.")
    )
    shadow: bool = Field(
        False,
        title=N_("Keep the shadow"),
        description=N_("Keeps what is darker than the background."),
    )
    subject_percent: Annotated[int, Ge(0), Le(100)] = Field(
        0,
        title=N_("Subject size (%)"),
        description=N_(
            "Centres the subject and cuts the image so that it takes this much of its width or height, such as 80. "
            "0 leaves it as it is."
        ),
    )
    masks: bool = Field(
        False,
        title=N_("Write masks"),
        description=N_("Grey images for a training's Masks: white where the subject is."),
    )
