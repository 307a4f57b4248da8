"""One run from its folder: preparation, the loop, what comes out. `python -m studio train RUN` is this.

States are told in the run's folder, so that a page, a terminal or a report can follow; a failure is told there too.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock, Timeout

from studio.core.errors import (
    CancelledError,
    RunError,
    StudioError,
    TrainingError,
    error_message,
    is_out_of_memory,
    system_error_message,
)
from studio.core.language import _, for_later
from studio.core.paths import UserData
from studio.datasets.snapshot import Snapshot, changed_since, read_snapshot, with_masks
from studio.engine.device import pick_device
from studio.engine.memory import all_present
from studio.jobs.device_lock import device_turn
from studio.jobs.folder import StopSignal, forget_old_requests, read_status, take_requests
from studio.jobs.reporter import report_failure
from studio.jobs.words import short_title
from studio.loras.library import LoraLibrary
from studio.training.begin import read_run_settings
from studio.training.events import FinishedEvent, SampleEvent, ScoreEvent, read_events
from studio.training.folder import RunFolder, read_plan, write_plan
from studio.training.report import write_report
from studio.training.settings import MixedPrecisionName, TrainingSettings
from studio.training.short_way import prepare_dataset
from studio.training.speed import speed_advice
from studio.training.torch.assembly import assemble
from studio.training.torch.data import RunData
from studio.training.torch.finish import check_picture, finish
from studio.training.torch.loop import TrainingLoop, Watch
from studio.training.torch.preparation import Prepared, prepare
from studio.training.torch.processes import Processes, precision_of_passes
from studio.training.torch.reporter import BetweenSteps, Reporter, save_step

RunEnd = Literal["finished", "stopped", "paused"]
MAX_NAMED = 5  # of the files that changed


def train_run(run: RunFolder, user_data: UserData, *, use_snapshot: bool = False) -> RunEnd:
    """Train a run from where it stands to its end, or to a stop. All processes of a launch call this.

    This is the boundary of a training's process: whatever ends it, of any kind, is in the run's status and in its
    report, and goes on up.

    Args:
        use_snapshot: go on although image files changed, with the images as the cache has them.

    Raises:
        StudioError: what the user can act on; it is in the run's status too.
        OSError, MemoryError: likewise, of the system.
    """
    is_main = int(os.environ.get("RANK", "0")) == 0
    stop = StopSignal()
    with _run_alone(run, is_main), stop.listening():
        try:
            return _train_to_the_end(run, user_data, is_main=is_main, stop=stop, use_snapshot=use_snapshot)
        except BaseException as error:
            if is_main:
                report_failure(run, error, _words_of(error))
                _report(run)
            raise


def _train_to_the_end(
    run: RunFolder, user_data: UserData, *, is_main: bool, stop: StopSignal, use_snapshot: bool
) -> RunEnd:
    settings = read_run_settings(run)
    if not is_main:
        return _train(run, settings, user_data, reporter=None, stop=stop, use_snapshot=use_snapshot)
    reporter = Reporter(run, BetweenSteps.of(settings))
    try:
        prepare_dataset(run, user_data)
        with _device(user_data, run, reporter, stop):
            ending = _train(run, settings, user_data, reporter=reporter, stop=stop, use_snapshot=use_snapshot)
    except CancelledError as error:
        reporter.state("stopped", str(error))
        ending = "stopped"
    finally:
        reporter.close()
    _report(run)
    return ending


def _report(run: RunFolder) -> None:
    """Write the report; where that cannot be, how the run ended counts all the same, and is in its status already."""
    try:
        write_report(run)
    except (StudioError, OSError) as error:
        words = _("The report cannot be written: {error}", error=error_message(error))
        print(words, file=sys.stderr, flush=True)


def _train(
    run: RunFolder,
    settings: TrainingSettings,
    user_data: UserData,
    *,
    reporter: Reporter | None,
    stop: StopSignal,
    use_snapshot: bool,
) -> RunEnd:
    prepared, loop = _open(run, settings, user_data, reporter=reporter, stop=stop, use_snapshot=use_snapshot)
    if reporter is None or loop.watch is None:
        return loop.train()
    with loop.memory:
        reporter.state("running", step=loop.state.position.step)
        ending = loop.train()
        if ending == "finished":
            problems = _finish(run, prepared, loop.watch, user_data)
            reporter.state("finished", " ".join((_("The LoRA {name} is finished.", name=settings.name), *problems)))
        else:
            step = loop.state.position.step
            stopped = _("It was stopped at step {step:,}; resume to continue.", step=step)
            saved = _("It was saved at step {step:,}; resume to continue.", step=step)
            reporter.state(ending, saved if step else stopped)
    return ending


@contextmanager
def open_loop(run: RunFolder, user_data: UserData) -> Iterator[TrainingLoop]:
    """A run's loop before its next step, for whoever takes the steps one by one: the bench.

    Raises:
        StudioError: as `train_run`.
    """
    settings = read_run_settings(run)
    reporter = Reporter(run, BetweenSteps.of(settings))
    __, loop = _open(run, settings, user_data, reporter=reporter, stop=StopSignal(), use_snapshot=False)
    with loop.memory:
        yield loop
    reporter.close()


def _open(
    run: RunFolder,
    settings: TrainingSettings,
    user_data: UserData,
    *,
    reporter: Reporter | None,
    stop: StopSignal,
    use_snapshot: bool,
) -> tuple[Prepared, TrainingLoop]:
    """Everything up to the next step: read, prepare, assemble."""
    processes = Processes(cpu_only=settings.cpu, mixed_precision=_mixed_precision(settings))
    _assert_shareable(settings, processes)
    report = reporter.progress if reporter else _say_nothing
    if reporter:
        reporter.state("preparing", _("Reading the dataset."))
    data = read_data(run, settings, use_snapshot=use_snapshot)
    plan = read_plan(run)
    prepared = prepare(
        settings, data, user_data=user_data, processes=processes, plan=plan, report=report, cancelled=stop
    )
    if plan is None and reporter:
        write_plan(run, prepared.plan)
        for note in prepared.plan.notes:
            reporter.note(note)
    return prepared, assemble(run, prepared, processes, reporter=reporter, stop=stop)


def _finish(run: RunFolder, prepared: Prepared, watch: Watch, user_data: UserData) -> tuple[str, ...]:
    """Write, keep and check what was trained; what is wrong with it, in sentences."""
    reporter, state = watch.reporter, watch.state
    reporter.progress(_("Writing the LoRA and reading it back."))
    library = LoraLibrary(user_data.loras)

    def in_memory() -> torch.Tensor:
        prepared.denoiser.eval()
        if prepared.settings.train_text_encoder:
            prepared.manager.forget_prompts()  # those of the base
        with all_present(prepared.offloaded):
            return check_picture(prepared, lora=None)

    files = save_step(
        lambda: finish(
            prepared,
            state.weights(),
            run,
            watch.metadata(state.position.step),
            library=library,
            last_picture=_last_picture(run),
            in_memory=None if state.means is not None else in_memory,
        ),
        step=state.position.step,
        reporter=reporter,
        stop_signal=watch.stop_signal,
    )
    names = tuple(path.relative_to(run.root).as_posix() for path in files.files)
    reporter.report(FinishedEvent(files=names, library_name=files.library_name, problems=files.problems))
    for problem in files.problems:
        reporter.problem(problem)
    for note in files.notes:
        reporter.note(note)
    if prepared.settings.makes_speed_lora and (scored := _last_score(run)):
        reporter.note(speed_advice(scored)[1])
    if files.library_name:
        name = files.library_name
        with for_later():
            said = _("The LoRA is in the library as {name}: choose it on the Inference tab.", name=name)
        reporter.note(said)
    if not files.problems:
        return ()
    again = _(
        "The checkpoint has what was trained: python -m studio train {name} writes and checks the files again.",
        name=run.name,
    )
    return (*files.problems, again)


@contextmanager
def _run_alone(run: RunFolder, is_main: bool) -> Iterator[None]:
    """One training of a run at a time, whoever starts it; its peers in a launch do not count."""
    if not is_main:
        yield
        return
    lock = FileLock(run.lock)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        pid = read_status(run).pid
        raise RunError(
            _("{name} is already being trained (process {pid}). Stop that one first.", name=run.name, pid=pid)
        ) from error
    try:
        forget_old_requests(run)
        yield
    finally:
        lock.release()


@contextmanager
def _device(user_data: UserData, run: RunFolder, reporter: Reporter, stop: StopSignal) -> Iterator[None]:
    """The device for this process, waiting for whoever has it."""

    def given_up() -> bool:
        return stop() or bool(take_requests(run) & {"stop", "pause"})

    with device_turn(
        user_data, _("training {name}", name=short_title(run)), waiting=reporter.waits_for_device, given_up=given_up
    ):
        yield


def read_data(run: RunFolder, settings: TrainingSettings, *, use_snapshot: bool) -> RunData:
    """The run's snapshots, if the files are still what they were.

    Raises:
        TrainingError: where files changed, with their names.
        DatasetError: where a snapshot is damaged.
    """
    data = RunData(
        read_snapshot(run.dataset), read_snapshot(run.prior_dataset) if run.prior_dataset.is_file() else None
    )
    changed = [s for snapshot in (data.snapshot, data.prior) if snapshot is not None for s in changed_since(snapshot)]
    if changed and not use_snapshot:
        named = changed[:MAX_NAMED]
        if more := len(changed) - len(named):
            named.append(_("and {more:,} more", more=more))
        advice = _(
            "Put the files back, or duplicate the run to train on them as they are now, or give --use-snapshot to "
            "continue with the images as they were, where the cache still has them."
        )
        raise TrainingError(" ".join((_("The dataset was changed since the run began:"), *named, advice)))
    if any(entry.mask for entry in data.snapshot.entries):
        return data
    # Begun before masks were in snapshots: they are looked up now, and the digest stays the one of its checkpoints.
    entries = with_masks(data.snapshot, settings.mask_folder).entries
    return replace(data, snapshot=Snapshot(data.snapshot.header, entries))


def _mixed_precision(settings: TrainingSettings) -> MixedPrecisionName:
    return precision_of_passes(pick_device(cpu_only=settings.cpu), settings.mixed_precision)[0]


def _assert_shareable(settings: TrainingSettings, processes: Processes) -> None:
    accumulation = settings.gradient_accumulation_steps
    if accumulation % processes.count:
        raise TrainingError(
            _(
                "gradient_accumulation_steps must be a multiple of the number of processes ({count}), which share the "
                "batches of a step, got {accumulation}.",
                count=processes.count,
                accumulation=accumulation,
            )
        )


def _last_picture(run: RunFolder) -> Path | None:
    """The newest that was not deleted; None where there is none."""
    events = [event for event in read_events(run.events) if isinstance(event, SampleEvent)]
    pictures = (run.root / picture for event in reversed(events) for picture in event.pictures if picture is not None)
    return next((picture for picture in pictures if picture.is_file()), None)


def _last_score(run: RunFolder) -> ScoreEvent | None:
    scores = [event for event in read_events(run.events) if isinstance(event, ScoreEvent)]
    return scores[-1] if scores else None


def _words_of(error: BaseException) -> str:
    """Of our errors their own sentence; running out of memory is said with what to lower."""
    if isinstance(error, StudioError):
        return str(error)
    if is_out_of_memory(error):
        return _(
            "There is not enough memory for this training; the last checkpoint is whole. Set gradient_checkpointing "
            "on, lower train_batch_size (raise gradient_accumulation_steps instead) or resolution, and resume a "
            "duplicate; or close other programs and resume this one."
        )
    return system_error_message(error)


def _say_nothing(__: object) -> None:
    """Only the first process tells."""
