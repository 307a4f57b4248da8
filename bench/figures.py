"""A measured figure: ours, a peer's, the ratio of their pairs, and the limit that it must keep."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of what was measured."""

    median: float
    least: float
    greatest: float


@dataclass(frozen=True)
class Peer:
    """Whom we compare with: what it took, and the ratios ours / theirs, one for each pair."""

    name: str
    theirs: Spread
    ratio: Spread


@dataclass(frozen=True)
class Figure:
    """One figure and its limit. With a peer the limit is for the median ratio, without one for our median."""

    name: str
    unit: str
    ours: Spread
    limit: float
    peer: Peer | None = None

    @property
    def reached(self) -> bool:
        """True where the limit is kept; a NaN keeps none."""
        return (self.peer.ratio if self.peer else self.ours).median <= self.limit


def spread(values: Sequence[float]) -> Spread:
    """Median, least and greatest of at least one value."""
    return Spread(median(values), min(values), max(values))


def plain_figure(name: str, values: Sequence[float], *, unit: str, limit: float) -> Figure:
    """A figure that is bounded by itself."""
    return Figure(name, unit, spread(values), limit)


def paired_figure(
    name: str, ours: Sequence[float], theirs: Sequence[float], *, peer: str, unit: str, limit: float
) -> Figure:
    """A figure that is bounded beside a peer's: `ours[i]` and `theirs[i]` were measured one right after the other.

    The median of the pairs' ratios, not the ratio of the medians: a machine that slows down for a while slows both
    sides of a pair, and its ratio stays.
    """
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    return Figure(name, unit, spread(ours), limit, Peer(peer, spread(theirs), spread(ratios)))


def measure_pairs(
    ours: Callable[[], float], theirs: Callable[[], float], *, pairs: int
) -> tuple[list[float], list[float]]:
    """Measure both sides in turns: ours first in the first pair, theirs first in the next, and so on.

    So what one side leaves behind (a hot processor, files in memory) helps or harms both alike.
    """
    our_values, their_values = [], []
    for pair in range(pairs):
        if pair % 2 == 0:
            our_values.append(ours())
            their_values.append(theirs())
        else:
            their_values.append(theirs())
            our_values.append(ours())
    return our_values, their_values
