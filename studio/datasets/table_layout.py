"""Captions and attributes from a table: imagefolder, fashion products, any CSV or JSON lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from studio.core.errors import DatasetError
from studio.core.language import N_, _
from studio.datasets.captions import find_captions, name_of, stem_of
from studio.datasets.source import WITHOUT_ROW, LayoutChoice, LayoutName, SkippedFile, SourcePicture, SourceReading
from studio.datasets.tables import Table, TableRow, read_table, row_name
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
        return sum(key is not None for __, key in self.pictures)


class FolderTables:
    """The tables of a walk, each read once however often it is asked for.

    Attributes:
        walk: the folder's files.
        picture_names: every way in which a table may name an image: its path, and that without its ending.
        has_sidecars: whether an image has a caption beside it.
    """

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.picture_names: dict[str, str] = {}
        for key in reversed(walk.pictures):
            self.picture_names[name_of(key)] = key
        for key in reversed(walk.pictures):
            self.picture_names.setdefault(stem_of(key), key)
        self.has_sidecars = any(find_captions(walk.pictures, walk.captions).values())
        self._read: dict[tuple[str, bool], Table | DatasetError] = {}

    def read(self, name: str, *, last_takes_rest: bool) -> Table:
        """One of them.

        Raises:
            DatasetError: as `read_table`.
        """
        key = (name, last_takes_rest)
        if key not in self._read:
            try:
                self._read[key] = read_table(self.walk.path(name), name, last_takes_rest=last_takes_rest)
            except DatasetError as error:
                self._read[key] = error
        table = self._read[key]
        if isinstance(table, DatasetError):
            raise table
        return table


def tables_of(walk: Walk, layout: LayoutName) -> list[str]:
    """The tables that a layout would read, best first."""
    if layout == "fashion":
        return [key for key in walk.tables if PurePosixPath(key).name.lower() == FASHION_TABLE]
    metadata = [key for key in walk.tables if PurePosixPath(key).name.lower() in METADATA_NAMES]
    if layout == "imagefolder":
        return metadata
    return [key for key in walk.tables if key not in metadata]


def fits(tables: FolderTables, layout: LayoutName) -> bool:
    """Whether the tables of the layout are about the images that are there.

    Captions beside the images win over a table that has none, or that names half of the images or fewer: such a table
    may be anything. Where no image has a caption beside it, a table with captions may name a few.
    """
    matches, __ = _matches(tables, layout, LayoutChoice())
    if layout != "imagefolder":
        return any(_counts(tables, [match]) for match in matches)
    return bool(matches) and _counts(tables, matches)


def _counts(tables: FolderTables, matches: Sequence[_Match]) -> bool:
    named = {key for match in matches for __, key in match.pictures if key is not None}
    has_captions = any(match.caption_column is not None for match in matches)
    if 2 * len(named) > len(tables.walk.pictures):
        return has_captions or not tables.has_sidecars
    return bool(named) and has_captions and not tables.has_sidecars


def _matches(
    tables: FolderTables, layout: LayoutName, choice: LayoutChoice
) -> tuple[list[_Match], dict[str, DatasetError]]:
    """The tables of a layout that can be read for it, and why the others cannot."""
    matches, errors = [], {}
    for name in [choice.table] if choice.table else _to_read(layout, tables_of(tables.walk, layout)):
        try:
            matches.append(_match(tables, name, choice, last_takes_rest=layout == "fashion"))
        except DatasetError as error:
            errors[name] = error
    return matches, errors


def read_by_table(
    tables: FolderTables, layout: LayoutName, choice: LayoutChoice, recognised: tuple[LayoutName, ...]
) -> SourceReading:
    """Read the folder by its table, or by all of them for an imagefolder with one a split.

    Raises:
        DatasetError: where there is no such table or column; it names those that there are.
    """
    walk = tables.walk
    if not choice.table and not tables_of(walk, layout):
        sentence = _("There is no table for this layout in {folder}.", folder=walk.folder)
        raise DatasetError(f"{sentence} {_tables_words(walk)}")
    if choice.table and choice.table not in walk.tables:
        sentence = _("table must be a table below the folder, got {table!r}.", table=choice.table)
        raise DatasetError(f"{sentence} {_tables_words(walk)}")
    matches, errors = _matches(tables, layout, choice)
    if not matches:
        raise next(iter(errors.values()))
    best = max(matches, key=lambda match: (match.caption_column is not None and match.num_hits > 0, match.num_hits))
    used = matches if layout == "imagefolder" and not choice.table else [best]
    pictures: dict[str, SourcePicture] = {}
    skipped_files: list[SkippedFile] = []
    for match in used:
        skipped_files += [*match.table.skipped_files, *_lists_note(match)]
        for row, key in match.pictures:
            _take_row(walk, match, row, key, pictures, skipped_files)
    sentence = _("No row of the table names this image, so it is not part of the dataset.")
    skipped_files += [_note(key, WITHOUT_ROW, sentence) for key in walk.pictures if key not in pictures]
    names = ", ".join(match.table.name for match in used)
    sentence = _("The captions are taken from {names}, so this file is not used.", names=names)
    skipped_files += [_note(key, N_("caption not used"), sentence) for key in walk.captions]
    skipped_files += unused_tables(
        tables, [match.table.name for match in used], _("{names} is read in its place.", names=names)
    )
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


def unused_tables(tables: FolderTables, used: Sequence[str], why: str) -> list[SkippedFile]:
    """A note for each table that is not read: what is wrong with it, or else `why`."""
    notes = []
    for name in tables.walk.tables:
        if name in used:
            continue
        try:
            _match(tables, name, LayoutChoice(), last_takes_rest=PurePosixPath(name).name.lower() == FASHION_TABLE)
            sentence = why
        except DatasetError as error:
            sentence = str(error)
        damage = "" if used or tables.has_sidecars else _damage(tables, name)
        if damage:
            advice = _("No image has a caption from elsewhere. Repair the table, or delete it.")
            problem = Problem(code=N_("table unreadable"), severity="reject", sentence=f"{damage} {advice}")
            notes.append(SkippedFile(name=name, problem=problem))
        else:
            notes.append(_note(name, N_("other table"), sentence))
    return notes


def _damage(tables: FolderTables, name: str) -> str:
    """Why a table that is a dataset's by its name gives no row, though it holds something; empty where it is none."""
    place = PurePosixPath(name)
    if place.name.lower() not in (*METADATA_NAMES, FASHION_TABLE) or not tables.walk.path(name).stat().st_size:
        return ""
    try:
        table = tables.read(name, last_takes_rest=place.name.lower() == FASHION_TABLE)
    except DatasetError as error:
        return str(error)
    if table.rows or not table.skipped_files:
        return ""
    return f"{table.skipped_files[0].name}: {table.skipped_files[0].problem.sentence}"


