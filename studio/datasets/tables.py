"""Tables of images: CSV and JSON lines, with what is wrong in them named by row."""

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.core.errors import DatasetError
from studio.core.files import guess_text, read_file, without_marks
from studio.core.language import N_, _
from studio.datasets.source import SkippedFile
from studio.images.records import Problem

MAX_TABLE_BYTES = 512 * 1024 * 1024
MAX_CELL_CHARACTERS = 64 * 1024
_DELIMITERS = ",;\t"
_SEPARATOR_LINE = re.compile(r"sep=([,;\t|])\s*", re.IGNORECASE)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
MAX_NESTING = 100
"""Lists and objects inside of each other: no table of images has as many, and Python's own readers stop at 1000."""
_METADATA_KEYS = ("caption", "tags")  # sd-scripts trains on both, the caption first


@dataclass(frozen=True)
class TableRow:
    """One row: the number of the line on which it begins (the head is 1), and its cells by column."""

    number: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table that was read, and the rows of it that could not be; `lists` are columns with lists of JSON in them."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    skipped_files: tuple[SkippedFile, ...]
    lists: frozenset[str] = frozenset()


def read_table(path: Path, name: str, *, last_takes_rest: bool = False) -> Table:
    """Read a CSV, TSV, JSON or JSON lines file.

    Args:
        name: what to call it in findings.
        last_takes_rest: the last column takes what stands behind too many commas, as in fashion-product tables.

    Raises:
        DatasetError: where it is no table at all.
    """
    try:
        if not path.is_file() or path.stat().st_size > MAX_TABLE_BYTES:
            raise DatasetError(_("{name} is no table that can be read: no file, or over 512 MB.", name=name))
        content = read_file(path, max_bytes=MAX_TABLE_BYTES)
    except OSError as error:
        raise DatasetError(_("{name} cannot be read ({reason}).", name=name, reason=error.strerror)) from error
    text, notes = _decode(content, name)
    if path.suffix.lower() in (".jsonl", ".json"):
        return _read_json(text, name, notes, lines=path.suffix.lower() == ".jsonl")
    return _read_csv(text, name, notes, last_takes_rest=last_takes_rest)


def _decode(content: bytes, name: str) -> tuple[str, list[SkippedFile]]:
    try:
        plain, place = without_marks(content.decode()), content.find(b"\0")
    except UnicodeDecodeError as error:
        plain, place = None, error.start
    if plain is not None and place < 0:
        return plain, []
    try:
        text, encoding = guess_text(content)
    except DatasetError as error:
        if plain is not None:  # a stray zero byte: its row alone is lost
            return plain, []
        raise DatasetError(_("{name} cannot be read: {error}", name=name, error=error)) from error
    sentence = _(
        "Byte {position}, 0x{byte:02x}, is not UTF-8: it is read as {encoding}. Look whether its letters are right; "
        "if not, save it as UTF-8.",
        position=place + 1,
        byte=content[place],
        encoding=encoding,
    )
    return text, [_left(name, N_("table not UTF-8"), sentence, lost=False)]


def csv_records(lines: Iterable[str], name: str) -> tuple[str, Iterator[tuple[int, list[str]]]]:
    """(the delimiter, each record with the line on which it begins); the first record is the head, if there is any.

    The delimiter is the one that stands most often in the head, outside of quotes, or what a line `sep=;` before it
    says, as Excel writes and reads it. Empty cells behind the head's last name are none: a spreadsheet's emptied
    columns. It is read strictly: no quote may swallow the rows behind it.

    Args:
        lines: with their ends as they are.
        name: what to call the table in errors.

    Raises:
        DatasetError: from the records, naming the line on which one begins that cannot be read.
    """
    lines = iter(lines)
    head, first = next(lines, ""), 1
    if separator := _SEPARATOR_LINE.fullmatch(head):
        head, first = next(lines, ""), 2
    while head.count('"') % 2 and len(head) <= MAX_CELL_CHARACTERS and (line := next(lines, "")):
        head += line  # a column's name may have several lines
    delimiter = separator[1] if separator else max(_DELIMITERS, key=_QUOTED.sub("", head).count)
    return delimiter, _csv_records(itertools.chain(io.StringIO(head, newline=""), lines), delimiter, name, first)


def _csv_records(lines: Iterable[str], delimiter: str, name: str, first: int) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_TABLE_BYTES))  # ours is checked for each row, by name
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    num_columns = 0
    while True:
        number = reader.line_num + first
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = _("a quote is opened and not closed") if "end of data" in str(error) else str(error)
            sentence = _(
                "{name} line {line} cannot be read ({reason}). Check its quotes.", name=name, line=number, reason=reason
            )
            raise DatasetError(sentence) from error
        while len(record) > num_columns and not record[-1].strip():
            record.pop()
        num_columns = num_columns or len(record)
        yield number, record


