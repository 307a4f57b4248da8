"""The report of a training: `report.md` and `report.html` in the run's folder, from what lies there."""

from datetime import datetime
from pathlib import Path

from studio.core.files import write_atomically
from studio.training.folder import RunFolder
from studio.training.report.curves import curves_section, pictures_section
from studio.training.report.facts import RunFacts, read_facts
from studio.training.report.html import to_html
from studio.training.report.markdown import to_markdown
from studio.training.report.outcome import first_sentences, key_figures
from studio.training.report.parts import Items, Report, Section
from studio.training.report.sections import (
    command_section,
    cost_section,
    dataset_section,
    effect_section,
    files_section,
    machine_section,
    moment,
    report_section,
    settings_section,
)

MARKDOWN_NAME = "report.md"
HTML_NAME = "report.html"


def write_report(run: RunFolder) -> tuple[Path, Path]:
    """Write both forms, of a run in any state; what is missing or damaged is said in them. (Markdown, HTML).

    Raises:
        OSError: where the folder cannot be read or written; older reports are untouched then.
    """
    report = make_report(read_facts(run, now=datetime.now().astimezone()))
    markdown, page = run.root / MARKDOWN_NAME, run.root / HTML_NAME
    # Half a pair of surrogates, which JSON can carry, is no text: it becomes a question mark.
    write_atomically(markdown, to_markdown(report).encode(errors="replace"))
    write_atomically(page, to_html(report).encode(errors="replace"))
    return markdown, page


def make_report(facts: RunFacts) -> Report:
    """What is told of a run, in the order of interest: what came out, what was seen, what it was made from."""
    sections = [
        curves_section(facts),
        pictures_section(facts),
        effect_section(facts),
        report_section(facts),
        files_section(facts),
        settings_section(facts),
        dataset_section(facts),
        cost_section(facts),
        machine_section(facts),
        command_section(facts),
    ]
    if facts.missing:
        sections.insert(0, Section("What is missing", (Items(facts.missing),)))
    return Report(
        title=f"Training of {facts.name}",
        state=facts.status.state,
        first=first_sentences(facts),
        figures=key_figures(facts),
        sections=tuple(sections),
        written=f"Written on {moment(facts.read_at)} from the folder of the run {facts.run.name}.",
    )
