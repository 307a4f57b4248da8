"""What the training of the autoencoder and of the U-Net have in common."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def learning_rate_factor(step: int, *, max_train_steps: int, warmup_steps: int) -> float:
    """Return what to multiply the learning rate with: a linear rise, times a half cosine from 1 to 0.02.

    step counts from 0.
    """
    rise = min(1.0, (step + 1) / warmup_steps)
    return rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max_train_steps)))


class WeightAverage:
    """Copies of models whose weights are the moving average of the trained ones: less noisy than the last step."""

    def __init__(self, models: Sequence[nn.Module], *, max_decay: float) -> None:
        self._models = models
        self._max_decay = max_decay
        self._num_updates = 0
        self.averaged_models = [copy.deepcopy(model).requires_grad_(False) for model in models]

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the models' weights, fast at first so that random weights are soon forgotten."""
        decay = min(self._max_decay, (1 + self._num_updates) / (10 + self._num_updates))
        self._num_updates += 1
        for averaged, trained in zip(self.averaged_models, self._models, strict=True):
            for average, weight in zip(averaged.parameters(), trained.parameters(), strict=True):
                average.lerp_(weight, 1 - decay)


class LossLog:
    """Prints a line every so many steps with the mean loss since the line before."""

    def __init__(self, *, max_train_steps: int, every_steps: int = 100) -> None:
        self._max_train_steps = max_train_steps
        self._every_steps = every_steps
        self._losses: list[float] = []

    def add(self, step: int, loss: Tensor) -> None:
        """Note the loss of a step, counted from 1."""
        self._losses.append(loss.item())
        if step % self._every_steps == 0 or step in (1, self._max_train_steps):
            mean = sum(self._losses) / len(self._losses)
            print(f"step {step} of {self._max_train_steps}: loss {mean:.4f}", flush=True)
            self._losses.clear()
