"""Which items of a batch are this process's to make, and whether what is noted of them is true.

Which items of a batch need nothing more, kept up to date from what all its processes note.

A process's share of a batch: which items are its own, and how it hears that all are to end.

Processes and machines share a folder and nothing else: item i belongs to process i mod their number, each writes a
ledger of its own, and the first one writes what comes out when all is made.

Before a batch goes on, and before it is finished: every image compared with its row, by content.

A file of the right size may still hold zeros, after a power cut or on a failing disk: only its sha256 tells. Hashing
is reading alone: three thousand images of half a megabyte take a few seconds.
"""

import errno
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from studio.batches.folder import BatchFolder
from studio.batches.ledger import Ledger, latest_row, ledger_files, read_rows, states_since
from studio.core.errors import BatchError, CancelledError
from studio.core.files import read_text
from studio.core.language import _
from studio.datasets.snapshot import sha256_of


@dataclass
class KnownItems:
    """The items that are done or failed. Each look reads only what was noted since the one before.

    Attributes:
        flags: (num_items,) 1 for each of them.
    """

    folder: Path
    num_items: int
    flags: bytearray = field(init=False)
    _seqs: dict[Path, int] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        self.flags = bytearray(self.num_items)

    def look(self) -> int:
        """How many there are now.

        Raises:
            BatchError: where a ledger cannot be read.
        """
        for path in ledger_files(self.folder):
            for seq, item, __ in states_since(path, self._seqs.get(path, 0)):
                self._count += not self.flags[item]
                self.flags[item] = 1
                self._seqs[path] = seq
        return self._count

    def forget(self, items: Sequence[int]) -> None:
        """These are to be made again; a row that is written later makes them known again."""
        for item in items:
            self._count -= self.flags[item]
            self.flags[item] = 0


@dataclass
class Share:
    """This process among those that `accelerate launch` started; one alone where none did."""

    folder: BatchFolder
    index: int = field(default_factory=lambda: int(os.environ.get("RANK", "0")))
    count: int = field(default_factory=lambda: int(os.environ.get("WORLD_SIZE", "1")))
    local_index: int = field(default_factory=lambda: int(os.environ.get("LOCAL_RANK", "0")))

    def __post_init__(self) -> None:
        self.folder.ledgers.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder.ledgers / f"process-{self.index}.lock")
        self._halt = self.folder.ledgers / "halt"
        self._begun = self.folder.ledgers / f"process-{self.index}.begun"

    @property
    def is_first(self) -> bool:
        return self.index == 0

    @property
    def holds_device(self) -> bool:
        """Whether it is the one that asks for its machine's device, for those beside it too."""
        return self.local_index == 0

    @property
    def ledger(self) -> Path:
        return self.folder.ledgers / f"process-{self.index}.db"

    def __enter__(self) -> "Share":
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise BatchError(_("{name} is already running. Stop it first.", name=self.folder.name)) from error
        self._begun.write_bytes(b"")  # the folder's own clock tells what came before: machines' clocks differ
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def is_own(self, item: int) -> bool:
        """Whether an item is this process's to make."""
        return item % self.count == self.index

    def own(self, known: bytearray) -> Iterator[int]:
        """Its items that are not known yet, in order."""
        return (index for index in range(self.index, len(known), self.count) if not known[index])

    def owns_ledger(self, path: Path) -> bool:
        """Whether this process may write to a ledger: its own, and for the first one those that no process has now."""
        number = path.stem.removeprefix("process-")
        return path == self.ledger or (self.is_first and number.isdecimal() and int(number) >= self.count)

    def halt(self, reason: str = "") -> None:
        """Ask the other processes to end; with the reason where an error ended this one."""
        if self.count > 1 and not self.halted_because():
            self._halt.write_text(reason, encoding="utf-8")

    def halted_because(self) -> str:
        """The error by which another process ended; "" where none did since this one began."""
        return read_text(self._halt, errors="replace") if self.is_halted() else ""

    def is_halted(self) -> bool:
        """Whether another process asked all to end since this one began."""
        if self.count == 1:
            return False
        try:
            return self._halt.stat().st_mtime_ns > self._begun.stat().st_mtime_ns
        except FileNotFoundError:
            return False


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
        latest = latest_row(row for __, row in found)
        if latest.state != "done":
            continue
        if cancelled():
            raise CancelledError(_("Stopped while images were compared with their records."))
        digest = _digest(folder.root / latest.file)
        wrong = [path for path, row in found if row.state == "done" and row.sha256 != digest]
        for path in wrong:
            stale[path].append(latest.item)
        if latest.sha256 != digest and not any(row.sha256 == digest for __, row in found):
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
