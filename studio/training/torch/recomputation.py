"""Which parts of the U-Net are computed again in the backward pass, in place of keeping what they made.

Gradient checkpointing (Chen et al., arXiv 1604.06174) is all or nothing in most programs. Here every part is weighed by
what it frees and what it costs, both measured in one pass: linear layers alone, whose output is made again from a
normalisation's, and whole blocks, as diffusers checkpoints them. The best are taken first, so that a budget of memory
is met with the fewest FLOPs; none is "off", and all are "on". Gradients are the same to the bit.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.utils.checkpoint import checkpoint

from studio.engine.memory_forecast import MemoryCount
from studio.training.folder import CurvePoint, PassFacts
from studio.training.settings import TrainingSettings
from studio.training.torch.adapters import ADAPTER
from studio.training.torch.batches import TrainingBatch
from studio.training.torch.loss import Denoiser, predict


@dataclass(frozen=True)
class Part:
    """A layer or a block of the U-Net. Bytes and FLOPs are of one image.

    Attributes:
        path: of its module in the U-Net.
        freed_bytes: no longer kept for backward where it is computed again; of a block, besides those of its layers.
        flops: repeated then; likewise.
        block_bytes: all that a block makes while it is computed again, which is there for a moment; 0 of a layer.
    """

    path: str
    freed_bytes: int
    flops: int
    block_bytes: int = 0

    @property
    def worth(self) -> float:
        """Bytes freed for a FLOP."""
        return self.freed_bytes / max(1, self.flops)


@dataclass(frozen=True)
class RecomputationCosts:
    """What one image's pass keeps, and what its parts would free.

    Attributes:
        kept_bytes: with nothing computed again.
        flops: of the forward pass.
        parts: the best first.
    """

    kept_bytes: int
    flops: int
    parts: tuple[Part, ...]

    @property
    def freed_bytes(self) -> int:
        """With all of them."""
        return sum(part.freed_bytes for part in self.parts)

    def kept_with(self, parts: Iterable[Part]) -> int:
        """Bytes of one image, at the moment of backward when the largest block is there again."""
        chosen = tuple(parts)
        freed = sum(part.freed_bytes for part in chosen)
        return self.kept_bytes - freed + max((part.block_bytes for part in chosen), default=0)

    def slowdown(self, parts: Iterable[Part]) -> float:
        """A step's time with these beside its time with none, by FLOPs."""
        return 1 + sum(part.flops for part in parts) / ((1 + BACKWARD_FLOPS) * max(1, self.flops))

    def freeing(self, percent: float) -> tuple[Part, ...]:
        """The fewest of the best that free so much of what all of them free."""
        return self._first(lambda chosen: _freed(chosen) >= self.freed_bytes * percent / 100)

    def fitting(self, budget_bytes: float) -> tuple[Part, ...] | None:
        """The fewest of the best with which no more is kept; None where all are not enough."""
        chosen = self._first(lambda chosen: self.kept_with(chosen) <= budget_bytes)
        return chosen if self.kept_with(chosen) <= budget_bytes else None

    def percent(self, parts: Iterable[Part]) -> float:
        """What they free of what all of them free."""
        return 100 * _freed(parts) / max(1, self.freed_bytes)

    def percent_of(self, paths: Collection[str]) -> float:
        """The same of parts by their paths."""
        return self.percent(part for part in self.parts if part.path in paths)

    def _first(self, enough: Callable[[tuple[Part, ...]], bool]) -> tuple[Part, ...]:
        for num in range(len(self.parts)):
            if enough(self.parts[:num]):
                return self.parts[:num]
        return self.parts


# Of activations alone: what learns is small. Measured at Stable Diffusion 1.5's size.
BACKWARD_FLOPS = 1.14


def _freed(parts: Iterable[Part]) -> int:
    return sum(part.freed_bytes for part in parts)


def set_checkpointing(denoiser: Denoiser, *, on: bool = False, recomputed: Iterable[str] = ()) -> None:
    """Compute these parts of the U-Net again in every backward pass, and no others; or every block, as diffusers does.

    Args:
        recomputed: paths of modules in the U-Net: of linear layers, and of blocks that diffusers checkpoints.
    """
    unet = denoiser.unet
    chosen = {unet.get_submodule(path) for path in recomputed}
    layers = {module for module in chosen if _is_repeatable(module)}
    blocks = chosen - layers
    within = {module for block in blocks for module in block.modules()}

    def run(module: nn.Module, *args: object) -> object:
        is_chosen = on or module in blocks
        return checkpoint(module.__call__, *args, use_reentrant=False) if is_chosen else module(*args)

    denoiser.lean.repeat(layers - within)
    if on or blocks:
        unet.enable_gradient_checkpointing(run)
    else:
        unet.disable_gradient_checkpointing()


