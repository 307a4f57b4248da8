"""A dataset's numbers as bars: HTML that a screen reader reads as a table and that follows light and dark.

Statistics and doctor: what is in the dataset, what is wrong with it, and what one click mends.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio.core.errors import DatasetError
from studio.core.files import write_atomically
from studio.core.text import counted, escape
from studio.datasets.export import make_contact_sheet
from studio.datasets.inspection import thumbnail_path
from studio.datasets.report import (
    NUM_BINS,
    WHY_NO_FLIP,
    Counts,
    DatasetReport,
    DatasetStatistics,
    Duplicate,
    Finding,
    make_report,
    summarise,
)
from studio.datasets.session import DatasetSession
from studio.datasets.source import DatasetRow
from studio.images.records import Severity
from studio.ui.datasets.html import SIGNS, thumbnail_url
from studio.ui.forms import NO_CHANGE
from studio.ui.shell.parts import QUIET, toasts

NUM_LENGTH_BARS = 12


def statistics_html(statistics: DatasetStatistics) -> str:
    """All charts of a dataset."""
    if statistics.num_pictures == 0:
        return "<p class='quiet'>There is nothing to count yet: no image is checked and used.</p>"
    charts = [
        bars("Buckets (training sizes)", _listed(statistics.buckets)),
        bars("Image sizes", _listed(statistics.sizes)),
        bars("Words in a caption", _lengths(statistics.caption_words)),
        bars("Most frequent words", _listed(statistics.words, others=False)),
        bars("Brightness, 0 dark to 1 light", _shares(statistics.brightness)),
        bars("Share of the border that is white", _shares(statistics.border_whiteness)),
        *(bars(column, _listed(counts)) for column, counts in statistics.columns.items()),
    ]
    return f'<div class="charts">{"".join(charts)}</div>'


def bars(title: str, rows: Sequence[tuple[str, int]]) -> str:
    """One chart: names, bars, numbers. The longest bar is the greatest number."""
    most = max((number for _, number in rows), default=0) or 1
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="stroke" aria-hidden="true">'
        f'<span style="width:{100 * number / most:.1f}%"></span></td><td class="number">{number:,}</td></tr>'
        for name, number in rows
    )
    return f'<table class="chart"><caption>{escape(title)}</caption><tbody>{body}</tbody></table>'


def _listed(counts: Counts, *, others: bool = True) -> list[tuple[str, int]]:
    rows = [(name or "none", number) for name, number in counts.items]
    return [*rows, ("all others", counts.num_others)] if others and counts.num_others else rows


def _shares(bins: Sequence[int]) -> list[tuple[str, int]]:
    return [(f"{i / NUM_BINS:.1f} to {(i + 1) / NUM_BINS:.1f}", number) for i, number in enumerate(bins)]


def _lengths(counts: Sequence[tuple[int, int]]) -> list[tuple[str, int]]:
    """By the number of words; in steps, where there are many different ones."""
    longest = max((words for words, _ in counts), default=0)
    step = longest // NUM_LENGTH_BARS + 1
    totals: dict[int, int] = {}
    for words, number in counts:
        totals[words // step] = totals.get(words // step, 0) + number
    return [
        (str(part) if step == 1 else f"{part * step} to {part * step + step - 1}", number)
        for part, number in sorted(totals.items())
    ]


MAX_FINDINGS = 200
FOLDED_FROM = 8
MAX_DUPLICATES = 60
TITLES: dict[Severity, str] = {
    "reject": "Needs fixing, or it is not trained on",
    "convert": "Read rightly, with a conversion",
    "note": "Worth knowing",
}
REMEDY_WORDS = {"exclude": "Exclude", "convert": "Convert a copy", "recode caption": "Re-encode the caption"}

_CLICKS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-remedy]");
  if (button) trigger("click", { ...button.dataset, dataset: element.querySelector("[data-dataset]").dataset.dataset });
});"""


@dataclass(frozen=True)
class StatisticsPanels:
    """Their components, by what they are for."""

    statistics_box: gr.Accordion
    statistics: gr.HTML
    sheet: gr.DownloadButton
    doctor_box: gr.Accordion
    doctor: gr.HTML
    exclude_all: gr.Button
    statistics_open: gr.State
    doctor_open: gr.State


