"""Lean passes: of what a pass computes, only what the backward pass cannot make again cheaply is kept for it.

The base is frozen, and autograd keeps more than its gradients need: a convolution's input, which only its weight's
gradient would use, and every link of a chain such as GroupNorm → SiLU → convolution, though each follows from the one
before. Here a frozen convolution keeps nothing, and the outputs of normalisations and activations are kept as recipes:
what they were made from, which is kept anyway, and how. The backward pass makes them again with the same operations on
the same numbers, so gradients are the plain passes' to the bit. No matrix product and no convolution is repeated, but
for those of linear layers that are asked to (`repeat`).

Whatever trains keeps its input: as a recipe where that has one, else as it is. So LoRA, DoRA, dropout and peft's own
passes need not know of it. Checkpointed parts keep nothing; what they compute again is theirs.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from diffusers.models.activations import GEGLU
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv2d_input
from torch.utils.hooks import RemovableHandle

Make = Callable[..., torch.Tensor]
# Elementwise but for their sums: made again in the time it takes to read and write a tensor.
CHEAP = (nn.GroupNorm, nn.LayerNorm, nn.SiLU)


class _Recipe:
    """How a tensor is made from others. Made once in a backward pass, and let go after its last use."""

    def __init__(self, make: Make, sources: tuple["_Kept", ...], made: torch.Tensor) -> None:
        self._make, self._sources = make, sources
        self._version = made._version
        self._dtype, self._stride = made.dtype, made.stride()
        self._num_uses = 0
        self._made: torch.Tensor | None = None

    def is_of(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor, which has the storage, was not written to since."""
        return tensor._version == self._version

    def use(self) -> None:
        """Say that it will be wanted once more; what it is made from then is too."""
        if self._num_uses == 0:
            for source in self._sources:
                if source.recipe is not None:
                    source.recipe.use()
        self._num_uses += 1

    def make(self) -> torch.Tensor:
        """The tensor again."""
        made = self._made
        if made is None:
            with torch.no_grad():
                made = self._make(*(source.get() for source in self._sources))
            assert (made.dtype, made.stride()) == (self._dtype, self._stride), "made again in another form"
        self._num_uses -= 1
        self._made = made if self._num_uses > 0 else None
        return made


@dataclass(frozen=True, eq=False)
class _Kept:
    """A tensor that is kept, or the view of one that is made again."""

    tensor: torch.Tensor | None
    version: int = 0
    recipe: _Recipe | None = None
    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    offset: int = 0

    def get(self) -> torch.Tensor:
        if self.tensor is not None:
            assert self.tensor._version == self.version, "written to before the backward pass"
            return self.tensor
        assert self.recipe is not None
        return self.recipe.make().as_strided(self.size, self.stride, self.offset)


