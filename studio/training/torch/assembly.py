"""Putting a run's loop together: optimizer, schedule and position, new or from the newest checkpoint that is whole."""

from collections.abc import Callable, Mapping
from datetime import datetime

from studio.core.errors import TrainingError
from studio.core.language import _
from studio.engine.memory import MemoryWatch
from studio.jobs.events import ResumedEvent
from studio.jobs.folder import pending_requests
from studio.training.events import AnyEvent, HeldOutEvent, SampleEvent, StepEvent, read_events
from studio.training.folder import RunFolder
from studio.training.torch.checkpoints import (
    Checkpoint,
    CheckpointStore,
    Position,
    TrainingState,
    read_position,
    scaler_state,
)
from studio.training.torch.finish import file_metadata
from studio.training.torch.loop import OptimizerSteps, TrainingLoop, Watch
from studio.training.torch.loss import HeldOutLoss
from studio.training.torch.optimizers import RunningMean, make_optimizer, make_schedule
from studio.training.torch.paths import SegmentLoss, SegmentMaker
from studio.training.torch.preparation import Prepared
from studio.training.torch.processes import Processes
from studio.training.torch.reporter import Reporter, open_boards
from studio.training.torch.scores import RunScores
from studio.training.torch.validation import Sampler, ValidationPictures

# Settings that change only what is watched and kept: a run may be resumed with others.
WATCHING_SETTINGS = frozenset(
    (
        "cpu",
        "validation_steps",
        "num_validation_images",
        "validation_prompts",
        "validation_seed",
        "validation_inference_steps",
        "validation_guidance_scale",
        "held_out_steps",
        "checkpointing_steps",
        "keep_checkpoints",
        "keep_every_steps",
        "save_dtype",
        "wandb",
    )
)


def assemble(
    run: RunFolder,
    prepared: Prepared,
    processes: Processes,
    *,
    reporter: Reporter | None,
    stop: Callable[[], bool],
) -> TrainingLoop:
    """Everything that the next step needs: what `prepared` has, in the state of the newest checkpoint that is whole.

    Args:
        reporter: of the first process; None in the others.

    Raises:
        TrainingError: where the run was changed since its checkpoint, or no checkpoint is whole.
        OSError: where a damaged one cannot be set aside.
    """
    store = CheckpointStore(run.checkpoints)
    checkpoint = store.newest(report=reporter.problem if reporter else _say_nothing)
    state = _make_state(prepared, processes, checkpoint)
    # The optimizer's state is where it belongs already. Moved, AdamW's counts of steps would lie on the GPU, and be
    # fetched from there one by one in each step of a resumed run.
    model, state.optimizer = processes.accelerator.prepare(
        prepared.denoiser, state.optimizer, device_placement=[True, False]
    )
    steps = OptimizerSteps(prepared.settings, state, model, prepared.maker, prepared.noise_loss, processes)
    if reporter is not None:
        _begin_reporting(run, reporter, state, is_saved=checkpoint is not None)
    return TrainingLoop(
        run=run,
        steps=steps,
        denoiser=prepared.denoiser,
        memory=MemoryWatch(processes.device, reporter.report if reporter else _say_nothing),
        watch=None if reporter is None else _make_watch(run, prepared, state, store, reporter, stop),
        stop_signal=stop,
        saved_step=-1 if checkpoint is None else state.position.step,
    )


def _make_state(prepared: Prepared, processes: Processes, checkpoint: Checkpoint | None) -> TrainingState:
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
        _assert_same_run(read_position(checkpoint), position)
    means = RunningMean(adapters.parameters(), settings.ema_decay) if settings.use_ema else None
    optimizer = make_optimizer(adapters, settings)
    schedule = make_schedule(optimizer, settings, warmup_from_zero=plan.warmup_from_zero)
    state = TrainingState(position, adapters, optimizer, schedule, means)
    if checkpoint is not None:
        state.restore(checkpoint, process=processes.index)
        processes.set_scaler_state(scaler_state(checkpoint))
    return state


