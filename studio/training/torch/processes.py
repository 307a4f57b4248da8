"""The processes that train together: one, or those that `accelerate launch` started."""

from collections.abc import Callable
from datetime import timedelta

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import gather, gather_object

from studio.core.errors import CancelledError
from studio.core.language import _
from studio.engine.device import pick_device
from studio.training.settings import MixedPrecisionName

# The first process encodes, or makes images, while the others wait for it.
PATIENCE = timedelta(hours=12)
HALF_PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Processes:
    """This process among its peers."""

    def __init__(self, *, cpu_only: bool, mixed_precision: MixedPrecisionName) -> None:
        self.accelerator = Accelerator(
            cpu=pick_device(cpu_only=cpu_only).type == "cpu",
            mixed_precision=mixed_precision,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
        self.count: int = self.accelerator.num_processes
        self.index: int = self.accelerator.process_index

    @property
    def half_precision(self) -> torch.dtype | None:
        """What passes are computed in where that is less than float32."""
        return HALF_PRECISIONS.get(self.accelerator.mixed_precision)

    @property
    def is_main(self) -> bool:
        return self.index == 0

    @property
    def device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()

    def all_of(self, values: torch.Tensor) -> torch.Tensor:
        """(processes × n) from (n,) of each."""
        if self.count == 1:
            return values
        gathered: torch.Tensor = gather(values)
        return gathered

    def words_of_all(self, words: list[str]) -> list[str]:
        """Everyone's list, one after the other."""
        if self.count == 1:
            return words
        gathered: list[str] = gather_object(words)
        return gathered

    @property
    def scaler_state(self) -> dict[str, object] | None:
        """By how much fp16 scales the loss now; None without fp16."""
        scaler = self.accelerator.scaler
        return None if scaler is None else scaler.state_dict()

    def set_scaler_state(self, state: dict[str, object] | None) -> None:
        """Go on with the scale of a checkpoint, where both have one."""
        scaler = self.accelerator.scaler
        if scaler is not None and state is not None:
            scaler.load_state_dict(state)

    def overflow_is_due_to_scale(self) -> bool:
        """Whether a gradient may be infinite only because fp16 scales the loss: then its step is skipped.

        Each overflow halves the scale. Where it is below 1 and gradients are not finite still, they are not.
        """
        scaler = self.accelerator.scaler
        return scaler is not None and float(scaler.get_scale()) >= 1

    def random_states(self, state: torch.Tensor) -> torch.Tensor:
        """(processes, bytes) from (bytes,) of each."""
        if self.count == 1:
            return state[None].cpu()
        gathered: torch.Tensor = gather(state[None].to(self.device))
        return gathered.cpu()


def stop_if(cancelled: Callable[[], bool]) -> None:
    """End the preparation by a `CancelledError` where that was asked for."""
    if cancelled():
        raise CancelledError(_("Stopped before the first step. What was encoded is kept; resume to continue."))


def precision_of_passes(device: torch.device, wanted: MixedPrecisionName) -> tuple[MixedPrecisionName, str]:
    """(what passes are computed in, what to tell): half precision on CUDA only, whatever was asked for."""
    if wanted == "no" or device.type == "cuda":
        return wanted, ""
    return "no", _(
        "mixed_precision {wanted} was asked for; float32 is used: half precision makes NaN on Apple's GPUs and is "
        "slower on a CPU.",
        wanted=wanted,
    )
