"""What is seen of a run while it goes on: its steps, its seconds, and rough images of unfinished latents."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from diffusers import AutoencoderKL

from studio.core.results import Timings

logger = logging.getLogger(__name__)

# The card: 8 × 8 random colours, each 4 latents wide. Narrower ones fit worse: the decoder mixes neighbours.
NUM_PATCHES, PATCH_LATENTS = 8, 4


@dataclass(frozen=True)
class StepProgress:
    """After step `step` (1-based) of `num_steps`; every few steps with a (h, w, 3) uint8 preview."""

    step: int
    num_steps: int
    elapsed_seconds: float
    preview: np.ndarray | None = None


class Watcher:
    """Watches a `generate()` call: told of every step and what a large image takes, asked whether to stop."""

    def __init__(
        self,
        on_step: Callable[[StepProgress], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        on_note: Callable[[str], None] = lambda _note: None,
    ) -> None:
        self.on_step = on_step
        self.cancelled = cancelled
        self.on_note = on_note


@dataclass(frozen=True)
class RunWatcher:
    """Told of every step of every image (from 0) and what a large one takes, asked whether to stop."""

    on_step: Callable[[int, StepProgress], None] = lambda _index, _progress: None
    cancelled: Callable[[], bool] = lambda: False
    on_note: Callable[[str], None] = lambda _note: None

    def of_picture(self, index: int) -> Watcher:
        """The watcher for one call of `generate()`."""
        return Watcher(lambda progress: self.on_step(index, progress), self.cancelled, self.on_note)


@dataclass
class Clock:
    """The seconds of each part of one call, as they come in."""

    started: float = field(default_factory=time.perf_counter)
    text_seconds: float = 0.0
    step_seconds: list[float] = field(default_factory=list)
    vae_seconds: float = 0.0
    _group_started: float = 0.0

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    def timings(self, *, first_call: bool) -> Timings:
        """All of it, at the end."""
        return Timings(
            text_seconds=self.text_seconds,
            step_seconds=tuple(self.step_seconds),
            vae_seconds=self.vae_seconds,
            total_seconds=self.elapsed,
            first_call=first_call,
        )

    def start_text(self) -> None:
        """The LoRAs act; now come the prompts."""
        self._group_started = self.elapsed

    def end_text(self) -> None:
        """The prompts are encoded."""
        self.text_seconds = self.elapsed - self._group_started

    def start_steps(self) -> None:
        """A group of steps begins."""
        self._group_started = self.elapsed

    def end_steps(self, step: int) -> None:
        """The group that ends with this step is done, and the device has caught up; the next one begins."""
        num_steps = step - len(self.step_seconds)
        self.step_seconds += [(self.elapsed - self._group_started) / num_steps] * num_steps
        self.start_steps()

    def leave_out(self, *, since: float) -> None:
        """What was done since then is no part of the steps."""
        self._group_started += self.elapsed - since


class LatentPreview:
    """A linear map from latents to colours, so that any VAE (not only Stable Diffusion 1.5's) has previews.

    One matrix, a fraction of a millisecond: fitted by least squares on a card of colours that the VAE encodes once.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        self._vae = vae

    @cached_property
    def _matrix(self) -> torch.Tensor | None:
        """(5, 3), fitted when a preview is first asked for; None where the VAE's encoder gives NaN."""
        vae, generator = self._vae, torch.Generator().manual_seed(0)
        scale = 2 ** (len(vae.config.block_out_channels) - 1)
        patches = torch.rand(3, NUM_PATCHES, NUM_PATCHES, generator=generator) * 2 - 1
        colours = _enlarge(patches, PATCH_LATENTS)
        card = _enlarge(colours, scale)[None].to(vae.device, vae.dtype)
        with torch.inference_mode():
            latents = vae.encode(card).latent_dist.mean * vae.config.scaling_factor
        features = _with_constant(latents[0].float().cpu())
        if not bool(torch.isfinite(features).all()):
            logger.warning("The VAE's encoder gives NaN, so there are no previews; images do not need it.")
            return None
        solution: torch.Tensor = torch.linalg.lstsq(features, colours.flatten(1).T).solution
        return solution

    def picture(self, latents_CHW: torch.Tensor) -> np.ndarray | None:
        """(4, h, w) latents -> (h, w, 3) uint8, an eighth of the image's size. Only to be looked at.

        None where the VAE's encoder is broken: generation does not need it, so it goes on without previews.
        """
        if self._matrix is None:
            return None
        _, height, width = latents_CHW.shape
        colours = _with_constant(latents_CHW.float().cpu()) @ self._matrix
        levels = ((colours.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        picture: np.ndarray = levels.reshape(height, width, 3).numpy()
        return picture


def _enlarge(image_CHW: torch.Tensor, times: int) -> torch.Tensor:
    """Every pixel becomes a square of `times` × `times`."""
    return image_CHW.repeat_interleave(times, 1).repeat_interleave(times, 2)


def _with_constant(latents_CHW: torch.Tensor) -> torch.Tensor:
    """(4, h, w) -> (h · w, 5): each place's latents, and a one."""
    pixels = latents_CHW.flatten(1).T
    return torch.cat([pixels, torch.ones(len(pixels), 1)], dim=1)
