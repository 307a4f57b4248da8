"""The report of a training: `report.md` and `report.html` in the run's folder, from what lies there."""

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from PIL import Image

from studio.core.files import open_file, write_atomically
from studio.core.language import _
from studio.training.folder import RunFolder
from studio.training.report.curves import curves_section, pictures_section
from studio.training.report.facts import RunFacts, read_facts
from studio.training.report.outcome import STATE_WORDS, first_sentences, key_figures
from studio.training.report.parts import (
    Items,
    Part,
    Picture,
    PictureGroup,
    Pictures,
    Report,
    Section,
    to_html,
    to_markdown,
)
from studio.training.report.sections import (
    command_section,
    cost_section,
    dataset_section,
    effect_section,
    files_section,
    machine_section,
    report_section,
    settings_section,
    zoned_moment,
)

MARKDOWN_NAME = "report.md"
HTML_NAME = "report.html"
INSIDE_PIXELS = 320  # twice the width at which they are shown
INSIDE_QUALITY = 85


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
        sections.insert(0, Section(_("Missing information"), (Items(facts.missing),)))
    return Report(
        title=_("Training of {name}", name=facts.name),
        state=facts.status.state,
        state_words=_(STATE_WORDS[facts.status.state]),
        first=first_sentences(facts),
        figures=key_figures(facts),
        sections=tuple(sections),
        got_worse=facts.comparison is not None and bool(facts.comparison.worse),
        note=facts.label.note,
        written=_(
            "Written on {when} from the folder of the run {name}.",
            when=zoned_moment(facts.read_at),
            name=facts.run.name,
        ),
    )


def standalone_html(run: RunFolder) -> str:
    """The HTML of a run in any state whole in one file, its images inside it and smaller: to be saved, or mailed.

    Raises:
        OSError: where the folder cannot be read.
    """
    report = make_report(read_facts(run, now=datetime.now().astimezone()))
    return to_html(with_pictures_inside(report, lambda file: _data_url(run, file)))


def with_pictures_inside(report: Report, encode: Callable[[str], str]) -> Report:
    """The same report with every image's content; `encode` gives the URL that holds it, "" where it cannot."""
    sections = (
        replace(section, parts=tuple(_part(part, encode) for part in section.parts)) for section in report.sections
    )
    return replace(report, sections=tuple(sections))


def _part(part: Part, encode: Callable[[str], str]) -> Part:
    if not isinstance(part, Pictures):
        return part
    return replace(part, groups=tuple(_group(group, encode) for group in part.groups))


def _group(group: PictureGroup, encode: Callable[[str], str]) -> PictureGroup:
    return replace(
        group, rows=tuple((name, tuple(_picture(cell, encode) for cell in cells)) for name, cells in group.rows)
    )


def _picture(cell: Picture | None, encode: Callable[[str], str]) -> Picture | None:
    if cell is None or not cell.file:
        return cell
    url = encode(cell.file)
    return replace(cell, inside=url) if url else Picture("", _("cannot be read"))


def _data_url(run: RunFolder, file: str) -> str:
    try:
        with open_file(run.file(file)) as opened, Image.open(opened, formats=["PNG"]) as image:
            small = image.convert("RGB")
    except OSError:
        return ""
    small.thumbnail((INSIDE_PIXELS, INSIDE_PIXELS))
    content = io.BytesIO()
    small.save(content, format="JPEG", quality=INSIDE_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
