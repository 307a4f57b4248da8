"""How many pictures a plan has, and what is said of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studio.batch_settings import MAX_ITEMS, BatchSettings
from studio.batches.attributes import AttributeColumn
from studio.batches.layout import Layout
from studio.batches.plan_files import PlanParts
from studio.batches.strides import Integers
from studio.core.text import counted
from studio.errors import BatchError


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
            f"every combination would be {_large(num_prompts)} prompts, and at most {MAX_ITEMS:,} are possible. Take "
            "fewer values or variants, or set combine to random, with a total."
        )
    if quotas := [column for column in attributes if column.quotas]:
        return _by_quota(settings, quotas[0])
    wanted = settings.total or (num_rows if random else num_prompts) * settings.images_per_prompt
    if wanted > MAX_ITEMS:
        raise BatchError(
            f"it would be {_large(wanted)} pictures, and at most {MAX_ITEMS:,} are possible. Set total, or lower "
            f"images_per_prompt, got {settings.images_per_prompt}."
        )
    return wanted


def _by_quota(settings: BatchSettings, column: AttributeColumn) -> int:
    total = sum(column.quotas)
    if settings.total not in (None, total):
        raise BatchError(
            f"total is {settings.total:,}, but the quotas of {column.name} make {total:,}. Empty total, or change the "
            "quotas."
        )
    if settings.images_per_prompt > 1:
        raise BatchError(
            f"images_per_prompt must be 1 where columns have quotas, which count pictures; got "
            f"{settings.images_per_prompt}."
        )
    if total > MAX_ITEMS:
        raise BatchError(f"the quotas make {total:,} pictures, and at most {MAX_ITEMS:,} are possible.")
    return total


def _notes(
    settings: BatchSettings, attributes: Sequence[AttributeColumn], num_items: int, num_prompts: int
) -> list[str]:
    notes = []
    weighted = [column.name for column in attributes if len(set(column.weights)) > 1]
    if settings.combine == "random":
        if settings.total is not None and settings.images_per_prompt > 1:
            notes.append("images_per_prompt has no effect in a random plan with a total: each picture draws its own.")
        return notes
    if weighted:
        notes.append(
            f"The weights of {', '.join(weighted)} have no effect: every combination takes each value alike. They "
            "count in a random plan."
        )
    per_prompt, extra = divmod(num_items, num_prompts)
    if num_items < num_prompts:
        notes.append(
            f"There are {counted(num_prompts, 'prompt')} and {counted(num_items, 'picture')}: the pictures are spread "
            f"over the prompts, and {num_prompts - num_items:,} of them are left out."
        )
    elif extra:
        notes.append(
            f"{counted(num_prompts, 'prompt')} do not divide {counted(num_items, 'picture')} evenly: each is drawn "
            f"{per_prompt:,} or {per_prompt + 1:,} times."
        )
    return notes


def _exact_sum(numbers: Integers) -> int:
    """Exact beyond 64 bits too."""
    return int(numbers.sum()) if float(numbers.sum(dtype=np.float64)) < 2**62 else sum(numbers.tolist())


def _large(number: int) -> str:
    return f"{number:,}" if number < 10**18 else "over a quintillion"
