"""Which precision a device computes in: one function decides, one assertion proves it after every load."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from studio.core.errors import PrecisionError
from studio.core.results import PrecisionDecision
from studio.core.settings import PrecisionName

DTYPES: dict[PrecisionName, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

BLACK_PICTURES_PAGE = "docs/black-pictures.md"

_WHY_FLOAT32 = {
    "mps": f"half precision on Apple's GPUs makes NaN, and NaN makes black images ({BLACK_PICTURES_PAGE}).",
    "cpu": "the CPU computes half precision more slowly than float32, and less exactly.",
}


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
            reason = f"{requested}: it was chosen, and this GPU may use it for inference."
        elif tf32:
            reason = "float32 with TF32, as you chose: products round their inputs to ten bits, from Ampere GPUs on."
        else:
            reason = "float32: the most exact; TF32 or float16 may be chosen on this GPU for speed."
        return PrecisionDecision(precision=requested, requested=requested, reason=reason, tf32=tf32)
    why = _WHY_FLOAT32.get(device_type, f"the studio has not been tried with half precision on {device_type}.")
    if requested == "float32":
        return PrecisionDecision(precision="float32", requested=requested, reason=f"float32, because {why}")
    reason = f"{requested} was asked for, float32 is used, because {why}"
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
        f"{component}.{name} is {'not loaded' if tensor.is_meta else str(tensor.dtype).removeprefix('torch.')}"
        for component, module in components.items()
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
        if tensor.is_meta or (tensor.is_floating_point() and tensor.dtype != wanted)
    ]
    if wrong:
        shown = "; ".join(wrong[:3]) + ("; …" if len(wrong) > 3 else "")
        raise PrecisionError(
            f"Everything must be {precision}, but {len(wrong)} tensors are not: {shown}. "
            "Load the model again; if this stays, its files are damaged or a plug-in changed it."
        )
