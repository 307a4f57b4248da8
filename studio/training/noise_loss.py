"""The loss of a batch: squared error of what the U-Net predicts, weighted by timestep, picture and mask.

Shapes: B pictures, C latent channels, H and W an eighth of the picture's.
"""

import torch
from diffusers import DDPMScheduler
from torch import nn

from studio.engine.models import Components
from studio.training.batches import TrainingBatch


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
    """(B,) the loss of each picture, in float32."""
    errors = (prediction_BCHW.float() - batch.target_BCHW.float()).square()
    if batch.mask_B1HW is not None:
        errors = errors * batch.mask_B1HW
    losses = errors.mean(dim=(1, 2, 3)) * batch.weights_B
    if snr_gamma is not None:
        losses = losses * snr_weights(noise_scheduler, batch.timesteps_B, snr_gamma)
    return losses
