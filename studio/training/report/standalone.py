"""A run's report whole in one HTML file, its images inside it and smaller: to be saved, or mailed."""

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from PIL import Image

from studio.training.folder import RunFolder
from studio.training.report import make_report
from studio.training.report.facts import read_facts
from studio.training.report.html import to_html
from studio.training.report.parts import Part, Picture, PictureGroup, Pictures, Report

INSIDE_PIXELS = 320  # twice the width at which they are shown
INSIDE_QUALITY = 85


def standalone_html(run: RunFolder) -> str:
    """The report of a run in any state.

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
    return replace(cell, inside=url) if url else Picture("", "cannot be read")


def _data_url(run: RunFolder, file: str) -> str:
    try:
        with Image.open(run.file(file), formats=["PNG"]) as image:
            small = image.convert("RGB")
    except OSError:
        return ""
    small.thumbnail((INSIDE_PIXELS, INSIDE_PIXELS))
    content = io.BytesIO()
    small.save(content, format="JPEG", quality=INSIDE_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
