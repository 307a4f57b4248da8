"""What a run tells while it works: one JSON object a line, append only. No torch: the page reads it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from studio.core.results import Record
from studio.images.scores.summary import Likeness, ScoreSummary
from studio.jobs.events import MemoryEvent, NoteEvent, ProblemEvent, ResumedEvent, RunEvent, StateEvent


class StepEvent(RunEvent):
    """An optimizer step: mean loss of its images, norm of the gradient before clipping, rate of the U-Net."""

    kind: Literal["step"] = "step"
    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    seconds: float


class HeldOutEvent(RunEvent):
    """Loss of fixed (image, timestep, noise) triples: of images kept out, and of images trained on."""

    kind: Literal["held-out"] = "held-out"
    step: int
    held_out_loss: float | None
    trained_loss: float


class SampleEvent(RunEvent):
    """Validation images of one step, by their paths below the run's folder; `lora` is the file that acted.

    Those of step 0 are the base's, and no file acted.
    """

    kind: Literal["sample"] = "sample"
    step: int
    prompts: tuple[str, ...]
    base: tuple[str | None, ...]
    pictures: tuple[str | None, ...]
    lora: str
    seconds: float


class NearestReported(Record):
    """The training image that is nearest to a validation image, by its key in the run's snapshot."""

    key: str
    distance: float
    likeness: Likeness
    mirrored: bool


class ScoreEvent(RunEvent):
    """What the images of a step score, and what those of the base did.

    `nearest` has one entry an image, None where it is not valid; runs of before this was told have none.
    """

    kind: Literal["score"] = "score"
    step: int
    scores: ScoreSummary
    base: ScoreSummary
    nearest: tuple[NearestReported | None, ...] = ()


class ReferenceEvent(RunEvent):
    """What the dataset's own images score: what there is to be reached."""

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
