"""A full disk costs nothing but time: what cannot be written is written as soon as there is room."""

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from studio.core.errors import TrainingError
from studio.jobs.folder import take_requests
from studio.training.folder import RunFolder
from studio.training.torch.reporter import Reporter

T = TypeVar("T")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
LOOK_FOR_ROOM_SECONDS = 2.0


@dataclass(frozen=True)
class Patience:
    """Waits for room on the disk for one run, and says so."""

    run: RunFolder
    reporter: Reporter
    stop_signal: Callable[[], bool]

    def do(self, act: Callable[[], T], *, step: int) -> T:
        """Do what writes something of `step`; where the disk is full, do it again when there is room.

        Raises:
            TrainingError: where a stop is asked for meanwhile.
            OSError: where it cannot be written for another reason.
        """
        waiting = False
        while True:
            try:
                result = act()
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
            else:
                if waiting:
                    self.reporter.state("running", "There is room again; the training goes on.")
                return result
            if not waiting:
                waiting = True
                self.reporter.state(
                    "waiting",
                    f"The disk is full: step {step:,} cannot be saved. Free some space; the training waits and goes on "
                    "by itself. Nothing is lost while it waits.",
                )
            time.sleep(LOOK_FOR_ROOM_SECONDS)
            if self.stop_signal() or "stop" in take_requests(self.run):
                raise TrainingError(
                    f"Stopped while the disk was full: step {step:,} could not be saved. The last checkpoint is whole; "
                    "free some space and resume."
                )
