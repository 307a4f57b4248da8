"""What Apple's GPUs need besides float32. Not run on a Mac: the logic is tested on the CPU."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch.overrides import TorchFunctionMode

SLICING_WARNING = (
    "Attention slicing is on because you asked for it. On a Mac it is the likely cause of black pictures: its code "
    "lets NaN from recycled memory through (diffusers #14438). Every picture is checked all the same; if one "
    "fails, switch it off first."
)


class ContiguousAttention(TorchFunctionMode):
    """Makes query, key and value contiguous before every attention.

    `scaled_dot_product_attention` gave wrong results on MPS for tensors that are not (pytorch #163597, #181133).
    diffusers' and transformers' attention both hand it transposed views.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - torch's own signature
        if func is F.scaled_dot_product_attention:
            args = tuple(a.contiguous() if isinstance(a, torch.Tensor) else a for a in args)
            kwargs = {
                name: a.contiguous() if name in ("query", "key", "value") else a for name, a in (kwargs or {}).items()
            }
        return func(*args, **(kwargs or {}))


def attention_context(device: torch.device) -> AbstractContextManager[object]:
    """The context that every forward pass runs in: contiguous attention on MPS, nothing elsewhere."""
    return ContiguousAttention() if device.type == "mps" else nullcontext()
