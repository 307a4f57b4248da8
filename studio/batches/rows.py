"""The rows of a plan, however many: kept as JSON lines, found by number, never all in memory.

Those of a text: one prompt a line, with sd-scripts' options at its end: `a red shoe --w 512 --h 512 --d 7 --n blurry`.
"""

import json
import re
import threading
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pydantic_core import PydanticSerializationError, to_json

from studio.core.errors import BatchError
from studio.core.files import open_file
from studio.core.language import _
from studio.datasets.tables import MAX_CELL_CHARACTERS

_CHUNK_BYTES = 1 << 17


class Row(NamedTuple):
    """One line of a text, or one record of a table.

    Attributes:
        source: which text or file it is of; the plan knows their names.
        number: of its line there, from 1.
        prompt: as written: columns and variants are still in it. Empty where the plan's own prompts are used.
        options: what was set at the line's end, by setting.
        cells: the values of the table's columns, in their order.
    """

    source: int
    number: int
    prompt: str
    options: dict[str, str]
    cells: tuple[str, ...]


class Rows:
    """Rows in a file. Reading needs no order and may be done in several threads."""

    def __init__(self, file: Path | BinaryIO, offsets: "array[int]") -> None:
        """`offsets` has one entry more than there are rows: where each begins, and the end."""
        self._file = file
        self._offsets = offsets
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> Row:
        """The row of this number; IndexError where there is none."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = self._offsets[index], self._offsets[index + 1]
        return _row(self._read(start, end - start))

    def cells(self) -> Iterator[list[tuple[str, ...]]]:
        """For some thousand rows at a time, the values of each column."""
        for chunk in self.chunks():
            rows = json.loads(b"[" + chunk.rstrip(b"\n").replace(b"\n", b",") + b"]")
            yield list(zip(*(row[-1] for row in rows), strict=True))

    def chunks(self) -> Iterator[bytes]:
        """The bytes of all rows, whole lines at a time."""
        start = 0
        for end in self._offsets:
            if end - start >= _CHUNK_BYTES:
                yield self._read(start, end - start)
                start = end
        if self._offsets[-1] > start:
            yield self._read(start, self._offsets[-1] - start)

    def _read(self, start: int, length: int) -> bytes:
        if isinstance(self._file, Path):
            with open_file(self._file) as file:
                file.seek(start)
                return file.read(length)
        with self._lock:
            self._file.seek(start)
            return self._file.read(length)


def write_rows(rows: Iterable[Row], file: BinaryIO) -> "array[int]":
    """Write rows into a file, from its beginning on.

    Returns:
        Where each row begins, in bytes, and where the last one ends.

    Raises:
        BatchError: where a text is none that can be written.
        OSError: where the disk is full.
    """
    offsets, end, chunk = array("Q", [0]), 0, bytearray()
    for row in rows:
        try:
            chunk += to_json(row)
        except PydanticSerializationError as error:
            raise BatchError(
                _(
                    "Row {number} holds half of a character ({half}), which no file can keep. Write the text again.",
                    number=row.number,
                    half=_half_character(row),
                )
            ) from error
        chunk += b"\n"
        offsets.append(end + len(chunk))
        if len(chunk) >= _CHUNK_BYTES:
            file.write(chunk)
            end, chunk = offsets[-1], bytearray()
    file.write(chunk)
    file.flush()
    return offsets


def _half_character(row: Row) -> str:
    """The first surrogate in a row's texts, as JSON writes it."""
    texts = "".join((row.prompt, *row.options, *row.options.values(), *row.cells))
    return next(f"\\u{ord(sign):04x}" for sign in texts if "\ud800" <= sign <= "\udfff")


def open_rows(path: Path) -> Rows:
    """Rows that were written before.

    Raises:
        OSError: where the file cannot be read.
    """
    offsets, start = array("Q", [0]), 0
    with open_file(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            place = chunk.find(b"\n")
            while place >= 0:
                offsets.append(start + place + 1)
                place = chunk.find(b"\n", place + 1)
            start += len(chunk)
    return Rows(path, offsets)


def _row(line: bytes) -> Row:
    source, number, prompt, options, cells = json.loads(line)
    return Row(source, number, prompt, options, tuple(cells))


OPTIONS = {
    "w": "width",
    "h": "height",
    "d": "seed",
    "l": "guidance_scale",
    "s": "num_inference_steps",
    "n": "negative_prompt",
}
_OPTION_START = re.compile(r"(?:^|\s)--(?=[A-Za-z])")


def read_lines(lines: Iterable[str], source: int, name: str) -> Iterator[Row]:
    """The rows of a text; empty lines, and those with # at their start, are none.

    Args:
        source: the number of the text, kept in its rows.
        name: of the text, in errors.

    Raises:
        BatchError: naming the line, where one is wrong.
    """
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if len(text) > MAX_CELL_CHARACTERS or "\0" in text:
            raise BatchError(
                _(
                    "{name} line {number} is no prompt: it holds a zero byte, or over {most:,} characters.",
                    name=name,
                    number=number,
                    most=MAX_CELL_CHARACTERS,
                )
            )
        if "--" not in text:
            yield Row(source, number, text, {}, ())
            continue
        prompt, options = _split_options(text, _("{name} line {number}", name=name, number=number))
        yield Row(source, number, prompt, options, ())


def _split_options(text: str, place: str) -> tuple[str, dict[str, str]]:
    prompt, *pieces = _OPTION_START.split(text)
    options: dict[str, str] = {}
    for piece in pieces:
        name, __, value = piece.partition(" ")
        if name not in OPTIONS:
            known = ", ".join(f"--{option} ({setting})" for option, setting in OPTIONS.items())
            raise BatchError(
                _(
                    "{place}: --{name} is no option here. Available: {options}. Change it, or leave it out.",
                    place=place,
                    name=name,
                    options=known,
                )
            )
        setting = OPTIONS[name]
        if setting in options:
            raise BatchError(_("{place} has --{name} twice. Keep one of them.", place=place, name=name))
        if not value.strip():
            raise BatchError(
                _(
                    "{place}: --{name} ({setting}) needs a value behind it, got nothing.",
                    place=place,
                    name=name,
                    setting=setting,
                )
            )
        options[setting] = value.strip()
    if not prompt.strip():
        raise BatchError(
            _(
                "{place} has no prompt, only options. Write the prompt before --{name}.",
                place=place,
                name=pieces[0].split(" ")[0],
            )
        )
    return prompt.strip(), options
