"""What a run reports while it works: one JSON object a line, append only. No torch: the page reads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from studio.core.language import N_
from studio.core.records import AnyFloat, Record
from studio.images.scores.summary import Likeness, ScoreSummary
from studio.jobs.events import (
    JobEvent,
    MemoryEvent,
    NoteEvent,
    ProblemEvent,
    ResumedEvent,
    StateEvent,
    StepBoundEvent,
)
from studio.jobs.events import read_events as read_job_events

LAYER_GROUPS = (
    N_("self-attention, down"),
    N_("self-attention, middle"),
    N_("self-attention, up"),
    N_("cross-attention, down"),
    N_("cross-attention, middle"),
    N_("cross-attention, up"),
    N_("feed-forward, down"),
    N_("feed-forward, middle"),
    N_("feed-forward, up"),
    N_("convolutions, down"),
    N_("convolutions, middle"),
    N_("convolutions, up"),
    N_("convolutions, ends"),
    N_("text encoder"),
)
"""The names of an `EffectEvent`'s groups: what kind of layers, and where in the U-Net."""


class StepEvent(StepBoundEvent):
    """An optimizer step: mean loss of its images, norm of the gradient before clipping, rate of the U-Net."""

    kind: Literal["step"] = "step"
    loss: AnyFloat
    learning_rate: float
    grad_norm: AnyFloat
    seconds: float


class HeldOutEvent(StepBoundEvent):
    """Loss of fixed (image, timestep, noise) triples: of images kept out, and of images trained on."""

    kind: Literal["held-out"] = "held-out"
    held_out_loss: AnyFloat | None
    trained_loss: AnyFloat


class SampleEvent(StepBoundEvent):
    """Validation images of one step, by their paths below the run's folder; `lora` is the file that acted.

    Those of step 0 are the base's, and no file acted.
    """

    kind: Literal["sample"] = "sample"
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


class ScoreEvent(StepBoundEvent):
    """What the images of a step score, and what those of the base did.

    `nearest` has one entry an image, None where it is not valid; runs of before this was told have none. `distances` of
    a Speed LoRA are those of its images to its teacher's, as RMS of 255.
    """

    kind: Literal["score"] = "score"
    scores: ScoreSummary
    base: ScoreSummary
    nearest: tuple[NearestReported | None, ...] = ()
    distances: tuple[float | None, ...] = ()


class ReferenceEvent(JobEvent):
    """What the dataset's own images score: what there is to be reached."""

    kind: Literal["reference"] = "reference"
    scores: ScoreSummary


class ProposalEvent(StepBoundEvent):
    """Which step is proposed, and why in a sentence; `lora` is its file, `sure` False where little speaks for it."""

    kind: Literal["proposal"] = "proposal"
    sentence: str
    sure: bool
    lora: str


class CheckpointEvent(StepBoundEvent):
    """A checkpoint is on the disk, whole."""

    kind: Literal["checkpoint"] = "checkpoint"
    folder: str
    num_bytes: int
    seconds: float


class EffectEvent(StepBoundEvent):
    """‖ΔW‖ / ‖W‖ of each group of layers; their names are in `LAYER_GROUPS`."""

    kind: Literal["effect"] = "effect"
    groups: Mapping[str, float]


class FinishedEvent(JobEvent):
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
    """All that counts: after a resume, what was reported of later steps before it is left out."""
    return read_job_events(path, EVENTS.validate_json)
