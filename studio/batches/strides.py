"""Going through N places in strides, so that every part of the way sees a bit of everything.

`k -> (stride * k + offset) mod N` visits every place once where stride and N have no common divisor. Columns that are
laid out so must not run in step: of several strides the one is taken whose first items are spread best, by counting.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
_GOLDEN = (math.sqrt(5) - 1) / 2
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
        stride = _coprime_near(round(number * _GOLDEN % 1 * size), size)
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