def build() -> StatisticsPanels:
    """Lay both out, folded."""
    statistics_open, doctor_open = gr.State(False), gr.State(False)
    with gr.Accordion("Doctor", open=False, elem_id="dataset-doctor-box") as doctor_box:
        doctor = gr.HTML(elem_id="dataset-doctor", padding=False, js_on_load=_CLICKS)
        exclude_all = gr.Button("Exclude everything that needs fixing", elem_id="dataset-exclude-all", visible=False)
    with gr.Accordion("Statistics", open=False, elem_id="dataset-statistics-box") as statistics_box:
        statistics = gr.HTML(elem_id="dataset-statistics", padding=False)
        sheet = gr.DownloadButton("Contact sheet", elem_id="dataset-sheet", size="sm")
    return StatisticsPanels(
        statistics_box=statistics_box,
        statistics=statistics,
        sheet=sheet,
        doctor_box=doctor_box,
        doctor=doctor,
        exclude_all=exclude_all,
        statistics_open=statistics_open,
        doctor_open=doctor_open,
    )


def doctor_html(session: DatasetSession, report: DatasetReport) -> str:
    """The report as a page: the number and how it comes about, findings by how bad they are, duplicates."""
    kind = "fail" if report.needs_fixing else "pass"
    sign = "✗" if report.needs_fixing else "✓"
    parts = [f'<div class="verdict {kind}"><span aria-hidden="true">{sign}</span> {escape(report.how_many)}</div>']
    parts += [f'<p class="note">{escape(sentence)}</p>' for sentence in (*report.warnings, WHY_NO_FLIP)]
    for severity in TITLES:
        findings = [finding for finding in report.findings if finding.problem.severity == severity]
        if findings:
            parts.append(_group(severity, findings))
    if report.duplicates:
        parts.append(_duplicates(session, report.duplicates))
    return f'<div data-dataset="{escape(session.opened.name)}">{"".join(parts)}</div>'


def _group(severity: Severity, findings: Sequence[Finding]) -> str:
    """All findings of one severity; those of a kind that is common are folded."""
    by_code: dict[str, list[Finding]] = {}
    for finding in findings:
        by_code.setdefault(finding.problem.code, []).append(finding)
    few = [finding for same in by_code.values() if len(same) <= FOLDED_FROM for finding in same]
    parts = [_findings_table(TITLES[severity], few)] if few else []
    for code, same in by_code.items():
        if len(same) > FOLDED_FROM:
            summary = f"<summary><b>{escape(code)}</b>: {len(same):,} files</summary>"
            parts.append(f'<details class="folded">{summary}{_findings_table(code, same)}</details>')
    sign = f'<span aria-hidden="true">{SIGNS[severity]}</span>'
    return f"<h3>{sign} {TITLES[severity]}: {len(findings):,}</h3>{''.join(parts)}"


def _findings_table(title: str, findings: Sequence[Finding]) -> str:
    rows = "".join(_finding(finding) for finding in findings[:MAX_FINDINGS])
    rest = len(findings) - MAX_FINDINGS
    more = f"<p class='quiet'>{rest:,} more: the filter “State” above the images shows them.</p>" if rest > 0 else ""
    return (
        f'<div class="table-frame" tabindex="0" role="group" aria-label="{escape(title)}"><table class="findings">'
        '<thead><tr><th scope="col">File</th><th scope="col">What</th><th scope="col">Mend</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{more}"
    )


def _finding(finding: Finding) -> str:
    problem = finding.problem
    buttons = "excluded" if finding.excluded else "".join(map(_button(finding.name), problem.remedies))
    return (
        f"<tr><td>{escape(finding.name)}</td><td><b>{escape(problem.code)}</b>: {escape(problem.sentence)}</td>"
        f'<td class="mend">{buttons}</td></tr>'
    )


def _button(key: str) -> Callable[[str], str]:
    return lambda remedy: (
        f'<button type="button" class="link-button" data-key="{escape(key)}" data-remedy="{escape(remedy)}" '
        f'aria-label="{escape(REMEDY_WORDS[remedy])}: {escape(key)}">{escape(REMEDY_WORDS[remedy])}</button>'
    )


