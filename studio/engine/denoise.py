"""The algorithm: prompts to embeddings, noise to latents, latents to pixels, with no checks and no bookkeeping.

Schedulers are made by the names that people know them by, from the model's own noise schedule. Prompts have weights,
may be long, and are kept, so that the same text is encoded once.

Shapes: B = 1 image, C = 4 latent channels, H and W an eighth of the image's, N = tokens (77 for each part of a prompt),
D embedding width.
"""

import inspect
import itertools
import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SchedulerMixin,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from transformers import CLIPTokenizer

from studio.core.errors import SettingsError
from studio.core.language import _
from studio.core.settings import GenerationSettings, SchedulerName
from studio.engine.model_files import TILE_PIXELS, TILED_ABOVE_PIXELS
from studio.engine.models import Components
from studio.images.prompts import parse_weights

KEPT_PROMPTS = 64  # 77 × 768 floats each: 15 MB in all for Stable Diffusion 1.5

# clip_sample: a config that lacks it gets the default True, which cuts latents off at 1 and ruins the image.
_NOT_CLIPPED = {"clip_sample": False}
_SCHEDULERS: Mapping[SchedulerName, tuple[type[SchedulerMixin], Mapping[str, Any]]] = {
    "DDIM": (DDIMScheduler, {**_NOT_CLIPPED, "set_alpha_to_one": False, "steps_offset": 1}),
    "PNDM": (PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}),
    "Euler": (EulerDiscreteScheduler, {"use_karras_sigmas": False}),
    "Euler a": (EulerAncestralDiscreteScheduler, {}),
    # The times of Speed LoRAs (4 steps: 999, 749, 499, 249), which A1111 and ComfyUI call SGM uniform.
    "Euler trailing": (EulerDiscreteScheduler, {"use_karras_sigmas": False, "timestep_spacing": "trailing"}),
    "DPM++ 2M": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "use_karras_sigmas": False}),
    "DPM++ 2M Karras": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}),
    "UniPC": (UniPCMultistepScheduler, {"use_karras_sigmas": False}),
    "DDPM": (DDPMScheduler, {**_NOT_CLIPPED, "variance_type": "fixed_small"}),
    "LCM": (LCMScheduler, _NOT_CLIPPED),
}


def make_scheduler(name: SchedulerName, own: SchedulerMixin) -> SchedulerMixin:
    """A scheduler by its name, with the betas, the prediction type and the spacing of the model's own.

    "model's own" is the class and the configuration that the model came with; a new one for each image all the
    same, because schedulers keep state.
    """
    if name == "model's own":
        return type(own).from_config(own.config)
    kind, options = _SCHEDULERS[name]
    return kind.from_config(own.config, **options)


@dataclass(frozen=True)
class WeightedTokens:
    """Token ids and the weight of each, without the marks of beginning and end."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass
class TextEncoding:
    """Encodes prompts with one model's text encoder."""

    components: Components
    _kept: OrderedDict[Hashable, torch.Tensor] = field(default_factory=OrderedDict)

    def encode(self, settings: GenerationSettings, prompt: str, *, state: Hashable) -> torch.Tensor:
        """(2, N, D) embeddings, the negative one first; (1, N, D) without guidance.

        Args:
            prompt: the prompt without LoRA tags.
            state: what else the embeddings depend on: the LoRAs that change the text encoder.
        """
        guided = settings.guidance_scale > 1 and settings.guidance_start < settings.guidance_end
        texts = (settings.negative_prompt, prompt) if guided else (prompt,)
        key = (texts, settings.long_prompt, state)
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            while len(self._kept) >= KEPT_PROMPTS:
                self._kept.popitem(last=False)
            self._kept[key] = encode_prompts(self.components, texts, long_prompt=settings.long_prompt)
        return self._kept[key]

    def forget(self) -> None:
        """Encode all anew from now on."""
        self._kept.clear()


def encode_prompts(components: Components, texts: Sequence[str], *, long_prompt: bool = False) -> torch.Tensor:
    """(len(texts), N, D) embeddings; N is 77 times the chunks that the longest text needs.

    BREAK starts a new chunk, padded as in A1111. Tokens past 75 in a chunk are cut off; with `long_prompt` they
    continue in further chunks.
    """
    prompts = [_chunks(components.tokenizer, text, long_prompt=long_prompt) for text in texts]
    chunks = itertools.zip_longest(*prompts, fillvalue=WeightedTokens((), ()))
    return torch.cat([_encode_chunk(components, chunk) for chunk in chunks], dim=1)


