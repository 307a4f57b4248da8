"""What a job reports while it works: one JSON object a line, append only. No torch: the page reads it."""

import os
import threading
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from studio.core.results import Record
from studio.jobs.folder import RunState


class RunEvent(Record):
    """When something was told."""

    at: datetime = Field(default_factory=lambda: datetime.now().astimezone())


class StateEvent(RunEvent):
    """The run is in another state now."""

    kind: Literal["state"] = "state"
    state: RunState
    message: str = ""


class ResumedEvent(RunEvent):
    """The run goes on from `step`: what was told of later steps before this line no longer counts."""

    kind: Literal["resumed"] = "resumed"
    step: int


class MemoryEvent(RunEvent):
    """Memory at one moment, and the most so far, in bytes. `accelerator_*` are None on a CPU."""

    kind: Literal["memory"] = "memory"
    process_bytes: int
    peak_process_bytes: int
    system_available_bytes: int
    system_total_bytes: int
    accelerator_bytes: int | None = None
    peak_accelerator_bytes: int | None = None
    accelerator_limit_bytes: int | None = None


class ProblemEvent(RunEvent):
    """Something the user should know, in sentences; the run goes on where its state does not say otherwise."""

    kind: Literal["problem"] = "problem"
    step: int
    message: str


class NoteEvent(RunEvent):
    """Something that was decided or done, in a sentence."""

    kind: Literal["note"] = "note"
    message: str


class EventWriter:
    """Appends events to a file. Any thread may tell.

    On a full disk lines wait in memory and are written when there is room: an event never ends a run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._pending: list[str] = []
        self._cut = _ends_in_mid_line(path)
        self.seconds = 0.0  # that telling took, for the bench

    def report(self, event: RunEvent) -> None:
        """Write one line."""
        started = time.perf_counter()
        with self._lock:
            self._pending.append(event.model_dump_json())
            # A line that was cut off by a kill stays, and is passed over by readers.
            text = ("\n" if self._cut else "") + "".join(f"{line}\n" for line in self._pending)
            num_bytes: int | None = None
            try:
                num_bytes = self._path.stat().st_size if self._path.is_file() else 0
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(text)
            except OSError:  # kept in memory, and told with the next event: nothing of it may stay in the file too
                if num_bytes is not None:
                    with suppress(OSError):
                        os.truncate(self._path, num_bytes)
            else:
                self._cut = False
                self._pending.clear()
        self.seconds += time.perf_counter() - started


def _ends_in_mid_line(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) != b"\n"
