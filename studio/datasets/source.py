"""Where a dataset comes from: its recipe, the files of its folder, and what was found in them.

A dataset's recipe: where its images lie and how they become training data. Saved, so that it can be rebuilt.

What can be wrong with an image or its caption, how bad it is, and what one click can do about it.

One image of a dataset as it stands: source, edits, and what the check found, in one.
What is found in a source folder, before any image is opened.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Le, MultipleOf
from pydantic import AfterValidator, Field

from studio.core.language import N_, _
from studio.core.records import KeptText, Record
from studio.core.settings import Settings
from studio.images.formats import RAW_SUFFIXES
from studio.images.records import MEASURED_COLUMNS, PictureFacts, Problem

LayoutName = Literal["sidecar", "kohya", "imagefolder", "table", "fashion"]
LAYOUT_NAMES: tuple[LayoutName, ...] = get_args(LayoutName)
LAYOUT_TITLES: dict[LayoutName, str] = {
    "sidecar": N_("Caption files next to the images"),
    "kohya": N_("kohya folders with repeats (10_shoe)"),
    "imagefolder": N_("Hugging Face imagefolder (metadata.jsonl or .csv)"),
    "table": N_("A table with a column of files (CSV or JSONL)"),
    "fashion": N_("Fashion products (styles.csv and images/)"),
}


def _six_digits(text: str) -> str:
    if not re.fullmatch("#[0-9a-f]{6}", text):
        raise ValueError(_("must be a colour as # and six of the digits 0 to 9 and a to f, such as #ffffff"))
    return text


HexColour = Annotated[str, AfterValidator(_six_digits)]
Focus = tuple[Annotated[float, Ge(0), Le(1)], Annotated[float, Ge(0), Le(1)]]
"""The middle of what a crop keeps of an image: from its left and its top, as fractions of its width and height."""


class LayoutChoice(Settings):
    """How the source folder is to be read."""

    layout: LayoutName | None = Field(
        None, title=N_("Layout"), description=N_("How captions are matched to images. Leave empty to detect it.")
    )
    table: str | None = Field(
        None,
        title=N_("Table"),
        description=N_("The CSV or JSONL file, below the folder. Leave empty to use the one that was found."),
    )
    image_column: str | None = Field(
        None,
        title=N_("Image column"),
        description=N_("The table's column that names the image. Leave empty to detect it."),
    )
    caption_column: str | None = Field(
        None,
        title=N_("Caption column"),
        description=N_("The table's column that holds the caption. Leave empty to detect it."),
    )


class RowChoice(Settings):
    """Keep only rows whose column has one of these values."""

    column: str = Field(min_length=1, title=N_("Column"), description=N_("A column of the table."))
    values: tuple[str, ...] = Field(
        min_length=1, title=N_("Values"), description=N_("Keep rows with one of these values.")
    )


class Variety(Record):
    """How much images differ from each other; see `variety_of` (datasets/generation.py)."""

    difference: float
    colours: float


class MadeFrom(Record):
    """Of a dataset of images that were made here.

    Attributes:
        made_by: the batch, or what else made them, in words.
        loras: that acted in them, the most used first.
        dataset: what the first of them was trained on; "" where that is not known.
        left_out: how many images were left out, by the reason.
        before, now: the variety of that dataset, and of these images.
        judged: by the keys of images that were looked at, why each was to be left out; "" of what was not.
    """

    made_by: KeptText
    loras: tuple[str, ...] = ()
    dataset: str = ""
    left_out: Mapping[str, int] = {}
    before: Variety | None = None
    now: Variety | None = None
    judged: Mapping[str, str] = {}


class DatasetRecipe(Settings):
    """All that is needed to read the dataset again from the same files; edits are kept beside it."""

    source: str = Field(
        min_length=1, title=N_("Source"), description=N_("The folder of the images. It is never changed.")
    )
    layout: LayoutChoice = Field(default=LayoutChoice(), description=N_("How the folder is to be read."))
    rows: tuple[RowChoice, ...] = Field(
        (), title=N_("Rows"), description=N_("Only rows that satisfy every one of these are taken.")
    )
    template: str | None = Field(
        None,
        title=N_("Caption template"),
        max_length=2000,
        description=N_(
            "Columns in braces: {baseColour} {articleType}, or what is measured of each image: {colour}, {ground}, "
            "{orientation}, {subject_size}, {position}. Leave empty to keep the captions found."
        ),
    )
    background: HexColour = Field(
        "#ffffff",
        title=N_("Background"),
        description=N_("The colour behind transparent images. The LoRA learns it too."),
    )
    resolution: Annotated[int, Ge(64), Le(2048), MultipleOf(8)] = Field(
        512,
        title=N_("Resolution"),
        description=N_(
            "Training size: the side of a square with the area of every bucket. 512 for Stable "
            "Diffusion 1.5, 128 for the built-in model."
        ),
    )
    default_caption: str = Field(
        "",
        title=N_("Default caption"),
        max_length=2000,
        description=N_("Used for images without a caption."),
    )
    made_from: MadeFrom | None = Field(
        None, title=N_("Made from"), description=N_("Of images that were made here: by what, and with which LoRAs.")
    )


def with_measured(attributes: Mapping[str, str], facts: PictureFacts | None) -> Mapping[str, str]:
    """Values of a table's columns, and of all `MEASURED_COLUMNS`: "" of an image that was not checked yet."""
    measured = facts.measured if facts is not None else {}
    return {**{column: measured.get(column, "") for column in MEASURED_COLUMNS}, **attributes}


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """An image with the caption it will be trained with.

    Attributes:
        key: its path below the source folder, with forward slashes.
        path: the file that is read: the source's, or the converted copy.
        caption: with template and edits applied; "" where there is none.
        caption_from: who said it, for people; `YOUR_EDIT` and others of a few words are English.
        repeats: how often an epoch shows it.
        attributes: its row of the table.
        facts: what the check found; None where it has not been checked yet.
        problems: of image, caption and name, and those seen only in the whole (too small, all captions the same).
        excluded: whether the user took it out.
        starred: whether the user marked it.
        focus: around which its crop lies, where the user moved it; None for the centre.
        awaits_check: its caption is not whole yet, as the template names what the check measures.
    """

    key: str
    path: Path
    caption: str
    caption_from: str
    repeats: int
    attributes: Mapping[str, str]
    facts: PictureFacts | None
    problems: tuple[Problem, ...]
    excluded: bool
    starred: bool = False
    focus: Focus | None = None
    awaits_check: bool = False

    @property
    def lacks_caption(self) -> bool:
        """Whether it has no caption, nor gets one from the check."""
        return not (self.caption or self.awaits_check)

    @property
    def columns(self) -> Mapping[str, str]:
        """The values of its row of the table, and what was measured of the image."""
        return with_measured(self.attributes, self.facts)

    @property
    def is_rejected(self) -> bool:
        """Whether something needs fixing before it can be trained on."""
        return any(problem.severity == "reject" for problem in self.problems)

    @property
    def is_used(self) -> bool:
        """Whether training will see it."""
        return self.facts is not None and not self.excluded and not self.is_rejected


