"""The Dataset tab's HTML: the grid of thumbnails, the summary, one image with its crop. All texts are escaped."""

import io
import json
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from studio.batches.provenance import read_provenance
from studio.core.errors import PictureFileError
from studio.core.text import counted, escape
from studio.datasets.buckets import BucketFit
from studio.datasets.inspection import thumbnail_path
from studio.datasets.query import RowPage
from studio.datasets.session import DatasetSession, SessionView, Stamp
from studio.datasets.source import DatasetRow
from studio.images.decoding import open_rgb
from studio.images.records import Problem
from studio.ui.shell.parts import data_url

SHOWN_SIDE = 1024
"""Longest side, in pixels, of the large image on the page."""

SIGNS = {"reject": "✗", "convert": "↻", "note": "!"}
SIGN_WORDS = {"reject": "needs fixing", "convert": "read with a conversion", "note": "worth knowing"}


def thumbnail_url(session: DatasetSession, row: DatasetRow) -> str:
    """Where the page finds a row's thumbnail; "" where there is none (not checked yet, or not an image)."""
    if row.facts is None or not row.facts.is_usable:
        return ""
    path = thumbnail_path(session.thumbnails, row.facts.sha256, session.opened.recipe.background)
    return f"gradio_api/file={quote(str(path))}"


def grid(session: DatasetSession, page: RowPage, stamp: Stamp) -> str:
    """Thumbnails as buttons, with whole captions for the page's script, and the images next to them, not shown."""
    before, after = (_beyond(session, row) if row else "" for row in (page.before, page.after))
    thumbs = "".join(_thumb(session, row) for row in page.rows)
    reported = f'data-dataset="{escape(session.opened.name)}" data-stamp="{json.dumps(stamp)}"'
    return f'<div class="thumbs" {reported}>{before}{thumbs}{after}</div>'


def _reported(row: DatasetRow) -> str:
    return f'data-key="{escape(row.key)}" data-caption="{escape(row.caption)}"'


def _beyond(session: DatasetSession, row: DatasetRow) -> str:
    return (
        f'<span class="beyond" hidden {_reported(row)} data-thumbnail="{escape(thumbnail_url(session, row))}"></span>'
    )


def _thumb(session: DatasetSession, row: DatasetRow) -> str:
    url = thumbnail_url(session, row)
    worst = worst_problem(row)
    picture = (
        f'<img src="{escape(url)}" alt="" loading="lazy" decoding="async">'
        if url
        else f'<span class="sign" aria-hidden="true">{"…" if row.facts is None else "✗"}</span>'
    )
    badge = ""
    if row.excluded:
        badge = '<span class="badge out">excluded</span>'
    elif worst is not None:
        sign = f'<span aria-hidden="true">{SIGNS[worst.severity]}</span>'
        badge = f'<span class="badge {worst.severity}">{sign} {escape(worst.code)}</span>'
    words = f"{row.key}: {row.caption or 'no caption'}"
    kinds = "thumb" + (" out" if row.excluded else "")
    return (
        f'<button type="button" class="{kinds}" {_reported(row)} title="{escape(words[:300])}">'
        f'<span class="square">{picture}</span>{badge}'
        f'<span class="words">{escape(row.caption[:90] or "no caption")}</span></button>'
    )


def worst_problem(row: DatasetRow) -> Problem | None:
    """The one that the grid shows."""
    order = {"reject": 0, "convert": 1, "note": 2}
    return min(row.problems, key=lambda problem: order[problem.severity], default=None)


