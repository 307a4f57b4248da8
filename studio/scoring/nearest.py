"""How near a picture comes to the training pictures: an index of them, built once, with limits of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from studio.dataset.pictures import open_rgb
from studio.errors import DatasetError, PictureFileError
from studio.results import Fact
from studio.scoring.descriptors import COLOUR_LENGTH, EDGES_LENGTH, Descriptor, View, describe
from studio.scoring.subject import find_subject
from studio.scoring.summary import Likeness
from studio.scoring.working import make_working

COPY_FLOOR, COPY_CEILING = 0.14, 0.25
"""Copies that were saved anew, resized, blurred or mirrored stay under the first, most shifted ones too; two pictures
further apart than the second are not copies, whatever the dataset is like."""
COPY_SHARE = 0.5
"""Of the distance of which only one in ten training pictures is nearer to its neighbour."""
CLOSE_PERCENTILE = 10
CLOSE_FACTOR = 1.25
NUM_CALIBRATION = 400
_NUM_PAIRS = 4000
_DEFAULT_SCALES = (25.0, 0.5)
"""Distances of colours (ΔE) and edges of two unlike pictures, for an index of one, or of one picture many times."""
_NUM_CANDIDATES = 8

Floats = NDArray[np.float32]


class Unreadable(Fact):
    """A file that could not be read, and why."""

    name: str
    reason: str


class NearestPicture(Fact):
    """The training picture that is nearest to a picture.

    Attributes:
        distance: 0 for the very same picture, about 1 for two pictures of the dataset taken at random.
        path: of the training picture.
        mirrored: whether it is nearest as seen in a mirror.
        likeness: in words, by the dataset's own distances.
    """

    distance: Annotated[float, Field(ge=0)]
    path: Path
    mirrored: bool
    likeness: Likeness


@dataclass(frozen=True)
class _Shelf:
    """One view of all pictures: (n, d), scaled so that two at random are about 1 apart; rows without one are inf."""

    rows_ND: Floats
    squares_N: Floats
    scales: tuple[float, float]

    def distances(self, query_D: Floats) -> Floats:
        """(n,) distances of one scaled query; rounded near 0, see `exact`."""
        with np.errstate(invalid="ignore"):
            squared_N = self.squares_N - 2 * (self.rows_ND @ query_D) + query_D @ query_D
        return np.sqrt(np.maximum(np.where(np.isfinite(squared_N), squared_N, np.inf), 0))

    def exact(self, query_D: Floats, index: int) -> float:
        """The distance to one picture, without the rounding of the fast way."""
        return float(np.sqrt(((self.rows_ND[index] - query_D) ** 2).sum()))


@dataclass(frozen=True)
class NearestIndex:
    """The training pictures, to be searched.

    Attributes:
        paths: of those that could be read.
        unreadable: the others.
        copy_limit, close_limit: distances under which a picture is `as a copy` and `close`.
        typical: the median distance of a training picture to the nearest other one; None for a single picture.
    """

    paths: tuple[Path, ...]
    unreadable: tuple[Unreadable, ...]
    copy_limit: float
    close_limit: float
    typical: float | None
    _whole: _Shelf
    _subject: _Shelf

    @classmethod
    def build(
        cls,
        paths: Sequence[Path],
        *,
        background: str = "#ffffff",
        on_picture: Callable[[int], None] = lambda number: None,
    ) -> "NearestIndex":
        """Look at every picture once: about 25 ms each.

        Args:
            background: `#rrggbb`, what transparency is laid on.
            on_picture: told how many were looked at.

        Raises:
            DatasetError: where none of them can be read.
        """
        read: list[Path] = []
        unreadable: list[Unreadable] = []
        descriptors: list[Descriptor] = []
        for number, path in enumerate(paths, start=1):
            try:
                working = make_working(np.asarray(open_rgb(path, background=background)))
            except PictureFileError as error:
                unreadable.append(Unreadable(name=path.name, reason=str(error)))
            else:
                read.append(path)
                descriptors.append(describe(working, find_subject(working)))
            on_picture(number)
        if not read:
            reason = f" The first: {unreadable[0].name}. {unreadable[0].reason}" if unreadable else ""
            raise DatasetError(f"There is no training picture to compare with.{reason}")
        return _index(tuple(read), tuple(unreadable), descriptors)

    def find(self, descriptor: Descriptor) -> NearestPicture:
        """The nearest picture by whichever view comes nearer, mirrored or not."""
        distance, index, mirrored = _search(self._whole, self._subject, descriptor)
        likeness: Likeness = "of its own"
        if distance < self.copy_limit:
            likeness = "as a copy"
        elif distance < self.close_limit:
            likeness = "close"
        return NearestPicture(distance=distance, path=self.paths[index], mirrored=mirrored, likeness=likeness)


def _index(
    paths: tuple[Path, ...], unreadable: tuple[Unreadable, ...], descriptors: Sequence[Descriptor]
) -> NearestIndex:
    whole = _shelf([descriptor.whole for descriptor in descriptors])
    subject = _shelf([descriptor.subject for descriptor in descriptors])
    copy_limit, close_limit, typical = _calibrate(whole, subject, descriptors)
    return NearestIndex(paths, unreadable, copy_limit, close_limit, typical, whole, subject)


def _calibrate(whole: _Shelf, subject: _Shelf, descriptors: Sequence[Descriptor]) -> tuple[float, float, float | None]:
    """The limits, by how near the training pictures come to each other (leave one out, 400 of them)."""
    if len(descriptors) < 2:
        return COPY_FLOOR, COPY_CEILING, None
    chosen = np.unique(np.linspace(0, len(descriptors) - 1, NUM_CALIBRATION).astype(int))
    nearest = [_search(whole, subject, descriptors[i], leave_out=int(i))[0] for i in chosen]
    few = float(np.percentile(nearest, CLOSE_PERCENTILE))
    copy_limit = min(max(COPY_SHARE * few, COPY_FLOOR), COPY_CEILING)
    return copy_limit, max(few, CLOSE_FACTOR * copy_limit), float(np.median(nearest))


def _search(
    whole: _Shelf, subject: _Shelf, descriptor: Descriptor, *, leave_out: int | None = None
) -> tuple[float, int, bool]:
    best = (float("inf"), 0, False)
    for shelf, view in ((whole, descriptor.whole), (subject, descriptor.subject)):
        if view is None:
            continue
        for mirrored in (False, True):
            query_D = _row(view.mirrored() if mirrored else view, shelf.scales)
            distances_N = shelf.distances(query_D)
            if leave_out is not None:
                distances_N[leave_out] = np.inf
            count = min(_NUM_CANDIDATES, len(distances_N))
            for index in np.argpartition(distances_N, count - 1)[:count]:
                if np.isfinite(distances_N[index]):
                    best = min(best, (shelf.exact(query_D, int(index)), int(index), mirrored))
    return best


def _shelf(views: Sequence[View | None]) -> _Shelf:
    scales = _measure_scales([view for view in views if view is not None])
    missing_D = np.full(COLOUR_LENGTH + EDGES_LENGTH, np.inf, np.float32)
    rows_ND = np.stack([missing_D if view is None else _row(view, scales) for view in views])
    return _Shelf(rows_ND, np.einsum("nd,nd->n", rows_ND, rows_ND), scales)


def _row(view: View, scales: tuple[float, float]) -> Floats:
    """(d,): colours and edges, each counting half of the squared distance between two unlike pictures."""
    colour, edges = (1 / (scale * 2**0.5) for scale in scales)
    # The colour's is a root mean square over places, in ΔE; the edges' a plain length.
    places = (COLOUR_LENGTH / 3) ** 0.5
    return np.concatenate([view.colour_YXC.ravel() * (colour / places), view.edges_YXO.ravel() * edges])


def _measure_scales(views: Sequence[View]) -> tuple[float, float]:
    """Medians over pairs taken at random (always the same ones) of how far colours and edges are apart."""
    if len(views) < 2:
        return _DEFAULT_SCALES
    pairs = np.random.default_rng(0).integers(len(views), size=(_NUM_PAIRS, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]][: 50 * len(views)]
    colours = np.stack([view.colour_YXC.ravel() for view in views])
    edges = np.stack([view.edges_YXO.ravel() for view in views])
    colour = float(np.median([np.linalg.norm(colours[i] - colours[j]) for i, j in pairs])) / (COLOUR_LENGTH / 3) ** 0.5
    edge = float(np.median([np.linalg.norm(edges[i] - edges[j]) for i, j in pairs]))
    # Pictures that are (nearly) all the same would make every other one endlessly far.
    return max(colour, _DEFAULT_SCALES[0] / 10), max(edge, _DEFAULT_SCALES[1] / 10)
