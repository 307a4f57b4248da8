"""One pass through the model and its loss: what a step learns from, the preflight times and held-out images tell.

Shapes: B images, C latent channels, H and W an eighth of the image's, N = 77 tokens, D embedding width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler
from torch import nn

from studio.engine.lean import LeanPasses
from studio.engine.models import Components
from studio.training.settings import TrainingSettings
from studio.training.torch.batches import BatchMaker, TrainingBatch
from studio.training.torch.data import TrainingItem, seed_of


class Denoiser(nn.Module):
    """What learns, as one module: the U-Net, and before it the text encoder where that learns too.

    One module, so that DistributedDataParallel needs one wrapper. It computes in the precision of the U-Net's own
    weights, without autocast, which keeps inputs in two precisions for backward.

    Build it after the layers that learn are in: of what is frozen then, its passes keep little (`lean`).
    """

    def __init__(self, components: Components, *, train_text_encoder: bool) -> None:
        super().__init__()
        self.unet = components.unet
        self.text_encoder = components.text_encoder if train_text_encoder else None
        self.lean = LeanPasses(self)

    def forward(self, noisy_BCHW: torch.Tensor, timesteps_B: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) prediction, float32. `text` is (B, N, D) embeddings, or (B, N) ids for the text encoder."""
        dtype = self.unet.dtype
        with torch.autocast(noisy_BCHW.device.type, enabled=False), self.lean.kept_leanly():
            embeddings = text if self.text_encoder is None else self.text_encoder(text)[0]
            noisy_BCHW, embeddings = noisy_BCHW.to(dtype), embeddings.to(dtype)
            prediction: torch.Tensor = self.unet(noisy_BCHW, timesteps_B, embeddings, return_dict=False)[0]
        return prediction.float()


def predict(model: nn.Module, batch: TrainingBatch) -> torch.Tensor:
    """(B, C, H, W) what the denoiser, or accelerate's wrapper of it, predicts for a batch; float32."""
    prediction: torch.Tensor = model(batch.noisy_BCHW, batch.timesteps_B, batch.text_BND)
    return prediction


