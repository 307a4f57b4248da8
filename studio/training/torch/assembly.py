"""Putting a run's loop together: optimizer, schedule and position, new or from the newest checkpoint that is whole."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from studio.engine.memory import MemoryWatch
from studio.jobs.events import ResumedEvent
from studio.jobs.folder import RunFolder, pending_requests
from studio.training.events import AnyEvent, HeldOutEvent, SampleEvent, StepEvent, read_events
from studio.training.torch.checkpoints import (
    Checkpoint,
    CheckpointStore,
    Position,
    assert_same_run,
    read_position,
    restore,
    scaler_state,
)
from studio.training.torch.finish import file_metadata
from studio.training.torch.loop import TrainingLoop
from studio.training.torch.loss import HeldOutLoss
from studio.training.torch.optimizers import RunningMean, load_optimizer_state, make_optimizer, make_schedule
from studio.training.torch.patience import Patience
from studio.training.torch.preparation import Prepared
from studio.training.torch.processes import Processes
from studio.training.torch.reporter import Reporter, open_boards
from studio.training.torch.scores import RunScores
from studio.training.torch.validation import Sampler, ValidationPictures


@dataclass(frozen=True, eq=False)
class _State:
    """What a checkpoint holds, in the objects that go on with it."""

    position: Position
    optimizer: Optimizer
    schedule: LRScheduler
    means: RunningMean | None
    saved_step: int


def make_loop(
    run: RunFolder,
    prepared: Prepared,
    processes: Processes,
    *,
    reporter: Reporter | None,
    stop: Callable[[], bool],
    memory: MemoryWatch,
) -> TrainingLoop:
    """Everything that the next step needs.

    Raises:
        TrainingError: where the run was changed since its checkpoint, or no checkpoint is whole.
        OSError: where a damaged one cannot be set aside.
    """
    settings = prepared.settings
    store = CheckpointStore(run.checkpoints)
    state = _make_state(prepared, processes, store.newest(report=reporter.problem if reporter else _say_nothing))
    # The optimizer's state is where it belongs already. Moved, AdamW's counts of steps would lie on the GPU, and be
    # fetched from there one by one in each step of a resumed run.
    model, optimizer = processes.accelerator.prepare(prepared.denoiser, state.optimizer, device_placement=[True, False])
    if reporter is not None:
        _begin_reporting(run, prepared, reporter, state, read_events(run.events))
    reported = read_events(run.events)  # without what the resume took back
    patience = Patience(run, reporter, stop) if reporter is not None else None
    return TrainingLoop(
        run=run,
        settings=settings,
        position=state.position,
        denoiser=prepared.denoiser,
        model=model,
        adapters=prepared.adapters,
        optimizer=optimizer,
        schedule=state.schedule,
        means=state.means,
        maker=prepared.maker,
        noise_loss=prepared.noise_loss,
        held_out=HeldOutLoss(prepared.data, prepared.maker, prepared.noise_loss, batch_size=settings.train_batch_size),
        store=store,
        processes=processes,
        reporter=reporter,
        memory=memory,
        metadata=_metadata_of(prepared, reported),
        validation=_make_validation(run, prepared, patience, reported) if patience and prepared.generations else None,
        patience=patience,
        stop_signal=stop,
        measured_steps={event.step for event in reported if isinstance(event, HeldOutEvent)},
        saved_step=state.saved_step,
    )


def _make_state(prepared: Prepared, processes: Processes, checkpoint: Checkpoint | None) -> _State:
    """New, or as the checkpoint has it."""
    settings, adapters, plan = prepared.settings, prepared.adapters, prepared.plan
    position = Position(
        step=0,
        batches_done=0,
        dataset_digest=plan.dataset_digest,
        prior_digest=plan.prior_digest,
        num_processes=processes.count,
        settings=settings,
    )
    if checkpoint is not None:
        found = read_position(checkpoint)
        assert_same_run(
            found,
            settings,
            dataset_digest=plan.dataset_digest,
            prior_digest=plan.prior_digest,
            num_processes=processes.count,
        )
        position = position.model_copy(update={"step": found.step, "batches_done": found.batches_done})
    means = RunningMean(adapters.parameters(), settings.ema_decay) if settings.use_ema else None
    optimizer = make_optimizer(adapters, settings)
    schedule = make_schedule(optimizer, settings, warmup_from_zero=plan.warmup_from_zero)
    if checkpoint is not None:
        optimizer_state, schedule_state = restore(checkpoint, adapters, means, process=processes.index)
        load_optimizer_state(optimizer, optimizer_state)
        schedule.load_state_dict(schedule_state)
        processes.set_scaler_state(scaler_state(checkpoint))
    return _State(position, optimizer, schedule, means, -1 if checkpoint is None else position.step)


def _begin_reporting(
    run: RunFolder, prepared: Prepared, reporter: Reporter, state: _State, reported: list[AnyEvent]
) -> None:
    """Say from where the run goes on: without a checkpoint too, where a kill came before the first one."""
    goes_on = state.saved_step >= 0 or any(isinstance(event, StepEvent) for event in reported)
    resumed_from = state.position.step if goes_on else None
    if resumed_from is not None:
        reporter.report(ResumedEvent(step=resumed_from))
    reporter.boards = open_boards(run.root, run.tensorboard, prepared.settings, resumed_from=resumed_from)


def _metadata_of(prepared: Prepared, reported: list[AnyEvent]) -> Callable[[int], Mapping[str, str]]:
    """The header of a file at a step; the run began when it first told something."""
    started_at = reported[0].at if reported else datetime.now().astimezone()

    def metadata(step: int) -> Mapping[str, str]:
        return file_metadata(
            prepared.settings,
            prepared.plan,
            prepared.data,
            prediction_type=str(prepared.maker.noise_scheduler.config.prediction_type),
            step=step,
            started_at=started_at,
        )

    return metadata


def _make_validation(
    run: RunFolder, prepared: Prepared, patience: Patience, reported: list[AnyEvent]
) -> ValidationPictures:
    """What makes and scores images, with what was told before a resume."""
    reporter = patience.reporter

    def to_end() -> bool:  # neither a signal nor the page's Stop waits for images
        return patience.stop_signal() or bool(pending_requests(run) & {"stop", "pause"})

    sampler = Sampler(
        manager=prepared.manager,
        adapters=prepared.adapters,
        offloaded=prepared.offloaded,
        run=run,
        settings=prepared.settings,
        generations=prepared.generations,
        report_problem=reporter.problem,
        on_picture=reporter.picture,
        cancelled=to_end,
    )
    items = [item for item in prepared.data.items if not item.is_prior]
    scores = RunScores(run.root, items, report=reporter.progress, cancelled=to_end)
    for event in reported:
        scores.take_in(event)
    made = {event.step for event in reported if isinstance(event, SampleEvent)}
    return ValidationPictures(sampler, scores, reporter, patience, made)


def _say_nothing(_: object) -> None:
    """Only the first process tells."""