class LeanPasses:
    """Lean passes of a model's modules, from now until `remove`. They act within `kept_leanly`.

    Attributes:
        freed_bytes: of each module, what it made in the last pass and backward makes again.
    """

    def __init__(self, model: nn.Module) -> None:
        self.freed_bytes: dict[nn.Module, int] = {}
        self._repeating: list[RemovableHandle] = []
        self._recipes: WeakKeyDictionary[torch.UntypedStorage, _Recipe] = WeakKeyDictionary()
        self._uncounted: WeakKeyDictionary[_Recipe, nn.Module] = WeakKeyDictionary()
        self._handles: list[RemovableHandle] = []
        self._replaced: list[nn.Module] = []
        for module in model.modules():
            self._put_in(module)

    def kept_leanly(self) -> AbstractContextManager[None]:
        """What the pass of the `with` block keeps for backward, it keeps leanly."""
        self.freed_bytes = {}
        return torch.autograd.graph.saved_tensors_hooks(self._keep, _Kept.get)

    def repeat(self, modules: Iterable[nn.Module]) -> None:
        """From now on these modules, and no others, compute their outputs again in backward in place of keeping them.

        Each is a function of its one input and its weights.
        """
        for handle in self._repeating:
            handle.remove()
        self._repeating = [module.register_forward_hook(self._note_module) for module in modules]
        self.freed_bytes = {}

    def remove(self) -> None:
        """Take it off again: the modules compute as before."""
        self.repeat(())
        for handle in self._handles:
            handle.remove()
        for module in self._replaced:
            del module.forward
        self._handles, self._replaced = [], []

    def _put_in(self, module: nn.Module) -> None:
        if isinstance(module, CHEAP):
            self._handles.append(module.register_forward_hook(self._note_module))
        elif type(module) is GEGLU:
            self._replace(module, _geglu_forward(self))
        elif type(module) is nn.Conv2d and _is_frozen(module):
            self._replace(module, _frozen_convolution_forward)

    def _replace(self, module: nn.Module, forward: Callable[..., torch.Tensor]) -> None:
        module.forward = MethodType(forward, module)
        self._replaced.append(module)

    def _note_module(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if torch.is_grad_enabled() and not _is_autocast(output.device.type):  # which is off in the backward pass
            self.note(module, module.forward, args[0], made=output)

    def note(self, module: nn.Module, make: Make, *sources: torch.Tensor, made: torch.Tensor) -> None:
        """Tell that a module's `made` is `make(*sources)`, which would be so again."""
        recipe = _Recipe(make, tuple(map(self._found, sources)), made)
        self._recipes[made.untyped_storage()], self._uncounted[recipe] = recipe, module

    def _keep(self, tensor: torch.Tensor) -> _Kept:
        kept = self._found(tensor)
        if kept.recipe is not None:
            kept.recipe.use()
            module = self._uncounted.pop(kept.recipe, None)
            if module is not None:
                num_bytes = tensor.untyped_storage().nbytes()
                self.freed_bytes[module] = self.freed_bytes.get(module, 0) + num_bytes
        return kept

    def _found(self, tensor: torch.Tensor) -> _Kept:
        recipe = self._recipes.get(tensor.untyped_storage())
        if recipe is None or not recipe.is_of(tensor):
            return _Kept(tensor.detach(), tensor._version)
        return _Kept(None, 0, recipe, tuple(tensor.size()), tensor.stride(), int(tensor.storage_offset()))


def _is_frozen(module: nn.Conv2d) -> bool:
    learns = any(parameter.requires_grad for parameter in module.parameters())
    return not learns and module.padding_mode == "zeros" and not isinstance(module.padding, str)


class _FrozenConvolution(torch.autograd.Function):
    """A convolution whose weight and bias do not learn: its input's gradient needs the weight alone."""

    @staticmethod
    def forward(
        context: Any,  # noqa: ANN401 - torch's own
        x_BCHW: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
    ) -> torch.Tensor:
        context.save_for_backward(weight)
        context.size, context.window = x_BCHW.shape, (stride, padding, dilation, groups)
        return functional.conv2d(x_BCHW, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad_BCHW: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        (weight,) = context.saved_tensors
        x_grad: torch.Tensor = conv2d_input(context.size, weight, grad_BCHW, *context.window)  # type: ignore[no-untyped-call]
        return x_grad, None, None, None, None, None, None


def _frozen_convolution_forward(self: nn.Conv2d, input: torch.Tensor) -> torch.Tensor:
    if not input.requires_grad or _is_autocast(input.device.type):
        return functional.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
    window = self.stride, self.padding, self.dilation, self.groups
    result: torch.Tensor = _FrozenConvolution.apply(input, self.weight, self.bias, *window)  # type: ignore[no-untyped-call]
    return result


def _is_autocast(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


class _GatedGelu(torch.autograd.Function):
    """x · gelu(g) of (..., 2F) that holds x and g (Shazeer, arXiv 2002.05202), where gelu(g) is known already."""

    @staticmethod
    def forward(context: Any, projected: torch.Tensor, gelu: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch's own
        context.save_for_backward(projected, gelu)
        return _product(projected, gelu)

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ANN401
        projected, gelu = context.saved_tensors
        x, gate = projected.chunk(2, dim=-1)
        projected_grad = torch.empty_like(projected)
        x_grad, gate_grad = projected_grad.chunk(2, dim=-1)
        torch.mul(grad, gelu, out=x_grad)
        gate_grad.copy_(torch.ops.aten.gelu_backward(grad * x, gate))
        return projected_grad, None


def _gelu_of_gate(projected: torch.Tensor) -> torch.Tensor:
    return functional.gelu(projected.chunk(2, dim=-1)[1])


def _product(projected: torch.Tensor, gelu: torch.Tensor) -> torch.Tensor:
    return projected.chunk(2, dim=-1)[0] * gelu


def _geglu_forward(passes: LeanPasses) -> Callable[..., torch.Tensor]:
    def forward(self: GEGLU, hidden_states: torch.Tensor) -> torch.Tensor:
        projected = self.proj(hidden_states)
        gelu = _gelu_of_gate(projected.detach())
        if not torch.is_grad_enabled():
            return _product(projected, gelu)
        passes.note(self, _gelu_of_gate, projected, made=gelu)
        product: torch.Tensor = _GatedGelu.apply(projected, gelu)  # type: ignore[no-untyped-call]
        passes.note(self, _product, projected, gelu, made=product)
        return product

    return forward
