"""PipelineManager: the one way to make an image, so that nothing can skip precision or validation."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from studio.engine.denoise import (
    DenoisingStep,
    decode,
    denoise,
    encode_prompts,
    estimate_finished,
    first_latents,
    native_size,
    set_timesteps,
)
from studio.engine.device import device_name, release_memory, synchronize
from studio.engine.memory import MemoryMeter
from studio.engine.models import Components, find_model, load_components, move_components
from studio.engine.mps import SLICING_WARNING, attention_context
from studio.engine.precision import assert_precision, decide_precision
from studio.engine.preview import LatentPreview
from studio.engine.rejected import keep_rejected
from studio.engine.validation import Fault, check_decoded, check_latents, check_picture, passed_checks
from studio.errors import GenerationCancelledError, InvalidImageError, ModelError
from studio.results import Check, EngineFacts, MemoryUse, Timings
from studio.settings import GenerationSettings, ModelSettings

# Steps between two looks at the latents: on MPS and CUDA each look waits for the device, so not at every one.
# Previews are made at the same steps, so that nobody is shown latents that were not checked.
CHECK_EVERY = 3


@dataclass(frozen=True)
class StepProgress:
    """After step `step` (1-based) of `num_steps`; every few steps with a (h, w, 3) uint8 preview."""

    step: int
    num_steps: int
    elapsed_seconds: float
    preview: np.ndarray | None = None


class Watcher:
    """Watches a `generate()` call: told of every step, asked between steps whether to stop."""

    def __init__(
        self,
        on_step: Callable[[StepProgress], None] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.on_step = on_step
        self.cancelled = cancelled


@dataclass(frozen=True)
class GeneratedImage:
    """A picture that passed every check: (height, width, 3) uint8, what the checks saw, timings and memory."""

    picture: np.ndarray
    checks: tuple[Check, ...]
    timings: Timings
    memory: MemoryUse


@dataclass
class _Loaded:
    """What is in memory, and what was learned about it."""

    components: Components
    facts: EngineFacts
    preview: LatentPreview | None = None
    used: bool = False


@dataclass
class _Clock:
    """The seconds of each part of one call, as they come in."""

    started: float = field(default_factory=time.perf_counter)
    text_seconds: float = 0.0
    step_seconds: list[float] = field(default_factory=list)
    vae_seconds: float = 0.0
    _group_started: float = 0.0

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.started

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


class PipelineManager:
    """Owns the device: loads and unloads a model, generates, and validates every image.

    Use it from one thread only: two threads on MPS can crash the process (pytorch #197805).

    Args:
        device: where to compute; `studio.engine.device.pick_device()` chooses.
        rejected_folder: where copies of invalid images go, for diagnosis.
    """

    def __init__(self, device: torch.device, *, rejected_folder: Path) -> None:
        self.device = device
        self.rejected_folder = rejected_folder
        self._thread = threading.get_ident()
        self._loaded: _Loaded | None = None

    @property
    def facts(self) -> EngineFacts | None:
        """The loaded model and its device; None where nothing is loaded."""
        return self._loaded.facts if self._loaded else None

    @property
    def components(self) -> Components:
        """The loaded parts.

        Raises:
            ModelError: where no model is loaded.
        """
        return self._require_loaded().components

    def load(self, settings: ModelSettings) -> EngineFacts:
        """Load a model in the precision that the policy decides, and assert it on every parameter.

        The model before it leaves memory first, so there need never be room for two.

        Raises:
            ModelError: where the model cannot be found or read; nothing is loaded then.
            PrecisionError: where a tensor is not in the decided precision; nothing is loaded then.
        """
        self._assert_own_thread()
        self.unload()
        started = time.perf_counter()
        decision = decide_precision(self.device.type, settings.precision)
        found = find_model(settings.model)
        notes = (*found.notes, SLICING_WARNING) if settings.attention_slicing else found.notes
        meter = MemoryMeter(self.device)
        with meter:
            components = load_components(found, decision.precision)
            assert_precision(components.modules(), decision.precision)  # here, or a missing tensor cannot move
            move_components(components, self.device)
            if settings.attention_slicing:
                components.pipeline.enable_attention_slicing()
            assert_precision(components.modules(), decision.precision)
            synchronize(self.device)
        width, height = native_size(components)
        facts = EngineFacts(
            device=str(self.device),
            device_name=device_name(self.device),
            precision=decision,
            model=found.name,
            model_folder=str(found.folder),
            parameters=components.num_parameters(),
            width=width,
            height=height,
            load_seconds=time.perf_counter() - started,
            load_memory=meter.use,
            notes=notes,
        )
        self._loaded = _Loaded(components, facts)
        return facts

    def unload(self) -> None:
        """Forget the model and give its memory back."""
        self._assert_own_thread()
        self._loaded = None
        release_memory(self.device)

    def generate(self, settings: GenerationSettings, *, watcher: Watcher | None = None) -> GeneratedImage:
        """Make one image. The same settings give the same bytes, whatever ran before.

        One image a call, not a batch: in a batch an image depends, in its last bits, on its neighbours' number.

        Raises:
            ModelError: where no model is loaded.
            InvalidImageError: where the image failed a check.
            GenerationCancelledError: where the watcher asked to stop.
        """
        self._assert_own_thread()
        loaded, watcher, clock = self._require_loaded(), watcher or Watcher(), _Clock()
        first_call = not loaded.used
        meter = MemoryMeter(self.device)
        with meter, torch.inference_mode(), attention_context(self.device):
            embeddings = self._encode(settings, clock)
            latents = self._denoise(settings, embeddings, watcher=watcher, clock=clock, meter=meter)
            picture, checks = self._decode(settings, latents, clock=clock)
        timings = Timings(
            text_seconds=clock.text_seconds,
            step_seconds=tuple(clock.step_seconds),
            vae_seconds=clock.vae_seconds,
            total_seconds=clock.elapsed,
            first_call=first_call,
        )
        return GeneratedImage(picture, checks, timings, meter.use)

    def _encode(self, settings: GenerationSettings, clock: _Clock) -> torch.Tensor:
        """(1 or 2, N, D) embeddings, the negative one first where guidance is on."""
        guided = settings.guidance_scale > 1
        prompts = [settings.negative_prompt, settings.prompt] if guided else [settings.prompt]
        embeddings = encode_prompts(self.components, prompts)
        synchronize(self.device)
        clock.text_seconds = clock.elapsed
        return embeddings

    def _denoise(
        self,
        settings: GenerationSettings,
        embeddings: torch.Tensor,
        *,
        watcher: Watcher,
        clock: _Clock,
        meter: MemoryMeter,
    ) -> torch.Tensor:
        """(1, C, H, W) finished latents, checked every few steps and at the last."""
        loaded, components = self._require_loaded(), self.components
        width, height = self._size(settings)
        generator = torch.Generator("cpu").manual_seed(settings.seed)
        latents = first_latents(components, generator, width=width, height=height)
        timesteps = set_timesteps(components, settings)
        num_steps = len(timesteps)
        steps = denoise(components, latents, embeddings, timesteps, settings=settings, generator=generator)
        clock.start_steps()
        for step, denoised in enumerate(steps, start=1):
            latents, loaded.used = denoised.latents_BCHW, True
            if step % CHECK_EVERY == 0 or step == num_steps:
                fault = check_latents(latents)
                if fault:
                    self._reject(fault, settings, latents, step=step)
                clock.end_steps(step)
                meter.sample_accelerator()
            step_ended = clock.elapsed
            if watcher.on_step:
                preview = self._preview(denoised) if step % CHECK_EVERY == 0 and step < num_steps else None
                watcher.on_step(StepProgress(step, num_steps, clock.elapsed, preview))
            clock.leave_out(since=step_ended)
            if watcher.cancelled():
                raise GenerationCancelledError(f"Cancelled after step {step} of {num_steps}.")
        return latents

    def _decode(
        self, settings: GenerationSettings, latents: torch.Tensor, *, clock: _Clock
    ) -> tuple[np.ndarray, tuple[Check, ...]]:
        """Decode, check the raw output, clamp and cast, check the picture."""
        started = clock.elapsed
        width, height = self._size(settings)
        decoded = decode(self.components, latents)
        fault = check_decoded(decoded)
        if fault:
            self._reject(fault, settings, latents, decoded=decoded)
        picture = to_picture(decoded)
        fault = check_picture(picture, height=height, width=width)
        if fault:
            self._reject(fault, settings, latents, decoded=decoded)
        clock.vae_seconds = clock.elapsed - started
        checks = passed_checks(num_steps=len(clock.step_seconds), decoded_CHW=decoded, picture_HWC=picture)
        return picture, checks

    def _reject(
        self,
        fault: Fault,
        settings: GenerationSettings,
        latents: torch.Tensor,
        *,
        step: int | None = None,
        decoded: torch.Tensor | None = None,
    ) -> NoReturn:
        """Keep a copy for diagnosis and say which check failed."""
        file = keep_rejected(self.rejected_folder, fault, settings, latents_BCHW=latents, decoded_CHW=decoded)
        raise InvalidImageError(
            check=fault.check, step=step, finding=fault.finding, advice=fault.advice, rejected_file=file
        )

    def _preview(self, denoised: DenoisingStep) -> np.ndarray | None:
        loaded = self._require_loaded()
        loaded.preview = loaded.preview or LatentPreview(loaded.components.vae)
        return loaded.preview.picture(estimate_finished(loaded.components, denoised)[0])

    def _size(self, settings: GenerationSettings) -> tuple[int, int]:
        facts = self._require_loaded().facts
        return settings.width or facts.width, settings.height or facts.height

    def _require_loaded(self) -> _Loaded:
        if self._loaded is None:
            raise ModelError("No model is loaded. Choose one first.")
        return self._loaded

    def _assert_own_thread(self) -> None:
        assert threading.get_ident() == self._thread, "PipelineManager belongs to the thread that made it"


def to_picture(decoded_CHW: torch.Tensor) -> np.ndarray:
    """Raw VAE output, about [-1, 1] -> (height, width, 3) uint8, as diffusers' VaeImageProcessor rounds it."""
    levels = ((decoded_CHW.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(1, 2, 0).cpu().numpy()