@dataclass(frozen=True)
class NoiseLoss:
    """The loss of what the U-Net predicts: `settings.loss_type`, weighted by timestep, image and mask.

    Built once for a training. A loss of another kind is a case of `_errors`.
    """

    settings: TrainingSettings
    noise_scheduler: DDPMScheduler

    def __call__(self, model: nn.Module, batch: TrainingBatch) -> torch.Tensor:
        """(B,) the weighted loss of each image after one pass through the model, float32."""
        return self.weighted(predict(model, batch), batch)

    def weighted(self, prediction_BCHW: torch.Tensor, batch: TrainingBatch) -> torch.Tensor:
        """(B,) of a prediction: with mask, the image's weight and min-SNR."""
        losses = self.by_image(prediction_BCHW, batch) * batch.weights_B
        if self.settings.snr_gamma is not None:
            losses = losses * snr_weights(self.noise_scheduler, batch.timesteps_B, self.settings.snr_gamma)
        return losses

    def by_image(self, prediction_BCHW: torch.Tensor, batch: TrainingBatch) -> torch.Tensor:
        """(B,) of a prediction with its mask alone, which timesteps of all levels of noise can be compared by."""
        errors = self._errors(prediction_BCHW.float() - batch.target_BCHW.float(), batch.timesteps_B)
        if batch.mask_B1HW is not None:
            errors = errors * batch.mask_B1HW
        return errors.mean(dim=(1, 2, 3))

    def _errors(self, difference_BCHW: torch.Tensor, timesteps_B: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) what each latent's difference costs, as kohya-ss/sd-scripts defines it (`conditional_loss`).

        With threshold c: huber 2c·(√(d² + c²) - c), smooth_l1 2·(√(d² + c²) - c); both are computed as d² over a sum,
        because the difference would cancel where c is large beside d.
        """
        squares = difference_BCHW.square()
        if self.settings.loss_type == "l2":
            return squares
        c = huber_thresholds(self.noise_scheduler, timesteps_B, self.settings).view(-1, 1, 1, 1)
        factor = 2 * c if self.settings.loss_type == "huber" else 2
        return factor * squares / ((squares + c.square()).sqrt() + c)


def huber_thresholds(
    noise_scheduler: DDPMScheduler, timesteps_B: torch.Tensor, settings: TrainingSettings
) -> torch.Tensor:
    """(B,) c of each timestep, between 1 without noise and `huber_c` in noise alone; `huber_c` where it is constant.

    Exponential and snr are kohya-ss/sd-scripts' schedules (`get_huber_threshold_if_needed`): exp(ln(huber_c)·t / T),
    and (1 - huber_c) / (1 + σ)² + huber_c with σ = √((1 - ᾱ) / ᾱ).
    """
    huber_c = settings.huber_c
    match settings.huber_schedule:
        case "constant":
            return torch.full(timesteps_B.shape, huber_c, device=timesteps_B.device)
        case "exponential":
            return torch.exp(math.log(huber_c) * timesteps_B / noise_scheduler.config.num_train_timesteps)
        case "snr":
            alphas: torch.Tensor = noise_scheduler.alphas_cumprod.to(timesteps_B.device)[timesteps_B]
            sigmas = ((1 - alphas) / alphas).sqrt()
            return (1 - huber_c) / (1 + sigmas).square() + huber_c


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
    """Loss that can be compared from step to step: the same images, timesteps and noise every time.

    A training step's loss jumps with its timesteps; these are fixed, one from the middle of each stratum of the
    schedule, and nothing weighs them. VAE means, no crop or flip by chance, captions whole. On images that are kept
    out of training it tells whether others get better too; on trained ones, how much is only remembered.
    """

    def __init__(self, maker: BatchMaker, noise_loss: NoiseLoss, *, batch_size: int) -> None:
        data = maker.data
        timesteps = int(maker.noise_scheduler.config.num_train_timesteps)
        trained = [item for item in data.items if not item.is_prior]
        self._held_out = choose_triples(data.held_out, num_train_timesteps=timesteps, side="held out")
        self._trained = choose_triples(trained, num_train_timesteps=timesteps, side="trained")
        self._maker = maker
        self._noise_loss = noise_loss
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
            total += float(self._noise_loss.by_image(predict(denoiser, batch), batch).sum())
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


def one_step_target(
    starts_BCHW: torch.Tensor,
    ends_BCHW: torch.Tensor,
    alphas_start_B: torch.Tensor,
    alphas_end_B: torch.Tensor,
    *,
    is_v: bool,
) -> torch.Tensor:
    """(B, C, H, W) the prediction with which one step of DDIM (arXiv 2010.02502) goes from the starts to the ends.

    A difference of predictions is a difference of results divided by how far a prediction moves them. That weighs
    every segment alike.

    Args:
        alphas_start_B, alphas_end_B: ᾱ at both ends, in (0, 1]; 1 is a finished image. ᾱ = 0, nothing but noise, can
            be the start of a v-prediction alone.
    """
    a, b = (alpha.view(-1, 1, 1, 1).sqrt() for alpha in (alphas_start_B, alphas_end_B))
    noise_a, noise_b = ((1 - alpha).view(-1, 1, 1, 1).sqrt() for alpha in (alphas_start_B, alphas_end_B))
    if is_v:
        return (ends_BCHW - (a * b + noise_a * noise_b) * starts_BCHW) / (a * noise_b - b * noise_a)
    return (ends_BCHW - b / a * starts_BCHW) / (noise_b - b * noise_a / a)


def one_step(
    starts_BCHW: torch.Tensor,
    prediction_BCHW: torch.Tensor,
    alphas_start_B: torch.Tensor,
    alphas_end_B: torch.Tensor,
    *,
    is_v: bool,
) -> torch.Tensor:
    """(B, C, H, W) where one step of DDIM comes to with a prediction: the inverse of `one_step_target`."""
    a, b = (alpha.view(-1, 1, 1, 1).sqrt() for alpha in (alphas_start_B, alphas_end_B))
    noise_a, noise_b = ((1 - alpha).view(-1, 1, 1, 1).sqrt() for alpha in (alphas_start_B, alphas_end_B))
    if is_v:
        return (a * b + noise_a * noise_b) * starts_BCHW + (a * noise_b - b * noise_a) * prediction_BCHW
    return b / a * starts_BCHW + (noise_b - b * noise_a / a) * prediction_BCHW
