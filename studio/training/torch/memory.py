"""What a device has memory for, and can compute: gradient checkpointing, largest batch, refusals.

Whether activations are kept or computed twice: measured on the model at hand, decided by the memory at hand.

What a device cannot do: batches that it computes wrongly, steps for which it has no memory. What a run needs of disk.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from studio.core.errors import TrainingError
from studio.core.language import _, for_later
from studio.core.paths import UserData
from studio.core.results import DeviceCheck
from studio.core.text import gigabytes
from studio.engine.attention import attention_of_model
from studio.engine.device_operations import DROPOUT, LINEAR
from studio.engine.lora_layers import LoraLayers
from studio.engine.memory import OffloadedModule, free_bytes, total_bytes
from studio.engine.memory_forecast import MemoryCount, count_training_step, counted_plan
from studio.engine.models import Components
from studio.training.folder import PassFacts, TrainingPlan
from studio.training.settings import TrainingSettings
from studio.training.torch.batches import TrainingBatch
from studio.training.torch.loss import Denoiser, predict
from studio.training.torch.processes import Processes
from studio.training.torch.recomputation import Part, RecomputationCosts

# Of what is free, so much may be planned with: allocators keep gaps, and the desktop wants to live.
SHARE_OF_FREE = 0.8
# Besides what is kept for backward, backward itself needs room for gradients of activations.
BACKWARD_FACTOR = 1.25
MIN_FREE_TO_MEASURE = 3 * 2**30
NEARLY_ALL = 0.9  # of memory or disk: from here on it is short


@dataclass(frozen=True)
class CheckpointingDecision:
    """Whether every block is computed again, or which parts are, and why."""

    on: bool
    reason: str
    recomputed: tuple[str, ...] = ()


@for_later()
def decide_checkpointing(
    settings: TrainingSettings,
    *,
    device: torch.device,
    measure: Callable[[], RecomputationCosts],
    num_processes: int,
) -> CheckpointingDecision:
    """The user's choice; with `auto` as little as memory allows.

    Args:
        measure: what one image's pass keeps, and what computing parts of it again would free.
    """
    match settings.gradient_checkpointing:
        case "on":
            return CheckpointingDecision(True, _("Gradient checkpointing is on, as you chose."))
        case "off":
            return CheckpointingDecision(False, _("Gradient checkpointing is off, as you chose."))
        case "part":
            costs = measure()
            return _partly(costs, costs.freeing(settings.gradient_checkpointing_percent), _("as you chose"))
    free = free_bytes(device) // num_processes
    if free < MIN_FREE_TO_MEASURE:
        return CheckpointingDecision(
            True, _("Gradient checkpointing is on: only {size} are free.", size=gigabytes(free))
        )
    costs = measure()
    factor = settings.train_batch_size * BACKWARD_FACTOR
    why = _(
        "a batch of {batch} keeps about {needed}, {free} are free",
        batch=settings.train_batch_size,
        needed=gigabytes(int(costs.kept_bytes * factor)),
        free=gigabytes(free),
    )
    chosen = costs.fitting(free * SHARE_OF_FREE / factor)
    if chosen == ():
        return CheckpointingDecision(False, _("Gradient checkpointing is off, which is faster: {why}.", why=why))
    return _partly(costs, costs.parts if chosen is None else chosen, why)


def _partly(costs: RecomputationCosts, chosen: tuple[Part, ...], why: str) -> CheckpointingDecision:
    percent = round(100 * (costs.slowdown(chosen) - 1))
    if len(chosen) == len(costs.parts):
        words = _("Gradient checkpointing is on, about {percent}% slower: {why}.", percent=percent, why=why)
        return CheckpointingDecision(True, words)
    words = _(
        "Gradient checkpointing frees {freed:.0f}% of the activations, about {percent}% slower: {why}.",
        freed=costs.percent(chosen),
        percent=percent,
        why=why,
    )
    return CheckpointingDecision(False, words, tuple(part.path for part in chosen))


def kept_bytes_of(denoiser: Denoiser, batch: TrainingBatch) -> int:
    """Bytes that a forward pass of the batch's first image keeps for backward: tensors it made that are still there."""
    with MemoryCount() as count:
        prediction = predict(denoiser, batch.first(1))
        return int(count.now_bytes - prediction.untyped_storage().nbytes())


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


