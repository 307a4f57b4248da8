"""A contact sheet: all pictures small on one, each with its name and caption."""

import io
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from studio.dataset.row import DatasetRow
from studio.errors import DatasetError

COLUMNS = 8
CELL = 176
PICTURE = 160
TEXT_HEIGHT = 48
MAX_PICTURES = 400
_INK, _PALE, _PAPER = "#1f2430", "#55606f", "#ffffff"


def make_contact_sheet(
    rows: Sequence[DatasetRow], *, title: str, thumbnail_of: Callable[[DatasetRow], Path | None]
) -> bytes:
    """A JPEG of the first 400 rows.

    Raises:
        DatasetError: where there is no row.
    """
    if not rows:
        raise DatasetError("There is no picture for a contact sheet.")
    shown = rows[:MAX_PICTURES]
    height = 40 + -(-len(shown) // COLUMNS) * (CELL + TEXT_HEIGHT)
    sheet = Image.new("RGB", (COLUMNS * CELL + 16, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    number = f"first {len(shown):,} of {len(rows):,}" if len(rows) > len(shown) else f"{len(rows):,} pictures"
    _write(pen, (16, 10), f"{title}: {number}", size=16, ink=_INK)
    for index, row in enumerate(shown):
        x = 8 + index % COLUMNS * CELL
        y = 40 + index // COLUMNS * (CELL + TEXT_HEIGHT)
        _paste(sheet, thumbnail_of(row), x + 8, y)
        _write(pen, (x + 8, y + PICTURE + 4), Path(row.key).name[-26:], size=11, ink=_INK)
        for line, words in enumerate(textwrap.wrap(row.caption, 30)[:2]):
            _write(pen, (x + 8, y + PICTURE + 19 + 14 * line), words, size=11, ink=_PALE)
    content = io.BytesIO()
    sheet.save(content, format="JPEG", quality=88)
    return content.getvalue()


def _paste(sheet: Image.Image, thumbnail: Path | None, x: int, y: int) -> None:
    if thumbnail is None or not thumbnail.is_file():
        ImageDraw.Draw(sheet).rectangle((x, y, x + PICTURE - 1, y + PICTURE - 1), outline=_PALE)
        return
    with Image.open(thumbnail, formats=("JPEG",)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((PICTURE, PICTURE))
    sheet.paste(small, (x + (PICTURE - small.width) // 2, y + (PICTURE - small.height) // 2))


def _write(pen: ImageDraw.ImageDraw, place: tuple[int, int], words: str, *, size: int, ink: str) -> None:
    """Letters that Pillow's own font lacks become boxes; none stops the sheet."""
    printable = "".join(letter if letter.isprintable() else " " for letter in words)
    pen.text(place, printable, fill=ink, font=ImageFont.load_default(size))
