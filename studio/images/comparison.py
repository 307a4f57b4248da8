"""Comparisons: what base against LoRA found, saved with its images, found again, and drawn as one labelled grid.

No torch. Grids put images side by side, each with words above it: to look at, to keep or to send.
"""

import io
import logging
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError

from studio.core.files import open_file, read_file, write_atomically
from studio.core.language import N_, _
from studio.core.records import AnyFloat, Record
from studio.core.settings import CompareSettings, GenerationSettings, LoraChoice
from studio.images.files import PILLOW_ERRORS

logger = logging.getLogger(__name__)

JSON_NAME = "comparison.json"
BASE = N_("base")
"""What a side without LoRAs is called; `shown_side` says it."""
NOTICEABLE = 16  # of 255, in any channel: about where an eye that flips between two images sees a change
HARDLY_SHARE = 0.01


class PartDifference(Record):
    """How far a part of two images is apart; the numbers are those of `Difference`, over its pixels alone."""

    pixels: AnyFloat
    changed_share: AnyFloat


class Parts(Record):
    """The same for what shows the subject in either image, and for the rest."""

    background: PartDifference
    subject: PartDifference


class Difference(Record):
    """How far two images of the same seed are apart.

    `pixels` is the mean of |left - right| in 0 to 255, `changed_share` the share of pixels that differ by 16 or more
    in some channel, `latents` the mean of |left - right| of the latents (noise has a deviation of 1 there). `parts` is
    None where the subject of one of them cannot be told from its background.
    """

    pixels: AnyFloat
    changed_share: AnyFloat
    latents: AnyFloat
    parts: Parts | None = None

    @property
    def words(self) -> str:
        """What it means, in the middle of a sentence."""
        if self.pixels == 0 and self.latents == 0:
            return _("changes nothing: both images are the same, to the last bit")
        if self.pixels == 0:
            return _("changes nothing visible: only the latents differ, barely")
        if self.changed_share < HARDLY_SHARE:
            return _("changes hardly anything: pixels differ by {pixels:.2g} of 255 on average", pixels=self.pixels)
        return _("changes {percent:.0f}% of the pixels noticeably", percent=100 * self.changed_share)


class ComparedPicture(Record):
    """One side: its file within the comparison's folder, or why there is none."""

    settings: GenerationSettings
    file: str = ""
    seconds: float = 0.0
    error: str = ""


class ComparedPair(Record):
    """Left and right of one prompt and seed. `difference` is there when both are."""

    left: ComparedPicture
    right: ComparedPicture | None = None
    difference: Difference | None = None


class StripPicture(Record):
    """The right side of a pair at one strength, and how far it is from the left side."""

    strength: float
    picture: ComparedPicture
    difference: Difference | None = None


class CompareReport(Record):
    """All of it, finished or not."""

    started_at: datetime
    settings: CompareSettings
    model: str
    pairs: tuple[ComparedPair, ...] = ()
    strip: tuple[StripPicture, ...] = ()
    finished: bool = False
    cancelled: bool = False

    @property
    def left_name(self) -> str:
        """As votes keep it."""
        return side_name(self.settings.left)

    @property
    def right_name(self) -> str:
        """Likewise."""
        return side_name(self.settings.right)

    @property
    def shown_left(self) -> str:
        """As people read it."""
        return shown_side(self.left_name)

    @property
    def shown_right(self) -> str:
        """Likewise."""
        return shown_side(self.right_name)

    @property
    def strips(self) -> tuple[tuple[StripPicture, ...], ...]:
        """The images by strength, pair by pair; older comparisons have those of the first pair alone."""
        length = len(self.settings.strip) or len(self.strip)
        return tuple(self.strip[start : start + length] for start in range(0, len(self.strip), length or 1))

    @property
    def num_finished(self) -> int:
        """How many it has."""
        return sum(1 if pair.right is None else 2 for pair in self.pairs) + len(self.strip)

    @property
    def parts(self) -> Parts | None:
        """Where the right side changes the images, on average; None where a pair's parts cannot be told apart."""
        parts = [pair.difference.parts for pair in self.pairs if pair.difference]
        told = [part for part in parts if part is not None]
        if not told or len(told) < len(parts):
            return None
        return Parts(
            background=_mean([part.background for part in told]), subject=_mean([part.subject for part in told])
        )

    @property
    def sentence(self) -> str:
        """What the right side does, over all pairs, in words."""
        differences = [pair.difference for pair in self.pairs if pair.difference]
        if not differences:
            none_yet = _("There is no finished pair yet.")
            return _("Cancelled before a pair was finished.") if self.cancelled else none_yet
        count = len(differences)
        mean = Difference(
            pixels=sum(d.pixels for d in differences) / count,
            changed_share=sum(d.changed_share for d in differences) / count,
            latents=sum(d.latents for d in differences) / count,
        )
        side, words = self.shown_right, mean.words
        if count == 1:
            said = _("{side} {words}.", side=side, words=words)
        else:
            said = _("{side} {words}, on average of {count} pairs.", side=side, words=words, count=count)
        means = _(
            "Mean difference: {pixels:.3g} of 255 in pixels, {latents:.3g} in latents.",
            pixels=mean.pixels,
            latents=mean.latents,
        )
        return f"{said} {means}"


