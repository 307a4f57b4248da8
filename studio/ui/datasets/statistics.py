"""The Dataset tab's statistics and doctor.

A dataset's numbers as bars: HTML that a screen reader reads as a table and that follows light and dark.

Statistics and doctor: what is in the dataset, what is wrong with it, and what one click mends.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import DatasetError
from studio.core.files import write_atomically
from studio.core.language import N_, _
from studio.core.text import template
from studio.datasets.export import make_contact_sheet
from studio.datasets.inspection import thumbnail_path
from studio.datasets.query import FACET_TITLES, Facet, FacetName, bin_name
from studio.datasets.report import (
    WHY_NO_FLIP,
    Counts,
    DatasetReport,
    DatasetStatistics,
    Finding,
    make_report,
    summarise,
)
from studio.datasets.session import DatasetSession
from studio.datasets.source import DatasetRow
from studio.images.records import Severity
from studio.ui.datasets.detail import SAVED_WITH_SUBJECT, read_subject
from studio.ui.datasets.html import SIGNS, thumbnail_url
from studio.ui.forms import NO_CHANGE
from studio.ui.shell.images import new_served_folder
from studio.ui.shell.parts import QUIET, paragraph, toasts
from studio.ui.shell.selection import read_selection

_template = template("ui/templates/datasets.html")

NUM_LENGTH_BARS = 12
NONE, ALL_OTHERS = N_("none"), N_("all others")


def statistics_html(statistics: DatasetStatistics) -> Markup:
    """All charts of a dataset."""
    if statistics.num_pictures == 0:
        return paragraph("quiet", _("No statistics yet: no image has been checked and used."))
    charts = [
        bars("bucket", _listed(statistics.buckets)),
        bars("size", _listed(statistics.sizes)),
        bars("length", _lengths(statistics.caption_words)),
        bars("word", _listed(statistics.words, others=False)),
        bars("brightness", _shares(statistics.brightness)),
        bars("whiteness", _shares(statistics.border_whiteness)),
        *(bars("column", _listed(counts), column=column) for column, counts in statistics.columns.items()),
    ]
    return _template("charts", charts=charts)


def bars(name: FacetName, rows: Sequence[tuple[str, int]], *, column: str = "") -> Markup:
    """One chart: names, bars, numbers; a bar's name is a button. The longest bar is the greatest number."""
    most = max((num for value, num in rows), default=0) or 1
    shown = [(*_named_and_sent(name, value, column), num) for value, num in rows]
    title = column if name == "column" else _(FACET_TITLES[name])
    return _template("bars", title=title, rows=shown, most=most)


def _named_and_sent(name: FacetName, value: str, column: str) -> tuple[str, str]:
    """What a bar is called, and the bar as the page sends it back; "" of one that no image can be found by."""
    if name != "word" and value in (NONE, ALL_OTHERS):
        return _(value), ""
    facet = Facet(name=name, value=value, column=column)
    return facet.label, facet.model_dump_json()


def _listed(counts: Counts, *, others: bool = True) -> list[tuple[str, int]]:
    rows = [(name or NONE, number) for name, number in counts.items]
    return [*rows, (ALL_OTHERS, counts.num_others)] if others and counts.num_others else rows


def _shares(bins: Sequence[int]) -> list[tuple[str, int]]:
    return [(bin_name(i), num) for i, num in enumerate(bins)]


