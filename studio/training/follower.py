"""Following a run's events as they are written: each look reads only what is new. No torch: the page does it.

Memory readings come every second for hours; of old ones a few are kept, because a history line shows no more.
"""

import threading
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from studio.jobs.events import MemoryEvent, NoteEvent, ProblemEvent, ResumedEvent
from studio.training.events import (
    EVENTS,
    AnyEvent,
    CheckpointEvent,
    EffectEvent,
    FinishedEvent,
    HeldOutEvent,
    ProposalEvent,
    ReferenceEvent,
    SampleEvent,
    ScoreEvent,
    StepEvent,
)

Stepped = HeldOutEvent | SampleEvent | CheckpointEvent | EffectEvent
MAX_MEMORY_EVENTS = 600
COLUMNS = ("step", "loss", "learning_rate", "grad_norm", "seconds")


def _column() -> "array[float]":
    return array("d")


@dataclass
class StepColumns:
    """What was told of steps, column by column, as plain doubles: charts of 20,000 steps are drawn from these."""

    step: "array[float]" = field(default_factory=_column)
    loss: "array[float]" = field(default_factory=_column)
    learning_rate: "array[float]" = field(default_factory=_column)
    grad_norm: "array[float]" = field(default_factory=_column)
    seconds: "array[float]" = field(default_factory=_column)

    def __len__(self) -> int:
        return len(self.step)

    def add(self, event: StepEvent) -> None:
        """One more step."""
        for name in COLUMNS:
            getattr(self, name).append(float(getattr(event, name)))

    def drop_after(self, step: int) -> None:
        """Take back what was told of later steps."""
        while self.step and self.step[-1] > step:
            for name in COLUMNS:
                getattr(self, name).pop()


@dataclass
class RunHistory:
    """What a run told so far, sorted. Lists grow; nobody changes what is in them."""

    steps: StepColumns = field(default_factory=StepColumns)
    held_out: list[HeldOutEvent] = field(default_factory=list)
    memory: list[MemoryEvent] = field(default_factory=list)
    samples: list[SampleEvent] = field(default_factory=list)
    scores: dict[int, ScoreEvent] = field(default_factory=dict)
    reference: ReferenceEvent | None = None
    proposal: ProposalEvent | None = None
    checkpoints: list[CheckpointEvent] = field(default_factory=list)
    effects: list[EffectEvent] = field(default_factory=list)
    problems: list[ProblemEvent] = field(default_factory=list)
    notes: list[NoteEvent] = field(default_factory=list)
    finished: FinishedEvent | None = None
    num_reported: int = 0

    def take_in(self, event: AnyEvent) -> None:
        """Sort one event in; a resume takes back what was told of later steps."""
        self.num_reported += 1
        if isinstance(event, ResumedEvent):
            self.steps.drop_after(event.step)
            for reported in (self.held_out, self.samples, self.checkpoints, self.effects):
                _drop_after(reported, event.step)
            self.scores = {step: score for step, score in self.scores.items() if step <= event.step}
        elif isinstance(event, StepEvent):
            self.steps.add(event)
        elif isinstance(event, HeldOutEvent):
            self.held_out.append(event)
        elif isinstance(event, MemoryEvent):
            self.memory.append(event)
            if len(self.memory) > 2 * MAX_MEMORY_EVENTS:
                del self.memory[1:-1:2]
        elif isinstance(event, SampleEvent):
            self.samples.append(event)
        elif isinstance(event, ScoreEvent):
            self.scores[event.step] = event
        elif isinstance(event, ReferenceEvent):
            self.reference = event
        elif isinstance(event, ProposalEvent):
            self.proposal = event
        elif isinstance(event, CheckpointEvent):
            self.checkpoints.append(event)
        elif isinstance(event, EffectEvent):
            self.effects.append(event)
        elif isinstance(event, ProblemEvent):
            self.problems.append(event)
        elif isinstance(event, NoteEvent):
            self.notes.append(event)
        elif isinstance(event, FinishedEvent):
            self.finished = event


def _drop_after(reported: Sequence[Stepped], step: int) -> None:
    assert isinstance(reported, list)
    while reported and reported[-1].step > step:
        reported.pop()


class RunFollower:
    """Reads one events file on from where it stopped. Any thread may look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._position = 0
        self._rest = b""
        self._history = RunHistory()

    def look(self) -> RunHistory:
        """All that was told up to now. A line that is still being written waits for the next look."""
        with self._lock:
            if not self._path.is_file():
                return self._history
            if self._path.stat().st_size < self._position:  # another file: begin again
                self._position, self._rest, self._history = 0, b"", RunHistory()
            with self._path.open("rb") as file:
                file.seek(self._position)
                content = file.read()
            self._position += len(content)
            *lines, self._rest = (self._rest + content).split(b"\n")
            for line in lines:
                self._take_in(line)
            return self._history

    def _take_in(self, line: bytes) -> None:
        try:
            event = EVENTS.validate_json(line)
        except ValidationError:  # empty, or cut off by a kill
            return
        self._history.take_in(event)