def _mean(parts: Sequence[PartDifference]) -> PartDifference:
    return PartDifference(
        pixels=sum(part.pixels for part in parts) / len(parts),
        changed_share=sum(part.changed_share for part in parts) / len(parts),
    )


class SavedComparison(Record):
    """A report and the folder it lies in, with its images."""

    folder: Path
    report: CompareReport


def side_name(loras: tuple[LoraChoice, ...]) -> str:
    """`base`, or `white-ground 0.8 + sketch`."""
    return " + ".join(c.name if c.strength == 1 else f"{c.name} {c.strength:g}" for c in loras) or BASE


def shown_side(name: str) -> str:
    """A side's name as people read it."""
    return _(BASE) if name == BASE else name


def new_comparison_folder(outputs: Path, *, now: datetime) -> Path:
    """Make and return an empty folder: `outputs/<date>/compare-<time>`."""
    folder = outputs / f"{now:%Y-%m-%d}" / f"compare-{now:%H%M%S-%f}"
    folder.mkdir(parents=True)
    return folder


def save_comparison(saved: SavedComparison) -> None:
    """Write the report beside its images."""
    write_atomically(saved.folder / JSON_NAME, saved.report.model_dump_json(indent=2).encode())


def latest_comparison(outputs: Path) -> SavedComparison | None:
    """The newest that can be read; one that cannot is passed over, and logged."""
    for path in sorted(outputs.glob(f"*/compare-*/{JSON_NAME}"), reverse=True):
        try:
            report = CompareReport.model_validate_json(read_file(path))
        except (OSError, ValidationError) as error:
            logger.warning("The comparison %s cannot be read: %s", path, error)
            continue
        return SavedComparison(folder=path.parent, report=report)
    return None


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
        with open_file(path) as file, Image.open(file, formats=("PNG", "JPEG", "WEBP")) as picture:
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
        cells = [Cell(report.shown_left, _path(saved, pair.left))]
        if pair.right:
            words = report.shown_right
            if pair.difference:
                words = _("{side} ({pixels:.3g} of 255)", side=words, pixels=pair.difference.pixels)
            cells.append(Cell(words, _path(saved, pair.right)))
        settings = pair.left.settings
        rows.append(GridRow(_("{prompt} · seed {seed}", prompt=settings.prompt, seed=settings.seed), cells))
    return rows


def _strip_rows(saved: SavedComparison) -> list[GridRow]:
    rows = []
    for strip in saved.report.strips:
        cells = [
            Cell(_("strength × {strength:g}", strength=made.strength), _path(saved, made.picture)) for made in strip
        ]
        title = _("{side} by strength", side=saved.report.shown_right)
        if len(saved.report.strips) > 1:
            made_with = strip[0].picture.settings
            of_pair = _("{prompt} · seed {seed}", prompt=made_with.prompt, seed=made_with.seed)
            title = f"{title} · {of_pair}"
        rows.append(GridRow(title, cells))
    return rows


def _path(saved: SavedComparison, picture: ComparedPicture) -> Path | None:
    return saved.folder / picture.file if picture.file else None