def summary(session: DatasetSession, view: SessionView) -> str:
    """One line: how many there are, will be trained on, need attention; a bar while they are being checked."""
    if not view.name:
        return ""
    dataset = session.opened
    rows = dataset.rows
    used = sum(row.is_used for row in rows)
    broken = sum(row.is_rejected and not row.excluded for row in rows)
    excluded = sum(row.excluded for row in rows)
    captions = sum(bool(row.caption) for row in rows)
    lost = sum(skipped_file.problem.severity == "reject" for skipped_file in dataset.skipped_files)
    parts = [
        f"<b>{counted(len(rows), 'image')}</b>",
        counted(captions, "caption"),
        f"<b>{used:,}</b> will be trained on",
    ]
    if broken:
        parts.append(f'<span class="bad">✗ {broken:,} {"needs" if broken == 1 else "need"} fixing</span>')
    if lost:
        parts.append(f'<span class="bad">✗ {counted(lost, "file")} or rows not taken</span>')
    if excluded:
        parts.append(f"{excluded:,} excluded")
    progress = view.progress
    bar = ""
    if progress is not None and progress.running:
        share = 100 * progress.num_checked / max(1, progress.num_pictures)
        bar = (
            f'<div class="bar" role="progressbar" aria-label="Pictures checked" aria-valuemin="0" '
            f'aria-valuemax="{progress.num_pictures}" aria-valuenow="{progress.num_checked}">'
            f'<span style="width:{share:.0f}%"></span></div>'
        )
        parts.append(f"checking: {progress.num_checked:,} of {progress.num_pictures:,}")
    problem = f'<p class="problem" role="alert">{escape(progress.problem)}</p>' if progress and progress.problem else ""
    provenance = read_provenance(Path(dataset.recipe.source))
    origin = f'<p class="quiet origin">{escape(provenance.sentence)}</p>' if provenance else ""
    return f'{problem}<p class="summary">{" · ".join(parts)}</p>{origin}{bar}'


def large_picture(session: DatasetSession, row: DatasetRow, fit: BucketFit | None) -> str:
    """The image as training reads it, with the part that its bucket keeps; it opens larger when pressed."""
    if row.facts is None:
        return '<div class="shown"><span class="sign" aria-hidden="true">…</span><span>not checked yet</span></div>'
    if not row.facts.is_usable or fit is None:
        return '<div class="shown"><span class="sign" aria-hidden="true">✗</span><span>cannot be shown</span></div>'
    try:
        image = open_rgb(row.path, background=session.opened.recipe.background)
    except PictureFileError as error:
        return f'<div class="shown"><span class="sign" aria-hidden="true">✗</span><span>{escape(error)}</span></div>'
    left, top, right, bottom = fit.crop
    width, height = row.facts.width, row.facts.height
    style = (
        f"left:{100 * left / width:.2f}%;top:{100 * top / height:.2f}%;"
        f"width:{100 * (right - left) / width:.2f}%;height:{100 * (bottom - top) / height:.2f}%"
    )
    return (
        f'<div class="shown"><button class="zoom" type="button" aria-label="Enlarge {escape(row.key)}">'
        f'<img src="{_jpeg_url(image)}" alt="{escape(row.caption or row.key)}">'
        f'<span class="crop" style="{style}" aria-hidden="true"></span></button></div>'
    )


def _jpeg_url(image: Image.Image) -> str:
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    content = io.BytesIO()
    image.save(content, format="JPEG", quality=88)
    return data_url(content.getvalue(), "image/jpeg")


def facts_line(row: DatasetRow, fit: BucketFit | None) -> str:
    """`600 × 800 → bucket 448 × 576 · JPEG · 84 kB`."""
    facts = row.facts
    if facts is None:
        return f'<p class="facts"><b>{escape(row.key)}</b></p>'
    parts = [f"<b>{escape(row.key)}</b>"]
    if facts.width:
        size = f"{facts.width:,} × {facts.height:,}"
        parts.append(f"{size} → bucket {fit.bucket.width} × {fit.bucket.height}" if fit else size)
    if facts.format:
        parts.append(f"{facts.format} {facts.mode or ''}".strip())
    parts.append(file_size(facts.num_bytes))
    if row.repeats != 1:
        parts.append(f"{row.repeats} times an epoch")
    if facts.is_usable:
        parts.append(f"{facts.border_whiteness:.0%} of the border white")
    return f'<p class="facts">{"<span>·</span>".join(f"<span>{part}</span>" for part in parts)}</p>'


def problem_list(row: DatasetRow) -> str:
    """All that was found, worst first, in sentences."""
    if row.facts is None and not row.problems:
        return ""
    if not row.problems:
        return '<p class="good">✓ Nothing wrong with this image.</p>'
    order = {"reject": 0, "convert": 1, "note": 2}
    items = "".join(
        f'<li class="is-{problem.severity}"><span aria-hidden="true">{SIGNS[problem.severity]}</span> '
        f"<span><b>{escape(problem.code)}</b> ({SIGN_WORDS[problem.severity]}): {escape(problem.sentence)}</span></li>"
        for problem in sorted(row.problems, key=lambda problem: order[problem.severity])
    )
    return f'<ul class="problems">{items}</ul>'


def file_size(num_bytes: int) -> str:
    """`84 kB`, `1.2 MB`."""
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:,.0f} kB"
