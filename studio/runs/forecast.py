"""What a training would take, as the preflight measured it."""

from studio.results import Fact


class PassFacts(Fact):
    """A forward and backward pass of one batch: seconds, and the most memory in use meanwhile, in bytes."""

    seconds: float
    peak_bytes: int


class Offer(Fact):
    """A change of settings, and what it would do, in words."""

    changes: dict[str, object]
    effect: str


class Preflight(Fact):
    """What a training would take. Times in seconds, memory and disk in bytes.

    Attributes:
        step_seconds: of one optimizer step: all its batches.
        total_seconds: all of it: encoding, steps, held-out losses, pictures.
        limit_bytes: memory that there is for it.
        disk_bytes: what the run and its caches will need; free_disk_bytes: what is free.
        warnings: what would go wrong, in sentences.
    """

    num_steps: int
    batches_per_step: int
    num_pictures: int
    epochs: float
    gradient_checkpointing: bool
    reason: str
    step_seconds: float
    encoding_seconds: float
    pictures_seconds: float
    held_out_seconds: float
    total_seconds: float
    peak_bytes: int
    limit_bytes: int
    disk_bytes: int
    free_disk_bytes: int
    offers: tuple[Offer, ...]
    warnings: tuple[str, ...]
