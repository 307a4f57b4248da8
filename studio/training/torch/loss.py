"""The loss of a batch: squared error of what the U-Net predicts, weighted by timestep, image and mask.

Shapes: B images, C latent channels, H and W an eighth of the image's.

Loss that can be compared from step to step: the same images, timesteps and noise every time.

A training step's loss jumps with its timesteps; these are fixed, one from the middle of each stratum of the schedule.
On images that are kept out of training it tells whether others get better too; on images that are trained on, how
much is only remembered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler
from torch import nn

from studio.engine.models import Components
from studio.training.torch.batches import BatchMaker, TrainingBatch
from studio.training.torch.data import TrainingItem, TrainingSet, seed_of


class Denoiser(nn.Module):
    """What learns, as one module: the U-Net, and before it the text encoder where that learns too.

    One module, so that DistributedDataParallel needs one wrapper. It computes in the precision of the U-Net's own
    weights, without autocast, which keeps inputs in two precisions for backward.
    """

    def __init__(self, components: Components, *, train_text_encoder: bool) -> None:
        super().__init__()
        self.unet = components.unet
        self.text_encoder = components.text_encoder if train_text_encoder else None

    def forward(self, noisy_BCHW: torch.Tensor, timesteps_B: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) prediction, float32. `text` is (B, N, D) embeddings, or (B, N) ids for the text encoder."""
        dtype = self.unet.dtype
        with torch.autocast(noisy_BCHW.device.type, enabled=False):
            embeddings = text if self.text_encoder is None else self.text_encoder(text)[0]
            noisy_BCHW, embeddings = noisy_BCHW.to(dtype), embeddings.to(dtype)
            prediction: torch.Tensor = self.unet(noisy_BCHW, timesteps_B, embeddings, return_dict=False)[0]
        return prediction.float()


def snr_weights(noise_scheduler: DDPMScheduler, timesteps_B: torch.Tensor, gamma: float) -> torch.Tensor:
    """(B,) min-SNR weights (Hang et al., arXiv 2303.09556): min(SNR, γ) / SNR for noise, / (SNR + 1) for v.

    Where nothing but noise is left (SNR 0, as a zero-terminal-SNR schedule ends, arXiv 2305.08891) that is 1 for
    noise, and 0 for v.
    """
    alphas = noise_scheduler.alphas_cumprod.to(timesteps_B.device)[timesteps_B]
    snr = alphas / (1 - alphas)
    if noise_scheduler.config.prediction_type == "v_prediction":
        weights: torch.Tensor = snr.clamp(max=gamma) / (snr + 1)
    else:
        weights = (gamma / snr).clamp(max=1)  # not min(SNR, γ) / SNR, which is 0 / 0 at SNR 0
    return weights


def losses_of(
    prediction_BCHW: torch.Tensor, batch: TrainingBatch, *, noise_scheduler: DDPMScheduler, snr_gamma: float | None
) -> torch.Tensor:
    """(B,) the loss of each image, in float32."""
    errors = (prediction_BCHW.float() - batch.target_BCHW.float()).square()
    if batch.mask_B1HW is not None:
        errors = errors * batch.mask_B1HW
    losses = errors.mean(dim=(1, 2, 3)) * batch.weights_B
    if snr_gamma is not None:
        losses = losses * snr_weights(noise_scheduler, batch.timesteps_B, snr_gamma)
    return losses


NUM_TRIPLES = 16  # of each side; a forward pass costs a third of a training step's image


@dataclass(frozen=True)
class Triple:
    """One image at one timestep with one noise."""

    item: TrainingItem
    timestep: int
    noise_seed: int


def choose_triples(items: Sequence[TrainingItem], *, num_train_timesteps: int, side: str) -> tuple[Triple, ...]:
    """Sixteen triples over all strata of timesteps, going round the images; the same in every run of this dataset."""
    if not items:
        return ()
    order = sorted(items, key=lambda item: seed_of("triple", side, item.sha256))
    return tuple(
        Triple(
            item=order[i % len(order)],
            timestep=int((i + 0.5) * num_train_timesteps / NUM_TRIPLES),
            noise_seed=seed_of("noise", side, i),
        )
        for i in range(NUM_TRIPLES)
    )


class HeldOutLoss:
    """Losses of fixed triples; VAE means, no crop or flip by chance, captions whole."""

    def __init__(self, data: TrainingSet, maker: BatchMaker, *, batch_size: int) -> None:
        timesteps = int(maker.noise_scheduler.config.num_train_timesteps)
        trained = [item for item in data.items if not item.is_prior]
        self._held_out = choose_triples(data.held_out, num_train_timesteps=timesteps, side="held out")
        self._trained = choose_triples(trained, num_train_timesteps=timesteps, side="trained")
        self._maker = maker
        self._batch_size = batch_size

    def measure(self, denoiser: Denoiser) -> tuple[float | None, float]:
        """(loss of held-out images, loss of trained ones); None where nothing is held out."""
        was_training = denoiser.training
        denoiser.eval()
        with torch.no_grad():
            held_out = self._mean_loss(denoiser, self._held_out) if self._held_out else None
            trained = self._mean_loss(denoiser, self._trained)
        denoiser.train(was_training)
        return held_out, trained

    def _mean_loss(self, denoiser: Denoiser, triples: Sequence[Triple]) -> float:
        total = 0.0
        for batch in self._batches(triples):
            prediction = denoiser(batch.noisy_BCHW, batch.timesteps_B, batch.text_BND)
            errors = (prediction.float() - batch.target_BCHW.float()).square()
            total += float(errors.mean(dim=(1, 2, 3)).sum())
        return total / len(triples)

    def _batches(self, triples: Sequence[Triple]) -> list[TrainingBatch]:
        """Pictures of one size together."""
        by_size: dict[object, list[Triple]] = {}
        for triple in triples:
            by_size.setdefault(triple.item.bucket, []).append(triple)
        size = self._batch_size
        return [self._batch(group[i : i + size]) for group in by_size.values() for i in range(0, len(group), size)]

    def _batch(self, triples: Sequence[Triple]) -> TrainingBatch:
        latents = torch.stack([self._maker.mean_latent(triple.item) for triple in triples])
        noise = torch.stack(
            [torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(t.noise_seed)) for t in triples]
        )
        return self._maker.noised(
            [triple.item.key for triple in triples],
            latents,
            noise,
            torch.tensor([triple.timestep for triple in triples]),
            text=self._maker.text([triple.item.caption for triple in triples]),
            weights=torch.ones(len(triples)),
        )
