"""Which pictures stand in batch m, and what is drawn for each: pure functions of the seed and of m.

Nothing here keeps a state that a kill could lose, and nothing depends on how many processes share the work: process r
of P takes batches r, r + P, … of each optimizer step.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from studio.dataset.buckets import Bucket
from studio.training.training_set import TrainingItem


def seed_of(*parts: object) -> int:
    """A 63-bit seed from words and numbers."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass
class BatchOrder:
    """The endless sequence of batches. All pictures of a batch have one size.

    In each epoch every bucket's pictures are shuffled; what does not fill a batch is carried into the next epoch, so
    that every batch is full and every picture is seen as often as any other.
    """

    items: Sequence[TrainingItem]
    batch_size: int
    seed: int
    _batches: list[tuple[int, ...]] = field(default_factory=list)
    _carried: dict[Bucket, list[int]] = field(default_factory=dict)
    _epoch: int = 0

    def batch(self, number: int) -> tuple[int, ...]:
        """The indices of the pictures of batch `number`, from 0."""
        while number >= len(self._batches):
            self._add_epoch()
        return self._batches[number]

    def _add_epoch(self) -> None:
        rng = random.Random(seed_of("order", self.seed, self._epoch))
        by_bucket: dict[Bucket, list[int]] = {}
        for index, item in enumerate(self.items):
            by_bucket.setdefault(item.bucket, []).extend([index] * item.repeats)
        batches = []
        for bucket, indices in by_bucket.items():
            rng.shuffle(indices)
            queue = self._carried.get(bucket, []) + indices
            full = len(queue) // self.batch_size * self.batch_size
            batches += [tuple(queue[i : i + self.batch_size]) for i in range(0, full, self.batch_size)]
            self._carried[bucket] = queue[full:]
        rng.shuffle(batches)
        self._batches += batches
        self._epoch += 1


@dataclass(frozen=True)
class Draw:
    """What chance decides for one picture of one batch. Everything is drawn, used or not: so an option that is
    switched on does not move what others draw.

    Attributes:
        flip, crop, drop_caption: numbers in [0, 1).
        posterior_CHW: which latent of the VAE's posterior.
        noise_CHW: standard normal.
        offset_C11: the noise offset's, standard normal.
        timestep: from 0.
        caption_rng: for the order of the caption's parts.
    """

    flip: float
    crop: float
    drop_caption: float
    posterior_CHW: torch.Tensor
    noise_CHW: torch.Tensor
    offset_C11: torch.Tensor
    timestep: int
    caption_rng: random.Random


def draw(seed: int, batch: int, slot: int, *, shape_CHW: Sequence[int], num_train_timesteps: int) -> Draw:
    """Draw for picture `slot` of batch `batch`; on the CPU, so that every machine draws the same."""
    own_seed = seed_of("draw", seed, batch, slot)
    generator = torch.Generator().manual_seed(own_seed)
    flip, crop, drop_caption = torch.rand(3, generator=generator).tolist()
    timestep = int(torch.randint(0, num_train_timesteps, (1,), generator=generator))
    return Draw(
        flip=flip,
        crop=crop,
        drop_caption=drop_caption,
        posterior_CHW=torch.randn(*shape_CHW, generator=generator),
        noise_CHW=torch.randn(*shape_CHW, generator=generator),
        offset_C11=torch.randn(shape_CHW[0], 1, 1, generator=generator),
        timestep=timestep,
        caption_rng=random.Random(own_seed),
    )


def shuffled_caption(caption: str, *, keep_tokens: int, rng: random.Random) -> str:
    """The comma-separated parts in another order, the first `keep_tokens` where they are."""
    parts = [part.strip() for part in caption.split(",") if part.strip()]
    kept, moved = parts[:keep_tokens], parts[keep_tokens:]
    rng.shuffle(moved)
    return ", ".join([*kept, *moved])
