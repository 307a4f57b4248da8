"""Optimizer and learning-rate schedule: torch's AdamW or prodigyopt's Prodigy, schedules as diffusers has them."""

import math
from typing import Any

import torch
from prodigyopt import Prodigy
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from studio.core.language import _
from studio.training.settings import TrainingSettings
from studio.training.torch.adapters import Adapters


def make_optimizer(adapters: Adapters, settings: TrainingSettings) -> Optimizer:
    """One group of parameters for each part of the model, the text encoder with a rate of its own."""
    groups: list[dict[str, object]] = [{"params": adapters.parameters("unet"), "lr": settings.learning_rate}]
    if settings.train_text_encoder:
        rate = settings.text_encoder_learning_rate
        groups.append({"params": adapters.parameters("text_encoder"), "lr": rate})
    if settings.optimizer == "Prodigy":
        # Bias correction and safeguarded warm-up: as its authors advise for diffusion models.
        prodigy: Optimizer = Prodigy(
            _with_one_rate(groups, settings),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            use_bias_correction=True,
            safeguard_warmup=True,
        )
        return prodigy
    # One kernel for all parameters where the device has one: on Apple's GPUs there is no other than one by one.
    fused = adapters.parameters()[0].device.type in ("cuda", "mps")
    return AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=fused)


def load_optimizer_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Go on with the state of a checkpoint, in the way in which this device computes.

    A checkpoint also tells whether one kernel computed its steps: of a run that began on a CPU, or before that was
    done at all, none did. Taken over, fp16's scaler would still count on one, and the first step would fail.
    """
    how = {name: value for name, value in optimizer.defaults.items() if name == "fused"}  # Prodigy has none
    optimizer.load_state_dict({**state, "param_groups": [{**group, **how} for group in state["param_groups"]]})


def _with_one_rate(groups: list[dict[str, object]], settings: TrainingSettings) -> list[dict[str, object]]:
    """Prodigy estimates one rate for all, and refuses groups that ask for others."""
    return [{**group, "lr": settings.learning_rate} for group in groups]


def make_schedule(optimizer: Optimizer, settings: TrainingSettings, *, warmup_from_zero: bool = False) -> LRScheduler:
    """The rate of each optimizer step; warm-up and length count optimizer steps, never batches.

    Args:
        warmup_from_zero: as `rate_factor`.
    """
    return LambdaLR(optimizer, lambda step: rate_factor(settings, step, warmup_from_zero=warmup_from_zero))


def rate_factor(settings: TrainingSettings, step: int, *, warmup_from_zero: bool = False) -> float:
    """What the learning rate is multiplied by in an optimizer step, in [0, 1]; steps count from 0.

    After the warm-up it is that of diffusers' schedule of the same name. A warm-up of n steps begins at 1/n, where
    diffusers' begins at 0 and learns nothing in its first step.

    Args:
        warmup_from_zero: begin as diffusers does: for runs that began so, which go on to the bit.
    """
    warmup = settings.lr_warmup_steps
    if step < warmup:
        return (step if warmup_from_zero else step + 1) / warmup
    length = max(1, settings.max_train_steps - warmup)
    progress = (step - warmup) / length
    match settings.lr_scheduler:
        case "constant":
            return 1.0
        case "linear":
            return max(0.0, (length - step + warmup) / length)
        case "cosine":
            return max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))
        case "cosine with restarts" if progress < 1:
            return 0.5 * (1 + math.cos(math.pi * (settings.lr_num_cycles * progress % 1)))
        case "cosine with restarts":
            return 0.0


def schedule_notes(settings: TrainingSettings) -> tuple[str, ...]:
    """What to know of the learning rate before the first step, in sentences."""
    notes = []
    if settings.optimizer == "Prodigy" and settings.learning_rate < 0.1:
        notes.append(
            _(
                "Prodigy finds the rate itself and expects learning_rate 1; it is {rate:g}.",
                rate=settings.learning_rate,
            )
        )
    if settings.optimizer == "Prodigy" and settings.train_text_encoder:
        notes.append(_("Prodigy finds one rate for all: text_encoder_learning_rate has no effect with it."))
    return tuple(notes)


def rate_in_use(optimizer: Optimizer) -> float:
    """The U-Net's rate in the next step; with Prodigy, what it makes of its own estimate."""
    group = optimizer.param_groups[0]
    return float(group["lr"]) * float(group.get("d", 1.0))


class RunningMean:
    """EMA of what learns: a copy that follows slowly, faster in the first steps."""

    def __init__(self, parameters: list[torch.nn.Parameter], decay: float) -> None:
        self._parameters = parameters
        self._decay = decay
        self.means = [parameter.detach().clone() for parameter in parameters]

    def update(self, step: int) -> None:
        """Take in the parameters after optimizer step `step`, from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self.means, list(self._parameters), 1 - decay)

    def put(self, means: list[torch.Tensor]) -> None:
        """Set the copy to that of a checkpoint."""
        for mean, value in zip(self.means, means, strict=True):
            mean.copy_(value)