def _lists_note(match: _Match) -> list[SkippedFile]:
    if match.caption_column not in match.table.lists:
        return []
    sentence = _(
        "Its column {column} holds lists: the texts of each are joined with commas "
        "into one caption. To learn only one of them, keep that one in the file.",
        column=match.caption_column,
    )
    return [_note(match.table.name, N_("captions in lists"), sentence)]


def _note(name: str, code: str, sentence: str) -> SkippedFile:
    return SkippedFile(name=name, problem=Problem(code=code, severity="note", sentence=sentence))


def _to_read(layout: LayoutName, names: Sequence[str]) -> list[str]:
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
    where = row_name(match.table.name, row.number)
    named = row.cells[match.image_column]
    if key is None:
        skipped_files.append(SkippedFile(name=where, problem=_lost_row(named)))
        return
    if key in pictures:
        sentence = _("{key} is named a second time; its first row counts.", key=key)
        skipped_files.append(_note(where, N_("row twice"), sentence))
        return
    caption = " ".join(row.cells[match.caption_column].split()) if match.caption_column else ""
    pictures[key] = SourcePicture(
        key, walk.path(key), caption=caption or None, caption_from=where if caption else "", attributes=row.cells
    )


def _lost_row(named: str) -> Problem:
    if not named:
        return Problem(code=N_("row without a file"), severity="reject", sentence=_("The row names no image."))
    if _leads_out(named):
        sentence = _(
            "The row names {named!r}, which is not below the folder, and nothing outside of it is read.",
            named=named[:120],
        )
        return Problem(code=N_("row leads out"), severity="reject", sentence=sentence)
    sentence = _(
        "The row names {named!r}, and there is no such image. Was it left behind when copying?", named=named[:120]
    )
    return Problem(code=N_("row without an image"), severity="reject", sentence=sentence)


def _match(tables: FolderTables, name: str, choice: LayoutChoice, *, last_takes_rest: bool) -> _Match:
    """Read a table and find what its columns are for.

    Raises:
        DatasetError: where it is no table, or has no such columns.
    """
    table = tables.read(name, last_takes_rest=last_takes_rest)
    for column in (choice.image_column, choice.caption_column):
        if column is not None and column not in table.columns:
            columns = ", ".join(table.columns)
            raise DatasetError(
                _("{name} has no column {column!r}. It has: {columns}.", name=name, column=column, columns=columns)
            )
    candidates = [choice.image_column] if choice.image_column else _known(table.columns, IMAGE_COLUMNS)
    if not candidates:
        sentence = _(
            "{name} has no column that names images. It has: {columns}. Choose one of them.",
            name=name,
            columns=", ".join(table.columns),
        )
        raise DatasetError(sentence)
    image_column, found = max(
        ((column, _find_pictures(table, column, tables)) for column in candidates),
        key=lambda candidate: sum(key is not None for __, key in candidate[1]),
    )
    captions = [choice.caption_column] if choice.caption_column else _known(table.columns, CAPTION_COLUMNS)
    caption_column = next((column for column in captions if column != image_column), None)
    return _Match(table, image_column, caption_column, found)


def _known(columns: Sequence[str], known: Sequence[str]) -> list[str]:
    """The table's columns of those names, in the order of the names."""
    by_name = {column.lower(): column for column in reversed(columns)}
    return [by_name[name] for name in known if name in by_name]


def _find_pictures(table: Table, column: str, tables: FolderTables) -> tuple[tuple[TableRow, str | None], ...]:
    """Each row with its image: beside the table, in its images/ folder, or below the source.

    A whole path is of the place where the table was made: what of it still fits below the source, the longest first.
    """
    beside = PurePosixPath(table.name).parent
    found = []
    for row in table.rows:
        named = row.cells[column].replace("\\", "/")
        candidates: list[PurePosixPath] = []
        if named and not _leads_out(named):
            candidates = [folder / named for folder in (beside, beside / FASHION_FOLDER, PurePosixPath())]
        elif named and ".." not in (parts := PurePosixPath(named).parts):
            candidates = [PurePosixPath(*parts[start:]) for start in range(1, len(parts))]
        keys = (tables.picture_names.get(name_of(str(path))) for path in candidates)
        found.append((row, next((key for key in keys if key is not None), None)))
    return tuple(found)


def _leads_out(named: str) -> bool:
    path = PurePosixPath(named.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in named[:3]


def _tables_words(walk: Walk) -> str:
    if not walk.tables:
        return _("There is no table in it at all.")
    return _("Available: {names}.", names=", ".join(walk.tables[:20]))