def measure_costs(denoiser: Denoiser, batch: TrainingBatch) -> RecomputationCosts:
    """Of the batch's first image: a forward pass, with every layer that can be asked to as a recipe meanwhile.

    Afterwards nothing is computed again.
    """
    unet = denoiser.unet
    paths = {module: path for path, module in unet.named_modules()}
    kept_by: dict[nn.Module, int] = {}
    denoiser.lean.repeat([module for module in unet.modules() if _is_repeatable(module)])
    with MemoryCount() as count, _counted_flops(unet) as flops:

        def run(module: nn.Module, *args: object) -> object:
            before = count.now_bytes
            result = module(*args)
            assert isinstance(result, torch.Tensor)
            kept_by[module] = max(0, count.now_bytes - before - result.untyped_storage().nbytes())
            return result

        unet.enable_gradient_checkpointing(run)
        prediction = predict(denoiser, batch.first(1))
        kept = int(count.now_bytes - prediction.untyped_storage().nbytes())
    freed = dict(denoiser.lean.freed_bytes)
    layers = {module: Part(paths[module], freed[module], flops[module]) for module in freed if module in flops}
    parts = [*layers.values()]
    for block, num_bytes in kept_by.items():
        own = [layers[module] for module in block.modules() if module in layers]
        total = sum(flops.get(module, 0) for module in block.modules())
        part = Part(
            paths[block],
            num_bytes,
            total - sum(layer.flops for layer in own),
            # Torch's checkpoint keeps all that a block saves, which is then not kept leanly.
            block_bytes=num_bytes + sum(freed.get(module, 0) for module in block.modules()),
        )
        parts.append(part)
    set_checkpointing(denoiser)
    return RecomputationCosts(kept + _freed(layers.values()), sum(flops.values()), _ordered(parts))


def _ordered(parts: list[Part]) -> tuple[Part, ...]:
    """The best first, but a block after the layers in it, of which it is counted without."""

    def key(part: Part) -> tuple[float, bool, str]:
        within = [other.worth for other in parts if other.path.startswith(f"{part.path}.")]
        return -min((part.worth, *within)), bool(part.block_bytes), part.path

    return tuple(sorted((part for part in parts if part.freed_bytes), key=key))


def _is_repeatable(module: nn.Module) -> bool:
    """A linear layer, with a LoRA or without, whose output depends on its input and weights alone."""
    if isinstance(module, LoraLinear):
        return ADAPTER not in module.lora_variant and isinstance(module.lora_dropout[ADAPTER], nn.Identity)
    return type(module) is nn.Linear


@contextmanager
def _counted_flops(unet: nn.Module) -> Iterator[dict[nn.Module, int]]:
    """FLOPs of the forward passes of the `with` block, by the module that does them: linear, convolution, attention."""
    flops: dict[nn.Module, int] = {}

    def note(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any], output: torch.Tensor) -> None:
        num = 0
        if isinstance(module, nn.Linear | LoraLinear):
            num = 2 * output.numel() * args[0].shape[-1]
        elif isinstance(module, nn.Conv2d):
            num = 2 * output.numel() * module.weight[0].numel()
        elif isinstance(module, Attention):
            hidden, source = args[0], options.get("encoder_hidden_states")
            num_keys = (hidden if source is None else source).shape[1]
            num = 4 * hidden.numel() * num_keys
        flops[module] = flops.get(module, 0) + num

    handles = [
        module.register_forward_hook(note, with_kwargs=True)
        for module in unet.modules()
        if isinstance(module, nn.Conv2d | Attention) or type(module) is nn.Linear or _is_repeatable(module)
    ]
    try:
        yield flops
    finally:
        for handle in handles:
            handle.remove()


def curve_of(
    costs: RecomputationCosts, on: PassFacts, off: PassFacts | None, settings: TrainingSettings
) -> tuple[CurvePoint, ...]:
    """Time and memory of a step for each part of the memory that may be freed, in steps of ten percent.

    Args:
        on, off: a batch, measured with every block computed again and with nothing; where the second is missing, its
            time follows from the FLOPs.
    """
    most = costs.slowdown(costs.parts)
    off_seconds = on.seconds / most if off is None else off.seconds
    points = []
    for percent in range(0, 101, 10):
        parts = costs.freeing(percent)
        share = (costs.slowdown(parts) - 1) / (most - 1) if most > 1 else 0.0
        more_bytes = settings.train_batch_size * (costs.kept_with(parts) - costs.kept_with(costs.parts))
        seconds = settings.gradient_accumulation_steps * (off_seconds + share * (on.seconds - off_seconds))
        points.append(CurvePoint(percent=percent, seconds=seconds, peak_bytes=max(0, on.peak_bytes + more_bytes)))
    return tuple(points)
