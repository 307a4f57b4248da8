"""The operations that Stable Diffusion 1.5 stands on, at its own sizes: what a device is compared with the CPU in.

Each is chosen after a fault that was reported, most of them of Metal, and that only large tensors show. `side` is that
of the latents, an eighth of the image's: 64 for 512 × 512.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from studio.core.language import N_
from studio.engine.attention import AttentionPlan, attention
from studio.engine.lora_layers import SeededDropout

Tensors = Sequence[torch.Tensor]
Compute = Callable[[torch.device], Tensors]
UPSAMPLING, LINEAR, DROPOUT = (
    N_("nearest upsampling"),
    N_("linear layer, batch changed"),
    N_("dropout under checkpointing"),
)


@dataclass(frozen=True)
class DeviceOperation:
    """Something to compute on a device.

    Name and consequence are English, and said in a language where they are shown: a device check is kept, and found
    by these names.

    Attributes:
        compute: on a device, the same every time; outputs and gradients.
        reference: what it must give; the same on the CPU where None.
        consequence: what the studio does where it is wrong; empty where it cannot do without.
    """

    name: str
    compute: Compute
    reference: Compute | None = None
    consequence: str = ""


def device_operations(*, side: int = 64) -> tuple[DeviceOperation, ...]:
    """All but attention itself, which has candidates: `attention_of`."""
    return (
        DeviceOperation(N_("3 × 3 convolution"), lambda device: _convolution(device, side)),
        DeviceOperation(N_("group norm"), lambda device: _group_norm(device, side)),
        DeviceOperation(
            LINEAR,
            lambda device: _linear_after_a_change_of_batch(device, side * side),
            consequence=N_("batches of a training are kept small enough for it"),
        ),
        DeviceOperation(
            UPSAMPLING, lambda device: _upsampling(device, side // 2), consequence=N_("it is computed on the CPU")
        ),
        DeviceOperation(
            DROPOUT,
            lambda device: _dropout(device, checkpointing=True),
            reference=lambda device: _dropout(device, checkpointing=False),
            consequence=N_("LoRA dropout is refused together with gradient checkpointing"),
        ),
        DeviceOperation(
            N_("baddbmm over recycled memory"),
            lambda device: _baddbmm_over_nan(device, side),
            consequence=N_("the studio does not use it (diffusers' attention slicing does)"),
        ),
    )


def attention_of(plan: AttentionPlan, *, tokens: int, width: int) -> Compute:
    """Self-attention of a guided pass, 2 × 8 × tokens × width, by a plan, forward and backward."""

    def compute(device: torch.device) -> Tensors:
        # As diffusers hands them over: views whose heads and tokens are transposed.
        inputs = [t.transpose(1, 2) for t in _normal(device, *[(2, tokens, 8, width)] * 3)]
        return _with_gradients(lambda *qkv: attention(*qkv, plan=plan), inputs)

    return compute


def _normal(device: torch.device, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    """Drawn on the CPU, so that every device is given the same."""
    generator = torch.Generator("cpu").manual_seed(0)
    return [torch.randn(shape, generator=generator).to(device) for shape in shapes]


def _with_gradients(function: Callable[..., torch.Tensor], inputs: Tensors) -> Tensors:
    """The output, and the gradients of a weighted sum of it by every input."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    output = function(*leaves)
    weights = torch.linspace(-1, 1, output.numel()).reshape(output.shape).to(output.device)
    return [output.detach(), *torch.autograd.grad(output, leaves, weights)]


def _convolution(device: torch.device, side: int) -> Tensors:
    inputs = _normal(device, (2, 320, side, side), (320, 320, 3, 3))
    return _with_gradients(lambda x, weight: functional.conv2d(x, weight, padding=1), inputs)


def _group_norm(device: torch.device, side: int) -> Tensors:
    return _with_gradients(
        lambda x, weight, bias: functional.group_norm(x, 32, weight, bias),
        _normal(device, (2, 320, side, side), (320,), (320,)),
    )


def _linear_after_a_change_of_batch(device: torch.device, tokens: int) -> Tensors:
    """Gradients were wrong for many rows after a change of their number (pytorch #177116)."""
    results: list[torch.Tensor] = []
    for batch in (2, 10, 3):
        x, weight = _normal(device, (batch, tokens, 320), (320, 320))
        results += _with_gradients(functional.linear, [x, weight])
    return results


def _upsampling(device: torch.device, side: int) -> Tensors:
    inputs = _normal(device, (2, 640, side, side))
    return _with_gradients(lambda x: functional.interpolate(x, scale_factor=2.0, mode="nearest"), inputs)


def _dropout(device: torch.device, *, checkpointing: bool) -> Tensors:
    x, weight = _normal(device, (8, 4096), (4096, 64))
    dropout = SeededDropout(0.5).train()

    def block(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return nn.functional.silu(dropout(x) @ weight)

    def passes(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if not checkpointing:
            return block(x, weight)
        output: torch.Tensor = checkpoint(block, x, weight, use_reentrant=False)
        return output

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _with_gradients(passes, [x, weight])


def _baddbmm_over_nan(device: torch.device, side: int) -> Tensors:
    """With beta 0 what was in the memory must not count (diffusers #14438, pytorch #187521)."""
    query, key = _normal(device, (16, side * side // 4, 40), (16, 40, side * side // 4))
    spoiled = torch.full((16, side * side // 4, side * side // 4), float("nan"), device=device)
    return [torch.baddbmm(spoiled, query, key, beta=0, alpha=1)]
