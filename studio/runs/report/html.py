"""A training's report as one HTML file: its style and curves inside it, pictures beside it, no script.

Captions, prompts and messages are strangers' text: every text goes through `_text`.
"""

from urllib.parse import quote

from studio.core.text import escape
from studio.runs.curves import Chart, chart_svg, legend_html
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
from studio.runs.report.style import STYLE

# Nothing from elsewhere is asked for, even where something were smuggled in: pictures beside the file or inside it.
_POLICY = (
    "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
MOST_WIDE_COLUMNS = 6  # more of 160 pixels would not fit into a window of 1,280
_SIGNS = {"finished": "✓", "failed": "✕", "stopped": "■", "paused": "‖"}


def to_html(report: Report) -> str:
    """The whole page."""
    title = escape(report.title)
    places = "".join(f'<a href="#part-{i}">{escape(s.title)}</a>' for i, s in enumerate(report.sections))
    sections = "".join(_section(section, number) for number, section in enumerate(report.sections))
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>"
        f"<header>{_state(report.state)}<h1>{title}</h1>{_first(report)}{_figures(report)}</header>"
        f'<nav aria-label="Sections">{places}</nav><main>{sections}</main><footer>{escape(report.written)}</footer>'
        "</body></html>\n"
    )


def _state(state: str) -> str:
    return (
        f'<p class="state {escape(state)}"><span aria-hidden="true">{_SIGNS.get(state, "●")}</span> {escape(state)}</p>'
    )


def _first(report: Report) -> str:
    first, *more = report.first
    return f'<p class="outcome">{escape(first)}</p>' + "".join(f"<p>{escape(sentence)}</p>" for sentence in more)


def _figures(report: Report) -> str:
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in report.figures)
    return f'<dl class="figures">{tiles}</dl>'


def _section(section: Section, number: int) -> str:
    parts = "".join(_part(part) for part in section.parts)
    return f'<section id="part-{number}"><h2>{escape(section.title)}</h2>{parts}</section>'


def _part(part: Part) -> str:
    match part:
        case Words():
            return f"<p>{escape(part.text)}</p>"
        case Items():
            return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in part.lines)}</ul>"
        case Table():
            return _table(part)
        case Charts():
            return f'<div class="charts">{"".join(map(_chart, part.charts))}</div>'
        case Pictures():
            return _pictures(part)
        case Command():
            return f'<pre tabindex="0"><code>{escape(part.text)}</code></pre>'


def _chart(chart: Chart) -> str:
    drawn = chart_svg(chart) or '<p class="quiet">No finite value was told.</p>'
    note = f'<p class="quiet">{escape(chart.note)}</p>'
    caption = f"<figcaption><strong>{escape(chart.title)}</strong> {legend_html(chart)}</figcaption>"
    return f"<figure>{caption}{drawn}{note}</figure>"


def _table(table: Table) -> str:
    if not table.rows:
        return f'<p class="quiet">{escape(table.caption)}: none.</p>'
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    rows = []
    for index, (first, *others) in enumerate(table.rows):
        cells = f'<th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in others)
        if table.shares:
            width = 100 * min(1.0, max(0.0, table.shares[index]))
            cells += f'<td class="bar" aria-hidden="true"><span style="width:{width:.1f}%"></span></td>'
        rows.append(f"<tr>{cells}</tr>")
    if table.shares:
        head += '<td class="bar" aria-hidden="true"></td>'
    caption = "" if table.folded else f"<caption>{escape(table.caption)}</caption>"
    whole = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    framed = _frame(whole, table.caption)
    return f"<details><summary>{escape(table.caption)}</summary>{framed}</details>" if table.folded else framed


def _frame(content: str, label: str) -> str:
    """Wide tables are scrolled in a frame of their own, by keyboard too."""
    return f'<div class="frame" tabindex="0" role="group" aria-label="{escape(label)}">{content}</div>'


def _pictures(pictures: Pictures) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in pictures.columns)
    groups = "".join(_group(group, len(pictures.columns)) for group in pictures.groups)
    many = " many" if len(pictures.columns) > MOST_WIDE_COLUMNS else ""
    table = (
        f'<table class="pictures{many}"><caption>The same prompts and seeds at every step</caption>'
        f"<thead><tr><td></td>{head}</tr></thead>{groups}</table>"
    )
    return _frame(table, "Validation pictures by step")


def _group(group: PictureGroup, num_columns: int) -> str:
    rows = ""
    for name, cells in group.rows:
        shown = "".join(_cell(cell) for cell in _joined(cells))
        rows += f'<tr><th scope="row">{escape(name)}</th>{shown}</tr>'
    head = f'<th class="prompt" scope="rowgroup" colspan="{num_columns + 1}"><span>{escape(group.prompt)}</span></th>'
    return f"<tbody><tr>{head}</tr>{rows}</tbody>"


def _joined(cells: tuple[Picture | None, ...]) -> list[tuple[Picture, int]]:
    """Each picture with the number of columns for which it stands."""
    joined: list[tuple[Picture, int]] = []
    for cell in cells:
        if cell is None and joined:
            joined[-1] = (joined[-1][0], joined[-1][1] + 1)
        else:
            joined.append((cell or Picture("", "not told"), 1))
    return joined


def _cell(cell: tuple[Picture, int]) -> str:
    picture, columns = cell
    over = f' colspan="{columns}"' if columns > 1 else ""
    more = '<span class="quiet">made once: the base does not change</span>' if columns > 1 else ""
    if not picture.file:
        return f'<td{over}><span class="quiet">{escape(picture.words)}</span></td>'
    place = picture.inside or quote(picture.file, safe="/")
    image = f'<img src="{escape(place)}" alt="{escape(picture.words)}" width="160" height="160" decoding="async">'
    if picture.inside:
        return f"<td{over}>{image}{more}</td>"
    return f'<td{over}><a href="{place}">{image}</a>{more}</td>'
