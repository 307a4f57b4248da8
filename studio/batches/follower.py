"""Following a batch's ledgers as they are written: each look reads only what is new. No torch: the page does it."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from studio.batches.ledger import ItemRow, count_rows_rejected, ledger_files, rows_since, states_since

MAX_LATEST = 12
_RATE_SECONDS = 60.0  # what came before says little of how fast it goes now
_STATE_NUMBERS = {"done": 1, "failed": 2}


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        num_rejected: images that were made and not taken; their items were tried again.
        pictures_per_second: of late, of all processes together; None where that is not known.
        latest: the last rows of images that are done, newest first.
    """

    num_done: int = 0
    num_failed: int = 0
    num_rejected: int = 0
    pictures_per_second: float | None = None
    latest: tuple[ItemRow, ...] = ()


@dataclass
class _Followed:
    """What was read of one ledger."""

    stamp: tuple[int, int] = (0, 0)
    seq: int = 0
    num_rejected: int = 0
    latest: list[ItemRow] = field(default_factory=list)


class BatchFollower:
    """Reads a batch's ledgers on from where it stopped. Any thread may look."""

    def __init__(self, ledgers: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = ledgers
        self._clock = clock
        self._lock = threading.Lock()
        self._followed: dict[Path, _Followed] = {}
        self._states = bytearray()  # by item: an item that is made again, or that two ledgers have, counts once
        self._seen: deque[tuple[float, int]] = deque()

    def look(self, *, running: bool) -> BatchProgress:
        """How far it is now.

        Args:
            running: whether images are being made; the pace of before a pause is not that of after it.

        Raises:
            BatchError: where a ledger cannot be read.
        """
        with self._lock:
            for path in ledger_files(self._folder):
                self._read(path, self._followed.setdefault(path, _Followed()))
            done, failed = self._states.count(1), self._states.count(2)
            rows = sorted((row for one in self._followed.values() for row in one.latest), key=lambda row: row.made_at)
            return BatchProgress(
                num_done=done,
                num_failed=failed,
                num_rejected=sum(one.num_rejected for one in self._followed.values()),
                pictures_per_second=self._pace(done + failed, running=running),
                latest=tuple(reversed(rows[-MAX_LATEST:])),
            )

    def _read(self, path: Path, followed: _Followed) -> None:
        stat = path.stat()
        if (stat.st_mtime_ns, stat.st_size) == followed.stamp:
            return
        for seq, item, state in states_since(path, followed.seq):
            if item >= len(self._states):
                self._states.extend(bytes(item + 1 - len(self._states)))
            self._states[item] = _STATE_NUMBERS[state]
            followed.seq = seq
        rows = rows_since(path, followed.seq - 2 * MAX_LATEST)
        followed.latest = [row for _, row in rows if row.state == "done"][-MAX_LATEST:]
        followed.num_rejected = count_rows_rejected(path)
        followed.stamp = stat.st_mtime_ns, stat.st_size  # as it was before: what came meanwhile is read the next time

    def _pace(self, number: int, *, running: bool) -> float | None:
        """From the moments at which the number was seen to change."""
        now, seen = self._clock(), self._seen
        if not running:
            seen.clear()
            return None
        if not seen or seen[-1][1] != number:
            seen.append((now, number))
        while len(seen) > 2 and now - seen[0][0] > _RATE_SECONDS:
            seen.popleft()
        (first_time, first), (last_time, last) = seen[0], seen[-1]
        return (last - first) / (last_time - first_time) if last_time > first_time and last > first else None
