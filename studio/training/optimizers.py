"""Optimizer and learning-rate schedule: torch's AdamW or prodigyopt's Prodigy, diffusers' schedules."""

from collections.abc import Mapping

import torch
from diffusers.optimization import get_scheduler
from prodigyopt import Prodigy
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from studio.training.adapters import Adapters
from studio.training_settings import LrSchedulerName, TrainingSettings

_SCHEDULES: Mapping[LrSchedulerName, str] = {
    "constant": "constant_with_warmup",
    "linear": "linear",
    "cosine": "cosine",
    "cosine with restarts": "cosine_with_restarts",
}


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


def _with_one_rate(groups: list[dict[str, object]], settings: TrainingSettings) -> list[dict[str, object]]:
    """Prodigy estimates one rate for all, and refuses groups that ask for others."""
    return [{**group, "lr": settings.learning_rate} for group in groups]


def make_schedule(optimizer: Optimizer, settings: TrainingSettings) -> LRScheduler:
    """The rate of each optimizer step; warm-up and length count optimizer steps, never batches."""
    schedule: LRScheduler = get_scheduler(
        _SCHEDULES[settings.lr_scheduler],
        optimizer,
        num_warmup_steps=settings.lr_warmup_steps,
        num_training_steps=settings.max_train_steps,
        num_cycles=settings.lr_num_cycles,
    )
    return schedule


def rate_in_use(optimizer: Optimizer) -> float:
    """The U-Net's rate now; with Prodigy, what it makes of its own estimate."""
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
