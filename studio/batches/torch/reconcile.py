"""Before a batch goes on, and before it is finished: every image compared with its row, by content.

A file of the right size may still hold zeros, after a power cut or on a failing disk: only its sha256 tells. Hashing
is reading alone: three thousand images of half a megabyte take a few seconds.
"""

import errno
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.batches.folder import BatchFolder
from studio.batches.ledger import Ledger, latest_row, read_rows
from studio.core.errors import CancelledError
from studio.datasets.snapshot import sha256_of

_UNREADABLE = (errno.ENOENT, errno.EIO)  # gone, or on a part of the disk that fails: both are made again


@dataclass(frozen=True)
class Compared:
    """What was found.

    Attributes:
        lost: items whose image is gone or is not what was written, in order.
        stale: of each ledger the items whose row tells of such an image.
    """

    lost: Sequence[int]
    stale: Mapping[Path, Sequence[int]]


def compare_pictures(
    folder: BatchFolder, *, progress: Callable[[int], None], cancelled: Callable[[], bool]
) -> Compared:
    """Compare every image with what the ledgers tell of it; nothing is changed.

    Args:
        progress: told after each image how many were compared.
        cancelled: asked before each whether to stop.

    Raises:
        CancelledError: where it was stopped.
        BatchError: where a ledger cannot be read.
        OSError: where an image is there and may not be read.
    """
    lost, stale, number = [], defaultdict[Path, list[int]](list), 0
    for found in read_rows(folder.ledgers):
        latest = latest_row(row for _, row in found)
        if latest.state != "done":
            continue
        if cancelled():
            raise CancelledError("Stopped while images were compared with their records.")
        digest = _digest(folder.root / latest.file)
        wrong = [path for path, row in found if row.state == "done" and row.sha256 != digest]
        for path in wrong:
            stale[path].append(latest.item)
        if latest.sha256 != digest and not any(row.sha256 == digest for _, row in found):
            lost.append(latest.item)
        number += 1
        progress(number)
    return Compared(lost, stale)


def set_aside(folder: BatchFolder, picture: Path) -> bool:
    """Keep a damaged image under another name in `rejected`; whether there was one.

    Raises:
        OSError: where it cannot be moved.
    """
    if not picture.exists():
        return False
    folder.rejected.mkdir(exist_ok=True)
    number, aside = 1, folder.rejected / f"damaged-{picture.name}"
    while aside.exists():
        number += 1
        aside = folder.rejected / f"damaged-{picture.stem}-{number}{picture.suffix}"
    picture.replace(aside)
    return True


def forget_rows(stale: Mapping[Path, Sequence[int]]) -> None:
    """Take the rows of these items back from their ledgers, which no other process may write.

    Raises:
        OSError, BatchError: where a ledger cannot be written.
    """
    for path, items in stale.items():
        ledger = Ledger(path)
        try:
            ledger.forget(items)
        finally:
            ledger.close()


def _digest(path: Path) -> str:
    """A file's sha256; "" of one that is gone or can no longer be read."""
    try:
        return sha256_of(path)
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        return ""