@dataclass(frozen=True, slots=True)
class SourcePicture:
    """A file that should be an image, with the caption that belongs to it.

    Attributes:
        key: its path below the source folder, with forward slashes; its name throughout the dataset.
        path: where it lies.
        caption: as found, whitespace at both ends removed; None where there is none that can be read.
        caption_from: who said it, for people: `a.txt`, `styles.csv row 12`, `class tokens of 10_shoe`; "" where
            there is none.
        repeats: how often it is trained on in an epoch.
        attributes: its row of the table, all columns; {} without a table.
        problems: of its caption or its name, not of the image.
    """

    key: str
    path: Path
    caption: str | None = None
    caption_from: str = ""
    repeats: int = 1
    attributes: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


class SkippedFile(Record):
    """A file or a row that became no image of the dataset, and why, in a sentence."""

    name: str
    problem: Problem


@dataclass(frozen=True)
class SourceReading:
    """A source folder, read in one layout.

    Attributes:
        layout: the layout in which it was read.
        recognised: every layout that fits, best first.
        images: in the natural order of their keys (2 before 10).
        columns: of the table, in its order; () without one.
        tables: the tables that were found, below the folder.
        table, image_column, caption_column: what was used; None without a table.
        leftovers: captions without an image, rows without a file, names that cannot be used, images that no row
            names, and other files; with severity `reject` where an image is lost by it, `note` where none is.
    """

    layout: LayoutName
    recognised: tuple[LayoutName, ...]
    pictures: tuple[SourcePicture, ...]
    columns: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    table: str | None = None
    image_column: str | None = None
    caption_column: str | None = None
    skipped_files: tuple[SkippedFile, ...] = ()


YOUR_EDIT = N_("your edit")
"""What a caption is from that the user typed; shown in the reader's language, as all of `caption_from` is."""

WITHOUT_ROW = N_("image without a row")
"""The problem of an image that the table that was read does not name."""

PICTURE_SUFFIXES = frozenset(
    (
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
        *(".avif", ".avifs", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
        *(".heic", ".heif", ".hif", ".jxl", ".svg", ".eps", ".ps", ".ico", ".tga", ".psd"),
        *(".icns", ".icb", ".vda", ".vst", ".pcx", ".dcx", ".sgi", ".rgb", ".rgba", ".bw", ".ras", ".qoi", ".dds"),
        *(
            ".cur",
            ".xbm",
            ".xpm",
            ".msp",
            ".im",
            ".pcd",
            ".pxr",
            ".fli",
            ".flc",
            ".blp",
            ".ftu",
            ".ftc",
            ".wmf",
            ".emf",
        ),
        *RAW_SUFFIXES,
    )
)
"""What says of itself that it is an image, read by us or not: the check tells which."""
CAPTION_SUFFIXES = (".txt", ".caption", ".rtf")
TABLE_SUFFIXES = frozenset((".csv", ".tsv", ".jsonl", ".json"))
