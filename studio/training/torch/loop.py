"""The loop: batches to gradients, gradients to a step, and what is due after it. Nothing non-finite is trained on."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from studio.core.errors import TrainingError
from studio.engine.lora_file import LayerWeights, LoraWeights
from studio.engine.memory import MemoryWatch
from studio.jobs.folder import REQUESTS, RunFolder, RunRequest, take_requests
from studio.loras.keys import Part
from studio.training.events import CheckpointEvent, EffectEvent, HeldOutEvent, StepEvent
from studio.training.settings import TrainingSettings
from studio.training.torch.adapters import Adapters
from studio.training.torch.batches import BatchMaker, TrainingBatch
from studio.training.torch.checkpoints import CheckpointStore, Position, pack, random_state
from studio.training.torch.loss import Denoiser, HeldOutLoss, NoiseLoss
from studio.training.torch.optimizers import RunningMean, rate_in_use
from studio.training.torch.patience import Patience
from studio.training.torch.processes import Processes
from studio.training.torch.reporter import Reporter
from studio.training.torch.validation import ValidationPictures

ExitOutcome = Literal["finished", "stopped", "paused"]
EFFECT_STEPS = 50
DIVERGED = 2.0  # times the loss at the beginning
NO_EFFECT = 1e-6  # of the weights' length: below it an image does not change


@dataclass
class TrainingLoop:
    """All that a step needs, built by `studio.training.torch.run`.

    `model` is the denoiser as accelerate wrapped it: in DistributedDataParallel where there are several processes.
    Only the first process has a teller, validation images and patience, and only it writes.
    """

    run: RunFolder
    settings: TrainingSettings
    position: Position
    denoiser: Denoiser
    model: nn.Module
    adapters: Adapters
    optimizer: Optimizer
    schedule: LRScheduler
    means: RunningMean | None
    maker: BatchMaker
    noise_loss: NoiseLoss
    held_out: HeldOutLoss
    store: CheckpointStore
    processes: Processes
    reporter: Reporter | None
    memory: MemoryWatch
    metadata: Callable[[int], Mapping[str, str]]
    validation: ValidationPictures | None
    patience: Patience | None
    stop_signal: Callable[[], bool]
    measured_steps: set[int] = field(default_factory=set)
    saved_step: int = -1
    first_trained_loss: float | None = None
    told_worse: bool = False

    def train(self) -> ExitOutcome:
        """Go on from `position` until the last step, or until a stop or a pause is asked for; then save.

        A stop while the last images are being made is one too: they are made when the run is resumed.

        Raises:
            TrainingError: where a loss or a gradient is not finite; the state before that step is saved.
            OSError: where something cannot be written, but for a full disk, which is waited for.
        """
        self.denoiser.train()
        self._due_now(first=True)
        while self.position.step < self.settings.max_train_steps:
            ending = self.answer_requests()
            if ending:
                self.save()
                return ending
            self.step()
            self._due_now()
        self.save()
        if self.validation is None or self.validation.is_whole(self.position.step):
            return "finished"
        return self.answer_requests() or "stopped"

    def weights(self) -> LoraWeights:
        """What is trained so far: with EMA the means, else the weights of the last step."""
        weights = self.adapters.weights()
        if self.means is None:
            return weights
        means = dict(zip((name for name, _ in self.adapters.named_parameters()), self.means.means, strict=True))
        return _with_means(weights, means)

    def step(self) -> None:
        """One optimizer step over this process's share of the batches."""
        started = time.perf_counter()
        accumulation, count = self.settings.gradient_accumulation_steps, self.processes.count
        first = self.position.batches_done
        numbers = range(first + self.processes.index, first + accumulation, count)
        seen: list[tuple[TrainingBatch, torch.Tensor]] = []
        for number in numbers:
            batch = self.maker.batch(number)
            losses = self._backward(batch, share=len(numbers), last=number == numbers[-1])
            seen.append((batch, losses))
        norm = self._gradient_norm()
        loss = self._assert_finite(seen, norm)
        rate = rate_in_use(self.optimizer)  # before the schedule, and Prodigy's estimate, go on to the next step's
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        step = self.position.step + 1
        if self.means is not None:
            self.means.update(step)
        self.position = self.position.model_copy(update={"step": step, "batches_done": first + accumulation})
        self.memory.read_accelerator()
        if self.reporter is not None:
            self.reporter.report(
                StepEvent(
                    step=step,
                    loss=loss,
                    learning_rate=rate,
                    grad_norm=norm,
                    seconds=time.perf_counter() - started,
                )
            )

    def _backward(self, batch: TrainingBatch, *, share: int, last: bool) -> torch.Tensor:
        """(B,) detached losses; the gradient of their mean is added, divided by the number of batches of this step."""
        accelerator = self.processes.accelerator
        if last:
            return self._pass(batch, share)
        with accelerator.no_sync(self.model):
            return self._pass(batch, share)

    def _pass(self, batch: TrainingBatch, share: int) -> torch.Tensor:
        accelerator = self.processes.accelerator
        losses = self.noise_loss(self.model, batch)
        accelerator.backward(losses.mean() / share)
        return losses.detach()

    def _gradient_norm(self) -> float:
        norm = self.processes.accelerator.clip_grad_norm_(self.adapters.parameters(), self.settings.max_grad_norm)
        return float(norm)

    def _assert_finite(self, seen: list[tuple[TrainingBatch, torch.Tensor]], norm: float) -> float:
        """The mean loss of all processes.

        Raises:
            TrainingError: where it or the gradient is not finite: it names step, timesteps and images.
        """
        means = torch.stack([losses.mean() for _, losses in seen]).float()
        loss = float(self.processes.all_of(means).mean())
        if math.isfinite(loss) and (math.isfinite(norm) or self.processes.overflow_is_due_to_scale()):
            return loss
        blamed = [
            f"{key} (timestep {timestep})"
            for batch, losses in seen
            for key, timestep, value in zip(batch.keys, batch.timesteps_B.tolist(), losses.tolist(), strict=True)
            if not math.isfinite(value)
        ]
        whole = [f"{k} (timestep {t})" for b, _ in seen for k, t in zip(b.keys, b.timesteps_B.tolist(), strict=True)]
        names = self.processes.words_of_all(blamed) or self.processes.words_of_all(whole)
        what = "The loss" if blamed or not math.isfinite(loss) else "The gradient"
        self.optimizer.zero_grad(set_to_none=True)
        self.save()
        raise TrainingError(
            f"{what} of step {self.position.step + 1:,} is not finite (loss {loss:g}, gradient {norm:g}), so nothing "
            f"of it was learned. The state after step {self.position.step:,} is saved. Images of the step: "
            f"{'; '.join(names[:16])}. Lower the learning rate; if one image is always among them, exclude it."
        )

    # What is due between steps

    def _due_now(self, *, first: bool = False) -> None:
        """What belongs to this step. `first`: the run begins here, or goes on from here.

        The base's images are those of step 0, but are made after the first step: whether it learns at all is seen
        sooner, and they are the same then.
        """
        step, settings = self.position.step, self.settings
        resumed = first and step > 0
        last = step == settings.max_train_steps
        looks = settings.held_out_steps <= settings.max_train_steps  # more than there are steps: never
        if looks and (step % settings.held_out_steps == 0 or last):
            self._measure_held_out()
        if (step % EFFECT_STEPS == 0 or last) and step > 0 and not resumed:
            self._measure_effect()
        if step % settings.checkpointing_steps == 0 and step > 0 and not resumed:
            self.save()
        if step == 1 or resumed:
            self._sample(0)
        if resumed and self.validation is not None:
            self.validation.score_the_rest(at=step)
        if (step % settings.validation_steps == 0 and step > 0) or last:
            self._sample(step)

    def _measure_held_out(self) -> None:
        step = self.position.step
        if self.reporter is not None and step not in self.measured_steps:
            started = time.perf_counter()
            held_out, trained = self.held_out.measure(self.denoiser)
            self.reporter.between_steps.took("held-out losses", time.perf_counter() - started)
            event = HeldOutEvent(step=step, held_out_loss=held_out, trained_loss=trained)
            self.reporter.report(event)
            self.measured_steps.add(step)
            if self.validation is not None and self.validation.scores is not None:
                self.validation.scores.take_in(event)
            self._warn_if_worse(trained)
        self.processes.wait()

    def _warn_if_worse(self, trained_loss: float) -> None:
        """A finite loss that only grows is not learning either: said once."""
        if self.first_trained_loss is None:
            self.first_trained_loss = trained_loss
        elif trained_loss > DIVERGED * self.first_trained_loss and not self.told_worse and self.reporter is not None:
            self.told_worse = True
            self.reporter.problem(
                f"At step {self.position.step:,} the loss of fixed images is {trained_loss:.3g}, where it was "
                f"{self.first_trained_loss:.3g} before the first step: it unlearns. Lower the learning rate, or alpha."
            )

    def _measure_effect(self) -> None:
        if self.reporter is None:
            return
        groups = self.adapters.effects()
        self.reporter.report(EffectEvent(step=self.position.step, groups=groups))
        if max(groups.values()) < NO_EFFECT:
            self.reporter.problem(
                f"The LoRA has no effect yet at step {self.position.step:,}: it changes the weights by less than "
                f"{NO_EFFECT:g} of their length. Raise the learning rate."
            )

    def _sample(self, step: int) -> None:
        """Pictures of the step at which the run is; of the base where `step` is 0. Those there are, are kept."""
        if self.validation is not None and step not in self.validation.made:
            self.denoiser.eval()
            if step == 0:
                self.validation.make_base(at=self.position.step)
            else:
                self.validation.make(step, self.weights(), self.metadata(step))
            self.denoiser.train()
        self.processes.wait()

    def save(self) -> None:
        """Save a checkpoint, waiting for room where the disk is full."""
        if self.position.step == self.saved_step:
            return
        states = self.processes.random_states(random_state())
        if self.reporter is not None and self.patience is not None:
            started = time.perf_counter()
            files = pack(
                self.position,
                self.adapters,
                self.means,
                optimizer=self.optimizer.state_dict(),
                schedule=self.schedule.state_dict(),
                random_states=states,
                metadata=self.metadata(self.position.step),
                scaler=self.processes.scaler_state,
            )
            folder = self.patience.do(lambda: self.store.save(self.position.step, files), step=self.position.step)
            self.store.prune(keep_last=self.settings.keep_checkpoints, keep_every=self.settings.keep_every_steps)
            seconds = time.perf_counter() - started
            self.reporter.between_steps.took("checkpoint", seconds)
            self.reporter.report(
                CheckpointEvent(
                    step=self.position.step,
                    folder=folder.relative_to(self.run.root).as_posix(),
                    num_bytes=sum(map(len, files.values())),
                    seconds=seconds,
                )
            )
        self.saved_step = self.position.step
        self.processes.wait()

    def answer_requests(self) -> ExitOutcome | None:
        """Save or sample now where it was asked for; stop or pause where that was. All processes do the same."""
        asked: set[RunRequest] = {"stop"} if self.stop_signal() else set()
        if self.processes.is_main:
            asked |= take_requests(self.run)
        if self.processes.count > 1:
            asked = {r for r in REQUESTS if r in self.processes.words_of_all(sorted(asked))}
        if "save" in asked:
            self.save()
        if "sample" in asked:
            if self.reporter is not None and self.validation is None:
                self.reporter.problem("No images are made: num_validation_images is 0, or no image has a caption.")
            self._sample(self.position.step)
        if "stop" in asked:
            return "stopped"
        return "paused" if "pause" in asked else None


def _with_means(weights: LoraWeights, means: Mapping[str, torch.Tensor]) -> LoraWeights:
    """The same layers with the means of their sides; names are those of `Adapters.named_parameters`."""
    parts: dict[Part, dict[str, LayerWeights]] = {"unet": {}, "text_encoder": {}}
    for part, path, layer in weights.layers():
        found = {name: mean for name, mean in means.items() if name.startswith(f"{part}.{path}.lora_")}
        sides = {name.removeprefix(f"{part}.{path}.").split(".")[0]: mean.cpu() for name, mean in found.items()}
        magnitude = sides.get("lora_magnitude_vector")
        parts[part][path] = LayerWeights(
            down=sides["lora_A"].clone(),
            up=sides["lora_B"].clone(),
            alpha=layer.alpha,
            magnitude=None if magnitude is None else magnitude.reshape(-1).clone(),
        )
    return LoraWeights(parts["unet"], parts["text_encoder"])
