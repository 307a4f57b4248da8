"""One owner of the device: a lock file that a dying process lets go of by itself.

Whoever waits for it says so; an owner that only keeps it warm, the page's engine, then makes room.

Waiting for the device, and holding it: who has it is told, and who only keeps it warm makes room.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from studio.core.errors import CancelledError
from studio.core.files import read_file, write_atomically
from studio.core.language import _
from studio.core.paths import UserData


@dataclass(frozen=True)
class DeviceOwner:
    """Who holds the device: a process, and what it does there in a few words, in its own language."""

    pid: int
    purpose: str

    def __str__(self) -> str:
        return _("{purpose} (process {pid})", purpose=_(self.purpose), pid=self.pid)


class DeviceLock:
    """The lock of one `user_data/`; the operating system frees it when its process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)
        self._owner_file = path.with_suffix(".json")
        self._waiting_folder = path.with_suffix(".waiting")

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
        return _read_owner(self._owner_file)

    def ask_for(self, purpose: str) -> None:
        """Say that this process waits for the device; `withdraw` it when it waits no longer."""
        wish = {"pid": os.getpid(), "purpose": purpose}
        write_atomically(self._waiting_folder / str(os.getpid()), json.dumps(wish).encode())

    def withdraw(self) -> None:
        """Wait no longer."""
        (self._waiting_folder / str(os.getpid())).unlink(missing_ok=True)

    def waited_for_by(self) -> DeviceOwner | None:
        """Another process that asked for the device and still lives; None where none does."""
        if not self._waiting_folder.is_dir():
            return None
        for wish in sorted(self._waiting_folder.iterdir()):
            if wish.name.isdigit() and int(wish.name) != os.getpid() and psutil.pid_exists(int(wish.name)):
                return _read_owner(wish)
        return None

    def release(self) -> None:
        """Let the device go."""
        self._lock.release()


def _read_owner(file: Path) -> DeviceOwner:
    try:
        kept = json.loads(read_file(file))
        return DeviceOwner(int(kept["pid"]), str(kept["purpose"]))
    except (OSError, ValueError, KeyError, TypeError):
        return DeviceOwner(0, _("another program"))


LOOK_FOR_DEVICE_SECONDS = 0.5


@contextmanager
def device_asked_for(user_data: UserData, purpose: str) -> Iterator[None]:
    """Say that this process will want the device in the `with` block: the page's engine makes room meanwhile."""
    lock = DeviceLock(user_data.device_lock)
    lock.ask_for(purpose)
    try:
        yield
    finally:
        lock.withdraw()


@contextmanager
def device_turn(
    user_data: UserData, purpose: str, *, waiting: Callable[[str], None], given_up: Callable[[], bool]
) -> Iterator[None]:
    """The device for this process, during the `with` block.

    Args:
        purpose: what it is wanted for, in a few words for others who wait.
        waiting: told who has it, whenever that changes.
        given_up: whether to wait no longer.

    Raises:
        CancelledError: where it was given up.
    """
    lock, reported = DeviceLock(user_data.device_lock), ""
    try:
        while not lock.acquire(purpose):
            lock.ask_for(purpose)  # the page's engine makes room
            owner = str(lock.owner())
            if owner != reported:
                waiting(owner)
                reported = owner
            time.sleep(LOOK_FOR_DEVICE_SECONDS)
            if given_up():
                raise CancelledError(_("Stopped while it waited for the device."))
    finally:
        lock.withdraw()
    try:
        yield
    finally:
        lock.release()
