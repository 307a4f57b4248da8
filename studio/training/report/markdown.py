"""A training's report as Markdown: the same parts as the page's, curves as tables, images by their path."""

import re
from urllib.parse import quote

from studio.core.text import escape_markdown, markdown_table
from studio.training.curves import summary
from studio.training.report.parts import (
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


def to_markdown(report: Report) -> str:
    """The whole report."""
    parts = [f"# {escape_markdown(report.title)}", *map(escape_markdown, report.first)]
    parts.append(_table(("What", "Value"), report.figures))
    parts += [_section(section) for section in report.sections]
    return "\n\n".join([*parts, escape_markdown(report.written)]) + "\n"


def _table(head: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    return markdown_table(head, [tuple(map(escape_markdown, row)) for row in rows])


def _section(section: Section) -> str:
    return "\n\n".join([f"## {escape_markdown(section.title)}", *filter(None, map(_part, section.parts))])


def _part(part: Part) -> str:
    match part:
        case Words():
            return escape_markdown(part.text)
        case Items():
            return "\n".join(f"- {escape_markdown(line)}" for line in part.lines)
        case Table():
            rows = _table(part.head, part.rows) if part.rows else "None."
            return f"### {escape_markdown(part.caption)}\n\n{rows}"
        case Charts():
            lines = [f"{summary(chart)} {chart.note}" for chart in part.charts if any(c.points for c in chart.curves)]
            return "\n".join(
                f"- {escape_markdown(line)}" for line in [*lines, "The curves themselves are in report.html."]
            )
        case Pictures():
            return "\n\n".join(_group(group, part.columns) for group in part.groups)
        case Command():
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", part.text)), default=0))
            return f"{fence}sh\n{part.text}\n{fence}"


def _group(group: PictureGroup, columns: tuple[str, ...]) -> str:
    lines = ["| | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    lines += [f"| {escape_markdown(name)} | " + " | ".join(map(_picture, cells)) + " |" for name, cells in group.rows]
    return f"### {escape_markdown(group.prompt)}\n\n" + "\n".join(lines)


def _picture(picture: Picture | None) -> str:
    if picture is None:
        return "the same"
    if not picture.file:
        return escape_markdown(picture.words)
    return f"![{escape_markdown(picture.words)}]({quote(picture.file, safe='/')})"
