"""What a report is made of. One tree of parts is shown as HTML and as Markdown, so that both tell the same."""

from dataclasses import dataclass

from studio.training.curves import Chart


@dataclass(frozen=True)
class Picture:
    """An image by its path below the run's folder; `file` is "" where it is not there, and `words` say why.

    `inside` is a URL that holds its content, for a report that is not beside it.
    """

    file: str
    words: str
    inside: str = ""


@dataclass(frozen=True)
class PictureGroup:
    """The images of one prompt: rows by their name, one image a column. None: as in the column before."""

    prompt: str
    rows: tuple[tuple[str, tuple[Picture | None, ...]], ...]


@dataclass(frozen=True)
class Words:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Plain text in rows; every row is as long as the head.

    Attributes:
        folded: shown only when asked for, where that can be.
        shares: from 0 to 1, a bar beside each row; empty without bars.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False
    shares: tuple[float, ...] = ()


@dataclass(frozen=True)
class Charts:
    """Curves that are seen; a table beside them has their numbers in words."""

    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class Pictures:
    """Validation images by step."""

    columns: tuple[str, ...]
    groups: tuple[PictureGroup, ...]


@dataclass(frozen=True)
class Command:
    """A line for a terminal."""

    text: str


Part = Words | Items | Table | Charts | Pictures | Command


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        state: of the run, in one word.
        first: the sentences that say what came out.
        figures: the few numbers that are looked for first, by name.
        written: when and from what, in a sentence.
    """

    title: str
    state: str
    first: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    written: str
