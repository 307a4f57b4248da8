"""A plan on the disk, and how many images it has.

A plan's own copy of all that decides its items, in its folder, and the digest that tells whether it is whole.

How many images a plan has, and what is said of it.
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast

import numpy as np
from pydantic import ValidationError

from studio.batches.columns import AttributeColumn
from studio.batches.layout import Integers, Layout
from studio.batches.rows import Rows, open_rows
from studio.batches.settings import MAX_ITEMS, BatchSettings
from studio.core.errors import BatchError
from studio.core.files import read_file, replacing, write_atomically
from studio.core.language import _, number
from studio.core.records import Record
from studio.core.text import counted

PLAN = "plan.json"
LINES = "lines.jsonl"
RECORDS = "records.jsonl"
VARIANTS = "variants.bin"
WILDCARDS = "wildcards.json"
FORMAT: Final = 2
"""Raised when the same files would give other items: since 2, a table's cells are text in the prompts they fill, and an
empty part of a choice takes no separator."""
_DECIDING = ("attributes", "combine", "total", "images_per_prompt", "generation")
_SPOOL_BYTES = 16 * 1024 * 1024


class PlanFacts(Record):
    """What a plan's folder says of it, beside the rows."""

    format: Literal[1, 2]
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
        format: of the plan that it was read from.
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
    format: Literal[1, 2] = FORMAT

    def digest(self) -> str:
        """SHA-256 over all of it but the notes."""
        settings = self.settings.model_dump(mode="json", include=set(_DECIDING))
        head = [self.format, settings, self.source_names, self.table_columns, self.wildcards]
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
        format=parts.format,
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
        facts = PlanFacts.model_validate_json(read_file(folder / PLAN))
        wildcards = json.loads(read_file(folder / WILDCARDS))
        lines = open_rows(folder / LINES)
        counts = np.frombuffer(read_file(folder / VARIANTS), dtype="<i8").astype(np.int64)
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
            format=facts.format,
        )
        digest = parts.digest()
    except FileNotFoundError as error:
        raise BatchError(
            _("There is no whole plan in {folder}: {file} is not there.", folder=folder, file=Path(error.filename).name)
        ) from error
    except OSError as error:
        raise BatchError(
            _("The plan in {folder} cannot be read ({reason}).", folder=folder, reason=error.strerror)
        ) from error
    except (ValidationError, ValueError, AttributeError, TypeError) as error:
        raise BatchError(
            _("The plan in {folder} is damaged, or of another version. Plan the batch again.", folder=folder)
        ) from error
    if digest != facts.digest:
        raise BatchError(
            _(
                "The plan in {folder} was changed after it was made: its files do not give the "
                "digest that it has. Plan the batch again; what was made from it cannot be continued.",
                folder=folder,
            )
        )
    return parts, digest


@dataclass(frozen=True)
class PlanSize:
    """Where every item of a plan stands, and what a user may not expect of their number."""

    layout: Layout
    notes: tuple[str, ...]


def plan_size(parts: PlanParts, attributes: Sequence[AttributeColumn]) -> PlanSize:
    """How many items there are, and how they are laid out.

    Raises:
        BatchError: where the settings contradict each other, or there would be over 10 million items.
    """
    settings, random = parts.settings, parts.settings.combine == "random"
    num_records = 1 if parts.records is None else len(parts.records)
    num_variants = np.broadcast_to(np.int64(1), parts.num_variants.shape) if random else parts.num_variants
    num_free = math.prod(len(column.values) for column in attributes if not column.quotas)
    num_prompts = _exact_sum(num_variants) * num_free * num_records
    num_items = _count_items(settings, attributes, len(num_variants) * num_records, num_prompts)
    layout = Layout(
        num_items=num_items,
        num_records=num_records,
        num_variants=num_variants,
        columns=tuple(attributes),
        images_per_prompt=settings.images_per_prompt,
        random=random,
        seed=settings.generation.seed,
    )
    return PlanSize(layout, tuple(_notes(settings, attributes, num_items, num_prompts)))


