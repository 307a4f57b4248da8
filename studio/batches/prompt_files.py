"""Prompts as typed or in files, read a row at a time.

Files of prompts: text, CSV and JSON lines, read one row at a time, whatever their encoding.
Where the rows of a plan come from: the box of prompts, a file, or both.
"""

import codecs
import io
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from studio.batches.columns import IMAGE_FILE_COLUMNS, PROMPT_COLUMNS, check_columns
from studio.batches.rows import Row, read_lines
from studio.batches.settings import BatchSettings
from studio.core.errors import BatchError, DatasetError
from studio.core.files import guess_text, open_file, read_file
from studio.core.language import N_, _, ngettext
from studio.core.paths import typed_path
from studio.datasets.tables import (
    MAX_TABLE_BYTES,
    as_text,
    cell_problem,
    csv_records,
    json_lines,
    text_problem,
)

ENDINGS = (".txt", ".csv", ".tsv", ".jsonl")
_CHUNK_BYTES = 1 << 20


@dataclass
class PromptFile:
    """A file of prompts, before its rows are read.

    Attributes:
        columns: of a table, without the one of prompts; with it where that is plain text.
        prompt_column: its name in the file; empty where a table has none, and for a text.
        is_table: whether it has columns at all.
        notes: what was decided, in sentences; `rows` adds to them what it left out.
        rows: its rows, read anew each time; raises BatchError, naming the line.
    """

    name: str
    columns: tuple[str, ...]
    prompt_column: str
    is_table: bool
    notes: list[str]
    rows: Callable[[int], Iterator[Row]]


def open_prompt_file(path: Path) -> PromptFile:
    """Look into a file of prompts: what it is, and which columns it has.

    Raises:
        BatchError: where it cannot be read, or is none of the kinds.
    """
    if path.suffix.lower() not in ENDINGS:
        endings = ", ".join(ENDINGS)
        raise BatchError(_("prompt_file must end in {endings}, got {path!r}.", endings=endings, path=str(path)))
    if not path.is_file():
        raise BatchError(_("prompt_file: there is no file {path}. Choose another, or clear the field.", path=path))
    notes: list[str] = []
    lists = frozenset[str]()
    text = _text_source(path, notes)
    if path.suffix.lower() == ".txt":
        return PromptFile(path.name, (), "", False, notes, lambda source: _text_rows(text, source, path.name))
    if path.suffix.lower() == ".jsonl":
        columns, lists = _json_columns(text, path.name)
        make_rows = _json_rows
    else:
        columns = _csv_columns(text, path.name)
        make_rows = _csv_rows
    prompt = _prompt_column(columns)
    is_other = bool(prompt) and prompt.lower() != "prompt"
    is_text = is_other and any(column.lower() in IMAGE_FILE_COLUMNS for column in columns)
    if is_other:
        notes.append(_note_on_column(path.name, prompt, is_text=is_text))
    notes += [_note_on_lists(path.name, column, is_prompt=column == prompt) for column in sorted(lists)]
    others = tuple(column for column in columns if is_text or column != prompt)
    try:
        check_columns(others)
    except BatchError as error:
        raise BatchError(f"{path.name}: {error}") from error

    def rows(source: int) -> Iterator[Row]:
        skipped = 0
        for row in make_rows(text, source, path.name, columns, prompt):
            if prompt and not row.prompt:
                skipped += 1
                continue
            yield _as_cell(row, columns, prompt) if is_text else row
        if skipped:
            notes.append(
                ngettext(
                    "{name}: {num:,} row was left out, as it has no prompt.",
                    "{name}: {num:,} rows were left out, as they have no prompt.",
                    skipped,
                    name=path.name,
                    num=skipped,
                )
            )

    return PromptFile(path.name, others, prompt, True, notes, rows)


def _note_on_column(name: str, column: str, *, is_text: bool) -> str:
    """Which column is taken for the prompts where none is called so."""
    if not is_text:
        return _("{name} has no column prompt: its column {column} is taken for it.", name=name, column=column)
    return _(
        "{name} is a dataset's table: its column {column} is taken for the prompts, as plain text, whatever brackets "
        "and tags it holds. To use the prompt grammar in it, rename the column to prompt.",
        name=name,
        column=column,
    )


