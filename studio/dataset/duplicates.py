"""Pictures that are there twice: the same file, or one that looks the same."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studio.dataset.picture_facts import PictureFacts
from studio.dataset.row import DatasetRow

MAX_DISTANCE = 6
"""Of 64 bits of the difference hash: as far as re-encoded and resized copies of pictures on white get."""
MAX_TINY_DIFFERENCE = 1.0
"""Mean difference of 8 × 8 RGB pixels, of 255. Such copies get to 0.93; other colours of one shape start at 6."""
MAX_ASPECT_DIFFERENCE = 0.05
MAX_PAIRS = 500
_BLOCK = 512


@dataclass(frozen=True)
class DuplicatePair:
    """Two pictures; the first stands before the second in the dataset. `distance` is in bits of 64."""

    first_key: str
    second_key: str
    exact: bool
    distance: int


@dataclass(frozen=True)
class DuplicateSearch:
    """The pairs, exact ones first, then the nearest; `num_left_out` are beyond the number that is kept."""

    pairs: tuple[DuplicatePair, ...]
    num_left_out: int


def find_duplicates(rows: Sequence[DatasetRow], *, max_distance: int = MAX_DISTANCE) -> DuplicateSearch:
    """Every copy beside the first of its kind, and pairs that look alike.

    Pictures without any difference between neighbouring places (one flat colour) look like nothing, and are compared
    by their bytes only.
    """
    usable = [row for row in rows if row.facts is not None and row.facts.is_usable]
    firsts: list[DatasetRow] = []
    exact = []
    by_content: dict[str, list[DatasetRow]] = defaultdict(list)
    for row in usable:
        same = by_content[_facts(row).sha256]
        if same:
            exact.append(DuplicatePair(same[0].key, row.key, exact=True, distance=0))
        else:
            firsts.append(row)
        same.append(row)
    near = _near_pairs([row for row in firsts if int(_facts(row).perceptual_hash, 16)], max_distance)
    pairs = [*exact, *sorted(near, key=lambda pair: pair.distance)]
    return DuplicateSearch(tuple(pairs[:MAX_PAIRS]), max(0, len(pairs) - MAX_PAIRS))


def _near_pairs(rows: Sequence[DatasetRow], max_distance: int) -> list[DuplicatePair]:
    """All pairs within the distances and of nearly one shape, in blocks that keep memory small."""
    hashes_N = np.array([int(_facts(row).perceptual_hash, 16) for row in rows], dtype=np.uint64)
    tiny_NC = np.array([list(bytes.fromhex(_facts(row).tiny)) for row in rows], dtype=np.int16)
    aspects_N = np.array([_facts(row).width / _facts(row).height for row in rows])
    pairs = []
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        distances_BN = np.bitwise_count(hashes_N[block, None] ^ hashes_N[None, start:])
        for i, j in np.argwhere(distances_BN <= max_distance):
            first, second = start + int(i), start + int(j)
            if first >= second or abs(aspects_N[first] / aspects_N[second] - 1) > MAX_ASPECT_DIFFERENCE:
                continue
            if np.abs(tiny_NC[first] - tiny_NC[second]).mean() <= MAX_TINY_DIFFERENCE:
                distance = int(distances_BN[i, j])
                pairs.append(DuplicatePair(rows[first].key, rows[second].key, exact=False, distance=distance))
    return pairs


def _facts(row: DatasetRow) -> PictureFacts:
    assert row.facts is not None
    return row.facts