def _count_items(
    settings: BatchSettings, attributes: Sequence[AttributeColumn], num_rows: int, num_prompts: int
) -> int:
    """`num_rows` are the prompts as they were written, `num_prompts` those in every variant with every value."""
    random = settings.combine == "random"
    if not random and num_prompts > MAX_ITEMS:
        raise BatchError(
            _(
                "every combination would be {number} prompts, and at most {most:,} are possible. "
                "Take fewer values or variants, or set combine to random, with a total.",
                number=_large(num_prompts),
                most=MAX_ITEMS,
            )
        ).about("attributes", "prompts", "combine")
    if quotas := [column for column in attributes if column.quotas]:
        return _by_quota(settings, quotas[0])
    wanted = settings.total or (num_rows if random else num_prompts) * settings.images_per_prompt
    if wanted > MAX_ITEMS:
        raise BatchError(
            _(
                "it would be {number} images, and at most {most:,} are possible. Set total, or "
                "lower images_per_prompt, got {copies}.",
                number=_large(wanted),
                most=MAX_ITEMS,
                copies=settings.images_per_prompt,
            )
        ).about("total", "images_per_prompt")
    return wanted


def _by_quota(settings: BatchSettings, column: AttributeColumn) -> int:
    total = sum(column.quotas)
    if settings.total not in (None, total):
        raise BatchError(
            _(
                "total is {total:,}, but the quotas of {column} make {sum:,}. Clear total, or change the quotas.",
                total=settings.total,
                column=column.name,
                sum=total,
            )
        ).about("total", "attributes")
    if settings.images_per_prompt > 1:
        raise BatchError(
            _(
                "images_per_prompt must be 1 where columns have quotas, which count images; got {copies}.",
                copies=settings.images_per_prompt,
            )
        ).about("images_per_prompt", "attributes")
    if total > MAX_ITEMS:
        raise BatchError(
            _("the quotas make {number:,} images, and at most {most:,} are possible.", number=total, most=MAX_ITEMS)
        ).about("attributes")
    return total


def _notes(
    settings: BatchSettings, attributes: Sequence[AttributeColumn], num_items: int, num_prompts: int
) -> list[str]:
    notes = []
    weighted = [column.name for column in attributes if len(set(column.weights)) > 1]
    if settings.combine == "random":
        if settings.total is not None and settings.images_per_prompt > 1:
            notes.append(_("images_per_prompt has no effect in a random plan with a total: each image picks its own."))
        return notes
    if weighted:
        notes.append(
            _(
                "The weights of {names} have no effect: every combination takes each value alike. "
                "They count in a random plan.",
                names=", ".join(weighted),
            )
        )
    per_prompt, extra = divmod(num_items, num_prompts)
    if num_items < num_prompts:
        notes.append(
            _(
                "There are {prompts} and {images}: the images are spread over the prompts, and "
                "{num_left_out:,} of them are left out.",
                prompts=counted(num_prompts, "prompt", "prompts"),
                images=counted(num_items, "image", "images"),
                num_left_out=num_prompts - num_items,
            )
        )
    elif extra:
        notes.append(
            _(
                "{prompts} do not divide {images} evenly: each is drawn {least:,} or {most:,} times.",
                prompts=counted(num_prompts, "prompt", "prompts"),
                images=counted(num_items, "image", "images"),
                least=per_prompt,
                most=per_prompt + 1,
            )
        )
    return notes


def _exact_sum(numbers: Integers) -> int:
    """Exact beyond 64 bits too."""
    return int(numbers.sum()) if float(numbers.sum(dtype=np.float64)) < 2**62 else sum(numbers.tolist())


def _large(num: int) -> str:
    return number(num) if num < 10**18 else _("over a quintillion")