def _note_on_lists(name: str, column: str, *, is_prompt: bool) -> str:
    if not is_prompt:
        words = N_("{name}: the column {column} holds lists. The texts of each are joined with commas.")
    else:
        words = N_(
            "{name}: the column {column} holds lists. The texts of each are joined with commas; to make an image of "
            "each, write each on its own line."
        )
    return _(words, name=name, column=column)


def _as_cell(row: Row, columns: tuple[str, ...], prompt: str) -> Row:
    """The row with its prompt as a cell of the column that it came from, which is all of the prompt then."""
    cells = list(row.cells)
    cells.insert(columns.index(prompt), row.prompt)
    return row._replace(prompt=f"{{{prompt}}}", cells=tuple(cells))


def _prompt_column(columns: tuple[str, ...]) -> str:
    by_name = {column.lower(): column for column in columns}
    return next((by_name[name] for name in PROMPT_COLUMNS if name in by_name), "")


OpenText = Callable[[], AbstractContextManager[TextIO]]


def _text_source(path: Path, notes: list[str]) -> OpenText:
    """How to open the file as text, line ends as they are; only what is not UTF-8 is held in memory."""
    newline = "\n" if path.suffix.lower() == ".jsonl" else ""  # JSON lines end at it alone
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open_file(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                decoder.decode(chunk)
                if b"\0" in chunk:
                    return _guessed(path, notes, newline)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return _guessed(path, notes, newline)
    except OSError as error:
        raise BatchError(_("{path} cannot be read ({reason}).", path=path, reason=error.strerror)) from error
    return lambda: io.TextIOWrapper(_past_marks(open_file(path)), encoding="utf-8", newline=newline)


def _past_marks(file: io.BufferedReader) -> io.BufferedReader:
    while file.peek(len(codecs.BOM_UTF8)).startswith(codecs.BOM_UTF8):
        file.read(len(codecs.BOM_UTF8))
    return file


def _guessed(path: Path, notes: list[str], newline: str) -> OpenText:
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise BatchError(_("{name} is not UTF-8 and has over 512 MB. Save it as UTF-8.", name=path.name))
    try:
        text, encoding = guess_text(read_file(path, max_bytes=MAX_TABLE_BYTES))
    except DatasetError as error:
        raise BatchError(_("{name} cannot be read: {error}", name=path.name, error=error)) from error
    notes.append(
        _(
            "{name} is not UTF-8: it is read as {encoding}. Check that its characters are right; "
            "if not, save it as UTF-8.",
            name=path.name,
            encoding=encoding,
        )
    )
    return lambda: io.StringIO(text, newline=newline)


def _text_rows(text: OpenText, source: int, name: str) -> Iterator[Row]:
    with text() as file:
        yield from read_lines(file, source, name)


def _csv_columns(text: OpenText, name: str) -> tuple[str, ...]:
    with text() as file:
        number, columns = next(_csv_records(file, name), (1, []))
    if not any(columns):
        raise BatchError(
            _("{name} is empty, or its first line names no column. Write the columns' names there.", name=name)
        )
    if "" in columns or len(set(columns)) < len(columns):
        raise BatchError(
            _(
                "{name} line {number} must name each column, and each once, got {names!r}.",
                name=name,
                number=number,
                names=", ".join(columns),
            )
        )
    return tuple(columns)


def _csv_rows(text: OpenText, source: int, name: str, columns: tuple[str, ...], prompt: str) -> Iterator[Row]:
    place = columns.index(prompt) if prompt else None
    with text() as file:
        for number, cells in itertools.islice(_csv_records(file, name), 1, None):
            if any(cells):
                if problem := cell_problem(cells, columns):
                    raise BatchError(_("{name} line {number}: {problem}", name=name, number=number, problem=problem))
                own = "" if place is None else cells.pop(place)
                yield Row(source, number, own, {}, tuple(cells))


def _csv_records(file: TextIO, name: str) -> Iterator[tuple[int, list[str]]]:
    __, records = csv_records(file, name)
    try:
        for number, record in records:
            yield number, [cell.strip() for cell in record]
    except DatasetError as error:
        raise BatchError(str(error)) from error


def _json_records(text: OpenText, name: str) -> Iterator[tuple[int, dict[str, object]]]:
    with text() as file:
        for number, record in json_lines(file):
            if isinstance(record, Exception):
                raise BatchError(
                    _("{name} line {number} is not JSON ({error}).", name=name, number=number, error=record)
                ) from record
            if not isinstance(record, dict):
                shown = json.dumps(record, ensure_ascii=False)[:40]
                raise BatchError(
                    _(
                        '{name} line {number} must be columns as {{"prompt": …}}, got {given!r}.',
                        name=name,
                        number=number,
                        given=shown,
                    )
                )
            yield number, record


def _json_columns(text: OpenText, name: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """The columns, and those of them with lists of several texts."""
    columns, lists = dict[str, None](), set[str]()
    for number, record in _json_records(text, name):
        if problem := text_problem(record):
            raise BatchError(_("{name} line {number}: {problem}", name=name, number=number, problem=problem))
        columns.update(dict.fromkeys(record))
        lists |= {column for column, value in record.items() if isinstance(value, list) and len(value) > 1}
    if not columns:
        raise BatchError(_('{name} holds no row. Write one on each line: {{"prompt": "a red shoe"}}.', name=name))
    if any(not column or column != column.strip() for column in columns):
        raise BatchError(
            _(
                "{name} has a column without a name, or with spaces around it, got {columns}.",
                name=name,
                columns=list(columns),
            )
        )
    return tuple(columns), frozenset(lists)


def _json_rows(text: OpenText, source: int, name: str, columns: tuple[str, ...], prompt: str) -> Iterator[Row]:
    others = [column for column in columns if column != prompt]
    for number, record in _json_records(text, name):
        cells = [as_text(record.get(column)) for column in others]
        own = as_text(record.get(prompt)) if prompt else ""
        if problem := text_problem((own, *cells)):
            raise BatchError(_("{name} line {number}: {problem}", name=name, number=number, problem=problem))
        yield Row(source, number, own, {}, tuple(cells))


BOX = "prompts"


@dataclass(frozen=True)
class Sources:
    """What a plan is made of, before it is checked.

    Attributes:
        names: of the box and the file, by a row's `source`, for messages.
        columns: of the file's table.
        lines: rows with a prompt each; with the table's cells, where it has a column of prompts.
        records: rows with cells alone, which every line is filled from; None where there are none.
        notes: what was decided; reading the rows adds what was left out.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    lines: Iterator[Row]
    records: Iterator[Row] | None
    notes: list[str]


def find_sources(settings: BatchSettings) -> Sources:
    """Look into the box and the file.

    Raises:
        BatchError: where they do not go together, or one cannot be read.
    """
    box = list(read_lines(io.StringIO(settings.prompts, newline=None), 0, BOX))
    if not settings.prompt_file.strip():
        if not box:
            raise BatchError(_("prompts holds no prompt, only comments. Write one, or choose a prompt file."))
        return Sources((BOX,), (), iter(box), None, [])
    file = open_prompt_file(typed_path(settings.prompt_file.strip()))
    names = (BOX, file.name)
    if not file.is_table:
        return Sources(names, (), _both(box, file), None, file.notes)
    if not file.prompt_column:
        if not box:
            raise BatchError(
                _(
                    "{name} has no column prompt, text or caption; it has: {columns}. Rename one, or write "
                    "a prompt with its columns in prompts: a {{{column}}} shoe.",
                    name=file.name,
                    columns=", ".join(file.columns),
                    column=file.columns[0],
                )
            )
        return Sources(names, file.columns, iter(box), file.rows(1), file.notes)
    if box:
        raise BatchError(
            _(
                "{name} has its own prompts, in the column {column}, and prompts has some too. Empty "
                "prompts, or rename the column to use its rows in them.",
                name=file.name,
                column=file.prompt_column,
            )
        )
    return Sources(names, file.columns, file.rows(1), None, file.notes)


def _both(box: list[Row], file: PromptFile) -> Iterator[Row]:
    yield from box
    yield from file.rows(1)