def _duplicates(session: DatasetSession, pairs: Sequence[Duplicate]) -> str:
    items = []
    for pair in pairs[:MAX_DUPLICATES]:
        pictures = "".join(_small(session, key) for key in (pair.first, pair.second))
        how = "the same file" if pair.exact else "look alike"
        items.append(
            f"<li>{pictures}<span>{escape(pair.first)} and {escape(pair.second)}: <b>{how}</b></span>"
            f"{_button(pair.second)('exclude')}</li>"
        )
    rest = len(pairs) - MAX_DUPLICATES
    more = f"<p class='quiet'>{rest:,} more pairs. Exclude some, and the next are shown.</p>" if rest > 0 else ""
    return (
        f"<h3>Duplicates: {counted(len(pairs), 'pair')}</h3><p class='quiet'>What is there twice is learned twice as "
        f"much. The button excludes the second.</p><ul class='duplicates'>{''.join(items)}</ul>{more}"
    )


def _small(session: DatasetSession, key: str) -> str:
    url = thumbnail_url(session, session.opened.row(key))
    return f'<img src="{escape(url)}" alt="{escape(key)}" loading="lazy">' if url else ""


def mend(session: DatasetSession, key: str, remedy: str) -> None:
    """What a button of the doctor does; both names came from the page.

    Raises:
        DatasetError: where there is no such image or remedy, or it does not help.
    """
    if remedy == "exclude":
        session.opened.set_excluded([key], True)
    elif remedy == "convert":
        session.convert(key)
    elif remedy == "recode caption":
        session.opened.recode_caption(key)
    else:
        raise DatasetError(f"There is no remedy {remedy!r}.")


def contact_sheet(session: DatasetSession) -> Path:
    """The sheet of all used images as a file of the page's own cache.

    Raises:
        DatasetError: where none is used.
    """
    dataset = session.opened

    def thumbnail_of(row: DatasetRow) -> Path | None:
        return (
            thumbnail_path(session.thumbnails, row.facts.sha256, dataset.recipe.background)
            if row.facts is not None and row.facts.is_usable
            else None
        )

    rows = [row for row in dataset.rows if row.is_used]
    sheet = make_contact_sheet(rows, title=dataset.name, thumbnail_of=thumbnail_of)
    file = Path(tempfile.mkdtemp(dir=Path.cwd())) / f"{dataset.name}-contact-sheet.jpg"
    write_atomically(file, sheet)
    return file


def wire(
    panels: StatisticsPanels, session: DatasetSession, *, version: gr.Textbox, then_refresh: Callable[[Any], None]
) -> None:
    """Connect the panels; each is drawn when it is opened, and again when something changed while it is open."""

    def show_statistics(is_open: bool) -> Any:  # noqa: ANN401 - gradio's skip
        if not is_open or not session.is_open:
            return gr.skip()
        return statistics_html(summarise(session.opened.rows, bucket_of=session.opened.bucket_words))

    def show_doctor(is_open: bool) -> dict[Any, Any]:
        if not is_open or not session.is_open:
            return NO_CHANGE
        report = make_report(session.opened)
        return {
            panels.doctor: doctor_html(session, report),
            panels.exclude_all: gr.update(visible=report.num_rejected > 0),
        }

    def click(event: gr.EventData) -> None:
        with toasts():
            session.opened_as(str(getattr(event, "dataset", "")))
            mend(session, str(getattr(event, "key", "")), str(getattr(event, "remedy", "")))

    def exclude_all() -> None:
        with toasts():
            session.opened.set_excluded([row.key for row in session.opened.rows if row.is_rejected], True)

    def make_sheet() -> str:
        with toasts():
            return str(contact_sheet(session))

    doctor = [panels.doctor, panels.exclude_all]
    for box, is_open, show, shown in (
        (panels.statistics_box, panels.statistics_open, show_statistics, panels.statistics),
        (panels.doctor_box, panels.doctor_open, show_doctor, doctor),
    ):
        box.expand(lambda: True, None, is_open, **QUIET).then(show, is_open, shown, **QUIET)
        box.collapse(lambda: False, None, is_open, **QUIET)
        version.change(show, is_open, shown, trigger_mode="always_last", **QUIET)
    then_refresh(panels.doctor.click(click, None, None, **QUIET))
    then_refresh(panels.exclude_all.click(exclude_all, **QUIET))
    panels.sheet.click(make_sheet, None, panels.sheet, **QUIET)
