"""What a device has memory for, and can compute: gradient checkpointing, largest batch, refusals.

Whether activations are kept or computed twice: measured on the model at hand, decided by the memory at hand.

What a device cannot do: batches that it computes wrongly, and steps for which it has no memory.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from studio.core.errors import TrainingError
from studio.core.language import _
from studio.core.results import DeviceCheck
from studio.core.text import gigabytes
from studio.engine.attention import attention_of_model
from studio.engine.device_operations import DROPOUT, LINEAR
from studio.engine.memory import free_bytes, total_bytes
from studio.engine.memory_forecast import count_training_step, counted_plan
from studio.engine.models import Components
from studio.training.folder import PassFacts
from studio.training.settings import TrainingSettings
from studio.training.torch.batches import TrainingBatch
from studio.training.torch.loss import Denoiser, predict

# Of what is free, so much may be planned with: allocators keep gaps, and the desktop wants to live.
SHARE_OF_FREE = 0.8
# Besides what is kept for backward, backward itself needs room for gradients of activations.
BACKWARD_FACTOR = 1.25
MIN_FREE_TO_MEASURE = 3 * 2**30
NEARLY_ALL = 0.9  # of memory or disk: from here on it is short


@dataclass(frozen=True)
class CheckpointingDecision:
    """On or off, and why."""

    on: bool
    reason: str


def decide_checkpointing(
    settings: TrainingSettings,
    *,
    device: torch.device,
    kept_bytes_per_picture: Callable[[], int],
    num_processes: int,
) -> CheckpointingDecision:
    """The user's choice; with `auto` off where everything fits into memory.

    Args:
        kept_bytes_per_picture: measures what one image's forward pass keeps for its backward pass.
    """
    if settings.gradient_checkpointing != "auto":
        if settings.gradient_checkpointing == "on":
            return CheckpointingDecision(True, _("Gradient checkpointing is on, as you chose."))
        return CheckpointingDecision(False, _("Gradient checkpointing is off, as you chose."))
    free = free_bytes(device) // num_processes
    if free < MIN_FREE_TO_MEASURE:
        return CheckpointingDecision(
            True, _("Gradient checkpointing is on: only {size} are free.", size=gigabytes(free))
        )
    needed = int(kept_bytes_per_picture() * settings.train_batch_size * BACKWARD_FACTOR)
    fits = needed <= free * SHARE_OF_FREE
    why = _(
        "a batch of {batch} keeps about {needed}, {free} are free",
        batch=settings.train_batch_size,
        needed=gigabytes(needed),
        free=gigabytes(free),
    )
    if fits:
        return CheckpointingDecision(False, _("Gradient checkpointing is off, which is faster: {why}.", why=why))
    return CheckpointingDecision(True, _("Gradient checkpointing is on, about a quarter slower: {why}.", why=why))


def kept_bytes_of(denoiser: Denoiser, batch: TrainingBatch) -> int:
    """Bytes that a forward pass of the batch's first image keeps for backward, without the model's own weights."""
    weights = {p.untyped_storage().data_ptr() for p in denoiser.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other tensor gets its place while we count
        return tensor

    first = replace(
        batch, noisy_BCHW=batch.noisy_BCHW[:1], timesteps_B=batch.timesteps_B[:1], text_BND=batch.text_BND[:1]
    )
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        prediction = predict(denoiser, first)
        num_bytes = sum(storage.nbytes() for storage in kept.values())
    del prediction
    return num_bytes


# Gradients were wrong on MPS where a batch has more rows (latents), after a change of shape (pytorch #177116).
MPS_MAX_ROWS = 32_768
# Where the device check finds fewer wrong: so many are two images of 512 × 512.
CHECKED_MAX_ROWS = 8_192
UNCOUNTED_ROWS = 8_192  # up to here the memory of a step is not counted beforehand


def largest_batch(device_type: str, resolution: int, *, max_rows: int = MPS_MAX_ROWS) -> int | None:
    """The most images a batch may have on a device; None where there is no limit but memory.

    Args:
        max_rows: of a linear layer's input, which has one for each latent: more are computed wrongly.
    """
    if device_type != "mps" and max_rows == MPS_MAX_ROWS:
        return None
    return max(1, max_rows // (resolution // 8) ** 2)


def assert_fits(
    settings: TrainingSettings, *, resolution: int, device: torch.device, check: DeviceCheck | None
) -> None:
    """What the device computes wrongly is not asked of it.

    Raises:
        TrainingError: it names the setting to change.
    """
    wrong_rows = check is not None and check.is_wrong(LINEAR)
    most = largest_batch(device.type, resolution, max_rows=CHECKED_MAX_ROWS if wrong_rows else MPS_MAX_ROWS)
    if most is not None and settings.train_batch_size > most:
        why = _("as the device check found") if wrong_rows else "pytorch #177116"
        raise TrainingError(
            _(
                "train_batch_size must be at most {most} at {resolution} pixels on this GPU, whose gradients are wrong "
                "beyond ({why}), got {batch}. Raise gradient_accumulation_steps instead.",
                most=most,
                resolution=resolution,
                why=why,
                batch=settings.train_batch_size,
            )
        )
    if (
        check is not None
        and check.is_wrong(DROPOUT)
        and settings.lora_dropout
        and settings.gradient_checkpointing != "off"
    ):
        raise TrainingError(
            _(
                "lora_dropout must be 0 or gradient_checkpointing off on this GPU, which drops other numbers where a "
                "pass is computed again (device check), got {dropout:g} and {checkpointing}.",
                dropout=settings.lora_dropout,
                checkpointing=settings.gradient_checkpointing,
            )
        )


def assert_room(
    settings: TrainingSettings,
    components: Components,
    *,
    resolution: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> None:
    """A step larger than usual has room on the device, were nothing else running: counted before anything is computed.

    Args:
        dtype: what the passes are computed in, and the U-Net is rounded to.

    Raises:
        TrainingError: it says what the step would take, and what to lower.
    """
    rows = settings.train_batch_size * (resolution // 8) ** 2
    if rows <= UNCOUNTED_ROWS:
        return
    plan = counted_plan(device, attention_of_model(components.unet))
    needed = count_training_step(
        components.unet,
        width=resolution,
        height=resolution,
        batch=settings.train_batch_size,
        plan=plan,
        checkpointing=settings.gradient_checkpointing != "off",
        dtype=dtype,
    ).peak_bytes
    weights = dtype.itemsize * sum(parameter.numel() for parameter in components.unet.parameters())
    total = total_bytes(device)
    if needed + weights > total:
        too_much = _(
            "A batch of {batch} at {resolution} pixels takes about {needed} beside the U-Net's {weights}, and this "
            "device has {total} in all.",
            batch=settings.train_batch_size,
            resolution=resolution,
            needed=gigabytes(needed),
            weights=gigabytes(weights),
            total=gigabytes(total),
        )
        advice = _("Lower train_batch_size (raise gradient_accumulation_steps instead) or resolution.")
        if settings.gradient_checkpointing == "off":
            advice = _(
                "Lower train_batch_size (raise gradient_accumulation_steps instead) or resolution, or set "
                "gradient_checkpointing on."
            )
        raise TrainingError(f"{too_much} {advice}")


def memory_warnings(chosen: PassFacts, *, limit: int, disk: int, free_disk: int) -> tuple[str, ...]:
    """What is short for a training: memory or disk, in sentences."""
    warnings = []
    if chosen.peak_bytes > limit * NEARLY_ALL:
        memory = _(
            "It needs {needed} of {limit}: the machine would swap or end it. Take one of the suggestions.",
            needed=gigabytes(chosen.peak_bytes),
            limit=gigabytes(limit),
        )
        warnings.append(memory)
    if disk > free_disk * NEARLY_ALL:
        needed, free = gigabytes(disk), gigabytes(free_disk)
        warnings.append(_("It needs {needed} of disk, {free} are free. Free some first.", needed=needed, free=free))
    return tuple(warnings)