def _chunks(tokenizer: CLIPTokenizer, text: str, *, long_prompt: bool) -> list[WeightedTokens]:
    """A prompt's tokens, 75 at most in each chunk; at least one chunk, and none of a BREAK at the end."""
    sections = [WeightedTokens((), ())]
    for piece in parse_weights(text):
        ids = tuple(tokenizer(piece.text, add_special_tokens=False).input_ids)
        before = WeightedTokens((), ()) if piece.after_break else sections.pop()
        sections.append(WeightedTokens(before.ids + ids, before.weights + (piece.weight,) * len(ids)))
    if len(sections) > 1 and not sections[-1].ids:
        sections.pop()
    size = tokenizer.model_max_length - 2
    return [
        WeightedTokens(section.ids[start : start + size], section.weights[start : start + size])
        for section in sections
        for start in range(0, max(1, len(section.ids)) if long_prompt else 1, size)
    ]


def _encode_chunk(components: Components, prompts: Sequence[WeightedTokens]) -> torch.Tensor:
    """(len(prompts), 77, D): one chunk of every prompt, between its marks, filled up as the tokenizer does."""
    tokenizer, encoder = components.tokenizer, components.text_encoder
    rows, weight_rows = [], []
    for prompt in prompts:
        filling = tokenizer.model_max_length - len(prompt.ids) - 2
        rows.append([tokenizer.bos_token_id, *prompt.ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * filling])
        weight_rows.append([1.0, *prompt.weights, 1.0, *[1.0] * filling])
    embeddings: torch.Tensor = encoder(torch.tensor(rows, device=encoder.device))[0]
    return _weighted(embeddings, torch.tensor(weight_rows))


def _weighted(embeddings_BND: torch.Tensor, weights_BN: torch.Tensor) -> torch.Tensor:
    """Each token's embedding times its weight, then scaled so that the prompt's mean stays, as A1111 does it.

    A prompt whose weights are all 1 is not touched, to the bit.
    """
    for i in torch.nonzero((weights_BN != 1).any(dim=1)).flatten().tolist():
        before = embeddings_BND[i].mean()
        weighted = embeddings_BND[i] * weights_BN[i].to(embeddings_BND)[:, None]
        after = weighted.mean()
        embeddings_BND[i] = weighted * (before / after) if float(after.abs()) > 0 else weighted
    return embeddings_BND


def native_size(components: Components) -> tuple[int, int]:
    """(width, height) in pixels that the model was trained at."""
    sample_size = components.unet.config.sample_size
    rows, columns = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    scale = vae_scale_factor(components)
    return columns * scale, rows * scale


def vae_scale_factor(components: Components) -> int:
    """How many pixels one latent covers in each direction: 8 for Stable Diffusion."""
    return int(2 ** (len(components.vae.config.block_out_channels) - 1))


