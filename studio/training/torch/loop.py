"""The loop: batches to gradients, gradients to a step, and what is due after it. Nothing non-finite is trained on."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from studio.core.errors import TrainingError
from studio.core.language import _
from studio.engine.memory import MemoryWatch
from studio.jobs.folder import REQUESTS, RunRequest, take_requests
from studio.training.events import CheckpointEvent, EffectEvent, HeldOutEvent, StepEvent
from studio.training.folder import RunFolder
from studio.training.settings import TrainingSettings
from studio.training.torch.batches import BatchMaker, TrainingBatch
from studio.training.torch.checkpoints import CheckpointStore, TrainingState, random_state
from studio.training.torch.loss import Denoiser, HeldOutLoss, NoiseLoss
from studio.training.torch.optimizers import rate_in_use
from studio.training.torch.paths import SegmentLoss, SegmentMaker
from studio.training.torch.processes import Processes
from studio.training.torch.reporter import Reporter, save_step
from studio.training.torch.validation import ValidationPictures

ExitOutcome = Literal["finished", "stopped", "paused"]
EFFECT_STEPS = 50
DIVERGED = 2.0  # times the loss at the beginning
NO_EFFECT = 1e-6  # of the weights' length: below it an image does not change


class NotFiniteError(TrainingError):
    """A loss or a gradient is not finite; nothing of its step was learned."""


@dataclass(frozen=True, eq=False)
class OptimizerSteps:
    """Takes optimizer steps, each over this process's share of its batches.

    `model` is the denoiser as accelerate wrapped it: in DistributedDataParallel where there are several processes.
    """

    settings: TrainingSettings
    state: TrainingState
    model: nn.Module
    maker: BatchMaker | SegmentMaker
    noise_loss: NoiseLoss
    processes: Processes

    def take(self) -> StepEvent:
        """One step; what is to be told of it.

        Raises:
            NotFiniteError: where its loss or its gradient is not finite: it names step, timesteps and images.
        """
        started = time.perf_counter()
        state, accumulation = self.state, self.settings.gradient_accumulation_steps
        first = state.position.batches_done
        numbers = range(first + self.processes.index, first + accumulation, self.processes.count)
        seen: list[tuple[TrainingBatch, torch.Tensor]] = []
        for number in numbers:
            batch = self.maker.batch(number)
            seen.append((batch, self._backward(batch, share=len(numbers), last=number == numbers[-1])))
        norm = self._gradient_norm()
        loss = self._assert_finite(seen, norm)
        rate = rate_in_use(state.optimizer)  # before the schedule, and Prodigy's estimate, go on to the next step's
        state.advance(batches=accumulation)
        seconds = time.perf_counter() - started
        return StepEvent(step=state.position.step, loss=loss, learning_rate=rate, grad_norm=norm, seconds=seconds)

    def _backward(self, batch: TrainingBatch, *, share: int, last: bool) -> torch.Tensor:
        """(B,) detached losses; the gradient of their mean is added, divided by the number of batches of this step."""
        accelerator = self.processes.accelerator
        if last:
            return self._pass(batch, share)
        with accelerator.no_sync(self.model):
            return self._pass(batch, share)

    def _pass(self, batch: TrainingBatch, share: int) -> torch.Tensor:
        losses = self.noise_loss(self.model, batch)
        self.processes.accelerator.backward(losses.mean() / share)
        return losses.detach()

    def _gradient_norm(self) -> float:
        parameters = self.state.adapters.parameters()
        return float(self.processes.accelerator.clip_grad_norm_(parameters, self.settings.max_grad_norm))

    def _assert_finite(self, seen: list[tuple[TrainingBatch, torch.Tensor]], norm: float) -> float:
        """The mean loss of all processes."""
        means = torch.stack([losses.mean() for __, losses in seen]).float()
        loss = float(self.processes.all_of(means).mean())
        if math.isfinite(loss) and (math.isfinite(norm) or self.processes.overflow_is_due_to_scale()):
            return loss
        blamed = [
            _at(key, timestep)
            for batch, losses in seen
            for key, timestep, value in zip(batch.keys, batch.timesteps_B.tolist(), losses.tolist(), strict=True)
            if not math.isfinite(value)
        ]
        whole = [_at(*place) for b, __ in seen for place in zip(b.keys, b.timesteps_B.tolist(), strict=True)]
        images = self.processes.words_of_all(blamed) or self.processes.words_of_all(whole)
        step, is_loss = self.state.position.step, bool(blamed) or not math.isfinite(loss)
        self.state.optimizer.zero_grad(set_to_none=True)
        raise NotFiniteError(_not_finite_words(step, loss, norm, images[:16], is_loss=is_loss))


def _at(key: str, timestep: int) -> str:
    return _("{key} (timestep {timestep})", key=key, timestep=timestep)


def _not_finite_words(step: int, loss: float, norm: float, images: Sequence[str], *, is_loss: bool) -> str:
    """What happened in the step after `step`, and what to do."""
    values = {"step": step + 1, "loss": loss, "norm": norm}
    if is_loss:
        what = _("The loss of step {step:,} is not finite (loss {loss:g}, gradient {norm:g}),", **values)
    else:
        what = _("The gradient of step {step:,} is not finite (loss {loss:g}, gradient {norm:g}),", **values)
    rest = _(
        "so nothing of it was learned. The state after step {step:,} is saved. Images of the step: {images}. Lower the "
        "learning rate; if one image is always among them, exclude it.",
        step=step,
        images="; ".join(images),
    )
    return f"{what} {rest}"


@dataclass
class Watch:
    """What is measured, made and written between steps: of the first process alone, which alone tells and writes."""

    run: RunFolder
    settings: TrainingSettings
    state: TrainingState
    denoiser: Denoiser
    held_out: HeldOutLoss | SegmentLoss
    validation: ValidationPictures | None
    store: CheckpointStore
    metadata: Callable[[int], Mapping[str, str]]
    reporter: Reporter
    stop_signal: Callable[[], bool]
    measured_steps: set[int] = field(default_factory=set)
    first_trained_loss: float | None = None
    told_worse: bool = False

    def measure_held_out(self) -> None:
        """The losses of held-out and of trained images, where they are not known of this step."""
        step = self.state.position.step
        if step in self.measured_steps:
            return
        started = time.perf_counter()
        held_out, trained = self.held_out.measure(self.denoiser)
        self.reporter.between_steps.took("held-out losses", time.perf_counter() - started)
        event = HeldOutEvent(step=step, held_out_loss=held_out, trained_loss=trained)
        self.reporter.report(event)
        self.measured_steps.add(step)
        if self.validation is not None and self.validation.scores is not None:
            self.validation.scores.take_in(event)
        self._warn_if_worse(trained)

    def _warn_if_worse(self, trained_loss: float) -> None:
        """A finite loss that only grows is not learning either: said once."""
        if self.first_trained_loss is None:
            self.first_trained_loss = trained_loss
        elif trained_loss > DIVERGED * self.first_trained_loss and not self.told_worse:
            self.told_worse = True
            self.reporter.problem(
                _(
                    "At step {step:,} the loss of fixed images is {loss:.3g}, where it was {first:.3g} before the "
                    "first step: it diverges. Lower the learning rate, or alpha.",
                    step=self.state.position.step,
                    loss=trained_loss,
                    first=self.first_trained_loss,
                )
            )

    def measure_effect(self) -> None:
        """By how much the layers change the model."""
        step, groups = self.state.position.step, self.state.adapters.effects()
        self.reporter.report(EffectEvent(step=step, groups=groups))
        if max(groups.values()) < NO_EFFECT:
            self.reporter.problem(
                _(
                    "The LoRA has no effect yet at step {step:,}: it changes the weights by less than {share:g} of "
                    "their length. Raise the learning rate.",
                    step=step,
                    share=NO_EFFECT,
                )
            )

    def sample(self, step: int) -> None:
        """Images of the step at which the run is; of the base where `step` is 0. Those there are, are kept."""
        if self.validation is None or step in self.validation.made:
            return
        self.denoiser.eval()
        if step == 0:
            self.validation.make_base(at=self.state.position.step)
        else:
            self.validation.make(step, self.state.weights(), self.metadata(step))
        self.denoiser.train()

    def sample_now(self) -> None:
        """Images of this step, because they were asked for."""
        if self.validation is None:
            self.reporter.problem(_("No images are made: num_validation_images is 0, or no image has a caption."))
        self.sample(self.state.position.step)

    def save(self, random_states: torch.Tensor, scaler: Mapping[str, object] | None) -> None:
        """Write a checkpoint, waiting for room where the disk is full."""
        started, step = time.perf_counter(), self.state.position.step
        files = self.state.pack(random_states=random_states, metadata=self.metadata(step), scaler=scaler)
        folder = save_step(
            lambda: self.store.save(step, files), step=step, reporter=self.reporter, stop_signal=self.stop_signal
        )
        self.store.prune(keep_last=self.settings.keep_checkpoints, keep_every=self.settings.keep_every_steps)
        seconds = time.perf_counter() - started
        self.reporter.between_steps.took("checkpoint", seconds)
        self.reporter.report(
            CheckpointEvent(
                step=step,
                folder=folder.relative_to(self.run.root).as_posix(),
                num_bytes=sum(map(len, files.values())),
                seconds=seconds,
            )
        )


@dataclass
class TrainingLoop:
    """Steps, and between them what is due and what is asked for; all processes do the same at the same step.

    Attributes:
        watch: None but in the first process.
        stop_signal: whether a signal came.
        saved_step: of the newest checkpoint; -1 without one.
    """

    run: RunFolder
    steps: OptimizerSteps
    denoiser: Denoiser
    memory: MemoryWatch
    watch: Watch | None
    stop_signal: Callable[[], bool]
    saved_step: int = -1

    @property
    def settings(self) -> TrainingSettings:
        """Of the run."""
        return self.steps.settings

    @property
    def state(self) -> TrainingState:
        """Where it stands, and all that learns."""
        return self.steps.state

    @property
    def processes(self) -> Processes:
        """This one among its peers."""
        return self.steps.processes

    def train(self) -> ExitOutcome:
        """Go on from where the state is until the last step, or until a stop or a pause is asked for; then save.

        A stop while the last images are being made is one too: they are made when the run is resumed.

        Raises:
            TrainingError: where a loss or a gradient is not finite; the state before that step is saved.
            OSError: where something cannot be written, but for a full disk, which is waited for.
        """
        self.denoiser.train()
        self._due_now(first=True)
        while self.state.position.step < self.settings.max_train_steps:
            ending = self.answer_requests()
            if ending:
                self.save()
                return ending
            self.step()
            self._due_now()
        self.save()
        validation = self.watch.validation if self.watch is not None else None
        if validation is None or validation.is_whole(self.state.position.step):
            return "finished"
        return self.answer_requests() or "stopped"

    def step(self) -> StepEvent:
        """One optimizer step; where it is not finite, the state before it is saved."""
        try:
            event = self.steps.take()
        except NotFiniteError:
            self.save()
            raise
        self.memory.read_accelerator()
        if self.watch is not None:
            self.watch.reporter.report(event)
        return event

    def _due_now(self, *, first: bool = False) -> None:
        """What belongs to this step. `first`: the run begins here, or goes on from here.

        The base's images are those of step 0, but are made after the first step: whether it learns at all is seen
        sooner, and they are the same then.
        """
        step, settings = self.state.position.step, self.settings
        resumed = first and step > 0
        last = step == settings.max_train_steps
        looks = settings.held_out_steps <= settings.max_train_steps  # more than there are steps: never
        if looks and (step % settings.held_out_steps == 0 or last):
            self._watched(Watch.measure_held_out)
        if (step % EFFECT_STEPS == 0 or last) and step > 0 and not resumed:
            self._watched(Watch.measure_effect)
        if step % settings.checkpointing_steps == 0 and step > 0 and not resumed:
            self.save()
        if step == 1 or resumed:
            self._watched(lambda watch: watch.sample(0))
        if resumed and self.watch is not None and self.watch.validation is not None:
            self.watch.validation.score_the_rest(at=step)
        if (step % settings.validation_steps == 0 and step > 0) or last:
            self._watched(lambda watch: watch.sample(step))

    def _watched(self, act: Callable[[Watch], None]) -> None:
        """Done by the first process, while the others wait for it."""
        if self.watch is not None:
            act(self.watch)
        self.processes.wait()

    def save(self) -> None:
        """Save a checkpoint of this step, where there is none."""
        if self.state.position.step == self.saved_step:
            return
        states, scaler = self.processes.random_states(random_state()), self.processes.scaler_state
        self._watched(lambda watch: watch.save(states, scaler))
        self.saved_step = self.state.position.step

    def answer_requests(self) -> ExitOutcome | None:
        """Save or sample now where it was asked for; stop or pause where that was. All processes do the same."""
        asked: set[RunRequest] = {"stop"} if self.stop_signal() else set()
        if self.processes.is_main:
            asked |= take_requests(self.run)
        if self.processes.count > 1:
            asked = {r for r in REQUESTS if r in self.processes.words_of_all(sorted(asked))}
        if "save" in asked:
            self.save()
            self._watched(lambda watch: watch.store.keep(self.state.position.step))
        if "sample" in asked:
            self._watched(Watch.sample_now)
        if "stop" in asked:
            return "stopped"
        return "paused" if "pause" in asked else None
