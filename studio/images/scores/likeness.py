"""How near an image comes to the nearest of a set.

An image in numbers that hardly change when it is saved anew, shifted or mirrored: its colours and its edges.

Two views of each image: the whole of it, and a square around the subject, so that a copy which only stands
elsewhere is still a copy.

How near an image comes to the training images: an index of them, built once, with limits of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from scipy import ndimage

from studio.core.errors import DatasetError, PictureFileError
from studio.core.language import _
from studio.core.records import Record
from studio.images.decoding import open_rgb
from studio.images.scores.colour import rgb_to_lab
from studio.images.scores.subject import Subject, WorkingPicture, find_subject, make_working
from studio.images.scores.summary import Likeness

COLOUR_SIDE = 16
CELLS, ORIENTATIONS = 8, 6
COLOUR_LENGTH = COLOUR_SIDE * COLOUR_SIDE * 3
EDGES_LENGTH = CELLS * CELLS * ORIENTATIONS
SUBJECT_REACH = 2.0
"""Half the square around the subject, in standard deviations of its pixels: a little more than all of it."""
_LOW_PASS = 1.0
_EDGE_BLUR = 1.6  # a shift by half a pixel changes crisper edges more than another shoe does
_EDGE_SIDE = 64
_FLAT = 4.0  # of L*, summed over a cell's edges: under it there is only noise

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """One view of an image.

    Attributes:
        colour_YXC: (16, 16, 3) CIELAB, low-passed.
        edges_YXO: (8, 8, 6) how much of each direction (0 to π, no sign) each cell's edges have, square roots; of
            length 1 over the image, or less where it has hardly any edges.
    """

    colour_YXC: Floats
    edges_YXO: Floats

    def mirrored(self) -> "View":
        """The same of the image seen in a mirror."""
        return View(self.colour_YXC[:, ::-1], self.edges_YXO[:, ::-1, ::-1])


@dataclass(frozen=True)
class Descriptor:
    """An image's two views; `subject` is None where none can be told from the ground."""

    whole: View
    subject: View | None


def describe(working: WorkingPicture, subject: Subject) -> Descriptor:
    """Look at an image as a whole and around its subject."""
    around = None if subject.mask_HW is None else _view(_square_around(working.rgb_HWC, subject.mask_HW))
    whole = Image.fromarray(working.rgb_HWC).resize((_EDGE_SIDE, _EDGE_SIDE), Image.Resampling.BOX)
    return Descriptor(_view(whole), around)


def _view(image: Image.Image) -> View:
    lab = rgb_to_lab(np.asarray(image))
    step = _EDGE_SIDE // (2 * COLOUR_SIDE)
    fine = lab.reshape(2 * COLOUR_SIDE, step, 2 * COLOUR_SIDE, step, 3).mean(axis=(1, 3))
    low = ndimage.gaussian_filter(fine, (_LOW_PASS, _LOW_PASS, 0), mode="nearest")
    colour = low.reshape(COLOUR_SIDE, 2, COLOUR_SIDE, 2, 3).mean(axis=(1, 3))
    return View(np.ascontiguousarray(colour, np.float32), _edges(lab[..., 0]))


def _edges(lightness_HW: Floats) -> Floats:
    dy, dx = np.gradient(ndimage.gaussian_filter(lightness_HW, _EDGE_BLUR, mode="nearest"))
    position = (np.arctan2(dy, dx) % np.pi) * (ORIENTATIONS / np.pi) - 0.5
    lower = np.floor(position)
    upper_share = position - lower
    rows, columns = np.mgrid[0:_EDGE_SIDE, 0:_EDGE_SIDE] // (_EDGE_SIDE // CELLS)
    cell = (rows * CELLS + columns) * ORIENTATIONS
    length = np.hypot(dx, dy)
    sums = np.zeros(EDGES_LENGTH)
    # Each edge is shared out to the two nearest directions: upright and level ones lie just between two.
    for sector, share in ((lower, 1 - upper_share), (lower + 1, upper_share)):
        place = cell + sector.astype(np.intp) % ORIENTATIONS
        sums += np.bincount(place.ravel(), (length * share).ravel(), minlength=EDGES_LENGTH)
    # And to the cells around, so that none jumps where an image moves by a pixel.
    spread = ndimage.gaussian_filter(sums.reshape(CELLS, CELLS, ORIENTATIONS), (0.8, 0.8, 0), mode="nearest")
    roots = np.sqrt(spread)
    return np.asarray(roots / max(float(np.linalg.norm(roots)), _FLAT), np.float32)


def _square_around(rgb_HWC: NDArray[np.uint8], mask_HW: NDArray[np.bool_]) -> Image.Image:
    """A square around the subject, placed and sized by its moments, which do not jump by whole pixels as a box does.

    Beyond the image its edge goes on.
    """
    rows, columns = np.nonzero(mask_HW)
    half = max(2.0, SUBJECT_REACH * float(max(rows.std(), columns.std())))
    pad = int(half) + 2
    padded = Image.fromarray(np.pad(rgb_HWC, ((pad, pad), (pad, pad), (0, 0)), mode="edge"))
    x, y = float(columns.mean()) + 0.5 + pad, float(rows.mean()) + 0.5 + pad
    return padded.resize((_EDGE_SIDE, _EDGE_SIDE), Image.Resampling.BOX, box=(x - half, y - half, x + half, y + half))


