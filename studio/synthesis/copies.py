"""Pictures that show the same as an earlier one are made again: at the end, by item, so that who made them and in
which order does not matter.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from studio.batch_settings import BatchSettings
from studio.batches.folder import BatchFolder
from studio.batches.ledger import ItemRow, read_items
from studio.batches.plan import BatchPlan
from studio.synthesis.picture import PictureMaker

COPY = "It shows the same as another picture of the batch."


@dataclass
class Contents:
    """What the pictures show, in order of their items: 17 bytes each, so that a million fit."""

    settings: BatchSettings
    items: list[int] = field(default_factory=list)
    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    pixels: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    attempts: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, folder: BatchFolder, settings: BatchSettings) -> "Contents":
        """Of every picture that is done."""
        items, attempts, contents = [], [], []
        for row in read_items(folder.ledgers):
            if row.state == "done":
                items.append(row.item)
                attempts.append(row.attempts)
                contents.append(_numbers(row.content))
        table = np.array(contents, np.uint64).reshape(-1, 2)
        return cls(settings, items, table[:, 0].copy(), table[:, 1].copy(), attempts)

    def is_copy(self, content: tuple[int, int], *, before: int) -> bool:
        """Whether one of the pictures before a place shows the same."""
        small, pixels = (np.uint64(number) for number in content)
        if self.settings.reject_copies and bool((self.pixels[:before] == pixels).any()):
            return True
        bits = self.settings.near_duplicate_bits
        return bits > 0 and bool((np.bitwise_count(self.hashes[:before] ^ small) <= bits).any())


def remake_copies(
    folder: BatchFolder,
    settings: BatchSettings,
    plan: BatchPlan,
    maker: PictureMaker,
    add: Callable[[ItemRow], None],
) -> None:
    """Make every picture again that shows the same as one before it, until it does not or its tries are used up.

    Args:
        add: notes an item.

    Raises:
        GenerationCancelledError: where the maker's watcher cancelled.
        OSError, BatchError: where something cannot be written.
    """
    if not (settings.reject_copies or settings.near_duplicate_bits):
        return
    contents = Contents.of(folder, settings)
    if not settings.near_duplicate_bits and len(np.unique(contents.pixels)) == len(contents.items):
        return
    place = 0
    while place < len(contents.items):
        content = int(contents.hashes[place]), int(contents.pixels[place])
        if not contents.is_copy(content, before=place):
            place += 1
            continue
        row = _remake(contents, place, plan=plan, maker=maker)
        add(row)
        if row.state == "done":
            contents.hashes[place], contents.pixels[place] = _numbers(row.content)
            place += 1
        else:  # it is no picture of the batch any more
            contents.hashes, contents.pixels = np.delete(contents.hashes, place), np.delete(contents.pixels, place)
            del contents.items[place], contents.attempts[place]


def _remake(contents: Contents, place: int, *, plan: BatchPlan, maker: PictureMaker) -> ItemRow:
    def also_refused(content: str) -> str:
        return COPY if contents.is_copy(_numbers(content), before=place) else ""

    item, tried = plan.item(contents.items[place]), contents.attempts[place]
    maker.set_aside(item, tried - 1, COPY)
    return maker.make(item, first_attempt=tried, also_refused=also_refused)


def _numbers(content: str) -> tuple[int, int]:
    """(perceptual hash, 64 bits of the pixels' sha256)."""
    small, pixels = content.split(":")
    return int(small, 16), int(pixels[:16], 16)
