"""How many items have each value of each column, counted without making the items."""

from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np

from studio.batches.attributes import AttributeColumn
from studio.batches.layout import Layout
from studio.batches.rows import Rows
from studio.batches.strides import Integers

MAX_COUNTED_VALUES = 200
_CHUNK_ITEMS = 65_536


def count_attributes(
    layout: Layout, attributes: Sequence[AttributeColumn], *, num_rows: int, by_record: bool
) -> tuple[dict[str, dict[str, int] | int], Integers]:
    """(items of each value of each column, (num_rows,) items of each row).

    Args:
        num_rows: how many rows with cells there are; 0 where they need not be counted.
        by_record: the rows are the layout's records, not its lines.
    """
    per_row = np.zeros(num_rows, np.int64)
    per_value = [np.zeros(len(column.values), np.int64) for column in attributes]
    for start in range(0, layout.num_items if num_rows or attributes else 0, _CHUNK_ITEMS):
        places = layout.places(np.arange(start, min(start + _CHUNK_ITEMS, layout.num_items), dtype=np.int64))
        if num_rows:
            _add(per_row, places.record if by_record else places.line)
        for counts, value in zip(per_value, places.values, strict=True):
            _add(counts, value)
    found: dict[str, dict[str, int] | int] = {}
    for column, counts in zip(attributes, per_value, strict=True):
        by_value = {value: int(number) for value, number in zip(column.values, counts, strict=True) if number}
        found[column.name] = by_value if len(by_value) <= MAX_COUNTED_VALUES else len(by_value)
    return found, per_row


def _add(counts: Integers, places: Integers) -> None:
    """Add to `counts` how often each place comes; in its reach alone, as neighbours have neighbouring places."""
    low, high = int(places.min()), int(places.max()) + 1
    counts[low:high] += np.bincount(places - low, minlength=high - low)


class CellCounter:
    """Counts the values of one column of a table; after 200 of them, only how many there are."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._hashes: array[int] | None = None

    def add(self, values: Sequence[str], numbers: Sequence[int]) -> None:
        """As many more items as the numbers say have these values."""
        if set(numbers) - {1}:
            values = [value for value, number in zip(values, numbers, strict=True) if number]
        if self._hashes is not None:
            self._hashes.extend(map(hash, values))
            return
        if len(values) == len(numbers) == sum(numbers):
            self._counts.update(values)
        else:
            for value, number in zip(values, filter(None, numbers), strict=True):
                self._counts[value] += number
        if len(self._counts) > MAX_COUNTED_VALUES:
            self._hashes = array("q", map(hash, self._counts))

    @property
    def result(self) -> dict[str, int] | int:
        """Items by value, or the number of values."""
        if self._hashes is None:
            return dict(self._counts)
        ordered = np.sort(np.frombuffer(self._hashes, dtype=np.int64))
        return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


def count_cells(rows: Rows, columns: Sequence[str], per_row: Integers) -> dict[str, dict[str, int] | int]:
    """Items of each value of a table's columns, from the number of items of each row."""
    counters = [CellCounter() for _ in columns]
    start = 0
    for chunk in rows.cells():
        numbers = per_row[start : start + len(chunk[0])].tolist()
        start += len(numbers)
        for counter, values in zip(counters, chunk, strict=True):
            counter.add(values, numbers)
    return {column: counter.result for column, counter in zip(columns, counters, strict=True)}