def assert_possible_here(
    settings: TrainingSettings,
    components: Components,
    check: DeviceCheck | None,
    processes: Processes,
    *,
    resolution: int,
) -> None:
    """The device computes such steps rightly, and has the memory for one.

    Raises:
        TrainingError: as `assert_fits` and `assert_room`.
    """
    device, dtype = processes.device, processes.half_precision or torch.float32
    assert_fits(settings, resolution=resolution, device=device, check=check)
    assert_room(settings, components, resolution=resolution, device=device, dtype=dtype)


def offload_unneeded(
    settings: TrainingSettings,
    components: Components,
    digests: Mapping[str, str],
    loras: LoraLayers,
    *,
    user_data: UserData,
    processes: Processes,
) -> tuple[OffloadedModule, ...]:
    """The VAE leaves memory, and the text encoder where all texts are encoded: not where a prompt's LoRA changes it.

    What learns from passes in half precision is rounded to it. Returned is what images need.
    """
    half = processes.half_precision

    def offloaded(part: nn.Module, name: str, stand_in: torch.dtype | None = None) -> OffloadedModule:
        file = user_data.cache / "parked" / f"{digests[name]}.safetensors"
        module = OffloadedModule(part, file, stand_in=stand_in)
        module.offload()
        return module

    needed = [offloaded(components.vae, "vae")]
    if half is not None:
        needed.append(offloaded(components.unet, "unet", half))
    is_changed = settings.train_text_encoder or any(lora.text_encoder for lora in loras.held.values())
    if not (is_changed or settings.shuffle_caption):
        offloaded(components.text_encoder, "text_encoder")
    elif half is not None and settings.train_text_encoder:
        needed.append(offloaded(components.text_encoder, "text_encoder", half))
    return tuple(needed)


def latents_bytes(settings: TrainingSettings, components: Components, plan: TrainingPlan, num_variants: int) -> int:
    """What so many variants of images take in the cache; of a Speed LoRA, so many of its teacher's images."""
    kept = settings.speed_steps + 1 if settings.makes_speed_lora else 2
    return num_variants * kept * 4 * int(components.vae.config.latent_channels) * plan.resolution**2 // 64


def disk_bytes(
    settings: TrainingSettings,
    components: Components,
    plan: TrainingPlan,
    *,
    num_loaded: int,
    num_variants: int,
    num_captions: int,
) -> int:
    """Caches, checkpoints that are kept, validation images, LoRA files, parked parts.

    Args:
        num_loaded: parameters of the whole model.
        num_variants: of all images.
    """
    area = plan.resolution**2
    embedding = 4 * 77 * int(components.unet.config.cross_attention_dim)
    # What is parked has no parameters now: all that were loaded, without the U-Net's own.
    own = sum(p.numel() for p in components.unet.parameters()) - plan.num_parameters
    offloaded = 4 * (num_loaded - int(own))
    weights = 4 * plan.num_parameters
    a_checkpoint = weights * (4 if settings.use_ema else 3)  # the optimizer keeps two numbers for each weight
    every = settings.keep_every_steps
    num_checkpoints = settings.keep_checkpoints + (settings.max_train_steps // every if every else 0)
    num_samples = settings.max_train_steps // settings.validation_steps + 1
    a_sample = weights // 2 + settings.num_validation_images * 2 * area
    return (
        latents_bytes(settings, components, plan, num_variants)
        + num_captions * embedding
        + offloaded
        + num_checkpoints * a_checkpoint
        + num_samples * a_sample
        + 2 * weights
    )


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
