"""What a report is made of. One tree of parts is shown as HTML and as Markdown, so that both tell the same."""

import re
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

from markupsafe import Markup

from studio.core.language import _, language
from studio.core.text import escape_markdown, markdown_table, template
from studio.training.curves import Chart, chart_svg, legend_html, summary

_template = template("training/templates/report.html")


@dataclass(frozen=True)
class Picture:
    """An image by its path below the run's folder; `file` is "" where it is not there, and `words` say why.

    `inside` is a URL that holds its content, for a report that is not beside it.
    """

    file: str
    words: str
    inside: str = ""

    @property
    def path(self) -> str:
        """Of a link to it."""
        return quote(self.file, safe="/")


@dataclass(frozen=True)
class PictureGroup:
    """The images of one prompt: rows by their name, one image a column. None: as in the column before."""

    prompt: str
    rows: tuple[tuple[str, tuple[Picture | None, ...]], ...]

    @property
    def joined_rows(self) -> list[tuple[str, list[tuple[Picture, int]]]]:
        """The rows with each image once, and the number of columns for which it stands."""
        return [(name, _joined(cells)) for name, cells in self.rows]


def _joined(cells: tuple[Picture | None, ...]) -> list[tuple[Picture, int]]:
    joined: list[tuple[Picture, int]] = []
    for cell in cells:
        if cell is None and joined:
            joined[-1] = (joined[-1][0], joined[-1][1] + 1)
        else:
            joined.append((cell or Picture("", _("not recorded")), 1))
    return joined


@dataclass(frozen=True)
class Words:
    """A paragraph of plain text."""

    kind: ClassVar = "words"
    text: str


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    kind: ClassVar = "items"
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Plain text in rows; every row is as long as the head.

    Attributes:
        folded: shown only when asked for, where that can be.
        shares: from 0 to 1, a bar beside each row; empty without bars.
    """

    kind: ClassVar = "table"
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False
    shares: tuple[float, ...] = ()

    @property
    def bar_widths(self) -> list[str]:
        """Of the bars, in percent."""
        return [f"{100 * min(1.0, max(0.0, share)):.1f}" for share in self.shares]


@dataclass(frozen=True)
class Charts:
    """Curves that are seen; a table beside them has their numbers in words."""

    kind: ClassVar = "charts"
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class Pictures:
    """Validation images by step."""

    kind: ClassVar = "pictures"
    columns: tuple[str, ...]
    groups: tuple[PictureGroup, ...]


@dataclass(frozen=True)
class Command:
    """A line for a terminal."""

    kind: ClassVar = "command"
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
        state: of the run, as its status has it, and in a word.
        got_worse: whether something that mattered did, compared with the base.
        first: the sentences that say what came out.
        figures: the few numbers that are looked for first, by name.
        written: when and from what, in a sentence.
        note: what a person noted on the run.
    """

    title: str
    state: str
    state_words: str
    first: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    written: str
    got_worse: bool = False
    note: str = ""


def to_html(report: Report) -> Markup:
    """The whole page: style and curves inside it, images beside it, no script."""
    return _template("page", report=report, language=language(), chart_svg=chart_svg, legend_html=legend_html) + "\n"


def to_markdown(report: Report) -> str:
    """The whole report."""
    note = map(escape_markdown, filter(str.strip, report.note.splitlines()))
    parts = [f"# {escape_markdown(report.title)}", *note, *map(escape_markdown, report.first)]
    parts.append(markdown_table((_("Item"), _("Value")), report.figures))
    parts += [_section_markdown(section) for section in report.sections]
    return "\n\n".join([*parts, escape_markdown(report.written)]) + "\n"


def _section_markdown(section: Section) -> str:
    return "\n\n".join([f"## {escape_markdown(section.title)}", *filter(None, map(_part_markdown, section.parts))])


def _part_markdown(part: Part) -> str:
    match part:
        case Words():
            return escape_markdown(part.text)
        case Items():
            return "\n".join(f"- {escape_markdown(line)}" for line in part.lines)
        case Table():
            rows = markdown_table(part.head, part.rows) if part.rows else _("None.")
            return f"### {escape_markdown(part.caption)}\n\n{rows}"
        case Charts():
            lines = [f"{summary(chart)} {chart.note}" for chart in part.charts if any(c.points for c in chart.curves)]
            lines.append(_("The curves themselves are in report.html."))
            return "\n".join(f"- {escape_markdown(line)}" for line in lines)
        case Pictures():
            return "\n\n".join(_group_markdown(group, part.columns) for group in part.groups)
        case Command():
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", part.text)), default=0))
            return f"{fence}sh\n{part.text}\n{fence}"


def _group_markdown(group: PictureGroup, columns: tuple[str, ...]) -> str:
    lines = ["| | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for name, cells in group.rows:
        lines.append(f"| {escape_markdown(name)} | " + " | ".join(map(_picture_markdown, cells)) + " |")
    return f"### {escape_markdown(group.prompt)}\n\n" + "\n".join(lines)


def _picture_markdown(picture: Picture | None) -> str:
    if picture is None:
        return _("the same")
    if not picture.file:
        return escape_markdown(picture.words)
    return f"![{escape_markdown(picture.words)}]({picture.path})"
