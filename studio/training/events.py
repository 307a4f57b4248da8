"""What a run tells while it works: one JSON object a line, append only. No torch: the page reads it."""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from studio.core.results import Fact
from studio.images.scores.summary import Likeness, ScoreSummary
from studio.training.folder import RunState


class RunEvent(Fact):
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


class StepEvent(RunEvent):
    """An optimizer step: mean loss of its pictures, norm of the gradient before clipping, rate of the U-Net."""

    kind: Literal["step"] = "step"
    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    seconds: float


class HeldOutEvent(RunEvent):
    """Loss of fixed (picture, timestep, noise) triples: of pictures kept out, and of pictures trained on."""

    kind: Literal["held-out"] = "held-out"
    step: int
    held_out_loss: float | None
    trained_loss: float


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


class SampleEvent(RunEvent):
    """Validation pictures of one step, by their paths below the run's folder; `lora` is the file that acted.

    Those of step 0 are the base's, and no file acted.
    """

    kind: Literal["sample"] = "sample"
    step: int
    prompts: tuple[str, ...]
    base: tuple[str | None, ...]
    pictures: tuple[str | None, ...]
    lora: str
    seconds: float


class NearestTold(Fact):
    """The training picture that is nearest to a validation picture, by its key in the run's snapshot."""

    key: str
    distance: float
    likeness: Likeness
    mirrored: bool


class ScoreEvent(RunEvent):
    """What the pictures of a step score, and what those of the base did.

    `nearest` has one entry a picture, None where it is not valid; runs of before this was told have none.
    """

    kind: Literal["score"] = "score"
    step: int
    scores: ScoreSummary
    base: ScoreSummary
    nearest: tuple[NearestTold | None, ...] = ()


class ReferenceEvent(RunEvent):
    """What the dataset's own pictures score: what there is to be reached."""

    kind: Literal["reference"] = "reference"
    scores: ScoreSummary


class ProposalEvent(RunEvent):
    """Which step is proposed, and why in a sentence; `lora` is its file, `sure` False where little speaks for it."""

    kind: Literal["proposal"] = "proposal"
    step: int
    sentence: str
    sure: bool
    lora: str


class CheckpointEvent(RunEvent):
    """A checkpoint is on the disk, whole."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: int
    folder: str
    num_bytes: int
    seconds: float


class EffectEvent(RunEvent):
    """‖ΔW‖ / ‖W‖ of each group of layers."""

    kind: Literal["effect"] = "effect"
    step: int
    groups: Mapping[str, float]


class ProblemEvent(RunEvent):
    """Something the user should know, in sentences; the run goes on where its state does not say otherwise."""

    kind: Literal["problem"] = "problem"
    step: int
    message: str


class NoteEvent(RunEvent):
    """Something that was decided or done, in a sentence."""

    kind: Literal["note"] = "note"
    message: str


class FinishedEvent(RunEvent):
    """What came out, by paths below the run's folder.

    `library_name` is empty where the library could not take it; `problems` is what its checks found, in sentences.
    """

    kind: Literal["finished"] = "finished"
    files: tuple[str, ...]
    library_name: str
    problems: tuple[str, ...] = ()


AnyEvent = (
    StateEvent
    | ResumedEvent
    | StepEvent
    | HeldOutEvent
    | MemoryEvent
    | SampleEvent
    | ScoreEvent
    | ReferenceEvent
    | ProposalEvent
    | CheckpointEvent
    | EffectEvent
    | ProblemEvent
    | NoteEvent
    | FinishedEvent
)
EVENTS: TypeAdapter[AnyEvent] = TypeAdapter(Annotated[AnyEvent, Field(discriminator="kind")])


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

    def tell(self, event: AnyEvent) -> None:
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


def read_events(path: Path) -> list[AnyEvent]:
    """All that counts: after a resume, what was told of later steps before it is left out."""
    events: list[AnyEvent] = []
    for event in _lines(path):
        if isinstance(event, ResumedEvent):
            events = [e for e in events if getattr(e, "step", 0) <= event.step or isinstance(e, ProblemEvent)]
        events.append(event)
    return events


def _lines(path: Path) -> Iterator[AnyEvent]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                yield EVENTS.validate_python(json.loads(line))
            except (ValidationError, ValueError):  # cut off by a kill, or in work
                continue
