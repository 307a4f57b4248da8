"""What lies in a run's folder, read for its report: what is missing or damaged is said, and never ends the report."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Protocol, TypeVar

from pydantic import ValidationError

from studio.core.errors import DatasetError, RunError, SettingsError
from studio.core.files import read_file
from studio.core.language import _
from studio.core.records import Label, read_label
from studio.datasets.snapshot import Snapshot, read_snapshot
from studio.jobs.events import JobEvent, MemoryEvent, ResumedEvent, StateEvent
from studio.jobs.folder import RunState, RunStatus, read_status
from studio.jobs.words import short_title
from studio.training.events import (
    AnyEvent,
    CheckpointEvent,
    HeldOutEvent,
    ProposalEvent,
    ReferenceEvent,
    ScoreEvent,
    StepEvent,
    read_events,
)
from studio.training.folder import RunFolder, TrainingPlan, read_plan
from studio.training.proposal import BaseComparison, compare_with_base
from studio.training.settings import TrainingSettings

IDLE_STATES: tuple[RunState, ...] = ("new", "waiting", "paused", "stopped", "finished", "failed")


class _AtAStep(Protocol):
    @property
    def step(self) -> int: ...


EventT = TypeVar("EventT", bound=JobEvent)
AtAStepT = TypeVar("AtAStepT", bound=_AtAStep)


@dataclass(frozen=True)
class RunFacts:
    """All that a run's folder tells.

    Attributes:
        settings, plan, snapshot, prior: None where they are not there or cannot be read; `missing` has a sentence then.
        events: that count, in their order.
    """

    run: RunFolder
    label: Label
    settings: TrainingSettings | None
    status: RunStatus
    plan: TrainingPlan | None
    snapshot: Snapshot | None
    prior: Snapshot | None
    events: Sequence[AnyEvent]
    missing: tuple[str, ...]
    read_at: datetime

    def reported(self, kind: type[EventT]) -> list[EventT]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @cached_property
    def steps(self) -> list[StepEvent]:
        return by_step(self.reported(StepEvent))

    @cached_property
    def held_out(self) -> list[HeldOutEvent]:
        return by_step(self.reported(HeldOutEvent))

    @cached_property
    def checkpoints(self) -> list[CheckpointEvent]:
        return by_step(self.reported(CheckpointEvent))

    @cached_property
    def memory(self) -> list[MemoryEvent]:
        return self.reported(MemoryEvent)

    @cached_property
    def comparison(self) -> BaseComparison | None:
        """How the proposed step compares with the base; None where no images were scored."""
        proposed, references = self.reported(ProposalEvent)[-1:], self.reported(ReferenceEvent)[-1:]
        return compare_with_base(
            {event.step: event for event in self.reported(ScoreEvent)},
            step=proposed[0].step if proposed else None,
            reference=references[0].scores if references else None,
        )

    @property
    def name(self) -> str:
        return short_title(self.run, self.label)

    @property
    def step(self) -> int:
        """Steps that are done and count."""
        return self.steps[-1].step if self.steps else self.status.step

    @property
    def num_steps(self) -> int | None:
        """Steps that were wanted; None where nothing says it."""
        return self.status.num_steps or (self.settings.max_train_steps if self.settings else None)

    @cached_property
    def worked_at(self) -> list[float]:
        """Seconds of work before each event, without pauses."""
        return worked_seconds(self.events)

    @property
    def seconds(self) -> float:
        """Time that the run worked."""
        return self.worked_at[-1] if self.worked_at else 0.0

    @property
    def median_step_seconds(self) -> float | None:
        return statistics.median(event.seconds for event in self.steps) if self.steps else None

    @property
    def peak_process_bytes(self) -> int | None:
        return max((event.peak_process_bytes for event in self.memory), default=None)

    @property
    def peak_accelerator_bytes(self) -> int | None:
        """The most on the accelerator; None on a CPU."""
        found = [event.peak_accelerator_bytes for event in self.memory if event.peak_accelerator_bytes is not None]
        return max(found, default=None)


def read_facts(run: RunFolder, *, now: datetime) -> RunFacts:
    """Read all that is there.

    Raises:
        OSError: where the events may not be read.
    """
    missing: list[str] = []
    events = read_events(run.events)
    if not events:
        missing.append(_("events.jsonl is not there or empty: no step, loss or memory is known."))
    return RunFacts(
        run=run,
        label=_label(run, missing),
        settings=_settings(run, missing),
        status=_status(run, events, missing),
        plan=_plan(run, missing),
        snapshot=_snapshot(run, missing),
        prior=_prior(run, missing),
        events=events,
        missing=tuple(missing),
        read_at=now,
    )


def by_step(events: Sequence[AtAStepT]) -> list[AtAStepT]:
    """Ascending; of two of one step the later told counts."""
    latest = {event.step: event for event in events}
    return [latest[step] for step in sorted(latest)]


def worked_seconds(events: Sequence[AnyEvent]) -> list[float]:
    """Seconds of work before each event.

    Time counts from a state of work to one of rest. Between a kill and what was told next nothing counts: a session
    begins with the state `preparing`, or with a resume after steps.
    """
    total, works, has_stepped = 0.0, False, False
    before: float | None = None
    result = []
    for event in events:
        begins = (isinstance(event, StateEvent) and event.state == "preparing") or (
            isinstance(event, ResumedEvent) and has_stepped
        )
        if works and not begins and before is not None:
            total += max(0.0, event.at.timestamp() - before)
        if begins:
            has_stepped = False
        has_stepped = has_stepped or isinstance(event, StepEvent)
        # Lines of a run whose first state was lost count all the same.
        works = event.state not in IDLE_STATES if isinstance(event, StateEvent) else works or before is None or begins
        before = event.at.timestamp()
        result.append(total)
    return result


def _label(run: RunFolder, missing: list[str]) -> Label:
    try:
        return read_label(run.label)
    except SettingsError as error:
        missing.append(str(error))
        return Label()


def _settings(run: RunFolder, missing: list[str]) -> TrainingSettings | None:
    try:
        return TrainingSettings.model_validate_json(read_file(run.settings))
    except FileNotFoundError:
        missing.append(_("settings.json is not there: what was wanted is not known."))
    except (OSError, ValidationError) as error:
        missing.append(
            _("settings.json cannot be read ({name}): what was wanted is not known.", name=type(error).__name__)
        )
    return None


def _status(run: RunFolder, events: Sequence[AnyEvent], missing: list[str]) -> RunStatus:
    reported = [event for event in events if isinstance(event, StateEvent)]
    from_events = (
        RunStatus(state=reported[-1].state, message=reported[-1].message) if reported else RunStatus(state="new")
    )
    if not run.status.is_file():
        if reported:
            missing.append(_("status.json is not there: the state is the last one reported."))
        return from_events
    try:
        return read_status(run)
    except RunError as error:
        missing.append(_("{error} The state here is the last one reported.", error=error))
        return from_events


def _plan(run: RunFolder, missing: list[str]) -> TrainingPlan | None:
    try:
        plan = read_plan(run)
    except RunError as error:
        missing.append(str(error))
        return None
    if plan is None:
        missing.append(_("plan.json is not there: the run decided nothing yet, so machine and versions are not known."))
    return plan


def _snapshot(run: RunFolder, missing: list[str]) -> Snapshot | None:
    if not run.dataset.is_file():
        missing.append(_("dataset.jsonl is not there: which images are trained on is not known."))
        return None
    try:
        return read_snapshot(run.dataset)
    except DatasetError as error:
        missing.append(str(error))
        return None


def _prior(run: RunFolder, missing: list[str]) -> Snapshot | None:
    if not run.prior_dataset.is_file():
        return None  # most runs have none
    try:
        return read_snapshot(run.prior_dataset)
    except DatasetError as error:
        missing.append(str(error))
        return None
