"""What a run reported, sorted for its page; followed as it is written. No torch: the page does it."""

from array import array
from dataclasses import dataclass, field
from pathlib import Path

from studio.jobs.events import EventFollower, JobEvent, JobHistory, ResumedEvent, first_step_taken_back
from studio.training.events import (
    EVENTS,
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

    def drop_from(self, step: int) -> None:
        """Take back what was reported of this step and of later ones."""
        while self.step and self.step[-1] >= step:
            for name in COLUMNS:
                getattr(self, name).pop()


@dataclass
class RunHistory(JobHistory):
    """What a run reported so far, sorted. Lists grow; nobody changes what is in them."""

    steps: StepColumns = field(default_factory=StepColumns)
    held_out: list[HeldOutEvent] = field(default_factory=list)
    samples: list[SampleEvent] = field(default_factory=list)
    scores: dict[int, ScoreEvent] = field(default_factory=dict)
    reference: ReferenceEvent | None = None
    proposal: ProposalEvent | None = None
    checkpoints: list[CheckpointEvent] = field(default_factory=list)
    effects: list[EffectEvent] = field(default_factory=list)
    finished: FinishedEvent | None = None

    def apply_event(self, event: JobEvent) -> None:
        """Sort one event in; a resume takes back what no longer counts."""
        super().apply_event(event)
        if isinstance(event, ResumedEvent):
            self._take_back(event)
        elif isinstance(event, StepEvent):
            self.steps.add(event)
        elif isinstance(event, HeldOutEvent):
            self.held_out.append(event)
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
        elif isinstance(event, FinishedEvent):
            self.finished = event

    def _take_back(self, resumed: ResumedEvent) -> None:
        self.steps.drop_from(first_step_taken_back(resumed.step))
        self.held_out = [event for event in self.held_out if not resumed.takes_back(event)]
        self.samples = [event for event in self.samples if not resumed.takes_back(event)]
        self.checkpoints = [event for event in self.checkpoints if not resumed.takes_back(event)]
        self.effects = [event for event in self.effects if not resumed.takes_back(event)]
        self.scores = {step: score for step, score in self.scores.items() if not resumed.takes_back(score)}
        if self.proposal is not None and resumed.takes_back(self.proposal):
            self.proposal = None


def follow_run(path: Path) -> EventFollower[RunHistory]:
    """Reads a run's events file on as it is written."""
    return EventFollower(path, parse=EVENTS.validate_json, history=RunHistory)
