"""Which item of a plan has which row and values: mixed radix, even spreading, numbers drawn by number.

Numbers drawn for items by number: no state, so that an item is the same whoever asks for it, in any order.

splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), started by SHA-256 of
the seed and of what is drawn. `random.Random` would take ten seconds for a million items to set itself up.

Going through N places in strides, so that every part of the way sees a bit of everything.

`k -> (stride * k + offset) mod N` visits every place once where stride and N have no common divisor. Columns that are
laid out so must not run in step: of several strides the one is taken whose first items are spread best, by counting.
Which row, which values and which variant an item has: arithmetic on its number, for one item or a million.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from studio.batches.columns import AttributeColumn

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def uniform(seed: int, what: str, items: NDArray[np.int64]) -> NDArray[np.float64]:
    """One number from 0 to below 1 for each item. Another `what` gives numbers that have nothing to do with these."""
    key = np.uint64(int.from_bytes(_digest(seed, what)[:8], "big"))
    mixed = (items.astype(np.uint64) + np.uint64(1)) * _GOLDEN + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def item_seed(seed: int, item: int) -> int:
    """What `random.Random` is started with for one item."""
    return int.from_bytes(_digest(seed, f"item {item}"), "big")


def _digest(seed: int, what: str) -> bytes:
    return hashlib.sha256(f"{seed}:{what}".encode()).digest()


Integers = NDArray[np.int64]
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
_NUM_STRIDES = 24
_NUM_LOOKED_AT = 32_768
_MAX_CELLS = 40_000


@dataclass(frozen=True)
class Stride:
    """A way through `size` places, up to 10 million."""

    size: int
    stride: int
    offset: int

    def places(self, steps: Integers) -> Integers:
        """Where each step is."""
        return (steps % self.size * self.stride + self.offset) % self.size


@dataclass(frozen=True)
class Digits:
    """The values of one column at some places, as numbers from 0.

    Attributes:
        shares: of each value, how much of the whole it should have; they sum to 1.
    """

    values: Integers
    shares: NDArray[np.float64]


def choose_stride(
    size: int, num_steps: int, digits: Callable[[Integers], Sequence[Digits]], beside: Sequence[Integers] = ()
) -> Stride:
    """The stride whose first `num_steps` steps spread best over the values of some columns.

    Args:
        digits: for places, each column.
        beside: values of columns that are laid out already, at `steps_looked_at`; none may run in step with them.
    """
    steps = steps_looked_at(num_steps)
    return min(_candidates(size), key=lambda stride: _unevenness(digits(stride.places(steps)), beside))


def steps_looked_at(num_steps: int) -> Integers:
    """The steps for which `beside` is to be given."""
    return np.arange(min(num_steps, _NUM_LOOKED_AT), dtype=np.int64)


def _candidates(size: int) -> Iterator[Stride]:
    seen = set()
    for number in range(1, _NUM_STRIDES + 1):
        stride = _coprime_near(round(number * _GOLDEN_RATIO % 1 * size), size)
        for offset in (0, size // 4, size // 8):
            if (stride, offset) not in seen:
                seen.add((stride, offset))
                yield Stride(size, stride, offset)


def _coprime_near(wanted: int, size: int) -> int:
    for distance in range(size):
        for stride in (wanted + distance, wanted - distance):
            if 0 < stride < size and math.gcd(stride, size) == 1:
                return stride
    return 1


def _unevenness(columns: Sequence[Digits], beside: Sequence[Integers]) -> float:
    """By how many items counts are from what they should be: the most of any column, twice, and of any two."""
    worst = 0.0
    for index, column in enumerate(columns):
        if len(column.shares) <= _MAX_CELLS:
            counts = np.bincount(column.values, minlength=len(column.shares))
            worst = max(worst, 2 * float(np.abs(counts - column.shares * len(column.values)).max()))
        for other in (*(before.values for before in columns[:index]), *beside):
            worst = max(worst, _togetherness(column.values, other))
    return worst


def _togetherness(one: Integers, other: Integers) -> float:
    """How far the pairs of two columns are from what their counts alone would give, in items."""
    height, width = int(one.max()) + 1, int(other.max()) + 1
    if height * width > _MAX_CELLS:
        return 0.0
    pairs = np.bincount(one * width + other, minlength=height * width).reshape(height, width)
    expected = np.outer(pairs.sum(axis=1), pairs.sum(axis=0)) / len(one)
    return float(np.abs(pairs - expected).max())


@dataclass(frozen=True)
class Places:
    """Where items stand, all as (n,) int64.

    Attributes:
        record: number of the table's record, where the plan's own prompts are filled from a table; else 0.
        line: number of the prompt.
        values: for each column of attributes, the number of its value.
        variant: number of the prompt's variant; -1 where each item draws it.
        copy: how many earlier items have the same of all of this.
    """

    record: Integers
    line: Integers
    values: tuple[Integers, ...]
    variant: Integers
    copy: Integers


@dataclass(frozen=True)
class Layout:
    """All that decides where items stand.

    Attributes:
        num_variants: (lines,) int64: of each prompt; in a random plan all 1.
        random: each item draws for itself.
        seed: what chance begins with.
    """

    num_items: int
    num_records: int
    num_variants: Integers
    columns: tuple[AttributeColumn, ...]
    images_per_prompt: int
    random: bool
    seed: int

    def places(self, items: Integers) -> Places:
        """Where items stand, by number."""
        if self.random:
            return self._drawn(items)
        prompts, copies = self._prompts(items)
        record, line, free, variant = self._parts(prompts)
        rest = iter(free)
        values = tuple(self._by_quota(column, items) if column.quotas else next(rest) for column in self.columns)
        return Places(record, line, values, variant, copies)

    @cached_property
    def num_prompts(self) -> int:
        """How many different prompts there are, columns with quotas left aside."""
        return self.num_records * self._per_record

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(len(column.values) for column in self.columns if not column.quotas)

    @cached_property
    def _num_free(self) -> int:
        return int(np.prod(self._sizes, dtype=np.int64))

    @cached_property
    def _line_starts(self) -> Integers:
        """(lines + 1,): before how many prompts of a record each line's begin."""
        return np.concatenate([[0], np.cumsum(self.num_variants)]).astype(np.int64) * self._num_free

    @cached_property
    def _all_one(self) -> bool:
        return int(self.num_variants.max()) == 1

    @cached_property
    def _per_record(self) -> int:
        return int(self.num_variants.sum()) * self._num_free

    def _parts(self, prompts: Integers) -> tuple[Integers, Integers, list[Integers], Integers]:
        """A prompt's number taken apart: record, line, values and variant; the last one changes first."""
        record, rest = np.divmod(prompts, self._per_record)
        if self._all_one:
            line, free = np.divmod(rest, self._num_free)
            variant = np.zeros_like(line)
        else:
            line = np.searchsorted(self._line_starts, rest, side="right") - 1
            free, variant = np.divmod(rest - self._line_starts[line], self.num_variants[line])
        values = []
        for size in reversed(self._sizes):
            free, value = np.divmod(free, size)
            values.append(value)
        return record, line, values[::-1], variant

    def _prompts(self, items: Integers) -> tuple[Integers, Integers]:
        """The number of each item's prompt, and of its copy.

        Rounds through all prompts with `images_per_prompt` copies side by side, a last round with fewer, and then
        what is left over, one copy each, spread over all prompts.
        """
        size, per_prompt = self.num_prompts, self.images_per_prompt
        whole = self.num_items // size  # copies that every prompt has
        rounds = whole // per_prompt
        in_last = items - rounds * per_prompt * size
        last_copies = max(1, whole % per_prompt)
        in_rounds = in_last < 0
        round_number, in_round = np.divmod(items, per_prompt * size)
        prompts = np.where(in_rounds, in_round // per_prompt, in_last // last_copies)
        copies = np.where(in_rounds, round_number * per_prompt + in_round % per_prompt, rounds * per_prompt)
        copies = np.where(in_rounds, copies, copies + in_last % last_copies)
        left_over = items - whole * size
        if self.num_items % size == 0:
            return prompts, copies
        spread = self._spread.places(np.maximum(left_over, 0))
        return np.where(left_over < 0, prompts, spread), np.where(left_over < 0, copies, whole)

    @cached_property
    def _spread(self) -> Stride:
        """The way through the prompts for what is left over when each was made equally often."""

        def digits(prompts: Integers) -> list[Digits]:
            record, line, values, __ = self._parts(prompts)
            columns = [Digits(value, _equal(size)) for value, size in zip(values, self._sizes, strict=True)]
            if len(self.num_variants) > 1:
                columns.append(Digits(line, self.num_variants / self.num_variants.sum()))
            return columns + ([Digits(record, _equal(self.num_records))] if self.num_records > 1 else [])

        return choose_stride(self.num_prompts, self.num_items % self.num_prompts, digits)

    @cached_property
    def _quota_strides(self) -> dict[str, Stride]:
        steps = steps_looked_at(self.num_items)
        beside: list[Integers] = []
        if not self.random:
            __, line, free, __ = self._parts(self._prompts(steps)[0])
            beside = [*free, line]
        strides = {}
        for column in self.columns:
            if not column.quotas:
                continue

            def digits(places: Integers, column: AttributeColumn = column) -> list[Digits]:
                return [Digits(_block(column.quotas, places), np.array(column.quotas) / self.num_items)]

            strides[column.name] = choose_stride(self.num_items, self.num_items, digits, beside)
            beside.append(_block(column.quotas, strides[column.name].places(steps)))
        return strides

    def _by_quota(self, column: AttributeColumn, items: Integers) -> Integers:
        return _block(column.quotas, self._quota_strides[column.name].places(items))

    def _drawn(self, items: Integers) -> Places:
        num_rows = self.num_records * len(self.num_variants)
        row = (uniform(self.seed, "row", items) * num_rows).astype(np.int64)
        record, line = np.divmod(row, len(self.num_variants))
        values = tuple(
            self._by_quota(column, items)
            if column.quotas
            else _block(column.weights, uniform(self.seed, f"column {column.name}", items) * sum(column.weights))
            for column in self.columns
        )
        return Places(record, line, values, np.full_like(items, -1), items)


def _equal(size: int) -> NDArray[np.float64]:
    return np.full(size, 1 / size)


def _block(lengths: Sequence[float], places: NDArray[np.generic]) -> Integers:
    """In which of the blocks that lie one behind the other each place is."""
    return np.minimum(np.searchsorted(np.cumsum(lengths), places, side="right"), len(lengths) - 1).astype(np.int64)
