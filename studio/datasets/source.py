"""What can be wrong with an image or its caption, how bad it is, and what one click can do about it.

One image of a dataset as it stands: source, edits, and what the check found, in one.
What is found in a source folder, before any image is opened.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from studio.core.results import Record
from studio.datasets.recipe import LayoutName
from studio.images.records import PictureFacts, Problem


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """An image with the caption it will be trained with.

    Attributes:
        key: its path below the source folder, with forward slashes.
        path: the file that is read: the source's, or the converted copy.
        caption: with template and edits applied; "" where there is none.
        caption_from: who said it, for people.
        repeats: how often an epoch shows it.
        attributes: its row of the table.
        facts: what the check found; None where it has not been checked yet.
        problems: of image, caption and name, and those seen only in the whole (too small, all captions the same).
        excluded: whether the user took it out.
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
