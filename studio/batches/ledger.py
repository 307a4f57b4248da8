"""The ledger of a batch: what was made, what failed, what was rejected.

What was seen of a batch's image, as its row keeps it. Apart from the ledger: scores bring scipy along.

What was made of a batch: a row for each item that is done or failed, and for each image that was rejected.

Each process writes a ledger of its own, so that processes and machines on a shared folder never wait for one another;
whoever reads looks at all of them. The image is on the disk before its row is: a row without its image cannot be,
and an image without its row is made again, to the same bytes.
"""

import heapq
import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, get_args

from pydantic import Field, ValidationError

from studio.batches.settings import MAX_ITEMS
from studio.core.errors import BatchError
from studio.core.language import N_, _
from studio.core.records import Record
from studio.core.results import Check
from studio.images.scores.image import PictureScores


class ItemFacts(Record):
    """An image's checks, and its scores."""

    checks: tuple[Check, ...] = ()
    scores: PictureScores | None = None


ItemState = Literal["done", "failed", "rejected", "again"]
"""The image is in the dataset; could not be made; was rejected by a person; or is to be made again."""
RecordT = TypeVar("RecordT", bound=Record)
_BUSY_SECONDS = 30
_ROWS_AT_ONCE = 5000
_TABLES = """
create table items (
    seq integer primary key autoincrement,
    item integer not null unique,
    state text not null,
    file text not null,
    sha256 text not null,
    num_bytes integer not null,
    content text not null,
    seed integer not null,
    attempts integer not null,
    seconds real not null,
    made_at text not null,
    reason text not null,
    facts text not null
);
create table rejections (
    seq integer primary key autoincrement,
    item integer not null,
    attempt integer not null,
    seed integer not null,
    reason text not null,
    file text not null,
    made_at text not null,
    unique (item, attempt)
);
"""
_VERSION = 1
_DAMAGED = N_(
    "The batch's ledger has a damaged row (item {item}). Move its folder `ledgers` away, "
    "then resume: its images are made again."
)


class ItemRow(Record):
    """One item that needs nothing more.

    Attributes:
        file: of the image, below the batch's folder; "" of a failed one. In `rejected` where a person set it aside.
        sha256, num_bytes: of that file.
        content: the image's perceptual hash (64 bits as hex) and the sha256 of its pixels, `phash:sha256`.
        seed: that made it: the planned one, or after rejections one derived from it.
        attempts: how often it was made. A failed item with tries left was ended by an error; it can be tried again.
        seconds: that its making took in all, rejected ones too.
        reason: why it failed.
        facts: `studio.batches.ledger.ItemFacts` as JSON: read by those who need scores, and not by the page.
    """

    item: int = Field(ge=0, lt=MAX_ITEMS)
    state: ItemState
    file: str = ""
    sha256: str = ""
    num_bytes: int = 0
    content: str = ""
    seed: int
    attempts: int
    seconds: float
    made_at: str
    reason: str = ""
    facts: str = "{}"


class RejectionRow(Record):
    """One image that was made and not taken; the item was tried again with another seed."""

    item: int
    attempt: int
    seed: int
    reason: str
    file: str = ""
    made_at: str


