"""Which device computes, what it is called, in which precision, and how to wait for it.

One function decides the precision, one assertion proves it after every load.

Memory that the C library keeps for later: on Linux it is given back where training is short of it.

glibc keeps freed pieces below 32 MB in its heap, in the holes between others. A U-Net of Stable Diffusion 1.5's size
in float32 with gradient checkpointing held 6.1 GiB so; 4.9 where they were given back after every layer.
"""

import ctypes
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from studio.core.errors import PrecisionError
from studio.core.language import N_, _, for_later
from studio.core.results import PrecisionDecision
from studio.core.settings import PrecisionName

MPS_POOL_BYTES = 2**30  # so much may be kept for later, or half of what is in use

DTYPES: dict[PrecisionName, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

BLACK_PICTURES_PAGE = "docs/black-pictures.md"

_WHY_FLOAT32 = {
    "mps": N_("half precision on Apple's GPUs makes NaN, and NaN makes black images ({page})."),
    "cpu": N_("the CPU computes half precision more slowly than float32, and less exactly."),
}
_UNTRIED = N_("the studio has not been tried with half precision on {device_type}.")


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


@for_later()
def decide_precision(
    device_type: str, requested: PrecisionName = "float32", *, tf32: bool = False
) -> PrecisionDecision:
    """The precision for inference on a device, whatever was asked for.

    float32 on `mps` and `cpu` always; on `cuda` what was requested; float32 on a device we do not know.

    Args:
        device_type: `torch.device.type`, given as a value so that a Mac's policy is tested without a Mac.
        tf32: whether TF32 was asked for; CUDA alone has it.
    """
    if device_type == "cuda":
        if requested != "float32":
            reason = _("{requested}: it was chosen, and this GPU may use it for inference.", requested=requested)
        elif tf32:
            reason = _("float32 with TF32, as you chose: products round their inputs to ten bits, from Ampere GPUs on.")
        else:
            reason = _("float32: the most exact; TF32 or float16 may be chosen on this GPU for speed.")
        return PrecisionDecision(precision=requested, requested=requested, reason=reason, tf32=tf32)
    why = _(_WHY_FLOAT32.get(device_type, _UNTRIED), page=BLACK_PICTURES_PAGE, device_type=device_type)
    if requested == "float32":
        return PrecisionDecision(precision="float32", requested=requested, reason=_("float32, because {why}", why=why))
    reason = _("{requested} was asked for, float32 is used, because {why}", requested=requested, why=why)
    return PrecisionDecision(precision="float32", requested=requested, reason=reason)


def set_tf32(wanted: bool) -> None:
    """Whether CUDA's matrix products and convolutions may round float32 inputs to TF32 (ten bits behind the point)."""
    torch.backends.cuda.matmul.allow_tf32 = wanted
    torch.backends.cudnn.allow_tf32 = wanted


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 during the `with` block."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    set_tf32(False)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def assert_precision(components: Mapping[str, nn.Module], precision: PrecisionName) -> None:
    """Walk every parameter and every floating-point buffer of every component.

    Raises:
        PrecisionError: names the first tensors that have another dtype, or that were never loaded (meta).
    """
    wanted = DTYPES[precision]
    wrong = [
        _(
            "{component}.{name} is {dtype}",
            component=component,
            name=name,
            dtype=_("not loaded") if tensor.is_meta else str(tensor.dtype).removeprefix("torch."),
        )
        for component, module in components.items()
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
        if tensor.is_meta or (tensor.is_floating_point() and tensor.dtype != wanted)
    ]
    if wrong:
        shown = "; ".join(wrong[:3]) + ("; …" if len(wrong) > 3 else "")
        raise PrecisionError(
            _(
                "Everything must be {precision}, but {num_wrong} tensors are not: {shown}. Load the "
                "model again; if this stays, its files are damaged or a plug-in changed it.",
                precision=precision,
                num_wrong=len(wrong),
                shown=shown,
            )
        )


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
