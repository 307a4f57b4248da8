"""Pictures side by side on one, each with words above it: to look at, to keep or to send.

A comparison as one labelled image, to keep or to send: a row for each prompt and seed, then the strip.
"""

import io
import logging
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from studio.images.comparison import ComparedPicture, SavedComparison
from studio.images.files import PILLOW_ERRORS

logger = logging.getLogger(__name__)

CELL = 256  # pixels; larger images are made smaller, so that a grid of 64 pairs still opens everywhere
MARGIN, LABEL_HEIGHT = 12, 44
LETTERS_LIMIT = 1000  # far more than two lines of the widest grid have
GROUND, INK, QUIET = "white", "black", "#555555"


@dataclass(frozen=True)
class Cell:
    """An image and the words above it; without a path, an empty frame."""

    label: str
    path: Path | None


@dataclass(frozen=True)
class GridRow:
    """Pictures side by side, and words above them all; without words no room is kept for them."""

    title: str
    cells: Sequence[Cell]


def picture_grid(rows: Sequence[GridRow], *, cell: int = CELL) -> bytes:
    """The grid as PNG.

    Args:
        cell: pixels that an image may be wide and high.
    """
    columns = max((len(row.cells) for row in rows), default=1)
    width = MARGIN + columns * (cell + MARGIN)
    heights = [LABEL_HEIGHT * (2 if row.title else 1) + cell + MARGIN for row in rows]
    image = Image.new("RGB", (width, MARGIN + (sum(heights) or 2 * LABEL_HEIGHT + cell + MARGIN)), GROUND)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        _write(draw, font, (MARGIN, top), row.title, width=width - 2 * MARGIN, ink=INK)
        label_top = top + LABEL_HEIGHT * bool(row.title)
        for column, shown in enumerate(row.cells):
            left = MARGIN + column * (cell + MARGIN)
            _write(draw, font, (left, label_top), shown.label, width=cell, ink=QUIET)
            _paste(image, shown.path, (left, label_top + LABEL_HEIGHT), size=cell)
        top += height
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _paste(image: Image.Image, path: Path | None, position: tuple[int, int], *, size: int) -> None:
    shown = _shown(path, size) if path else None
    if shown:
        image.paste(shown, position)
    else:
        right, bottom = position[0] + size - 1, position[1] + size - 1
        ImageDraw.Draw(image).rectangle((*position, right, bottom), outline=QUIET)


def _shown(path: Path, size: int) -> Image.Image | None:
    """The image in the size of a cell; None where it is missing or cannot be read."""
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as picture:
            picture.thumbnail((size, size))
            shown = picture.convert("RGB")
    except (*PILLOW_ERRORS, Image.DecompressionBombError) as error:
        logger.warning("%s cannot be shown: %s", path, error)
        return None
    scale = size // max(shown.size)
    return shown.resize((shown.width * scale, shown.height * scale), Image.Resampling.NEAREST)


def _write(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    position: tuple[int, int],
    words: str,
    *,
    width: int,
    ink: str,
) -> None:
    """At most two lines; what does not fit ends in an ellipsis.

    Letters differ in width: lines get shorter until the widest fits.
    """
    lines: list[str] = []
    for num_letters in range(width // 8, 1, -1):
        lines = textwrap.wrap(words[:LETTERS_LIMIT], width=num_letters, max_lines=2, placeholder="…")
        if all(font.getlength(line) <= width for line in lines):
            break
    draw.multiline_text(position, "\n".join(lines), fill=ink, font=font, spacing=2)


def comparison_grid(saved: SavedComparison) -> bytes:
    """The grid as PNG."""
    return picture_grid([*_pair_rows(saved), *_strip_rows(saved)])


def _pair_rows(saved: SavedComparison) -> list[GridRow]:
    report = saved.report
    rows = []
    for pair in report.pairs:
        cells = [Cell(report.left_name, _path(saved, pair.left))]
        if pair.right:
            words = f" ({pair.difference.pixels:.3g} of 255)" if pair.difference else ""
            cells.append(Cell(report.right_name + words, _path(saved, pair.right)))
        rows.append(GridRow(f"{pair.left.settings.prompt} · seed {pair.left.settings.seed}", cells))
    return rows


def _strip_rows(saved: SavedComparison) -> list[GridRow]:
    cells = [Cell(f"strength × {s.strength:g}", _path(saved, s.picture)) for s in saved.report.strip]
    return [GridRow(f"{saved.report.right_name} by strength", cells)] if cells else []


def _path(saved: SavedComparison, picture: ComparedPicture) -> Path | None:
    return saved.folder / picture.file if picture.file else None