def first_latents(components: Components, generator: torch.Generator, *, width: int, height: int) -> torch.Tensor:
    """(1, C, H, W) standard normal noise on the model's device.

    It is drawn on the CPU, so the same seed gives the same noise on a Mac, on CUDA and on a CPU.
    """
    scale, unet = vae_scale_factor(components), components.unet
    shape = (1, unet.config.in_channels, height // scale, width // scale)
    return torch.randn(shape, generator=generator).to(unet.device, unet.dtype)


@dataclass(frozen=True)
class DenoisingStep:
    """One step: the latents after it, and what the UNet saw and predicted before it."""

    latents_BCHW: torch.Tensor
    sample_BCHW: torch.Tensor
    prediction_BCHW: torch.Tensor
    timestep: torch.Tensor


def set_timesteps(scheduler: SchedulerMixin, settings: GenerationSettings, device: torch.device) -> torch.Tensor:
    """The timesteps of this run, one for each call of the UNet.

    A few more than `num_inference_steps` where the scheduler warms up: PNDM, Stable Diffusion 1.5's own, takes one.

    Raises:
        SettingsError: where the scheduler cannot take so many or so few. What holds for every model, the settings
            refuse before; what a model's own scheduler cannot is known only here (PNDM with Runge-Kutta steps needs
            four, an LCM model's own takes no more than it was distilled from).
    """
    try:
        scheduler.set_timesteps(settings.num_inference_steps, device=device)
    except ValueError as error:
        raise SettingsError(
            _(
                "num_inference_steps cannot be {num_steps} with the scheduler {scheduler} "
                "({kind} with this model's configuration: {reason}). Choose another number of steps "
                "(4 to 50 suit every scheduler), or another scheduler.",
                num_steps=settings.num_inference_steps,
                scheduler=settings.scheduler,
                kind=type(scheduler).__name__,
                reason=str(error).rstrip(". "),
            )
        ) from error
    timesteps: torch.Tensor = scheduler.timesteps
    return timesteps


def assert_possible(components: Components, settings: GenerationSettings) -> None:
    """See, before hours of work, that the model's scheduler can take the steps of these settings.

    Raises:
        SettingsError: where it cannot.
    """
    scheduler = make_scheduler(settings.scheduler, components.pipeline.scheduler)
    set_timesteps(scheduler, settings, torch.device("cpu"))


def denoise(
    unet: UNet2DConditionModel,
    scheduler: SchedulerMixin,
    noise_BCHW: torch.Tensor,
    embeddings_BND: torch.Tensor,
    *,
    settings: GenerationSettings,
    generator: torch.Generator,
) -> Iterator[DenoisingStep]:
    """Yield each step: one for each of the timesteps that `set_timesteps` gave the scheduler. B may be several images.

    Classifier-free guidance (Ho and Salimans, arXiv 2207.12598) where the guidance scale is above 1, in the part of
    the steps from `guidance_start` to `guidance_end` (Kynkäänniemi et al., arXiv 2404.07724); `embeddings_BND` holds
    the B negative embeddings before the positive ones, or the positive ones alone.
    """
    accepts_generator = "generator" in inspect.signature(scheduler.step).parameters
    step_options = {"generator": generator} if accepts_generator else {}
    guided_steps = settings.guided_steps(len(scheduler.timesteps))

    latents, positive_BND = noise_BCHW * scheduler.init_noise_sigma, embeddings_BND[-len(noise_BCHW) :]
    for index, timestep in enumerate(scheduler.timesteps):
        sample = scheduler.scale_model_input(latents, timestep)
        if index in guided_steps:
            both = unet(torch.cat([sample, sample]), timestep, encoder_hidden_states=embeddings_BND, return_dict=False)
            negative, positive = both[0].chunk(2)
            prediction = negative + settings.guidance_scale * (positive - negative)
        else:
            prediction = unet(sample, timestep, encoder_hidden_states=positive_BND, return_dict=False)[0]
        latents = scheduler.step(prediction, timestep, latents, return_dict=False, **step_options)[0]
        yield DenoisingStep(latents, sample, prediction, timestep)


def estimate_finished(scheduler: SchedulerMixin, step: DenoisingStep) -> torch.Tensor:
    """(B, C, H, W) the finished latents as the UNet sees them at this step: blurred at first, but no noise.

    x₀ from epsilon or v at the step's noise level (Salimans and Ho, arXiv 2202.00512). Only for previews: for
    schedulers whose timesteps fall between the trained ones it is taken at the nearest.
    """
    nearest = int(step.timestep.round().clamp(0, scheduler.config.num_train_timesteps - 1))
    alpha = float(scheduler.alphas_cumprod[nearest])
    signal, noise = math.sqrt(alpha), math.sqrt(1 - alpha)
    sample, prediction = step.sample_BCHW, step.prediction_BCHW
    if scheduler.config.prediction_type == "v_prediction":
        return signal * sample - noise * prediction
    return (sample - noise * prediction) / signal


def set_tiling(vae: AutoencoderKL, *, width: int, height: int) -> None:
    """Let the VAE work in overlapping tiles on images above 1024²: whole, one of 2048² takes 12 GiB."""
    if not is_tiled(width=width, height=height):
        vae.disable_tiling()
        return
    vae.enable_tiling()
    vae.tile_sample_min_size = TILE_PIXELS  # of a small model too: fewer seams
    vae.tile_latent_min_size = TILE_PIXELS // 2 ** (len(vae.config.block_out_channels) - 1)


def is_tiled(*, width: int, height: int) -> bool:
    """Whether the VAE works on an image of that many pixels in tiles."""
    return width * height > TILED_ABOVE_PIXELS


def decode(components: Components, latents_BCHW: torch.Tensor) -> torch.Tensor:
    """(3, height, width) raw output of the VAE for one image, about [-1, 1], not clamped."""
    vae, scale = components.vae, vae_scale_factor(components)
    set_tiling(vae, width=latents_BCHW.shape[3] * scale, height=latents_BCHW.shape[2] * scale)
    decoded: torch.Tensor = vae.decode(latents_BCHW.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
    return decoded[0]


def to_picture(decoded_CHW: torch.Tensor) -> np.ndarray:
    """Raw VAE output, about [-1, 1] -> (height, width, 3) uint8, as diffusers' VaeImageProcessor rounds it."""
    levels = ((decoded_CHW.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(1, 2, 0).cpu().numpy()
