"""Captions and attributes from a table: imagefolder, fashion products, any CSV or JSON lines."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from studio.core.errors import DatasetError
from studio.datasets.source import LayoutChoice, LayoutName, SkippedFile, SourcePicture, SourceReading
from studio.datasets.tables import Table, TableRow, read_table
from studio.datasets.walk import Walk
from studio.images.records import Problem

FASHION_TABLE, FASHION_FOLDER = "styles.csv", "images"
METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
IMAGE_COLUMNS = ("file_name", "filename", "file", "image", "image_path", "path", "img", "picture", "image_file", "id")
CAPTION_COLUMNS = (
    "text",
    "caption",
    "captions",
    "prompt",
    "description",
    "productdisplayname",
    "title",
    "label",
    "name",
)


@dataclass(frozen=True)
class _Match:
    """A table with what its columns are for, and the image of each row (None: there is none)."""

    table: Table
    image_column: str
    caption_column: str | None
    pictures: tuple[tuple[TableRow, str | None], ...]

    @property
    def num_hits(self) -> int:
        return sum(key is not None for _, key in self.pictures)


def tables_of(walk: Walk, layout: LayoutName) -> list[str]:
    """The tables that a layout would read, best first."""
    if layout == "fashion":
        return [key for key in walk.tables if PurePosixPath(key).name.lower() == FASHION_TABLE]
    metadata = [key for key in walk.tables if PurePosixPath(key).name.lower() in METADATA_NAMES]
    if layout == "imagefolder":
        return metadata
    return [key for key in walk.tables if key not in metadata]


def fits(walk: Walk, layout: LayoutName) -> bool:
    """Whether some table of the layout names images that are there."""
    for key in tables_of(walk, layout)[:8]:
        try:
            match = _match(walk, key, LayoutChoice(), last_takes_rest=layout == "fashion")
        except DatasetError:  # not such a table; whoever chooses it is told why
            continue
        if match.num_hits:
            return True
    return False


def read_by_table(
    walk: Walk, layout: LayoutName, choice: LayoutChoice, recognised: tuple[LayoutName, ...]
) -> SourceReading:
    """Read the folder by its table, or by all of them for an imagefolder with one a split.

    Raises:
        DatasetError: where there is no such table or column; it names those that there are.
    """
    names = [choice.table] if choice.table else tables_of(walk, layout)
    if not names:
        raise DatasetError(f"There is no table for this layout in {walk.folder}. {_tables_words(walk)}")
    if names[0] not in walk.tables:
        raise DatasetError(f"table must be a table below the folder, got {names[0]!r}. {_tables_words(walk)}")
    matches = [
        _match(walk, name, choice, last_takes_rest=layout == "fashion") for name in _to_read(walk, layout, names)
    ]
    best = max(matches, key=lambda match: match.num_hits)
    used = matches if layout == "imagefolder" and not choice.table else [best]
    pictures: dict[str, SourcePicture] = {}
    skipped_files: list[SkippedFile] = []
    for match in used:
        skipped_files += match.table.skipped_files
        for row, key in match.pictures:
            _take_row(walk, match, row, key, pictures, skipped_files)
    sentence = "No row of the table names this image, so it is not part of the dataset."
    skipped_files += [
        SkippedFile(name=key, problem=Problem(code="image without a row", severity="note", sentence=sentence))
        for key in walk.pictures
        if key not in pictures
    ]
    return SourceReading(
        layout=layout,
        recognised=recognised,
        pictures=tuple(pictures[key] for key in walk.pictures if key in pictures),
        columns=tuple(dict.fromkeys(column for match in used for column in match.table.columns)),
        tables=tuple(walk.tables),
        table=best.table.name,
        image_column=best.image_column,
        caption_column=best.caption_column,
        skipped_files=tuple(skipped_files),
    )


def _to_read(walk: Walk, layout: LayoutName, names: Sequence[str]) -> list[str]:
    """Of metadata.jsonl and metadata.csv in one folder the first is read, as `datasets` does."""
    if layout != "imagefolder":
        return list(names)
    by_folder: dict[str, str] = {}
    for name in sorted(names, key=lambda name: not name.lower().endswith(".jsonl")):
        by_folder.setdefault(str(PurePosixPath(name).parent), name)
    return list(by_folder.values())


def _take_row(
    walk: Walk,
    match: _Match,
    row: TableRow,
    key: str | None,
    pictures: dict[str, SourcePicture],
    skipped_files: list[SkippedFile],
) -> None:
    where = f"{match.table.name} row {row.number}"
    named = row.cells[match.image_column]
    if key is None:
        skipped_files.append(SkippedFile(name=where, problem=_lost_row(named)))
        return
    if key in pictures:
        sentence = f"{key} is named a second time; its first row counts."
        skipped_files.append(
            SkippedFile(name=where, problem=Problem(code="row twice", severity="note", sentence=sentence))
        )
        return
    caption = " ".join(row.cells[match.caption_column].split()) if match.caption_column else ""
    pictures[key] = SourcePicture(
        key, walk.path(key), caption=caption or None, caption_from=where if caption else "", attributes=row.cells
    )


def _lost_row(named: str) -> Problem:
    if not named:
        return Problem(code="row without a file", severity="reject", sentence="The row names no image.")
    if _leads_out(named):
        sentence = f"The row names {named[:120]!r}, which is not below the folder, and nothing outside of it is read."
        return Problem(code="row leads out", severity="reject", sentence=sentence)
    sentence = f"The row names {named[:120]!r}, and there is no such image. Was it left behind when copying?"
    return Problem(code="row without an image", severity="reject", sentence=sentence)


def _match(walk: Walk, name: str, choice: LayoutChoice, *, last_takes_rest: bool) -> _Match:
    """Read a table and find what its columns are for.

    Raises:
        DatasetError: where it is no table, or has no such columns.
    """
    table = read_table(walk.path(name), name, last_takes_rest=last_takes_rest)
    places = _places(walk)
    for column in (choice.image_column, choice.caption_column):
        if column is not None and column not in table.columns:
            raise DatasetError(f"{name} has no column {column!r}. It has: {', '.join(table.columns)}.")
    candidates = [choice.image_column] if choice.image_column else _known(table.columns, IMAGE_COLUMNS)
    if not candidates:
        raise DatasetError(
            f"{name} has no column that names images. It has: {', '.join(table.columns)}. Choose one of them."
        )
    image_column, found = max(
        ((column, _find_pictures(table, column, name, places)) for column in candidates),
        key=lambda candidate: sum(key is not None for _, key in candidate[1]),
    )
    captions = [choice.caption_column] if choice.caption_column else _known(table.columns, CAPTION_COLUMNS)
    caption_column = next((column for column in captions if column != image_column), None)
    return _Match(table, image_column, caption_column, found)


def _known(columns: Sequence[str], known: Sequence[str]) -> list[str]:
    """The table's columns of those names, in the order of the names."""
    by_name = {column.lower(): column for column in reversed(columns)}
    return [by_name[name] for name in known if name in by_name]


def _places(walk: Walk) -> dict[str, str]:
    """Every way in which a table may name an image: its path, and that without its ending."""
    places: dict[str, str] = {}
    for key in reversed(walk.pictures):
        places[_plain(key)] = key
        places.setdefault(_plain(str(PurePosixPath(key).with_suffix(""))), key)
    return places


def _find_pictures(
    table: Table, column: str, name: str, places: dict[str, str]
) -> tuple[tuple[TableRow, str | None], ...]:
    """Each row with its image: beside the table, in its images/ folder, or below the source."""
    beside = PurePosixPath(name).parent
    found = []
    for row in table.rows:
        named = row.cells[column].replace("\\", "/")
        key = None
        if named and not _leads_out(named):
            for folder in (beside, beside / FASHION_FOLDER, PurePosixPath()):
                key = key or places.get(_plain(str(folder / named)))
        found.append((row, key))
    return tuple(found)


def _leads_out(named: str) -> bool:
    path = PurePosixPath(named.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in named[:3]


def _plain(key: str) -> str:
    return unicodedata.normalize("NFC", key)


def _tables_words(walk: Walk) -> str:
    return f"Available: {', '.join(walk.tables[:20])}." if walk.tables else "There is no table in it at all."