def json_lines(lines: Iterable[str]) -> Iterator[tuple[int, object]]:
    """Each line of JSON with its number and its value, or the error why it has none; empty lines are left out.

    Args:
        lines: ended by line feeds alone, as JSON lines are: other line ends may stand inside of a string.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, parse_json(line)
        except ValueError as error:
            yield number, error


def parse_json(text: str) -> object:
    """A value that whatever is done with it cannot run out of Python's stack.

    Raises:
        ValueError: where it is not JSON, or nested deeper than data is.
    """
    try:
        value: object = json.loads(text)
    except RecursionError as error:
        raise ValueError(_("nested too deep")) from error
    if text.count("[") + text.count("{") > MAX_NESTING:
        level, depth = [value], 0
        while level:
            level = [inner for outer in level for inner in _inside(outer)]
            depth += 1
            if depth > MAX_NESTING:
                raise ValueError(_("nested too deep"))
    return value


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _read_csv(text: str, name: str, skipped_files: list[SkippedFile], *, last_takes_rest: bool) -> Table:
    delimiter, numbered = csv_records(io.StringIO(text, newline=""), name)
    __, first = next(numbered, (1, []))
    if not any(first):
        raise DatasetError(_("{name} is empty, or its first line names no column.", name=name))
    columns = tuple(column.strip() for column in first)
    if len(set(columns)) != len(columns):
        raise DatasetError(
            _("{name} names a column twice: {names}. Rename one of them.", name=name, names=", ".join(columns))
        )
    rows = []
    for number, cells in numbered:
        if not any(map(str.strip, cells)):
            continue  # an empty line is no row
        if len(cells) > len(columns) and last_takes_rest:
            cells = [*cells[: len(columns) - 1], delimiter.join(cells[len(columns) - 1 :])]
        if problem := cell_problem(cells, columns):
            skipped_files.append(_left(row_name(name, number), N_("row unreadable"), problem))
        else:
            rows.append(TableRow(number, dict(zip(columns, (cell.strip() for cell in cells), strict=True))))
    return Table(name, columns, tuple(rows), tuple(skipped_files))


def row_name(table: str, number: int) -> str:
    """What a row of a table is called."""
    return _("{table} row {number}", table=table, number=number)


def cell_problem(cells: Sequence[str], columns: Sequence[str]) -> str:
    """What is wrong with a row, in a sentence; empty where nothing is."""
    if len(cells) < len(columns):
        return _(
            "The row has {num_cells} cells for {num_columns} columns, so it is not known which is missing.",
            num_cells=len(cells),
            num_columns=len(columns),
        )
    if len(cells) > len(columns):
        return _(
            "The row has {num_cells} cells for {num_columns} columns. Put texts with commas in quotes.",
            num_cells=len(cells),
            num_columns=len(columns),
        )
    return text_problem(cells)


def text_problem(texts: Iterable[str]) -> str:
    """Why texts of a row can be neither shown nor kept, in a sentence; empty where they can."""
    for text in texts:
        if "\0" in text:
            return _("The row holds a zero byte, so it is not plain text.")
        if len(text) > MAX_CELL_CHARACTERS:
            return _(
                "A cell has over {limit:,} characters, which is no caption. Perhaps a quote is not closed.",
                limit=MAX_CELL_CHARACTERS,
            )
        if half := _HALF_CHARACTER.search(text):
            return _(
                "The row holds half of a character (\\u{code:04x}), which no file can keep. Write it again.",
                code=ord(half[0]),
            )
    return ""


def _read_json(text: str, name: str, skipped_files: list[SkippedFile], *, lines: bool) -> Table:
    records = json_lines(text.split("\n")) if lines else enumerate(_whole_json(text, name), start=1)
    rows, columns, lists = [], dict[str, None](), set[str]()
    for number, record in records:
        if isinstance(record, Exception):
            problem = _("The line is not JSON ({error}).", error=record)
        elif not isinstance(record, dict) or not record:
            problem = _("The line holds no row of columns.")
        else:
            cells = {key: as_text(value) for key, value in record.items()}
            lists |= {key for key, value in record.items() if isinstance(value, list) and len(value) > 1}
            problem = text_problem(itertools.chain(cells, cells.values()))
        if problem:
            skipped_files.append(_left(row_name(name, number), N_("row unreadable"), problem))
            continue
        columns.update(dict.fromkeys(cells))
        rows.append(TableRow(number, cells))
    if not rows and not skipped_files:
        raise DatasetError(_("{name} is empty.", name=name))
    filled = tuple(TableRow(row.number, {column: row.cells.get(column, "") for column in columns}) for row in rows)
    return Table(name, tuple(columns), filled, tuple(skipped_files), frozenset(lists))


def _whole_json(text: str, name: str) -> list[object]:
    """The rows of a JSON file: a list of them, or sd-scripts' metadata by image (`meta_cap.json`).

    Raises:
        DatasetError: where it is neither.
    """
    try:
        whole = parse_json(text)
    except ValueError as error:
        raise DatasetError(_("{name} is not JSON ({error}).", name=name, error=error)) from error
    if isinstance(whole, list):
        return whole
    if not isinstance(whole, dict) or not whole or not all(map(_is_metadata, whole.values())):
        raise DatasetError(_("{name} holds no list of rows.", name=name))
    return [
        {"image": key} | value | {"image": key, "caption": as_text([value.get(k) for k in _METADATA_KEYS])}
        for key, value in whole.items()
    ]


def _is_metadata(value: object) -> bool:
    return isinstance(value, dict) and not value.keys().isdisjoint(_METADATA_KEYS)


def as_text(value: object) -> str:
    """As a cell of a CSV would say it; a list is its items with commas between, without those that are empty.

    NaN is how Python and pandas write that there is nothing; the word in quotes is a word.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list):
        return ", ".join(filter(None, map(as_text, value)))
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).strip()


def _left(name: str, code: str, sentence: str, *, lost: bool = True) -> SkippedFile:
    return SkippedFile(name=name, problem=Problem(code=code, severity="reject" if lost else "note", sentence=sentence))
