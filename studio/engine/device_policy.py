"""What follows from the device check: when it is made and kept, and what a loaded model does differently after it."""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.models.upsampling import Upsample2D
from pydantic import TypeAdapter, ValidationError
from torch.nn import functional

from studio.core.errors import DeviceError, is_out_of_memory
from studio.core.files import read_file, write_atomically
from studio.core.results import CHECK_FORMAT, DeviceCheck
from studio.core.system import operating_system
from studio.engine.attention import AttentionPlan, attention_plan, set_attention
from studio.engine.device import device_name, release_memory
from studio.engine.device_check import check_device, plan_of
from studio.engine.device_operations import UPSAMPLING
from studio.engine.models import Components

logger = logging.getLogger(__name__)

_CHECKS = TypeAdapter(tuple[DeviceCheck, ...])


class DevicePolicy:
    """The check of one device.

    Args:
        kept: the file of results; None where nothing is kept, and so nothing is checked by itself.
    """

    def __init__(self, device: torch.device, kept: Path | None) -> None:
        self._device = device
        self._kept = kept

    def check(self, on_part: Callable[[str], None]) -> DeviceCheck:
        """Check the device against the CPU, and keep the result.

        Raises:
            ModelError: where the shipped model cannot be read.
            OSError: where the result cannot be kept.
            RuntimeError, MemoryError: where there is not the memory for it.
        """
        check = check_device(self._device, on_part=on_part)
        if self._kept is not None:
            keep_check(self._kept, check)
        return check

    def known(self, on_part: Callable[[str], None]) -> DeviceCheck | None:
        """What is known of the device: of a GPU of which nothing is yet, it is found out now.

        Where memory is short just now, or the result cannot be kept, no model has to wait for that: it is found out
        again before the next one.

        Raises:
            DeviceError: where it computes wrongly what the studio cannot do without.
            ModelError: where the shipped model cannot be read.
        """
        if self._kept is None:
            return None
        known = kept_check(self._kept, self._device)
        if known is None and self._needs_check:
            known = self._found_out(on_part, self._kept)
        if known is not None and not known.passed:
            raise DeviceError(known.sentence)
        return known

    def _found_out(self, on_part: Callable[[str], None], kept: Path) -> DeviceCheck | None:
        try:
            check = check_device(self._device, on_part=on_part)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("There is not enough memory to check %s; it is used unchecked: %s", self._device, error)
            check = None
        release_memory(self._device)
        if check is not None:
            try:
                keep_check(kept, check)
            except OSError as error:
                logger.warning("The device check cannot be kept, and is made again next time: %s", error)
        return check

    @property
    def _needs_check(self) -> bool:
        return self._device.type != "cpu"

    def apply(self, check: DeviceCheck | None, components: Components, *, slicing: bool) -> AttentionPlan:
        """Let a model compute as was found right on the device; how it computes attention."""
        tuned = plan_of(check.attention) if check is not None else None
        plan = attention_plan(self._device, tuned=tuned, slicing=slicing)
        set_attention(components, plan)
        if check is not None and check.is_wrong(UPSAMPLING):
            for module in (*components.unet.modules(), *components.vae.modules()):
                if isinstance(module, Upsample2D):
                    upsample_on_cpu(module)
        return plan


def upsample_on_cpu(layer: Upsample2D) -> None:
    """Compute a layer's nearest upsampling on the CPU from now on, and nothing else of it.

    Its convolution stays on the device: LoRAs act on it there, and parked weights come back to there.
    """

    def enlarge(
        _layer: Upsample2D, inputs: tuple[torch.Tensor, list[int] | None]
    ) -> tuple[torch.Tensor, list[int] | None]:
        sample, size = inputs[0], inputs[1] if len(inputs) > 1 else None
        factor = 2.0 if size is None else None
        large = functional.interpolate(sample.cpu(), size=size, scale_factor=factor, mode="nearest")
        return large.to(sample.device), size

    layer.interpolate = False
    layer.register_forward_pre_hook(enlarge)


def keep_check(path: Path, check: DeviceCheck) -> None:
    """Keep a result; an older one of the same machine, system and torch is replaced."""
    others = tuple(kept for kept in _kept_checks(path) if _identity(kept) != _identity(check))
    write_atomically(path, _CHECKS.dump_json((*others, check), indent=2))


def kept_check(path: Path, device: torch.device) -> DeviceCheck | None:
    """The kept result for this machine, operating system and torch version, if there is one."""
    wanted = str(device), device_name(device), operating_system(), torch.__version__, CHECK_FORMAT
    return next((kept for kept in _kept_checks(path) if _identity(kept) == wanted), None)


def _identity(check: DeviceCheck) -> tuple[object, ...]:
    return check.device, check.device_name, check.operating_system, check.torch_version, check.format


def _kept_checks(path: Path) -> tuple[DeviceCheck, ...]:
    if not path.is_file():
        return ()
    try:
        return _CHECKS.validate_json(read_file(path))
    except ValidationError as error:
        logger.warning("The kept device checks in %s cannot be read and are made again: %s", path, error)
        return ()
