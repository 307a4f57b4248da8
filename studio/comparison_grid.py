"""A comparison as one labelled picture, to keep or to send: a row for each prompt and seed, then the strip."""

from pathlib import Path

from studio.comparison import ComparedPicture, SavedComparison
from studio.picture_grid import Cell, GridRow, picture_grid


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
