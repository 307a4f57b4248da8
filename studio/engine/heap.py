"""Memory that the C library keeps for later: on Linux it is given back where training is short of it.

glibc keeps freed pieces below 32 MB in its heap, in the holes between others. A U-Net of Stable Diffusion 1.5's size
in float32 with gradient checkpointing held 6.1 GiB so; 4.9 where they were given back after every layer.
"""

import ctypes
import sys
from functools import lru_cache

import torch
from diffusers import UNet2DConditionModel
from torch import nn


@lru_cache(maxsize=1)
def _c_library() -> ctypes.CDLL | None:
    """glibc; None on other systems, whose allocators give back by themselves or cannot be asked."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None


def give_back_free_memory() -> None:
    """Return every free page of the heap to the system: milliseconds, and a little more at the next use of each."""
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)


def give_back_between_blocks(unet: UNet2DConditionModel) -> None:
    """From now on, give free memory back after each block's forward pass, and before its backward pass.

    Costs some of a step's time (docs/BENCHMARKS.md); for a CPU whose memory is short.
    """

    def after_forward(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        give_back_free_memory()
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, torch.Tensor) and first.requires_grad:
            first.register_hook(before_backward)  # type: ignore[no-untyped-call]

    def before_backward(gradient: torch.Tensor) -> None:
        give_back_free_memory()

    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        block.register_forward_hook(after_forward)
