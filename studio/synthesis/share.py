"""A process's share of a batch: which items are its own, and how it hears that all are to end.

Processes and machines share a folder and nothing else: item i belongs to process i mod their number, each writes a
ledger of its own, and the first one writes what comes out when all is made.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from studio.batches.folder import BatchFolder
from studio.errors import BatchError


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
            raise BatchError(f"{self.folder.name} is being made already. Stop that one first.") from error
        self._begun.write_bytes(b"")  # the folder's own clock tells what came before: machines' clocks differ
        return self

    def __exit__(self, *_: object) -> None:
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
        return self._halt.read_text(encoding="utf-8") if self.is_halted() else ""

    def is_halted(self) -> bool:
        """Whether another process asked all to end since this one began."""
        if self.count == 1:
            return False
        try:
            return self._halt.stat().st_mtime_ns > self._begun.stat().st_mtime_ns
        except FileNotFoundError:
            return False
