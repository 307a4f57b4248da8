"""From the number of a batch to the tensors of its step.

Which images stand in batch m, and what is drawn for each, are pure functions of the seed and of m. Nothing here keeps a
state that a kill could lose, and nothing depends on how many processes share the work: process r of P takes batches r,
r + P, … of each optimizer step.

Shapes: B images, C latent channels, H and W an eighth of the image's, N = 77 tokens, D embedding width.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from diffusers import DDPMScheduler

from studio.datasets.rows import Bucket
from studio.engine.denoise import vae_scale_factor
from studio.engine.models import Components
from studio.training.settings import TrainingSettings
from studio.training.torch.caches import LatentCache, MaskCache, TextCache, encode_captions, token_ids
from studio.training.torch.data import TrainingItem, TrainingSet, seed_of
from studio.training.variants import Variant


@dataclass
class BatchOrder:
    """The endless sequence of batches. All images of a batch have one size.

    In each epoch every bucket's images are shuffled; what does not fill a batch is carried into the next epoch, so
    that every batch is full and every image is seen as often as any other.
    """

    items: Sequence[TrainingItem]
    batch_size: int
    seed: int
    _batches: list[tuple[int, ...]] = field(default_factory=list)
    _carried: dict[Bucket, list[int]] = field(default_factory=dict)
    _epoch: int = 0

    def batch(self, number: int) -> tuple[int, ...]:
        """The indices of the images of batch `number`, from 0."""
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
    """What chance decides for one image of one batch. Everything is drawn, used or not: so an option that is
    switched on does not move what others draw.

    Attributes:
        flip, crop, drop_caption: numbers in [0, 1); `crop` chooses among variants.
        posterior_CHW: which latent of the VAE's posterior.
        noise_CHW: standard normal.
        offset_C11: the noise offset's, standard normal.
        timestep: from 0.
        caption_rng: for the order of the caption's parts.
        caption: a number in [0, 1): which of an image's captions.
    """

    flip: float
    crop: float
    drop_caption: float
    posterior_CHW: torch.Tensor
    noise_CHW: torch.Tensor
    offset_C11: torch.Tensor
    timestep: int
    caption_rng: random.Random
    caption: float


def draw(seed: int, batch: int, slot: int, *, shape_CHW: Sequence[int], num_train_timesteps: int) -> Draw:
    """Draw for image `slot` of batch `batch`; on the CPU, so that every machine draws the same."""
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
        caption=random.Random(seed_of("caption", seed, batch, slot)).random(),
    )


def shuffled_caption(caption: str, *, keep_tokens: int, rng: random.Random) -> str:
    """The comma-separated parts in another order, the first `keep_tokens` where they are."""
    parts = [part.strip() for part in caption.split(",") if part.strip()]
    kept, moved = parts[:keep_tokens], parts[keep_tokens:]
    rng.shuffle(moved)
    return ", ".join([*kept, *moved])


@dataclass(frozen=True)
class TrainingBatch:
    """What one pass needs, on the device.

    Attributes:
        keys: the images, for messages.
        text_BND: embeddings, or (B, N) token ids where the text encoder learns.
        weights_B: of each image's loss.
        mask_B1HW: of each latent's loss; None where no image has a mask.
    """

    keys: tuple[str, ...]
    noisy_BCHW: torch.Tensor
    target_BCHW: torch.Tensor
    timesteps_B: torch.Tensor
    text_BND: torch.Tensor
    weights_B: torch.Tensor
    mask_B1HW: torch.Tensor | None

    def first(self, size: int | None) -> "TrainingBatch":
        """Its first images, so many; all of them for None."""
        return TrainingBatch(
            keys=self.keys[:size],
            noisy_BCHW=self.noisy_BCHW[:size],
            target_BCHW=self.target_BCHW[:size],
            timesteps_B=self.timesteps_B[:size],
            text_BND=self.text_BND[:size],
            weights_B=self.weights_B[:size],
            mask_B1HW=None if self.mask_B1HW is None else self.mask_B1HW[:size],
        )


class BatchMaker:
    """Makes batches from caches. The same number gives the same batch, in any process."""

    def __init__(
        self,
        data: TrainingSet,
        settings: TrainingSettings,
        *,
        components: Components,
        noise_scheduler: DDPMScheduler,
        latents: LatentCache,
        texts: TextCache,
        masks: MaskCache,
        device: torch.device,
    ) -> None:
        self.order = BatchOrder(data.items, settings.train_batch_size, settings.seed)
        self.noise_scheduler = noise_scheduler
        self.device = device
        self.data = data
        self._settings = settings
        self._components = components
        self._latents = latents
        self._texts = texts
        self._masks = masks
        self._vae_scale = vae_scale_factor(components)
        self._scaling_factor = float(components.vae.config.scaling_factor)
        self._channels = int(components.vae.config.latent_channels)

    def batch(self, number: int) -> TrainingBatch:
        """Batch `number`, from 0.

        Raises:
            TrainingError: where a cached file is gone or damaged.
        """
        items = [self.data.items[index] for index in self.order.batch(number)]
        height, width = items[0].bucket.height // self._vae_scale, items[0].bucket.width // self._vae_scale
        num_timesteps = int(self.noise_scheduler.config.num_train_timesteps)
        draws = [
            draw(
                self._settings.seed,
                number,
                slot,
                shape_CHW=(self._channels, height, width),
                num_train_timesteps=num_timesteps,
            )
            for slot in range(len(items))
        ]
        variants = [self._variant(item, chance) for item, chance in zip(items, draws, strict=True)]
        captions = [self._caption(item, chance) for item, chance in zip(items, draws, strict=True)]
        latents = torch.stack(
            [self._latent(item, v, d.posterior_CHW) for item, v, d in zip(items, variants, draws, strict=True)]
        )
        offset = self._settings.noise_offset
        noise = torch.stack([d.noise_CHW + offset * d.offset_C11 if offset else d.noise_CHW for d in draws])
        timesteps = torch.tensor([d.timestep for d in draws])
        mask = self._mask(items, variants)
        return self.noised(
            [item.key for item in items],
            latents,
            noise,
            timesteps,
            text=self._text(captions),
            weights=torch.tensor([item.weight for item in items]),
            mask=mask,
        )

    def noised(
        self,
        keys: Sequence[str],
        latents_BCHW: torch.Tensor,
        noise_BCHW: torch.Tensor,
        timesteps_B: torch.Tensor,
        *,
        text: torch.Tensor,
        weights: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> TrainingBatch:
        """Noise the latents and choose the target: the noise, or v (arXiv 2202.00512)."""
        scheduler = self.noise_scheduler
        noisy = scheduler.add_noise(latents_BCHW, noise_BCHW, timesteps_B)
        is_v = scheduler.config.prediction_type == "v_prediction"
        target = scheduler.get_velocity(latents_BCHW, noise_BCHW, timesteps_B) if is_v else noise_BCHW
        return TrainingBatch(
            keys=tuple(keys),
            noisy_BCHW=noisy.to(self.device),
            target_BCHW=target.to(self.device),
            timesteps_B=timesteps_B.to(self.device),
            text_BND=text.to(self.device),
            weights_B=weights.to(self.device),
            mask_B1HW=None if mask is None else mask.to(self.device),
        )

    def mean_latent(self, item: TrainingItem) -> torch.Tensor:
        """(C, H, W) the middle of the posterior of the first variant, scaled: what held-out losses are taken at."""
        mean, _ = self._latents.moments(item, item.variants[0])
        latent: torch.Tensor = mean * self._scaling_factor
        return latent

    def text(self, captions: Sequence[str]) -> torch.Tensor:
        """(B, N, D) embeddings or (B, N) token ids of captions as they are."""
        return self._text(captions)

    def _variant(self, item: TrainingItem, chance: Draw) -> Variant:
        flip = self._settings.horizontal_flip and chance.flip < 0.5
        possible = [variant for variant in item.variants if variant.flip == flip]
        return possible[int(chance.crop * len(possible))]

    def _caption(self, item: TrainingItem, chance: Draw) -> str:
        if chance.drop_caption < self._settings.caption_dropout:
            return ""
        caption = item.captions[int(chance.caption * len(item.captions))]
        if self._settings.shuffle_caption:
            trigger = "" if item.is_prior else self._settings.trigger_word
            in_front = sum(bool(part.strip()) for part in trigger.split(","))
            kept = in_front + self._settings.keep_tokens
            return shuffled_caption(caption, keep_tokens=kept, rng=chance.caption_rng)
        return caption

    def _latent(self, item: TrainingItem, variant: Variant, posterior_CHW: torch.Tensor) -> torch.Tensor:
        mean, deviation = self._latents.moments(item, variant)
        latent: torch.Tensor = (mean + deviation * posterior_CHW) * self._scaling_factor
        return latent

    def _text(self, captions: Sequence[str]) -> torch.Tensor:
        if self._settings.train_text_encoder:
            return token_ids(self._components, captions)
        if self._settings.shuffle_caption:  # too many orders to keep: the text encoder stays for them
            with torch.no_grad():
                return torch.cat([encode_captions(self._components, [c]).float().cpu() for c in captions])
        return torch.stack([self._texts.embedding(caption) for caption in captions])

    def _mask(self, items: Sequence[TrainingItem], variants: Sequence[Variant]) -> torch.Tensor | None:
        if all(item.mask is None for item in items):
            return None
        share_B1HW = torch.stack([self._masks.share(item, v) for item, v in zip(items, variants, strict=True)])
        outside = self._settings.unmasked_weight
        return outside + (1 - outside) * share_B1HW
