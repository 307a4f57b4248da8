"""Which device computes, what it is called, and how to wait for it.

Memory that the C library keeps for later: on Linux it is given back where training is short of it.

glibc keeps freed pieces below 32 MB in its heap, in the holes between others. A U-Net of Stable Diffusion 1.5's size
in float32 with gradient checkpointing held 6.1 GiB so; 4.9 where they were given back after every layer.
"""

import ctypes
import platform
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn

MPS_POOL_BYTES = 2**30  # so much may be kept for later, or half of what is in use


def pick_device(*, cpu_only: bool = False) -> torch.device:
    """CUDA, else Apple's GPU (MPS), else the CPU."""
    if not cpu_only and torch.cuda.is_available():
        return torch.device("cuda")
    if not cpu_only and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def device_name(device: torch.device) -> str:
    """The device's name for people: `CPU`, `Apple M2 Max`, `NVIDIA H200`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return processor_name()
    return "CPU"


def processor_name() -> str:
    """The processor's model, as the operating system tells it; on Apple silicon it names the GPU too."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given, so that a time read afterwards is true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def prepare_device(device: torch.device) -> None:
    """What a device needs before the first tensor: on Apple's GPUs a limit.

    Theirs is 1.7 times what the system recommends, out of the memory that all programs share: a 16-GB Mac swaps to a
    standstill long before torch says that there is too little.
    """
    if device.type == "mps":
        torch.mps.set_per_process_memory_fraction(1.0)


def release_memory(device: torch.device) -> None:
    """Give memory that no tensor holds back to the operating system."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def trim_memory(device: torch.device) -> None:
    """Give back what Apple's GPU keeps for later, where that is far above what is in use: others need it too."""
    if device.type != "mps":
        return
    in_use = torch.mps.current_allocated_memory()
    if torch.mps.driver_allocated_memory() - in_use > max(MPS_POOL_BYTES, in_use // 2):
        torch.mps.empty_cache()


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
