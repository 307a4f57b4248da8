"""A comparison as one labelled picture, to keep or to send: a row for each prompt and seed, then the strip."""

import io
import logging
import textwrap
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from studio.comparison import ComparedPicture, SavedComparison
from studio.picture_files import PILLOW_ERRORS

logger = logging.getLogger(__name__)

CELL = 256  # pixels; larger pictures are made smaller, so that a grid of 64 pairs still opens everywhere
MARGIN, LABEL_HEIGHT = 12, 44
LETTERS_LIMIT = 1000  # far more than two lines of the widest grid have
GROUND, INK, QUIET = "white", "black", "#555555"


@dataclass(frozen=True)
class Cell:
    """A picture and the words above it."""

    label: str
    path: Path | None


def comparison_grid(saved: SavedComparison) -> bytes:
    """The grid as PNG."""
    rows = [*_pair_rows(saved), *_strip_rows(saved)]
    columns = max((len(row) for _, row in rows), default=1)
    width = MARGIN + columns * (CELL + MARGIN)
    row_height = 2 * LABEL_HEIGHT + CELL + MARGIN
    image = Image.new("RGB", (width, MARGIN + max(1, len(rows)) * row_height), GROUND)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for number, (title, cells) in enumerate(rows):
        top = MARGIN + number * row_height
        _write(draw, font, (MARGIN, top), title, width=width - 2 * MARGIN, ink=INK)
        for column, cell in enumerate(cells):
            left = MARGIN + column * (CELL + MARGIN)
            _write(draw, font, (left, top + LABEL_HEIGHT), cell.label, width=CELL, ink=QUIET)
            _paste(image, cell, (left, top + 2 * LABEL_HEIGHT))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _pair_rows(saved: SavedComparison) -> list[tuple[str, list[Cell]]]:
    report = saved.report
    rows = []
    for pair in report.pairs:
        cells = [Cell(report.left_name, _path(saved, pair.left))]
        if pair.right:
            words = f" ({pair.difference.pixels:.3g} of 255)" if pair.difference else ""
            cells.append(Cell(report.right_name + words, _path(saved, pair.right)))
        rows.append((f"{pair.left.settings.prompt} · seed {pair.left.settings.seed}", cells))
    return rows


def _strip_rows(saved: SavedComparison) -> list[tuple[str, list[Cell]]]:
    cells = [Cell(f"strength × {s.strength:g}", _path(saved, s.picture)) for s in saved.report.strip]
    return [(f"{saved.report.right_name} by strength", cells)] if cells else []


def _path(saved: SavedComparison, picture: ComparedPicture) -> Path | None:
    return saved.folder / picture.file if picture.file else None


def _paste(image: Image.Image, cell: Cell, position: tuple[int, int]) -> None:
    shown = _shown(cell.path) if cell.path else None
    if shown:
        image.paste(shown, position)
    else:
        right, bottom = position[0] + CELL - 1, position[1] + CELL - 1
        ImageDraw.Draw(image).rectangle((*position, right, bottom), outline=QUIET)


def _shown(path: Path) -> Image.Image | None:
    """The picture in the size of a cell; None where it is missing or cannot be read."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            picture.thumbnail((CELL, CELL))
            shown = picture.convert("RGB")
    except (*PILLOW_ERRORS, Image.DecompressionBombError) as error:
        logger.warning("%s cannot be shown: %s", path, error)
        return None
    scale = CELL // max(shown.size)
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
