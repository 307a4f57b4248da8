"""A picture in numbers that hardly change when it is saved anew, shifted or mirrored: its colours and its edges.

Two views of each picture: the whole of it, and a square around the subject, so that a copy which only stands
elsewhere is still a copy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from studio.scoring.lab import rgb_to_lab
from studio.scoring.subject import Subject
from studio.scoring.working import WorkingPicture

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
    """One view of a picture.

    Attributes:
        colour_YXC: (16, 16, 3) CIELAB, low-passed.
        edges_YXO: (8, 8, 6) how much of each direction (0 to π, no sign) each cell's edges have, square roots; of
            length 1 over the picture, or less where it has hardly any edges.
    """

    colour_YXC: Floats
    edges_YXO: Floats

    def mirrored(self) -> "View":
        """The same of the picture seen in a mirror."""
        return View(self.colour_YXC[:, ::-1], self.edges_YXO[:, ::-1, ::-1])


@dataclass(frozen=True)
class Descriptor:
    """A picture's two views; `subject` is None where none can be told from the ground."""

    whole: View
    subject: View | None


def describe(working: WorkingPicture, subject: Subject) -> Descriptor:
    """Look at a picture as a whole and around its subject."""
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
    # And to the cells around, so that none jumps where a picture moves by a pixel.
    spread = ndimage.gaussian_filter(sums.reshape(CELLS, CELLS, ORIENTATIONS), (0.8, 0.8, 0), mode="nearest")
    roots = np.sqrt(spread)
    return np.asarray(roots / max(float(np.linalg.norm(roots)), _FLAT), np.float32)


def _square_around(rgb_HWC: NDArray[np.uint8], mask_HW: NDArray[np.bool_]) -> Image.Image:
    """A square around the subject, placed and sized by its moments, which do not jump by whole pixels as a box does.

    Beyond the picture its edge goes on.
    """
    rows, columns = np.nonzero(mask_HW)
    half = max(2.0, SUBJECT_REACH * float(max(rows.std(), columns.std())))
    pad = int(half) + 2
    padded = Image.fromarray(np.pad(rgb_HWC, ((pad, pad), (pad, pad), (0, 0)), mode="edge"))
    x, y = float(columns.mean()) + 0.5 + pad, float(rows.mean()) + 0.5 + pad
    return padded.resize((_EDGE_SIDE, _EDGE_SIDE), Image.Resampling.BOX, box=(x - half, y - half, x + half, y + half))