def _assert_same_run(position: Position, new: Position) -> None:
    """Refuse to go on with other settings or other data than `new` has, where the run begins.

    Raises:
        TrainingError: it names what is different.
    """
    before, now = position.settings.model_dump(), new.settings.model_dump()
    changed = [
        _("{name} was {before!r}, is {now!r}", name=name, before=before[name], now=now[name])
        for name in before
        if before[name] != now[name] and name not in WATCHING_SETTINGS
    ]
    if (position.dataset_digest, position.prior_digest) != (new.dataset_digest, new.prior_digest):
        changed.append(_("the dataset's snapshot is another one"))
    if new.num_processes != position.num_processes and new.settings.lora_dropout > 0:
        changed.append(
            _(
                "it ran in {before} processes, now in {now}: with LoRA dropout each process has a random state of its "
                "own",
                before=position.num_processes,
                now=new.num_processes,
            )
        )
    if changed:
        raise TrainingError(
            _(
                "The run is at step {step:,} and cannot continue, because it was changed: {changes}. Change it back, "
                "or duplicate the run to start a new one.",
                step=position.step,
                changes="; ".join(changed),
            )
        )


def _begin_reporting(run: RunFolder, reporter: Reporter, state: TrainingState, *, is_saved: bool) -> None:
    """Say from where the run goes on: without a checkpoint too, where a kill came before the first one."""
    goes_on = is_saved or any(isinstance(event, StepEvent) for event in read_events(run.events))
    resumed_from = state.position.step if goes_on else None
    if resumed_from is not None:
        reporter.report(ResumedEvent(step=resumed_from))
        reporter.state("preparing", _("Resuming from step {step:,}.", step=resumed_from), step=resumed_from)
    reporter.boards = open_boards(run.root, run.tensorboard, state.position.settings, resumed_from=resumed_from)


def _make_watch(
    run: RunFolder,
    prepared: Prepared,
    state: TrainingState,
    store: CheckpointStore,
    reporter: Reporter,
    stop: Callable[[], bool],
) -> Watch:
    """What is due between steps, with what was told of it before."""
    reported = read_events(run.events)  # without what the resume took back
    return Watch(
        run=run,
        settings=prepared.settings,
        state=state,
        denoiser=prepared.denoiser,
        held_out=_fixed_loss(prepared),
        validation=_make_validation(run, prepared, reporter, stop, reported) if prepared.generations else None,
        store=store,
        metadata=_metadata_of(prepared, reported),
        reporter=reporter,
        stop_signal=stop,
        measured_steps={event.step for event in reported if isinstance(event, HeldOutEvent)},
    )


def _fixed_loss(prepared: Prepared) -> HeldOutLoss | SegmentLoss:
    """The loss that can be compared from step to step, of what is trained on."""
    maker, noise_loss = prepared.maker, prepared.noise_loss
    if isinstance(maker, SegmentMaker):
        return SegmentLoss(maker, noise_loss)
    return HeldOutLoss(maker, noise_loss, batch_size=prepared.settings.train_batch_size)


def _metadata_of(prepared: Prepared, reported: list[AnyEvent]) -> Callable[[int], Mapping[str, str]]:
    """The header of a file at a step; the run began when it first told something."""
    started_at = reported[0].at if reported else datetime.now().astimezone()

    def metadata(step: int) -> Mapping[str, str]:
        told = file_metadata(
            prepared.settings,
            prepared.plan,
            prepared.data,
            prediction_type=str(prepared.maker.noise_scheduler.config.prediction_type),
            step=step,
            started_at=started_at,
        )
        return {**told, **prepared.data.origin}

    return metadata


def _make_validation(
    run: RunFolder, prepared: Prepared, reporter: Reporter, stop: Callable[[], bool], reported: list[AnyEvent]
) -> ValidationPictures:
    """What makes and scores images, with what was told before a resume."""

    def to_end() -> bool:  # neither a signal nor the page's Stop waits for images
        return stop() or bool(pending_requests(run) & {"stop", "pause"})

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
    speed = prepared.settings.makes_speed_lora
    scores = RunScores(run.root, items, reporter.progress, to_end, has_teacher=speed, knows_reference=speed)
    for event in reported:
        scores.take_in(event)
    made = {event.step for event in reported if isinstance(event, SampleEvent)}
    return ValidationPictures(sampler, scores, reporter, stop, made)


def _say_nothing(__: object) -> None:
    """Only the first process tells."""
