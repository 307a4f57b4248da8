"""LoRA dropout whose mask is drawn anew, and equal, where gradient checkpointing computes a pass again."""

import torch
from torch import nn

_SEEDS = 2**62


class SeededDropout(nn.Module):
    """Dropout (Srivastava et al., 2014) with a mask that is a function of a seed, drawn from the CPU's random state.

    `torch.utils.checkpoint` brings the CPU's random state back for the recomputation, on every device; that of Apple's
    GPUs it does not (pytorch #127676): there the recomputed pass would drop other numbers than the pass did. So no
    device's own random state is used, and none has to be saved.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape; in training a share of the numbers is 0, the others are larger by as much."""
        if not self.training or self.probability == 0:
            return x
        generator = torch.Generator(x.device).manual_seed(int(torch.randint(_SEEDS, ())))
        kept = torch.empty_like(x, requires_grad=False).bernoulli_(1 - self.probability, generator=generator)
        return x * kept.div_(1 - self.probability)
