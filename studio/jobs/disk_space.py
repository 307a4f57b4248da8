"""A full disk costs nothing but time: what cannot be written is written as soon as there is room."""

import time
from collections.abc import Callable
from typing import TypeVar

from studio.core.errors import StudioError, is_disk_full
from studio.jobs.folder import BUSY_STATES
from studio.jobs.reporter import JobReporter

T = TypeVar("T")
LOOK_FOR_ROOM_SECONDS = 2.0


def retry_until_disk_space(
    act: Callable[[], T], *, what: str, reporter: JobReporter, should_stop: Callable[[], bool], stopped: StudioError
) -> T:
    """Do what writes something; where the disk is full, say so, and do it again when there is room.

    Args:
        act: leaves nothing half written behind where it raises, and may be done again.
        what: it saves, in a few words, as the user reads it.
        should_stop: asked again and again while it waits.
        stopped: raised where it should.

    Raises:
        StudioError: `stopped`.
        OSError: where it cannot be written for another reason.
    """
    before = reporter.current_state
    waiting = False
    activity = reporter.folder.activity
    while True:
        try:
            result = act()
        except OSError as error:
            if not is_disk_full(error):
                raise
        else:
            if waiting:
                before = before if before in BUSY_STATES else "running"
                reporter.state(before, f"There is space again; the {activity} goes on.")
            return result
        waiting = True
        reporter.state(
            "waiting",
            f"The disk is full: {what} cannot be saved. Free some space; the {activity} waits and goes on by itself. "
            "Nothing is lost while it waits.",
        )
        time.sleep(LOOK_FOR_ROOM_SECONDS)
        if should_stop():
            raise stopped
