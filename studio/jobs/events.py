"""What a job reports while it works, and reading it: one JSON object a line, append only. No torch: the page reads it.

What a resume takes back is decided here alone, by `ResumedEvent.takes_back`.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from studio.core.files import open_file
from studio.core.records import KeptText, Record
from studio.jobs.folder import RunState

MAX_MEMORY_EVENTS = 600


class JobEvent(Record):
    """When something was reported."""

    at: datetime = Field(default_factory=lambda: datetime.now().astimezone())


class StepBoundEvent(JobEvent):
    """What was reported of a step, and no longer counts where the job is resumed at an earlier one."""

    step: int


class StateEvent(JobEvent):
    """The job is in another state now."""

    kind: Literal["state"] = "state"
    state: RunState
    message: str = ""


def first_step_taken_back(resumed_at: int) -> int:
    """The first step of which nothing counts any more that was reported before a job was resumed at `resumed_at`."""
    return resumed_at + 1


class ResumedEvent(StepBoundEvent):
    """The job goes on from `step`."""

    kind: Literal["resumed"] = "resumed"

    def takes_back(self, event: JobEvent) -> bool:
        """Whether an event that was reported before this one no longer counts."""
        return isinstance(event, StepBoundEvent) and event.step >= first_step_taken_back(self.step)


class MemoryEvent(JobEvent):
    """Memory at one moment, and the most so far, in bytes. `accelerator_*` are None on a CPU."""

    kind: Literal["memory"] = "memory"
    process_bytes: int
    peak_process_bytes: int
    system_available_bytes: int
    system_total_bytes: int
    accelerator_bytes: int | None = None
    peak_accelerator_bytes: int | None = None
    accelerator_limit_bytes: int | None = None


class ProblemEvent(JobEvent):
    """Something the user should know, in sentences; the job goes on where its state does not say otherwise.

    It was seen at `step`, and stays true whatever is resumed.
    """

    kind: Literal["problem"] = "problem"
    step: int
    message: KeptText


class NoteEvent(JobEvent):
    """Something that was decided or done, in a sentence."""

    kind: Literal["note"] = "note"
    message: KeptText


AnyJobEvent = StateEvent | ResumedEvent | MemoryEvent | ProblemEvent | NoteEvent
JOB_EVENTS: TypeAdapter[AnyJobEvent] = TypeAdapter(Annotated[AnyJobEvent, Field(discriminator="kind")])
EventT = TypeVar("EventT", bound=JobEvent)


def read_events(path: Path, parse: Callable[[bytes], EventT]) -> list[EventT]:
    """All that counts; lines that were cut off by a kill, or are of a kind that `parse` does not know, are left out.

    Args:
        parse: a line's event; it raises ValidationError where there is none in it.
    """
    events: list[EventT] = []
    if not path.is_file():
        return events
    with open_file(path) as file:
        for event in _parsed(file, parse):
            if isinstance(event, ResumedEvent):
                events = [earlier for earlier in events if not event.takes_back(earlier)]
            events.append(event)
    return events


def _parsed(lines: Iterable[bytes], parse: Callable[[bytes], EventT]) -> Iterator[EventT]:
    for line in lines:
        try:
            yield parse(line)
        except ValidationError:  # empty, cut off by a kill, or of a later studio
            continue


@dataclass
class JobHistory:
    """What a job reported so far, sorted. Lists grow; nobody changes what is in them.

    Memory is reported every second for hours: of old readings a few are kept, because a chart shows no more.
    """

    memory: list[MemoryEvent] = field(default_factory=list)
    problems: list[ProblemEvent] = field(default_factory=list)
    notes: list[NoteEvent] = field(default_factory=list)

    def apply_event(self, event: JobEvent) -> None:
        """Sort one event in."""
        if isinstance(event, MemoryEvent):
            self.memory.append(event)
            if len(self.memory) > 2 * MAX_MEMORY_EVENTS:
                del self.memory[1:-1:2]
        elif isinstance(event, ProblemEvent):
            self.problems.append(event)
        elif isinstance(event, NoteEvent):
            self.notes.append(event)


HistoryT = TypeVar("HistoryT", bound=JobHistory)


class EventFollower(Generic[HistoryT]):
    """Reads one events file on from where it stopped: each look reads only what is new. Any thread may look."""

    def __init__(self, path: Path, *, parse: Callable[[bytes], JobEvent], history: Callable[[], HistoryT]) -> None:
        """`parse` is as in `read_events`; `history` makes an empty one."""
        self._path = path
        self._parse = parse
        self._new_history = history
        self._lock = threading.Lock()
        self._begin_again()

    def _begin_again(self) -> None:
        self._position, self._rest, self._history = 0, b"", self._new_history()

    def look(self) -> HistoryT:
        """All that was reported up to now. A line that is still being written waits for the next look."""
        with self._lock:
            if not self._path.is_file():
                return self._history
            if self._path.stat().st_size < self._position:  # another file
                self._begin_again()
            with open_file(self._path) as file:
                file.seek(self._position)
                content = file.read()
            self._position += len(content)
            *lines, self._rest = (self._rest + content).split(b"\n")
            for event in _parsed(lines, self._parse):
                self._history.apply_event(event)
            return self._history


class EventWriter:
    """Appends events to a file. Any thread may tell.

    On a full disk lines wait in memory and are written when there is room: an event never ends a job.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._pending: list[str] = []
        self._cut = _ends_in_mid_line(path)

    def report(self, event: JobEvent) -> None:
        """Write one line."""
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


def _ends_in_mid_line(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with open_file(path) as file:
        file.seek(-1, 2)
        return file.read(1) != b"\n"
