"""A linear layer with its LoRA in one pass: the same numbers as peft's three, with fewer trips through memory.

peft computes base(x) + (x · Aᵀ · Bᵀ) · s: on a CPU the product by s and the sum are two more walks over an output that
may have ten million numbers, forward and backward. Here s meets the rank-wide middle, and both products are added into
the output, or into x's gradient, where it lies.
"""

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Shapes: N = rows (batch × tokens), I = in, O = out, R = rank.


class _FusedLinear(torch.autograd.Function):
    """x · Wᵀ + b + s · x · Aᵀ · Bᵀ in the precision of x; W and b are frozen, A and B may be more precise than x."""

    @staticmethod
    def forward(
        context: Any,  # noqa: ANN401 - torch's own
        x_NI: torch.Tensor,
        weight_OI: torch.Tensor,
        bias_O: torch.Tensor | None,
        down_RI: torch.Tensor,
        up_OR: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        middle_NR = functional.linear(x_NI, down_RI.to(x_NI.dtype)).mul_(scale)
        context.save_for_backward(x_NI, weight_OI, down_RI, up_OR, middle_NR)
        context.scale = scale
        return functional.linear(x_NI, weight_OI, bias_O).addmm_(middle_NR, up_OR.to(x_NI.dtype).T)

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad_NO: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        x_NI, weight_OI, down_RI, up_OR, middle_NR = context.saved_tensors
        down, up = down_RI.to(x_NI.dtype), up_OR.to(x_NI.dtype)
        middle_grad_NR = (grad_NO @ up).mul_(context.scale)
        x_grad = (grad_NO @ weight_OI).addmm_(middle_grad_NR, down) if context.needs_input_grad[0] else None
        down_grad, up_grad = (middle_grad_NR.T @ x_NI).to(down_RI.dtype), (grad_NO.T @ middle_NR).to(up_OR.dtype)
        return x_grad, None, None, down_grad, up_grad, None


def fuse(layer: nn.Module, *, adapter: str) -> bool:
    """Give a layer the fused pass where it is a plain linear one; whether it was.

    Layers with dropout, DoRA and convolutions keep peft's passes, and so do all under autocast or where the input has
    not the precision of the frozen weights.
    """
    if not isinstance(layer, LoraLinear) or adapter in layer.lora_variant:
        return False
    base = layer.get_base_layer()
    if type(base) is not nn.Linear or not isinstance(layer.lora_dropout[adapter], nn.Identity):
        return False
    peft_forward = layer.forward

    def forward(self: LoraLinear, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401
        down, up = self.lora_A[adapter].weight, self.lora_B[adapter].weight
        if args or kwargs or torch.is_autocast_enabled(x.device.type) or x.dtype != base.weight.dtype:
            result: torch.Tensor = peft_forward(x, *args, **kwargs)
            return result
        rows = x.reshape(-1, x.shape[-1])
        scale = float(self.scaling[adapter])
        fused: torch.Tensor = _FusedLinear.apply(rows, base.weight, base.bias, down, up, scale)  # type: ignore[no-untyped-call]
        return fused.view(*x.shape[:-1], -1)

    layer.forward = MethodType(forward, layer)  # type: ignore[method-assign]
    return True
