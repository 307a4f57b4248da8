"""What was found of each picture file, kept so that a second visit decodes nothing. A cache: losing it costs time."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from studio.dataset.picture_facts import PictureFacts

CHECK_VERSION = 2
"""Raise it whenever the same file would be judged otherwise."""

_CREATE = """
create table if not exists checks (
  path text, background text, num_bytes integer, modified_ns integer, version integer, facts text,
  primary key (path, background)
) without rowid
"""
_CHUNK = 400

Stamp = tuple[int, int]
"""A file's size in bytes and its time of change in nanoseconds."""


class CheckCache:
    """One SQLite file. A damaged one is set aside and made anew; each call opens it, so any thread may ask."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def find(self, stamps: Mapping[Path, Stamp], *, background: str) -> dict[Path, PictureFacts]:
        """What is known of the files as they are now."""
        found: dict[Path, PictureFacts] = {}
        with self._opened() as connection:
            for chunk in _chunks(stamps, _CHUNK):
                marks = ",".join("?" * len(chunk))
                rows = connection.execute(
                    "select path, num_bytes, modified_ns, facts from checks "
                    f"where background = ? and version = ? and path in ({marks})",
                    (background, CHECK_VERSION, *map(str, chunk)),
                )
                for path, num_bytes, modified_ns, facts in rows:
                    if stamps[Path(path)] == (num_bytes, modified_ns) and (known := _read(facts)):
                        found[Path(path)] = known
        return found

    def keep(self, checked: Sequence[tuple[Path, Stamp, PictureFacts]], *, background: str) -> None:
        """Remember what was found."""
        rows = [(str(p), background, *stamp, CHECK_VERSION, facts.model_dump_json()) for p, stamp, facts in checked]
        with self._opened() as connection, connection:
            connection.executemany("insert or replace into checks values (?, ?, ?, ?, ?, ?)", rows)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        try:
            connection = self._connect()
        except sqlite3.DatabaseError:
            self._file.replace(self._file.with_suffix(".damaged"))
            connection = self._connect()
        try:
            yield connection
        finally:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, timeout=30)
        try:
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = normal")
            connection.execute(_CREATE)
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection


def _read(facts: str) -> PictureFacts | None:
    try:
        return PictureFacts.model_validate_json(facts)
    except ValidationError:  # of another version: looked at again
        return None


def _chunks(paths: Iterable[Path], size: int) -> Iterator[list[Path]]:
    remaining = iter(paths)
    while chunk := list(islice(remaining, size)):
        yield chunk