class Ledger:
    """The ledger that one process writes. It belongs to one thread."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it.

        Raises:
            BatchError: where it cannot be used, or is of another version.
        """
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
            # No WAL: it needs memory that machines on a shared folder do not share.
            self._connection.execute("pragma synchronous = full")
            if self._version() == 0:
                with self._connection:
                    self._connection.executescript(f"begin immediate;{_TABLES}pragma user_version = {_VERSION};commit;")
        except sqlite3.Error as error:
            raise self._problem(error) from error
        if self._version() != _VERSION:
            raise BatchError(_("{path} was made by another version of the studio. Start a new batch.", path=path))

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def add(self, row: ItemRow) -> None:
        """Note an item as done or failed; on the disk when this returns. What was noted of it before is replaced.

        Raises:
            OSError: where the disk is full.
            BatchError: where it cannot be written for another reason.
        """
        self._insert("items", row.model_dump())

    def reject(self, row: RejectionRow) -> None:
        """Note an image that was not taken.

        Raises:
            OSError, BatchError: as `add`.
        """
        self._insert("rejections", row.model_dump())

    def forget(self, items: Sequence[int]) -> None:
        """Take rows back, so that their items are made again.

        Raises:
            OSError, BatchError: as `add`.
        """
        self._execute("delete from items where item = ?", [(item,) for item in items])

    def _insert(self, table: str, values: dict[str, object]) -> None:
        columns, marks = ", ".join(values), ", ".join("?" * len(values))
        self._execute(f"insert or replace into {table} ({columns}) values ({marks})", [tuple(values.values())])

    def _execute(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        try:
            self._connection.execute("begin immediate")
            with self._connection:
                self._connection.executemany(statement, rows)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise OSError(28, "No space left on device", str(self._path)) from error
            raise self._problem(error) from error
        except sqlite3.Error as error:
            raise self._problem(error) from error

    def _version(self) -> int:
        return int(self._connection.execute("pragma user_version").fetchone()[0])

    def _problem(self, error: sqlite3.Error) -> BatchError:
        return BatchError(
            _(
                "The batch's ledger {path} cannot be used ({error}). Check that the disk works and is writable.",
                path=self._path,
                error=error,
            )
        )


def ledger_files(folder: Path) -> tuple[Path, ...]:
    """Every process's ledger."""
    return tuple(sorted(folder.glob("process-*.db"))) if folder.is_dir() else ()


def read_items(folder: Path) -> Iterator[ItemRow]:
    """Every row of all ledgers by the item's number; of an item that two ledgers have, the later try.

    Raises:
        BatchError: where a ledger cannot be read.
    """
    return (latest_row(row for __, row in found) for found in read_rows(folder))


def read_rows(folder: Path) -> Iterator[Sequence[tuple[Path, ItemRow]]]:
    """Of each item, by its number, every ledger that has it, and its row there.

    Raises:
        BatchError: where a ledger cannot be read.
    """
    ledgers = (_item_rows(path) for path in ledger_files(folder))
    for __, found in itertools.groupby(heapq.merge(*ledgers, key=_item_of), key=_item_of):
        yield tuple(found)


def latest_row(rows: Iterable[ItemRow]) -> ItemRow:
    """Of an item's rows the later try."""
    return max(rows, key=lambda row: (row.attempts, row.state != "done"))


def read_rejections(folder: Path) -> Iterator[RejectionRow]:
    """Every image that was not taken, by item and attempt.

    Raises:
        BatchError: where a ledger cannot be read.
    """
    rows = (_rejection_rows(path) for path in ledger_files(folder))
    return heapq.merge(*rows, key=lambda row: (row.item, row.attempt))


def states_since(path: Path, seq: int) -> list[tuple[int, int, ItemState]]:
    """(number, item, state) of what one ledger noted after a number: quick, also for a hundred thousand.

    Raises:
        BatchError: where it cannot be read.
    """
    found = _rows(path, "select seq, item, state from items where seq > ? order by seq", seq)
    return [(row["seq"], *_state(row)) for row in found]


def rows_of(folder: Path, item: int) -> tuple[tuple[Path, ItemRow], ...]:
    """Every ledger that has an item, and its row there.

    Raises:
        BatchError: where a ledger cannot be read.
    """
    return tuple(
        (path, _item(row))
        for path in ledger_files(folder)
        for row in _rows(path, "select * from items where item = ?", item)
    )


class ItemKey(NamedTuple):
    """What an item is found and sorted by; `score` is None where its image has none."""

    item: int
    state: ItemState
    attempts: int
    made_at: str
    score: float | None


def item_keys(folder: Path, *, score: str) -> list[ItemKey]:
    """Of every item, by its number: a record of a hundred thousand would take seconds.

    Args:
        score: where the number stands in `ItemFacts`, such as `scores.sharpness`.

    Raises:
        BatchError: where a ledger cannot be read.
    """
    found: dict[int, ItemKey] = {}
    number = f"case when json_valid(facts) then json_extract(facts, '$.{score}') end as score"
    for path in ledger_files(folder):
        for row in _rows(path, f"select item, state, attempts, made_at, {number} from items"):
            item, state = _state(row)
            score_of = row["score"] if isinstance(row["score"], int | float) else None
            key = ItemKey(item, state, row["attempts"], row["made_at"], score_of)
            known = found.get(item)
            if known is None or (key.attempts, key.state != "done") > (known.attempts, known.state != "done"):
                found[item] = key
    return [found[item] for item in sorted(found)]


def count_rows_rejected(path: Path) -> int:
    """How many images of one ledger were not taken.

    Raises:
        BatchError: where it cannot be read.
    """
    return sum(row["number"] for row in _rows(path, "select count(*) as number from rejections"))


def _item_rows(path: Path) -> Iterator[tuple[Path, ItemRow]]:
    """Some at a time: a read that goes on for long would keep the ledger's own process from writing."""
    after = -1
    while rows := [*_rows(path, "select * from items where item > ? order by item limit ?", after, _ROWS_AT_ONCE)]:
        yield from ((path, _item(row)) for row in rows)
        after = rows[-1]["item"]


def _item_of(found: tuple[Path, ItemRow]) -> int:
    return found[1].item


def _rejection_rows(path: Path) -> Iterator[RejectionRow]:
    for row in _rows(path, "select * from rejections order by item, attempt"):
        yield _record(RejectionRow, row)


def _item(row: sqlite3.Row) -> ItemRow:
    return _record(ItemRow, row)


def _state(row: sqlite3.Row) -> tuple[int, ItemState]:
    """Item and state alone: of a hundred thousand rows no records are made."""
    item, state = row["item"], row["state"]
    known: dict[object, ItemState] = {name: name for name in get_args(ItemState)}
    if not isinstance(item, int) or not 0 <= item < MAX_ITEMS or state not in known:
        raise BatchError(_(_DAMAGED, item=item))
    return item, known[state]


def _record(kind: type[RecordT], row: sqlite3.Row) -> RecordT:
    try:
        return kind(**{name: row[name] for name in kind.model_fields})
    except ValidationError as error:
        raise BatchError(_(_DAMAGED, item=row["item"])) from error


def _rows(path: Path, statement: str, *values: int) -> Iterator[sqlite3.Row]:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)) as connection:
            connection.row_factory = sqlite3.Row
            yield from connection.execute(statement, values)
    except sqlite3.Error as error:
        if "no such table" not in str(error):  # of a ledger that is just being made
            raise BatchError(
                _("The batch's ledger {path} cannot be read ({error}).", path=path, error=error)
            ) from error
