"""Trainings as a page sees them; what a run reported, followed as it is written.

What a run reported, sorted for its page; followed as it is written. No torch: the page does it.

The trainings as a page sees them: past runs, the queue, and the run that this page shows. No torch.
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio.core.errors import RunError
from studio.core.language import _
from studio.core.paths import UserData
from studio.core.records import Label
from studio.jobs.events import EventFollower, JobEvent, JobHistory, ResumedEvent, first_step_taken_back
from studio.jobs.folder import BUSY_STATES, RunRequest, RunStatus, pending_requests, status_or
from studio.jobs.session import JobLine, JobSession, has_work
from studio.loras.library import LoraLibrary
from studio.training.begin import read_run_settings
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
from studio.training.folder import RunFolder
from studio.training.proposal import BaseComparison, compare_with_base
from studio.training.report import MARKDOWN_NAME, write_report

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

    @property
    def comparison(self) -> BaseComparison | None:
        """How the proposed step compares with the base; None where no images were scored."""
        step = self.proposal.step if self.proposal is not None else None
        reference = self.reference.scores if self.reference is not None else None
        return compare_with_base(dict(self.scores), step=step, reference=reference)

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


CHECKPOINT_LORA = "lora.safetensors"
KEPT_FOLLOWERS = 48  # a page shows some runs as cards, and follows its own and those that it compares with it


@dataclass(frozen=True)
class TrainingView:
    """What a page shows of trainings, at one moment.

    Attributes:
        names: of all runs, newest first.
        jobs: the queue's lines, as far as they are of interest.
        run: the one that the page shows; None where there is none.
        status: of that run.
        history: what it told.
        active: whether anything runs or is about to, so that the page must follow.
        asked: what the run was asked for and has not taken up yet.
        problem: why queue or run could not be read, or that the run is gone, in a sentence.
        labels: what people call runs, by their names.
        titles: what lists call them, likewise.
    """

    names: tuple[str, ...] = ()
    jobs: tuple[JobLine, ...] = ()
    run: RunFolder | None = None
    status: RunStatus | None = None
    history: RunHistory | None = None
    active: bool = False
    asked: frozenset[RunRequest] = frozenset()
    problem: str = ""
    labels: Mapping[str, Label] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)


class TrainingSession(JobSession[RunFolder]):
    """Looks at runs, and steers their jobs. Any thread may ask."""

    def __init__(self, user_data: UserData) -> None:
        super().__init__(user_data, "train", folder=RunFolder, parent=user_data.runs)
        self.thumbnails = user_data.run_thumbnails
        self._follower = lru_cache(KEPT_FOLLOWERS)(lambda run: follow_run(run.events))

    def view(self, name: str = "") -> TrainingView:
        """The state now, with the run of that name; without a name with one that is being worked on, else the newest.

        The name may come from a page: it is never taken for a path.
        """
        runs = self.folders()
        names = tuple(run.name for run in runs)
        called: dict[str, Any] = {"labels": self.labels(runs), "titles": self.titles(runs)}
        jobs: tuple[JobLine, ...] = ()
        try:
            jobs = self.jobs()
            run = self.to_show(name, runs)
            status = status_or("failed", run) if run else None
        except RunError as error:  # of a queue that can be read the rest is true still
            return TrainingView(names=names, jobs=jobs, active=has_work(jobs), problem=str(error), **called)
        history = self.history(run) if run else None
        busy = status is not None and status.state in BUSY_STATES
        asked = pending_requests(run) if run and busy else frozenset()
        return TrainingView(names, jobs, run, status, history, has_work(jobs) or busy, asked, **called)

    def set_label(self, folder: RunFolder, label: Label) -> None:
        super().set_label(folder, label)
        if (folder.root / MARKDOWN_NAME).is_file():
            write_report(folder)

    def history(self, run: RunFolder) -> RunHistory:
        """What a run reported up to now."""
        return self._follower(run).look()


def lora_to_send(history: RunHistory) -> tuple[int, str] | None:
    """Step and file of the LoRA that speaks for itself most: the proposed one, else the last one there is."""
    proposal = history.proposal
    if proposal is not None and proposal.lora:
        return proposal.step, proposal.lora
    known = loras_by_step(history)
    trained = [event.step for event in history.samples if event.step > 0]
    step = trained[-1] if trained else max(known, default=0)
    return (step, known[step]) if step else None


def loras_by_step(history: RunHistory) -> dict[int, str]:
    """The file of the LoRA of every step that has one: that of its images, else that of its checkpoint."""
    saved = {event.step: f"{event.folder}/{CHECKPOINT_LORA}" for event in history.checkpoints}
    return saved | {event.step: event.lora for event in history.samples if event.step > 0}


def lora_of(run: RunFolder, history: RunHistory, step: int | None = None) -> tuple[int, Path]:
    """Step and file of a LoRA of the run: of that step, else of the one that goes on from here.

    Raises:
        RunError: where the run has none yet, or its file is gone.
    """
    found = lora_to_send(history) if step is None else (step, loras_by_step(history).get(step, ""))
    if found is None:
        raise RunError(_("No LoRA yet: wait for the first images, or press “Sample now”."))
    at, reported = found
    try:
        file: Path = run.file(reported) if reported else run.root
    except FileNotFoundError:
        file = run.root
    if not file.is_file():
        said = (
            _(
                "The LoRA of step {step:,} is no longer in {folder}: {file} is gone.",
                step=at,
                folder=run.root,
                file=reported,
            )
            if reported
            else _("The LoRA of step {step:,} is no longer in {folder}: its file is gone.", step=at, folder=run.root)
        )
        raise RunError(said)
    return at, file


def add_to_library(run: RunFolder, history: RunHistory, library: LoraLibrary, step: int | None = None) -> str:
    """Put a LoRA of a run into the library, where it is not there already; its name there.

    Args:
        step: whose LoRA; the best one's where None.

    Raises:
        RunError: where there is none, or its file is gone.
        LoraError, WeightsFileError: where the file is damaged.
        OSError: where the library cannot be written.
    """
    at, file = lora_of(run, history, step)
    known = library.name_of_copy(file)
    return known or library.add(file, name=f"{read_run_settings(run).name} step {at}").name
