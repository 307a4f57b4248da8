"""A snapshot: exactly what training reads, file by file, so that a change is noticed and a run can be repeated."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from studio.core.errors import DatasetError
from studio.core.files import write_atomically
from studio.core.results import Record
from studio.datasets.source import DatasetRecipe, DatasetRow


class SnapshotEntry(Record):
    """One image as it is trained on. Sizes are in bytes and upright pixels."""

    key: str
    path: str
    sha256: str
    num_bytes: int
    width: int
    height: int
    caption: str
    repeats: int
    attributes: Mapping[str, str] = {}
    needs_conversion: bool = False


class SnapshotHeader(Record):
    """What the entries come from; `digest` is the sha256 over all their lines."""

    name: str
    made_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    recipe: DatasetRecipe
    num_pictures: int
    digest: str


@dataclass(frozen=True)
class Snapshot:
    """A header and its entries, in the order of the dataset."""

    header: SnapshotHeader
    entries: tuple[SnapshotEntry, ...]


def make_snapshot(name: str, recipe: DatasetRecipe, rows: Sequence[DatasetRow]) -> Snapshot:
    """The rows that training will use.

    Raises:
        DatasetError: where there are none.
    """
    entries = tuple(_entry(row) for row in rows if row.is_used)
    if not entries:
        raise DatasetError(f"No image of {name} can be trained on: the doctor says why.")
    header = SnapshotHeader(name=name, recipe=recipe, num_pictures=len(entries), digest=_digest(entries))
    return Snapshot(header, entries)


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write it as JSON lines, the header first.

    Raises:
        OSError: where it cannot be written; what was there is untouched.
    """
    lines = [snapshot.header.model_dump_json(), *(entry.model_dump_json() for entry in snapshot.entries)]
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def read_snapshot(path: Path) -> Snapshot:
    """Read what `write_snapshot` wrote.

    Raises:
        DatasetError: where it is not there, or not as it was written.
    """
    try:
        header, *lines = path.read_bytes().splitlines()
        snapshot = Snapshot(
            SnapshotHeader.model_validate_json(header), tuple(SnapshotEntry.model_validate_json(x) for x in lines)
        )
    except (OSError, ValidationError, ValueError) as error:
        raise DatasetError(f"The snapshot {path} cannot be read ({type(error).__name__}). Make it again.") from error
    if snapshot.header.digest != _digest(snapshot.entries):
        raise DatasetError(f"The snapshot {path} was changed since it was made. Make it again.")
    return snapshot


def changed_since(snapshot: Snapshot) -> tuple[str, ...]:
    """A sentence for every file that is no longer what it was."""
    sentences = []
    for entry in snapshot.entries:
        try:
            content = Path(entry.path)
            same = content.stat().st_size == entry.num_bytes and sha256_of(content) == entry.sha256
        except OSError as error:
            sentences.append(f"{entry.key} can no longer be read ({error.strerror}).")
            continue
        if not same:
            sentences.append(f"{entry.key} is another file than when the snapshot was made.")
    return tuple(sentences)


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hexadecimal.

    Raises:
        OSError: where it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(row: DatasetRow) -> SnapshotEntry:
    facts = row.facts
    assert facts is not None  # a used row was checked
    return SnapshotEntry(
        key=row.key,
        path=str(row.path),
        sha256=facts.sha256,
        num_bytes=facts.num_bytes,
        width=facts.width,
        height=facts.height,
        caption=row.caption,
        repeats=row.repeats,
        attributes=row.attributes,
        needs_conversion=any(problem.severity == "convert" for problem in facts.problems),
    )


def _digest(entries: Sequence[SnapshotEntry]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(entry.model_dump_json().encode() + b"\n")
    return digest.hexdigest()
