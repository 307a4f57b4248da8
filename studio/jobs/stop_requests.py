"""Whether a job is to end: SIGTERM and SIGINT, what its folder was asked, and what its peers say.

The work in hand is ended well, and the process then ends with 0.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Literal

from studio.jobs.folder import JobFolder, pending_requests


class StopSignal:
    """Whether this process was told to stop: the step in work is done, all is saved, and the process ends with 0."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def __call__(self) -> bool:
        return self._asked.is_set()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """During the `with` block; only a main thread can listen."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()


@dataclass(frozen=True)
class StopRequests:
    """What asks a job to end. A request stays in the folder, so it may be asked about as often as one likes.

    Attributes:
        signal: whether this process was told to stop.
        hears_folder: whether this process listens to its folder: of a launch the first one does, and tells the others.
        halted: whether another process of the launch asked all to end.
    """

    folder: JobFolder
    signal: Callable[[], bool]
    hears_folder: bool = True
    halted: Callable[[], bool] = lambda: False

    def should_stop(self) -> bool:
        """Whether to end now, to stop or to pause."""
        return self.signal() or bool(self._requests()) or self.halted()

    @property
    def outcome(self) -> Literal["stopped", "paused"]:
        """As what the job then ends."""
        paused = self._requests() == {"pause"} and not self.signal() and not self.halted()
        return "paused" if paused else "stopped"

    def _requests(self) -> frozenset[str]:
        return pending_requests(self.folder) & {"stop", "pause"} if self.hears_folder else frozenset()
