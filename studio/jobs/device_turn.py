"""Waiting for the device, and holding it: who has it is told, and who only keeps it warm makes room."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from studio.errors import CancelledError
from studio.jobs.device_lock import DeviceLock
from studio.paths import UserData

LOOK_FOR_DEVICE_SECONDS = 0.5


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
    lock, told = DeviceLock(user_data.device_lock), ""
    try:
        while not lock.acquire(purpose):
            lock.ask_for(purpose)  # the page's engine makes room
            owner = str(lock.owner())
            if owner != told:
                waiting(owner)
                told = owner
            time.sleep(LOOK_FOR_DEVICE_SECONDS)
            if given_up():
                raise CancelledError("Stopped while it waited for the device.")
    finally:
        lock.withdraw()
    try:
        yield
    finally:
        lock.release()