COPY_FLOOR, COPY_CEILING = 0.14, 0.25
"""Copies that were saved anew, resized, blurred or mirrored stay under the first, most shifted ones too; two images
further apart than the second are not copies, whatever the dataset is like."""
COPY_SHARE = 0.5
"""Of the distance of which only one in ten training images is nearer to its neighbour."""
CLOSE_PERCENTILE = 10
CLOSE_FACTOR = 1.25
NUM_CALIBRATION = 400
_NUM_PAIRS = 4000
_DEFAULT_SCALES = (25.0, 0.5)
"""Distances of colours (ΔE) and edges of two unlike images, for an index of one, or of one image many times."""
_NUM_CANDIDATES = 8


class Unreadable(Record):
    """A file that could not be read, and why."""

    name: str
    reason: str


class NearestPicture(Record):
    """The training image that is nearest to an image.

    Attributes:
        distance: 0 for the very same image, about 1 for two images of the dataset taken at random.
        path: of the training image.
        mirrored: whether it is nearest as seen in a mirror.
        likeness: in words, by the dataset's own distances.
    """

    distance: Annotated[float, Field(ge=0)]
    path: Path
    mirrored: bool
    likeness: Likeness


@dataclass(frozen=True)
class _Index:
    """One view of all images: (n, d), scaled so that two at random are about 1 apart; rows without one are inf."""

    rows_ND: Floats
    squares_N: Floats
    scales: tuple[float, float]

    def distances(self, query_D: Floats) -> Floats:
        """(n,) distances of one scaled query; rounded near 0, see `exact`."""
        with np.errstate(invalid="ignore"):
            squared_N = self.squares_N - 2 * (self.rows_ND @ query_D) + query_D @ query_D
        return np.sqrt(np.maximum(np.where(np.isfinite(squared_N), squared_N, np.inf), 0))

    def exact(self, query_D: Floats, index: int) -> float:
        """The distance to one image, without the rounding of the fast way."""
        return float(np.sqrt(((self.rows_ND[index] - query_D) ** 2).sum()))


@dataclass(frozen=True)
class NearestIndex:
    """The training images, to be searched.

    Attributes:
        paths: of those that could be read.
        unreadable: the others.
        copy_limit, close_limit: distances under which an image is `as a copy` and `close`.
        typical: the median distance of a training image to the nearest other one; None for a single image.
    """

    paths: tuple[Path, ...]
    unreadable: tuple[Unreadable, ...]
    copy_limit: float
    close_limit: float
    typical: float | None
    _whole: _Index
    _subject: _Index

    @classmethod
    def build(
        cls,
        paths: Sequence[Path],
        *,
        background: str = "#ffffff",
        on_picture: Callable[[int], None] = lambda number: None,
    ) -> "NearestIndex":
        """Look at every image once: about 25 ms each.

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
            said = [_("There is no training image to compare with.")]
            said += [_("The first: {name}. {reason}", name=first.name, reason=first.reason) for first in unreadable[:1]]
            raise DatasetError(" ".join(said))
        return _index(tuple(read), tuple(unreadable), descriptors)

    def find(self, descriptor: Descriptor) -> NearestPicture:
        """The nearest image by whichever view comes nearer, mirrored or not."""
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
    whole = _index_of([descriptor.whole for descriptor in descriptors])
    subject = _index_of([descriptor.subject for descriptor in descriptors])
    copy_limit, close_limit, typical = _calibrate(whole, subject, descriptors)
    return NearestIndex(paths, unreadable, copy_limit, close_limit, typical, whole, subject)


def _calibrate(whole: _Index, subject: _Index, descriptors: Sequence[Descriptor]) -> tuple[float, float, float | None]:
    """The limits, by how near the training images come to each other (leave one out, 400 of them)."""
    if len(descriptors) < 2:
        return COPY_FLOOR, COPY_CEILING, None
    chosen = np.unique(np.linspace(0, len(descriptors) - 1, NUM_CALIBRATION).astype(int))
    nearest = [_search(whole, subject, descriptors[i], leave_out=int(i))[0] for i in chosen]
    few = float(np.percentile(nearest, CLOSE_PERCENTILE))
    copy_limit = min(max(COPY_SHARE * few, COPY_FLOOR), COPY_CEILING)
    return copy_limit, max(few, CLOSE_FACTOR * copy_limit), float(np.median(nearest))


def _search(
    whole: _Index, subject: _Index, descriptor: Descriptor, *, leave_out: int | None = None
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


def _index_of(views: Sequence[View | None]) -> _Index:
    scales = _measure_scales([view for view in views if view is not None])
    missing_D = np.full(COLOUR_LENGTH + EDGES_LENGTH, np.inf, np.float32)
    rows_ND = np.stack([missing_D if view is None else _row(view, scales) for view in views])
    return _Index(rows_ND, np.einsum("nd,nd->n", rows_ND, rows_ND), scales)


def _row(view: View, scales: tuple[float, float]) -> Floats:
    """(d,): colours and edges, each counting half of the squared distance between two unlike images."""
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
    # Images that are (nearly) all the same would make every other one endlessly far.
    return max(colour, _DEFAULT_SCALES[0] / 10), max(edge, _DEFAULT_SCALES[1] / 10)
