"""PipelineManager: the one way to make an image, so that nothing can skip precision or validation."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import torch

from studio.core.errors import GenerationCancelledError, ModelError
from studio.core.language import _
from studio.core.results import Check, DeviceCheck, EngineFacts, ImageRecord, LoraUsed, Timings
from studio.core.settings import GenerationSettings, ModelSettings
from studio.core.system import MemoryUse, versions
from studio.engine.denoise import (
    TextEncoding,
    decode,
    denoise,
    estimate_finished,
    first_latents,
    make_scheduler,
    native_size,
    set_timesteps,
    to_picture,
)
from studio.engine.device import (
    assert_precision,
    decide_precision,
    device_name,
    prepare_device,
    release_memory,
    set_tf32,
    synchronize,
    trim_memory,
)
from studio.engine.device_policy import DevicePolicy
from studio.engine.hub_download import DownloadWatcher
from studio.engine.lora_layers import LoraLayers
from studio.engine.memory import MemoryMeter
from studio.engine.memory_forecast import ImageRoom
from studio.engine.model_files import check_model, find_model
from studio.engine.models import Components, load_components, move_components
from studio.engine.progress import Clock, LatentPreview, StepProgress, Watcher
from studio.engine.validation import check_decoded, check_latents, check_picture, passed_checks, reject
from studio.images.prompts import take_lora_tags
from studio.loras.library import LoraLibrary

# Steps between two looks at the latents: on MPS and CUDA each look waits for the device, so not at every one.
# Previews are made at the same steps, so that nobody is shown latents that were not checked.
CHECK_EVERY = 3


@dataclass(frozen=True)
class GeneratedImage:
    """An image that passed every check: (height, width, 3) uint8, all that is known of it, and its memory.

    `latents_CHW` are what the VAE decoded, on the CPU in float32: two images are compared there too.
    """

    picture: np.ndarray
    record: ImageRecord
    memory: MemoryUse
    latents_CHW: torch.Tensor

    @property
    def timings(self) -> Timings:
        return self.record.timings


@dataclass
class _Loaded:
    """What is in memory, and what was learned about it."""

    components: Components
    facts: EngineFacts
    text: TextEncoding
    loras: LoraLayers
    room: ImageRoom
    preview: LatentPreview
    used: bool = False


class PipelineManager:
    """Owns the device: loads and unloads a model, generates, and validates every image.

    Use it from one thread only: two threads on MPS can crash the process (pytorch #197805).

    Args:
        device: where to compute; `studio.engine.device.pick_device()` chooses.
        rejected_folder: where copies of invalid images go, for diagnosis.
        library: where LoRAs are found by name; those that ship with the studio where none is given.
        device_checks: where results of the device check are kept. Where it is given, a GPU that has not been checked
            with this system and torch is, before the first model is loaded.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        rejected_folder: Path,
        library: LoraLibrary | None = None,
        device_checks: Path | None = None,
    ) -> None:
        prepare_device(device)
        self.device = device
        self.rejected_folder = rejected_folder
        self.library = library or LoraLibrary()
        self._policy = DevicePolicy(device, device_checks)
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

    @property
    def loras(self) -> LoraLayers:
        """The LoRAs of the loaded model: reading and checking one does not attach it.

        Raises:
            ModelError: where no model is loaded.
        """
        return self._require_loaded().loras

    def load(
        self,
        settings: ModelSettings,
        *,
        progress: DownloadWatcher | None = None,
        on_check: Callable[[str], None] = lambda _part: None,
    ) -> EngineFacts:
        """Load a model in the precision that the policy decides, and assert it on every parameter.

        The model before it leaves memory first, so there need never be room for two.

        Args:
            progress: told how far a download is, asked whether to stop.
            on_check: told of each part of the device check, where that has to be made first.

        Raises:
            ModelError: where the model cannot be found, or what is cheap to check shows that it cannot be read (the one
                before it stays loaded), or where reading it shows that (none is loaded then).
            DeviceError: where the device computes wrongly; nothing is loaded then.
            PrecisionError: where a tensor is not in the decided precision; nothing is loaded then.
            DownloadCancelledError: where the watcher asked to stop; the model before it is still loaded then.
        """
        self._assert_own_thread()
        found = find_model(settings.model, progress=progress)
        check_model(found)
        decision = decide_precision(self.device.type, settings.precision, tf32=settings.tf32)
        self.unload()
        started = time.perf_counter()
        check = self._policy.known(on_check)
        set_tf32(decision.tf32)
        meter = MemoryMeter(self.device)
        with meter:
            components = load_components(found, decision.precision, prediction_type=settings.prediction_type)
            assert_precision(components.modules(), decision.precision)  # here, or a missing tensor cannot move
            move_components(components, self.device)
            plan = self._policy.apply(check, components, slicing=settings.attention_slicing)
            assert_precision(components.modules(), decision.precision)
            synchronize(self.device)
        width, height = native_size(components)
        facts = EngineFacts(
            device=str(self.device),
            device_name=device_name(self.device),
            precision=decision,
            model=found.name,
            model_folder=str(found.file or found.folder),
            model_revision=found.revision,
            parameters=components.num_parameters(),
            width=width,
            height=height,
            load_seconds=time.perf_counter() - started,
            load_memory=meter.use,
            notes=found.notes,
            device_check=check,
        )
        text, loras = TextEncoding(components), LoraLayers(components, self.library)
        room, preview = ImageRoom(components, self.device, plan), LatentPreview(components.vae)
        self._loaded = _Loaded(components, facts, text, loras, room, preview)
        return facts

    def check_device(self, on_part: Callable[[str], None] = lambda _part: None) -> DeviceCheck:
        """Check the device against the CPU and keep the result; models that are loaded from now on follow it.

        Raises:
            ModelError: where the shipped model cannot be read.
            OSError: where the result cannot be kept.
        """
        self._assert_own_thread()
        return self._policy.check(on_part)

    def unload(self) -> None:
        """Forget the model and give its memory back."""
        self._assert_own_thread()
        self._loaded = None
        release_memory(self.device)

    def remember_prompts(self, generations: Sequence[GenerationSettings]) -> None:
        """Encode prompts now, so that images of them need no text encoder later, where no LoRA changes it.

        Raises:
            ModelError: where no model is loaded.
        """
        self._assert_own_thread()
        loaded = self._require_loaded()
        with torch.inference_mode():
            for settings in generations:
                prompt, __ = take_lora_tags(settings.prompt)
                loaded.text.encode(settings, prompt, state=())

    def forget_prompts(self) -> None:
        """Encode every prompt anew from now on: for whoever changed the text encoder itself.

        Raises:
            ModelError: where no model is loaded.
        """
        self._require_loaded().text.forget()

    def generate(self, settings: GenerationSettings, *, watcher: Watcher | None = None) -> GeneratedImage:
        """Make one image. The same settings give the same bytes, whatever ran before.

        One image a call, not a batch: in a batch an image depends, in its last bits, on its neighbours' number.

        Raises:
            ModelError: where no model is loaded.
            NotEnoughMemoryError: where an image of that size takes more than the device could ever give.
            LoraError, WeightsFileError: where a LoRA cannot be found, read or attached.
            SettingsError: where the model's scheduler cannot take the steps, or a LoRA tag in the prompt is none.
            InvalidImageError: where the image failed a check.
            GenerationCancelledError: where the watcher asked to stop.
        """
        self._assert_own_thread()
        loaded, watcher, clock = self._require_loaded(), watcher or Watcher(), Clock()
        first_call = not loaded.used
        width, height = self._size(settings)
        if note := loaded.room.check(width=width, height=height, guided=settings.guidance_scale > 1):
            watcher.on_note(note)
        prompt, tagged = take_lora_tags(settings.prompt)
        meter = MemoryMeter(self.device)
        with meter, torch.inference_mode():
            used = loaded.loras.use((*settings.loras, *tagged))
            clock.start_text()
            embeddings = loaded.text.encode(settings, prompt, state=loaded.loras.text_state)
            synchronize(self.device)
            clock.end_text()
            latents = self._denoise(settings, embeddings, watcher=watcher, clock=clock, meter=meter)
            picture, checks = self._decode(settings, latents, clock=clock)
        trim_memory(self.device)
        record = self._record(settings, used, checks, clock.timings(first_call=first_call))
        return GeneratedImage(picture, record, meter.use, latents[0].float().cpu())

    def _record(
        self, settings: GenerationSettings, used: tuple[LoraUsed, ...], checks: tuple[Check, ...], timings: Timings
    ) -> ImageRecord:
        loaded, (width, height) = self._require_loaded(), self._size(settings)
        facts = loaded.facts
        return ImageRecord(
            settings=settings,
            width=width,
            height=height,
            model=facts.model,
            model_revision=facts.model_revision,
            scheduler=type(make_scheduler(settings.scheduler, loaded.components.pipeline.scheduler)).__name__,
            loras=used,
            device=facts.device_name,
            precision=facts.precision.precision,
            checks=checks,
            timings=timings,
            made_at=datetime.now().astimezone(),
            versions=versions(),
        )

    def _denoise(
        self,
        settings: GenerationSettings,
        embeddings: torch.Tensor,
        *,
        watcher: Watcher,
        clock: Clock,
        meter: MemoryMeter,
    ) -> torch.Tensor:
        """(1, C, H, W) finished latents, checked every few steps and at the last."""
        loaded, components = self._require_loaded(), self.components
        width, height = self._size(settings)
        generator = torch.Generator("cpu").manual_seed(settings.seed)
        latents = first_latents(components, generator, width=width, height=height)
        scheduler = make_scheduler(settings.scheduler, components.pipeline.scheduler)
        num_steps = len(set_timesteps(scheduler, settings, self.device))
        steps = denoise(components.unet, scheduler, latents, embeddings, settings=settings, generator=generator)
        clock.start_steps()
        for step, denoised in enumerate(steps, start=1):
            latents, loaded.used = denoised.latents_BCHW, True
            if step % CHECK_EVERY == 0 or step == num_steps:
                if fault := check_latents(latents):
                    reject(self.rejected_folder, fault, settings, latents, step=step)
                clock.end_steps(step)
                meter.sample_accelerator()
            step_ended = clock.elapsed
            if watcher.on_step:
                looks = step % CHECK_EVERY == 0 and step < num_steps
                preview = loaded.preview.picture(estimate_finished(scheduler, denoised)[0]) if looks else None
                watcher.on_step(StepProgress(step, num_steps, clock.elapsed, preview))
            clock.leave_out(since=step_ended)
            if watcher.cancelled():
                raise GenerationCancelledError(_("Cancelled after step {step} of {total}.", step=step, total=num_steps))
        return latents

    def _decode(
        self, settings: GenerationSettings, latents: torch.Tensor, *, clock: Clock
    ) -> tuple[np.ndarray, tuple[Check, ...]]:
        """Decode, check the raw output, clamp and cast, check the image."""
        started = clock.elapsed
        width, height = self._size(settings)
        decoded = decode(self.components, latents)
        if fault := check_decoded(decoded):
            reject(self.rejected_folder, fault, settings, latents, decoded_CHW=decoded)
        picture = to_picture(decoded)
        if fault := check_picture(picture, height=height, width=width):
            reject(self.rejected_folder, fault, settings, latents, decoded_CHW=decoded)
        clock.vae_seconds = clock.elapsed - started
        checks = passed_checks(num_steps=len(clock.step_seconds), decoded_CHW=decoded, picture_HWC=picture)
        return picture, checks

    def _size(self, settings: GenerationSettings) -> tuple[int, int]:
        facts = self._require_loaded().facts
        return settings.width or facts.width, settings.height or facts.height

    def _require_loaded(self) -> _Loaded:
        if self._loaded is None:
            raise ModelError(_("No model is loaded. Choose one first."))
        return self._loaded

    def _assert_own_thread(self) -> None:
        assert threading.get_ident() == self._thread, "PipelineManager belongs to the thread that made it"
