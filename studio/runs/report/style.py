"""The style of a training's report: light and dark, wide and narrow. All text has at least 4.5 : 1 on its ground."""

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
