"""The style of a training's report: light and dark, wide and narrow. All text has at least 4.5 : 1 on its ground.

A training's report as one HTML file: its style and curves inside it, images beside it, no script.

Captions, prompts and messages are strangers' text: every text goes through `_text`.
"""

from urllib.parse import quote

from studio.core.text import escape
from studio.training.curves import Chart, chart_svg, legend_html
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

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --panel: #ffffff; --ink: #18202c; --quiet: #55606f; --line: #d5dae2; --grid: #e6e9ee;
  --link: #3538b8; --good: #15703a; --bad: #b3261e;
  --main: #3b4fd8; --second: #b1480b; --third: #0c7468; --dots: #8b96a8; --bar: #9aa6ee;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0e131c; --panel: #161d2a; --ink: #e6eaf1; --quiet: #a9b4c4; --line: #333c4b; --grid: #263041;
    --link: #b0bbff; --good: #6ddb94; --bad: #ff9d94;
    --main: #93a4ff; --second: #f3a15f; --third: #54d3c0; --dots: #6d7a90; --bar: #4b5aa8;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 1240px; padding: 32px 32px 48px; background: var(--ground); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere;
}
h1 { font-size: 32px; line-height: 1.2; margin: 4px 0 12px; }
h2 { font-size: 20px; line-height: 1.3; margin: 0 0 12px; }
p { margin: 0 0 8px; max-width: 76ch; }
a { color: var(--link); }
li, td, th, p, dd, span, code { unicode-bidi: isolate; }
.outcome { font-size: 18px; font-weight: 700; }
.quiet, footer { color: var(--quiet); font-size: 13px; }
.state { margin: 0; font-weight: 700; color: var(--quiet); }
.state.finished { color: var(--good); }
.state.failed { color: var(--bad); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(152px, 1fr)); gap: 12px; margin: 20px 0 0; }
.figures div { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; }
dt { color: var(--quiet); font-size: 13px; }
dd { margin: 0; font-size: 18px; font-weight: 700; }
nav { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 24px 0 16px; font-size: 14px; }
section {
  background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 20px 24px; margin: 0 0 16px;
}
section > :last-child { margin-bottom: 0; }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0 32px; }
figure { margin: 0; min-width: 0; display: grid; grid-template-rows: subgrid; grid-row: span 3; row-gap: 0; }
figure p { margin: 4px 0 24px; min-height: 20px; }
figcaption { display: flex; flex-wrap: wrap; gap: 0 16px; align-items: baseline; margin-bottom: 4px; }
.legend { font-size: 13px; color: var(--quiet); white-space: nowrap; }
.key { width: 28px; height: 12px; margin-right: 6px; vertical-align: -1px; }
.chart { display: block; width: 100%; height: auto; }
.chart text { fill: var(--quiet); font-size: 13px; }
.chart .grid { stroke: var(--grid); }
.chart .axis { stroke: var(--quiet); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line.main { stroke: var(--main); }
.line.second { stroke: var(--second); }
.line.third { stroke: var(--third); stroke-dasharray: 6 4; }
.mark.main { fill: var(--main); }
.mark.second { fill: var(--second); }
.mark.third { fill: var(--panel); stroke: var(--third); stroke-width: 2; }
.dots { fill: none; stroke: var(--dots); stroke-width: 2.6; stroke-linecap: round; }
.frame { overflow-x: auto; margin: 0 0 16px; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; color: var(--quiet); font-size: 13px; padding: 0 0 4px; }
th, td { text-align: left; vertical-align: top; padding: 6px 16px 6px 0; border-bottom: 1px solid var(--line); }
td, th { min-width: 64px; }
thead th { color: var(--quiet); font-size: 13px; font-weight: 400; }
tbody th { font-weight: 400; }
tbody tr:last-child > * { border-bottom: 0; }
td.bar { width: 40%; min-width: 96px; padding-right: 0; vertical-align: middle; }
td.bar span { display: block; height: 10px; border-radius: 2px; background: var(--bar); min-width: 1px; }
.pictures { width: auto; }
.pictures td, .pictures th { border: 0; padding: 4px 8px 4px 0; }
.pictures tbody tr:first-child > * { padding-top: 12px; border-top: 1px solid var(--line); }
.pictures .prompt span { display: block; max-width: min(76ch, 78vw); position: sticky; left: 0; font-weight: 700; }
.pictures img {
  display: block; width: 160px; height: 160px; object-fit: contain; border: 1px solid var(--line); border-radius: 4px;
}
.pictures.many img { width: 124px; height: 124px; }
details { margin: 0 0 12px; }
summary { cursor: pointer; color: var(--link); padding: 4px 0; }
pre {
  margin: 0; padding: 12px 16px; background: var(--ground); border: 1px solid var(--line); border-radius: 8px;
  white-space: pre-wrap; font: 13px/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
}
ul { margin: 0 0 12px; padding-left: 20px; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
@media (max-width: 800px) {
  body { padding: 16px 12px 32px; }
  h1 { font-size: 26px; }
  section { padding: 16px 12px; }
  .charts { grid-template-columns: minmax(0, 1fr); }
  .chart text { font-size: 19px; }
  .pictures img, .pictures.many img { width: 128px; height: 128px; }
  td, th { min-width: 112px; }
  .pictures td, .pictures th { min-width: 48px; }
  td.bar { display: none; }
  .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
@media print {
  body { background: none; padding: 0; }
  nav { display: none; }
  section { break-inside: avoid-page; border: 0; padding: 0; }
}
"""

# Nothing from elsewhere is asked for, even where something were smuggled in: images beside the file or inside it.
_POLICY = (
    "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
MAX_WIDE_COLUMNS = 6  # more of 160 pixels would not fit into a window of 1,280
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
    many = " many" if len(pictures.columns) > MAX_WIDE_COLUMNS else ""
    table = (
        f'<table class="pictures{many}"><caption>The same prompts and seeds at every step</caption>'
        f"<thead><tr><td></td>{head}</tr></thead>{groups}</table>"
    )
    return _frame(table, "Validation images by step")


def _group(group: PictureGroup, num_columns: int) -> str:
    rows = ""
    for name, cells in group.rows:
        shown = "".join(_cell(cell) for cell in _joined(cells))
        rows += f'<tr><th scope="row">{escape(name)}</th>{shown}</tr>'
    head = f'<th class="prompt" scope="rowgroup" colspan="{num_columns + 1}"><span>{escape(group.prompt)}</span></th>'
    return f"<tbody><tr>{head}</tr>{rows}</tbody>"


def _joined(cells: tuple[Picture | None, ...]) -> list[tuple[Picture, int]]:
    """Each image with the number of columns for which it stands."""
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
