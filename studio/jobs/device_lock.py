"""One owner of the device: a lock file that a dying process lets go of by itself."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from studio.files import write_atomically


@dataclass(frozen=True)
class DeviceOwner:
    """Who holds the device: a process, and what it does there in a few words."""

    pid: int
    purpose: str

    def __str__(self) -> str:
        return f"{self.purpose} (process {self.pid})"


class DeviceLock:
    """The lock of one `user_data/`; the operating system frees it when its process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)
        self._owner_file = path.with_suffix(".json")

    def acquire(self, purpose: str) -> bool:
        """Take the device, or return False at once where another process has it."""
        self._owner_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            return False
        owner = {"pid": os.getpid(), "purpose": purpose}
        write_atomically(self._owner_file, json.dumps(owner).encode())
        return True

    def owner(self) -> DeviceOwner:
        """Who took the lock last; call it where `acquire` said False."""
        try:
            kept = json.loads(self._owner_file.read_bytes())
            return DeviceOwner(int(kept["pid"]), str(kept["purpose"]))
        except (OSError, ValueError, KeyError, TypeError):
            return DeviceOwner(0, "another program")

    def release(self) -> None:
        """Let the device go."""
        self._lock.release()
