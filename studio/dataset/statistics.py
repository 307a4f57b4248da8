"""What is in a dataset, in numbers: sizes, captions, words, brightness, values of its columns."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from studio.dataset.row import DatasetRow

NUM_SIZES = 12
NUM_WORDS = 30
NUM_VALUES = 12
NUM_BINS = 10
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True)
class Counts:
    """Names with how often each occurs, most first; `num_others` occurrences of names that are not listed."""

    items: tuple[tuple[str, int], ...]
    num_others: int = 0


@dataclass(frozen=True)
class DatasetStatistics:
    """Of the pictures that training will use.

    Attributes:
        num_pictures: how many those are.
        caption_words: (words of a caption, captions with so many), fewest words first.
        brightness, border_whiteness: pictures in ten equal parts of 0 to 1.
        columns: the values of each column of the table.
    """

    num_pictures: int
    sizes: Counts
    buckets: Counts
    caption_words: tuple[tuple[int, int], ...]
    words: Counts
    brightness: tuple[int, ...]
    border_whiteness: tuple[int, ...]
    columns: dict[str, Counts]


def summarise(rows: Sequence[DatasetRow], *, bucket_of: Callable[[DatasetRow], str]) -> DatasetStatistics:
    """Count everything once.

    Args:
        bucket_of: a row's bucket in words; "" where it has none.
    """
    used = [(row, row.facts) for row in rows if row.is_used and row.facts is not None]
    words_of = [[word.casefold() for word in _WORD.findall(row.caption)] for row, _ in used]
    columns = dict.fromkeys(column for row, _ in used for column in row.attributes)
    return DatasetStatistics(
        num_pictures=len(used),
        sizes=_counts((f"{facts.width} × {facts.height}" for _, facts in used), NUM_SIZES),
        buckets=_counts((bucket_of(row) for row, _ in used), NUM_SIZES * 2),
        caption_words=tuple(sorted(Counter(map(len, words_of)).items())),
        words=_counts((word for words in words_of for word in set(words)), NUM_WORDS),
        brightness=_bins([facts.brightness for _, facts in used]),
        border_whiteness=_bins([facts.border_whiteness for _, facts in used]),
        columns={
            column: _counts((row.attributes.get(column) or "(empty)" for row, _ in used), NUM_VALUES)
            for column in columns
            if column.lower() not in ("id", "file_name")  # a name each: nothing to count
        },
    )


def _counts(names: Iterable[str], num_listed: int) -> Counts:
    counts = Counter(names)
    listed = counts.most_common(num_listed)
    return Counts(tuple(listed), counts.total() - sum(number for _, number in listed))


def _bins(shares: Sequence[float]) -> tuple[int, ...]:
    counts = Counter(min(NUM_BINS - 1, int(share * NUM_BINS)) for share in shares)
    return tuple(counts[i] for i in range(NUM_BINS))
