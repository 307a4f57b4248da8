"""Whether activations are kept or computed twice: measured on the model at hand, decided by the memory at hand."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from studio.core.text import gigabytes
from studio.engine.memory import free_bytes
from studio.training.batches import TrainingBatch
from studio.training.noise_loss import Denoiser
from studio.training_settings import TrainingSettings

# Of what is free, so much may be planned with: allocators keep gaps, and the desktop wants to live.
SHARE_OF_FREE = 0.8
# Besides what is kept for backward, backward itself needs room for gradients of activations.
BACKWARD_FACTOR = 1.25
LEAST_FREE_TO_MEASURE = 3 * 2**30


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
        kept_bytes_per_picture: measures what one picture's forward pass keeps for its backward pass.
    """
    if settings.gradient_checkpointing != "auto":
        on = settings.gradient_checkpointing == "on"
        return CheckpointingDecision(on, f"Gradient checkpointing is {'on' if on else 'off'}, as you chose.")
    free = free_bytes(device) // num_processes
    if free < LEAST_FREE_TO_MEASURE:
        return CheckpointingDecision(True, f"Gradient checkpointing is on: only {gigabytes(free)} are free.")
    needed = int(kept_bytes_per_picture() * settings.train_batch_size * BACKWARD_FACTOR)
    fits = needed <= free * SHARE_OF_FREE
    words = f"a batch of {settings.train_batch_size} keeps about {gigabytes(needed)}, {gigabytes(free)} are free"
    if fits:
        return CheckpointingDecision(False, f"Gradient checkpointing is off, which is faster: {words}.")
    return CheckpointingDecision(True, f"Gradient checkpointing is on, about a quarter slower: {words}.")


def kept_bytes_of(denoiser: Denoiser, batch: TrainingBatch) -> int:
    """Bytes that a forward pass of the batch's first picture keeps for backward, without the model's own weights."""
    weights = {p.untyped_storage().data_ptr() for p in denoiser.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other tensor gets its place while we count
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        prediction = denoiser(batch.noisy_BCHW[:1], batch.timesteps_B[:1], batch.text_BND[:1])
        num_bytes = sum(storage.nbytes() for storage in kept.values())
    del prediction
    return num_bytes
