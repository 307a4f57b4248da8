"""A plan's own copy of all that decides its items, in its folder, and the digest that tells whether it is whole."""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np
from pydantic import ValidationError

from studio.batch_settings import BatchSettings
from studio.batches.rows import Rows, open_rows
from studio.batches.strides import Integers
from studio.errors import BatchError
from studio.files import replacing, write_atomically
from studio.results import Fact

PLAN = "plan.json"
LINES = "lines.jsonl"
RECORDS = "records.jsonl"
VARIANTS = "variants.bin"
WILDCARDS = "wildcards.json"
FORMAT = 1
"""Raised when the same files would give other items."""
_DECIDING = ("attributes", "combine", "total", "images_per_prompt", "generation")
_SPOOL_BYTES = 16 * 1024 * 1024


class PlanFacts(Fact):
    """What a plan's folder says of it, beside the rows."""

    format: Literal[1]
    settings: BatchSettings
    source_names: tuple[str, ...]
    table_columns: tuple[str, ...]
    wildcard_folder: str
    notes: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class PlanParts:
    """All that decides a plan's items.

    Attributes:
        lines: the prompts.
        records: the table that they are filled from; None where there is none.
        num_variants: (lines,) int64, how many variants each prompt has.
        wildcards: the values of every wildcard file that is used.
    """

    settings: BatchSettings
    source_names: tuple[str, ...]
    table_columns: tuple[str, ...]
    lines: Rows
    records: Rows | None
    num_variants: Integers
    wildcards: dict[str, tuple[str, ...]]
    wildcard_folder: Path
    notes: tuple[str, ...]

    def digest(self) -> str:
        """SHA-256 over all of it but the notes."""
        settings = self.settings.model_dump(mode="json", include=set(_DECIDING))
        head = [FORMAT, settings, self.source_names, self.table_columns, self.wildcards]
        total = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
        total.update(_bytes(self.num_variants))
        for rows in (self.lines, self.records):
            total.update(b"\0rows\0")
            for chunk in rows.chunks() if rows is not None else ():
                total.update(chunk)
        return total.hexdigest()


def variants_of(counts: Integers) -> Integers:
    """The counts of variants; where all are 1, in an array that takes no memory."""
    return np.broadcast_to(np.int64(1), counts.shape) if counts.max(initial=1) == 1 else counts


def _bytes(num_variants: Integers) -> bytes:
    """Nothing where all are 1: then the number of rows says it all."""
    return b"" if num_variants.max(initial=1) == 1 else num_variants.astype("<i8").tobytes()


def temporary_file() -> BinaryIO:
    """A file for rows that is gone with them; in memory while it is small."""
    return cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES))


def write_parts(parts: PlanParts, digest: str, folder: Path) -> None:
    """Write all of it; `plan.json` last: a folder without it holds no plan.

    Raises:
        OSError: where the folder cannot be written.
    """
    facts = PlanFacts(
        format=FORMAT,
        settings=parts.settings,
        source_names=parts.source_names,
        table_columns=parts.table_columns,
        wildcard_folder=str(parts.wildcard_folder),
        notes=parts.notes,
        digest=digest,
    )
    for name, rows in ((LINES, parts.lines), (RECORDS, parts.records)):
        if rows is None:
            (folder / name).unlink(missing_ok=True)  # of an attempt that ended early
            continue
        with replacing(folder / name) as file:
            file.writelines(rows.chunks())
    write_atomically(folder / VARIANTS, _bytes(parts.num_variants))
    write_atomically(folder / WILDCARDS, json.dumps(parts.wildcards, indent=1).encode() + b"\n")
    write_atomically(folder / PLAN, facts.model_dump_json(indent=2).encode() + b"\n")


def read_parts(folder: Path) -> tuple[PlanParts, str]:
    """Read a plan's folder, see that nothing in it was changed, and give its digest too.

    Raises:
        BatchError: where there is no plan, or it is damaged.
    """
    try:
        facts = PlanFacts.model_validate_json((folder / PLAN).read_bytes())
        wildcards = json.loads((folder / WILDCARDS).read_bytes())
        lines = open_rows(folder / LINES)
        counts = np.frombuffer((folder / VARIANTS).read_bytes(), dtype="<i8").astype(np.int64)
        parts = PlanParts(
            settings=facts.settings,
            source_names=facts.source_names,
            table_columns=facts.table_columns,
            lines=lines,
            records=open_rows(folder / RECORDS) if (folder / RECORDS).is_file() else None,
            num_variants=counts if len(counts) else np.broadcast_to(np.int64(1), (len(lines),)),
            wildcards={name: tuple(values) for name, values in wildcards.items()},
            wildcard_folder=Path(facts.wildcard_folder),
            notes=facts.notes,
        )
        digest = parts.digest()
    except FileNotFoundError as error:
        raise BatchError(f"There is no whole plan in {folder}: {Path(error.filename).name} is not there.") from error
    except OSError as error:
        raise BatchError(f"The plan in {folder} cannot be read ({error.strerror}).") from error
    except (ValidationError, ValueError, AttributeError, TypeError) as error:
        raise BatchError(f"The plan in {folder} is damaged, or of another version. Plan the batch anew.") from error
    if digest != facts.digest:
        raise BatchError(
            f"The plan in {folder} was changed after it was made: its files do not give the digest that it has. Plan "
            "the batch anew; what was made of it cannot be continued."
        )
    return parts, digest
