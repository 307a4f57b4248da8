"""A training's report as Markdown: the same parts as the page's, curves as tables, pictures by their path."""

import re
from urllib.parse import quote

from studio.runs.curves import summary
from studio.runs.report.parts import (
    Charts,
    Command,
    Items,
    Part,
    Picture,
    PictureGroup,
    Pictures,
    Report,
    Section,
    Table,
    Words,
)

_SIGNS = re.compile(r"([\\`*_\[\]<>|~&#$])")
_LIST_BEGINNING = re.compile(r"^(\d{0,9})([-+=.)])(?=[-+=\s]|$)")


def to_markdown(report: Report) -> str:
    """The whole report."""
    parts = [f"# {plain(report.title)}", *map(plain, report.first)]
    parts.append(_table(("What", "Value"), report.figures))
    parts += [_section(section) for section in report.sections]
    return "\n\n".join([*parts, plain(report.written)]) + "\n"


def plain(text: str) -> str:
    """Text in one line that no reader of Markdown takes for markup."""
    line = " ".join(text.split())
    return _LIST_BEGINNING.sub(r"\1\\\2", _SIGNS.sub(r"\\\1", line))


def _section(section: Section) -> str:
    return "\n\n".join([f"## {plain(section.title)}", *filter(None, map(_part, section.parts))])


def _part(part: Part) -> str:
    match part:
        case Words():
            return plain(part.text)
        case Items():
            return "\n".join(f"- {plain(line)}" for line in part.lines)
        case Table():
            rows = _table(part.head, part.rows) if part.rows else "None."
            return f"### {plain(part.caption)}\n\n{rows}"
        case Charts():
            lines = [f"{summary(chart)} {chart.note}" for chart in part.charts if any(c.points for c in chart.curves)]
            return "\n".join(f"- {plain(line)}" for line in [*lines, "The curves themselves are in report.html."])
        case Pictures():
            return "\n\n".join(_group(group, part.columns) for group in part.groups)
        case Command():
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", part.text)), default=0))
            return f"{fence}sh\n{part.text}\n{fence}"


def _table(head: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    lines = [head, tuple("---" for _ in head)]
    written = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([*written, *("| " + " | ".join(map(plain, row)) + " |" for row in rows)])


def _group(group: PictureGroup, columns: tuple[str, ...]) -> str:
    lines = ["| | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    lines += [f"| {plain(name)} | " + " | ".join(map(_picture, cells)) + " |" for name, cells in group.rows]
    return f"### {plain(group.prompt)}\n\n" + "\n".join(lines)


def _picture(picture: Picture | None) -> str:
    if picture is None:
        return "the same"
    if not picture.file:
        return plain(picture.words)
    return f"![{plain(picture.words)}]({quote(picture.file, safe='/')})"