def _lengths(counts: Sequence[tuple[int, int]]) -> list[tuple[str, int]]:
    """By the number of words; in steps, where there are many different ones."""
    longest = max((num_words for num_words, num in counts), default=0)
    step = longest // NUM_LENGTH_BARS + 1
    totals: dict[int, int] = {}
    for num_words, num in counts:
        totals[num_words // step] = totals.get(num_words // step, 0) + num
    return [
        (str(part) if step == 1 else f"{part * step} to {part * step + step - 1}", num)
        for part, num in sorted(totals.items())
    ]


MAX_FINDINGS = 200
FOLDED_FROM = 8
MAX_DUPLICATES = 60
TITLES: dict[Severity, str] = {
    "reject": N_("Needs fixing (left out of training until then)"),
    "convert": N_("Converted when read"),
    "note": N_("Worth knowing"),
}
REMEDY_WORDS = {
    "exclude": N_("Exclude"),
    "convert": N_("Convert a copy"),
    "recode caption": N_("Re-encode the caption"),
}

_CLICKS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-remedy]");
  if (button) trigger("click", { ...button.dataset, dataset: element.querySelector("[data-dataset]").dataset.dataset });
});"""


# A bar is pressed anywhere in its row; the images that it counts are shown above.
_BARS = """element.addEventListener("click", (event) => {
  const facet = event.target.closest("[data-facet]")?.dataset.facet;
  if (!facet) return;
  trigger("click", { facet });
  document.querySelector("#dataset-canvas").scrollIntoView({ block: "start" });
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
    with gr.Accordion(_("Doctor"), open=False, elem_id="dataset-doctor-box") as doctor_box:
        doctor = gr.HTML(elem_id="dataset-doctor", padding=False, js_on_load=_CLICKS)
        exclude_all = gr.Button(_("Exclude everything that needs fixing"), elem_id="dataset-exclude-all", visible=False)
    with gr.Accordion(_("Statistics"), open=False, elem_id="dataset-statistics-box") as statistics_box:
        statistics = gr.HTML(elem_id="dataset-statistics", padding=False, js_on_load=_BARS)
        sheet = gr.DownloadButton(_("Contact sheet"), elem_id="dataset-sheet", size="sm")
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


@dataclass(frozen=True)
class _Group:
    """All findings of one severity; those of a kind that is common are apart, to be folded."""

    sign: str
    title: str
    number: int
    few: Sequence[Finding]
    many: Sequence[tuple[str, Sequence[Finding]]]


def doctor_html(session: DatasetSession, report: DatasetReport) -> Markup:
    """The report as a page: the number and how it comes about, findings by how bad they are, duplicates."""
    groups = []
    for severity in TITLES:
        findings = [finding for finding in report.findings if finding.problem.severity == severity]
        if findings:
            groups.append(_group(severity, findings))
    pairs = report.duplicates[:MAX_DUPLICATES]
    return _template(
        "doctor",
        dataset=session.opened.name,
        report=report,
        notes=(*report.warnings, _(WHY_NO_FLIP)),
        groups=groups,
        pairs=[(pair, [(key, _small_url(session, key)) for key in (pair.first, pair.second)]) for pair in pairs],
        more_pairs=len(report.duplicates) - len(pairs),
        remedies=REMEDY_WORDS,
        max_findings=MAX_FINDINGS,
    )


def _group(severity: Severity, findings: Sequence[Finding]) -> _Group:
    by_code: dict[str, list[Finding]] = {}
    for finding in findings:
        by_code.setdefault(finding.problem.code, []).append(finding)
    few = [finding for same in by_code.values() if len(same) <= FOLDED_FROM for finding in same]
    many = [(code, same) for code, same in by_code.items() if len(same) > FOLDED_FROM]
    return _Group(SIGNS[severity], _(TITLES[severity]), len(findings), few, many)


def _small_url(session: DatasetSession, key: str) -> str:
    return thumbnail_url(session, session.opened.row(key))


def mend(session: DatasetSession, key: str, remedy: str) -> None:
    """What a button of the doctor does; both names came from the page.

    Raises:
        DatasetError: where there is no such image or remedy, or it does not help.
    """
    if remedy == "exclude":
        session.opened.set_excluded([key], True)
    elif remedy == "convert":
        session.opened.convert(key, session.checker)
    elif remedy == "recode caption":
        session.opened.recode_caption(key)
    else:
        raise DatasetError(_("There is no remedy {remedy!r}.", remedy=remedy))


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
    file = new_served_folder() / f"{dataset.name}-contact-sheet.jpg"
    write_atomically(file, sheet)
    return file


def wire(
    panels: StatisticsPanels,
    session: DatasetSession,
    selection: gr.HTML,
    *,
    version: gr.Textbox,
    subject: gr.JSON,
    then_refresh: Callable[[Any], None],
) -> None:
    """Connect the panels; each is drawn when it is opened, and again when something changed while it is open."""

    def show_statistics(is_open: bool, selection: str) -> Any:  # noqa: ANN401 - gradio's skip
        page = session.of(read_selection(selection).dataset)
        if not is_open or not page.is_open:
            return gr.skip()
        return statistics_html(summarise(page.opened.rows, bucket_of=page.opened.bucket_words))

    def show_doctor(is_open: bool, selection: str) -> dict[Any, Any]:
        page = session.of(read_selection(selection).dataset)
        if not is_open or not page.is_open:
            return NO_CHANGE
        report = make_report(page.opened)
        return {
            panels.doctor: doctor_html(page, report),
            panels.exclude_all: gr.update(visible=report.num_rejected > 0),
        }

    def click(event: gr.EventData) -> None:
        with toasts():
            page = session.named(str(getattr(event, "dataset", "")))
            mend(page, str(getattr(event, "key", "")), str(getattr(event, "remedy", "")))

    def exclude_all(subject: object) -> None:
        with toasts():
            opened = session.named(read_subject(subject).dataset).opened
            opened.set_excluded([row.key for row in opened.rows if row.is_rejected], True)

    def make_sheet(subject: object) -> str:
        with toasts():
            return str(contact_sheet(session.named(read_subject(subject).dataset)))

    doctor = [panels.doctor, panels.exclude_all]
    for box, is_open, show, shown in (
        (panels.statistics_box, panels.statistics_open, show_statistics, panels.statistics),
        (panels.doctor_box, panels.doctor_open, show_doctor, doctor),
    ):
        asked = [is_open, selection]
        box.expand(lambda: True, None, is_open, **QUIET).then(show, asked, shown, **QUIET)
        box.collapse(lambda: False, None, is_open, **QUIET)
        version.change(show, asked, shown, trigger_mode="always_last", **QUIET)
    then_refresh(panels.doctor.click(click, None, None, **QUIET))
    then_refresh(panels.exclude_all.click(exclude_all, subject, js=SAVED_WITH_SUBJECT, **QUIET))
    panels.sheet.click(make_sheet, subject, panels.sheet, js=SAVED_WITH_SUBJECT, **QUIET)
