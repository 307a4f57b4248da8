"""The Dataset tab's HTML: the grid of thumbnails, the summary, one image with its crop."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup
from PIL import Image

from studio.batches.folder import BatchFolder
from studio.batches.outputs import read_provenance
from studio.core.errors import PictureFileError
from studio.core.language import N_, _, number
from studio.core.text import template
from studio.datasets.generation import lineage_words
from studio.datasets.inspection import thumbnail_path
from studio.datasets.query import Facet, RowPage
from studio.datasets.report import num_without_row
from studio.datasets.rows import BucketFit
from studio.datasets.session import DatasetSession, SessionView, Stamp
from studio.datasets.source import DatasetRow
from studio.images.decoding import open_rgb
from studio.images.records import Problem
from studio.jobs.words import title
from studio.ui.shell.parts import data_url, paragraph

_template = template("ui/templates/datasets.html")

SHOWN_SIDE = 1024
"""Longest side, in pixels, of the large image on the page."""

SIGNS = {"reject": "✗", "convert": "↻", "note": "!"}
SIGN_WORDS = {"reject": N_("needs fixing"), "convert": N_("converted when read"), "note": N_("worth knowing")}


def thumbnail_url(session: DatasetSession, row: DatasetRow) -> str:
    """Where the page finds a row's thumbnail; "" where there is none (not checked yet, or not an image)."""
    if row.facts is None or not row.facts.is_usable:
        return ""
    path = thumbnail_path(session.thumbnails, row.facts.sha256, session.opened.recipe.background)
    return f"gradio_api/file={quote(str(path))}"


def thumbnail_size() -> Markup:
    """The slider for how large thumbnails are shown."""
    return _template("thumbnail_size")


def caption_box() -> Markup:
    """The box in which a caption is typed; its script fills it."""
    return _template("caption_box")


def drop_zone() -> Markup:
    """Where files are dropped; its script says there what becomes of them."""
    return _template("drop_zone")


def facet_chips(facets: Sequence[Facet]) -> Markup:
    """The bars that the grid is narrowed to, each a button that removes it; empty where there are none."""
    return _template("facets", facets=facets) if facets else Markup()


def grid(session: DatasetSession, page: RowPage, stamp: Stamp) -> Markup:
    """Thumbnails as buttons, with whole captions for the page's script, and the images next to them, not shown."""
    before, after = ([(row, thumbnail_url(session, row))] if row else [] for row in (page.before, page.after))
    none = _("no caption")
    thumbs = [
        (row, thumbnail_url(session, row), worst_problem(row), f"{row.key}: {row.caption or none}") for row in page.rows
    ]
    return _template(
        "grid",
        dataset=session.opened.name,
        stamp=json.dumps(stamp),
        before=before,
        thumbs=thumbs,
        after=after,
        signs=SIGNS,
    )


def worst_problem(row: DatasetRow) -> Problem | None:
    """The one that the grid shows."""
    order = {"reject": 0, "convert": 1, "note": 2}
    return min(row.problems, key=lambda problem: order[problem.severity], default=None)


def summary(session: DatasetSession, view: SessionView) -> Markup:
    """One line: how many there are, will be trained on, need attention; a bar while they are being checked."""
    if not view.name:
        return Markup()
    dataset, progress = session.opened, view.progress
    rows = dataset.rows
    source = Path(dataset.recipe.source)
    provenance = read_provenance(source)
    origin = provenance.sentence(title(BatchFolder(source.parent))) if provenance else ""
    if dataset.recipe.made_from:
        origin = " ".join(lineage_words(dataset.recipe.made_from))
    return _template(
        "summary",
        problem=progress.problem if progress else "",
        num_rows=len(rows),
        captions=sum(bool(row.caption) for row in rows),
        used=sum(row.is_used for row in rows),
        broken=sum(row.is_rejected and not row.excluded for row in rows),
        lost=sum(skipped_file.problem.severity == "reject" for skipped_file in dataset.skipped_files),
        excluded=sum(row.excluded for row in rows),
        without_row=num_without_row(dataset.skipped_files),
        progress_of=progress,
        origin=origin,
    )


def not_shown(words: str, *, sign: str = "") -> Markup:
    """What stands in the large image's place."""
    return _template("not_shown", sign=sign, words=words)


def large_picture(session: DatasetSession, row: DatasetRow, fit: BucketFit | None) -> Markup:
    """The image as training reads it, with the part that its bucket keeps; it opens larger when pressed."""
    if row.facts is None:
        return not_shown(_("not checked yet"), sign="…")
    if not row.facts.is_usable or fit is None:
        return not_shown(_("cannot be shown"), sign="✗")
    try:
        image = open_rgb(row.path, background=session.opened.recipe.background)
    except PictureFileError as error:
        return not_shown(str(error), sign="✗")
    left, top, right, bottom = fit.crop
    width, height = row.facts.width, row.facts.height
    crop = (
        f"left:{100 * left / width:.2f}%;top:{100 * top / height:.2f}%;"
        f"width:{100 * (right - left) / width:.2f}%;height:{100 * (bottom - top) / height:.2f}%"
    )
    free = "x" * (right - left < width) + "y" * (bottom - top < height)
    dataset = session.opened.name
    return _template("large_picture", row=row, dataset=dataset, url=_jpeg_url(image), crop=crop, free=free)


def _jpeg_url(image: Image.Image) -> str:
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    content = io.BytesIO()
    image.save(content, format="JPEG", quality=88)
    return data_url(content.getvalue(), "image/jpeg")


def facts_line(row: DatasetRow, fit: BucketFit | None) -> Markup:
    """`600 × 800 → bucket 448 × 576 · JPEG · 84 kB`."""
    facts = row.facts
    if facts is None:
        return _template("facts", key=row.key, facts=None)
    parts = []
    if facts.width:
        size = f"{number(facts.width)} × {number(facts.height)}"
        bucket = f"{fit.bucket.width} × {fit.bucket.height}" if fit else ""
        parts.append(_("{size} → bucket {bucket}", size=size, bucket=bucket) if bucket else size)
    if facts.format:
        parts.append(f"{facts.format} {facts.mode or ''}".strip())
    parts.append(file_size(facts.num_bytes))
    if row.repeats != 1:
        parts.append(_("{num} times an epoch", num=row.repeats))
    if facts.is_usable:
        parts.append(_("{share:.0%} of the border white", share=facts.border_whiteness))
    return _template("facts", key=row.key, facts=parts)


def problem_list(row: DatasetRow) -> Markup:
    """All that was found, worst first, in sentences."""
    if row.facts is None and not row.problems:
        return Markup()
    if not row.problems:
        return paragraph("good", _("✓ Nothing wrong with this image."))
    order = {"reject": 0, "convert": 1, "note": 2}
    problems = sorted(row.problems, key=lambda problem: order[problem.severity])
    return _template("problems", problems=problems, signs=SIGNS, words=SIGN_WORDS)


def file_size(num_bytes: int) -> str:
    """`84 kB`, `1.2 MB`."""
    return f"{number(num_bytes / 1e6, ',.1f')} MB" if num_bytes >= 1e6 else f"{number(num_bytes / 1e3, ',.0f')} kB"
