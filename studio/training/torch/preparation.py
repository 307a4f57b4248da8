"""Everything before the first step: model, images, caches, layers that learn, and what was decided."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from diffusers import DDPMScheduler
from torch import nn

from studio.core.errors import LoraError, SettingsError, TrainingError, WeightsFileError
from studio.core.language import _, said
from studio.core.paths import UserData
from studio.core.results import EngineFacts
from studio.core.settings import GenerationSettings, ModelSettings
from studio.core.system import versions
from studio.datasets.snapshot import mask_notes
from studio.engine.denoise import assert_possible
from studio.engine.device import give_back_between_blocks, give_back_free_memory
from studio.engine.hub_download import DownloadWatcher
from studio.engine.lora_layers import Lora
from studio.engine.memory import OffloadedModule
from studio.engine.models import Components
from studio.engine.pipeline import PipelineManager
from studio.images.prompts import take_lora_tags
from studio.loras.library import LoraLibrary
from studio.training.folder import TrainingPlan
from studio.training.settings import TrainingSettings
from studio.training.torch.adapters import Adapters
from studio.training.torch.batches import BatchMaker
from studio.training.torch.caches import (
    LatentCache,
    MaskCache,
    TextCache,
    digest_of,
    fill_caches,
    fingerprint_of,
)
from studio.training.torch.data import RunData, TrainingSet, make_training_set, seed_of
from studio.training.torch.loss import Denoiser, NoiseLoss
from studio.training.torch.memory import (
    CheckpointingDecision,
    assert_fits,
    assert_room,
    decide_checkpointing,
)
from studio.training.torch.paths import SegmentMaker, Teacher, taught_captions
from studio.training.torch.processes import Processes, precision_of_passes
from studio.training.torch.recomputation import measure_costs, set_checkpointing
from studio.training.torch.validation import (
    check_generation,
    choose_prompts,
    settings_notes,
    validation_generations,
)


@dataclass(frozen=True)
class Prepared:
    """All parts of a training, before its first step. `parked` are to be present where images are made."""

    settings: TrainingSettings
    plan: TrainingPlan
    data: TrainingSet
    manager: PipelineManager
    offloaded: tuple[OffloadedModule, ...]
    adapters: Adapters
    denoiser: Denoiser
    maker: BatchMaker | SegmentMaker
    noise_loss: NoiseLoss
    generations: tuple[GenerationSettings, ...]
    check: GenerationSettings


def prepare(
    settings: TrainingSettings,
    data: RunData,
    *,
    user_data: UserData,
    processes: Processes,
    plan: TrainingPlan | None = None,
    report: Callable[[str], None],
    cancelled: Callable[[], bool] = lambda: False,
) -> Prepared:
    """Load, encode what is not in the cache yet, put the layers in, decide.

    Args:
        plan: what a run that is resumed decided when it began.
        report: told what is being done, and how far it is.
        cancelled: asked between images whether to stop.

    Raises:
        TrainingError: where images, masks or the model changed, or a setting or a prompt's LoRA does not fit the model.
        ModelError, DatasetError, OSError: where model or images cannot be read, or the caches cannot be written.
        SettingsError: where the model's scheduler cannot take the steps of validation images.
    """
    manager, facts = _load(settings, processes.device, user_data, report=report, cancelled=cancelled)
    components = manager.components
    resolution = plan.resolution if plan else settings.resolution or facts.width
    _assert_possible_here(settings, components, facts, processes, resolution=resolution)
    tagged = _tagged_loras(settings, manager, is_new=plan is None)
    training_set = make_training_set(data.snapshot, settings, resolution=resolution, prior=data.prior)
    digests = _digests(settings, components, plan)
    caches = fill_caches(
        settings,
        training_set,
        components,
        digests,
        captions=taught_captions(training_set, settings),
        user_data=user_data,
        processes=processes,
        report=report,
        cancelled=cancelled,
    )
    training_set = replace(training_set, notes=(*training_set.notes, *mask_notes(caches[2].seen(training_set.items))))
    prompts, generations, check = _images(settings, manager, training_set, plan, resolution=resolution)
    offloaded = _offload(settings, components, digests, tagged, user_data=user_data, processes=processes)
    maker: BatchMaker | SegmentMaker = _batch_maker(settings, training_set, components, caches, processes.device)
    if settings.makes_speed_lora:
        teacher = Teacher(components, settings, caches[1], digests, resolution, user_data.cache / "paths")
        maker = teacher.maker(training_set, processes, report=report, cancelled=cancelled)
    adapters, denoiser = _put_layers_in(components, settings, processes, maker)
    noise_loss = NoiseLoss(settings, maker.noise_scheduler)
    if plan is None:
        decision = _decide(settings, denoiser, maker, processes)
        plan = _plan(settings, data, training_set, facts, decision, processes, digests, adapters, prompts, resolution)
    set_checkpointing(denoiser, on=plan.gradient_checkpointing, recomputed=plan.recomputed)
    if plan.gradient_checkpointing and processes.device.type == "cpu":
        give_back_between_blocks(components.unet)
    give_back_free_memory()  # what encoding took
    return Prepared(
        settings, plan, training_set, manager, offloaded, adapters, denoiser, maker, noise_loss, generations, check
    )


def _batch_maker(
    settings: TrainingSettings,
    training_set: TrainingSet,
    components: Components,
    caches: tuple[LatentCache, TextCache, MaskCache],
    device: torch.device,
) -> BatchMaker:
    latents, texts, masks = caches
    return BatchMaker(
        training_set,
        settings,
        components=components,
        noise_scheduler=DDPMScheduler.from_config(components.pipeline.scheduler.config),
        latents=latents,
        texts=texts,
        masks=masks,
        device=device,
    )


def _assert_possible_here(
    settings: TrainingSettings, components: Components, facts: EngineFacts, processes: Processes, *, resolution: int
) -> None:
    """The device computes such steps rightly, and has the memory for one."""
    device, dtype = processes.device, processes.half_precision or torch.float32
    assert_fits(settings, resolution=resolution, device=device, check=facts.device_check)
    assert_room(settings, components, resolution=resolution, device=device, dtype=dtype)


def _images(
    settings: TrainingSettings,
    manager: PipelineManager,
    training_set: TrainingSet,
    plan: TrainingPlan | None,
    *,
    resolution: int,
) -> tuple[tuple[str, ...], tuple[GenerationSettings, ...], GenerationSettings]:
    """(prompts, validation images, the image of the export's check), their texts encoded."""
    prompts = plan.prompts if plan and not settings.validation_prompts else choose_prompts(settings, training_set)
    generations = validation_generations(settings, prompts, resolution=resolution)
    check = check_generation(settings, resolution=resolution)
    for generation in generations[:1]:  # all have the same steps
        assert_possible(manager.components, generation)
    manager.remember_prompts((*generations, *map(settings.drawn_fast, generations), check))
    return prompts, generations, check


def _load(
    settings: TrainingSettings,
    device: torch.device,
    user_data: UserData,
    *,
    report: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> tuple[PipelineManager, EngineFacts]:
    report(_("Loading the model."))
    manager = PipelineManager(
        device,
        rejected_folder=user_data.rejected,
        library=LoraLibrary(user_data.loras),
        device_checks=user_data.device_checks,
    )
    facts = manager.load(
        ModelSettings(model=settings.model, prediction_type=settings.prediction_type, tf32=settings.tf32),
        progress=DownloadWatcher(
            lambda p: report(_("Downloading {file}: {done:,} bytes.", file=p.file, done=p.done_bytes)),
            cancelled,
        ),
        on_check=lambda part: report(_("Checking the device: {part}.", part=_(part))),
    )
    if settings.teacher_loras:  # as weights, not as hooks: what learns computes with the weights themselves
        manager.loras.sum_limit_bytes = sys.maxsize
        manager.loras.use(settings.teacher_loras)
    return manager, facts


def _tagged_loras(settings: TrainingSettings, manager: PipelineManager, *, is_new: bool) -> tuple[Lora, ...]:
    """The teacher's LoRA and those of the user's validation prompts, each read whole and checked against the model.

    A run that goes on does so without one that is gone since: its images are told as missing when they are due.

    Raises:
        TrainingError: where a prompt of a new run cannot be followed.
    """
    found = [manager.loras.read(choice.name) for choice in settings.teacher_loras]
    for prompt in settings.validation_prompts:
        try:
            found += [manager.loras.read(choice.name) for choice in take_lora_tags(prompt)[1]]
        except (SettingsError, LoraError, WeightsFileError) as error:
            if is_new:
                words = _("validation_prompts: {prompt!r} cannot be used. {error}", prompt=prompt, error=error)
                raise TrainingError(words) from error
    return tuple(found)


def _put_layers_in(
    components: Components, settings: TrainingSettings, processes: Processes, maker: BatchMaker | SegmentMaker
) -> tuple[Adapters, Denoiser]:
    """Their weights are the same in every process; what dropout draws is not."""
    torch.manual_seed(seed_of("weights", settings.seed))
    adapters = Adapters(components, settings)
    torch.manual_seed(seed_of("dropout", settings.seed, processes.index))
    denoiser = Denoiser(components, train_text_encoder=settings.train_text_encoder)
    if isinstance(maker, SegmentMaker):
        maker.denoiser = denoiser
    return adapters, denoiser


def _digests(settings: TrainingSettings, components: Components, plan: TrainingPlan | None) -> dict[str, str]:
    """Of the model's parts; a run that goes on has the model that it began with.

    Raises:
        TrainingError: where it is another one.
    """
    digests = {
        "unet": fingerprint_of(components.unet),
        "vae": digest_of(components.vae),
        "text_encoder": digest_of(components.text_encoder),
    }
    if plan is not None and plan.model_digests != digests:
        words = _(
            "The model {model} is another one than when the run began. Put the old one back, or duplicate the run to "
            "train on this one.",
            model=settings.model,
        )
        raise TrainingError(words)
    return digests


def _offload(
    settings: TrainingSettings,
    components: Components,
    digests: Mapping[str, str],
    tagged: Sequence[Lora],
    *,
    user_data: UserData,
    processes: Processes,
) -> tuple[OffloadedModule, ...]:
    """The VAE leaves memory, and the text encoder where all texts are encoded: not where a prompt's LoRA changes it.

    What learns from passes in half precision is rounded to it. Returned is what images need.
    """
    half = processes.half_precision

    def offloaded(part: nn.Module, name: str, stand_in: torch.dtype | None = None) -> OffloadedModule:
        file = user_data.cache / "parked" / f"{digests[name]}.safetensors"
        module = OffloadedModule(part, file, stand_in=stand_in)
        module.offload()
        return module

    needed = [offloaded(components.vae, "vae")]
    if half is not None:
        needed.append(offloaded(components.unet, "unet", half))
    is_changed = settings.train_text_encoder or any(lora.text_encoder for lora in tagged)
    if not (is_changed or settings.shuffle_caption):
        offloaded(components.text_encoder, "text_encoder")
    elif half is not None and settings.train_text_encoder:
        needed.append(offloaded(components.text_encoder, "text_encoder", half))
    return tuple(needed)


def _decide(
    settings: TrainingSettings, denoiser: Denoiser, maker: BatchMaker | SegmentMaker, processes: Processes
) -> CheckpointingDecision:
    denoiser.train()
    with torch.random.fork_rng(devices=[]):
        return decide_checkpointing(
            settings,
            device=processes.device,
            measure=lambda: measure_costs(denoiser, maker.batch(0)),
            num_processes=processes.count,
        )


def _plan(
    settings: TrainingSettings,
    data: RunData,
    training_set: TrainingSet,
    facts: EngineFacts,
    decision: CheckpointingDecision,
    processes: Processes,
    digests: Mapping[str, str],
    adapters: Adapters,
    prompts: tuple[str, ...],
    resolution: int,
) -> TrainingPlan:
    mixed_precision, precision_note = precision_of_passes(processes.device, settings.mixed_precision)
    checked = facts.device_check.sentence if facts.device_check else ""
    notes = [*training_set.notes, decision.reason, said(facts.precision.reason), precision_note, checked]
    if settings.num_validation_images and not prompts:
        notes.append(_("No validation images are made: no image has a caption. Give validation_prompts to see some."))
    return TrainingPlan(
        resolution=resolution,
        gradient_checkpointing=decision.on,
        checkpointing_reason=decision.reason,
        recomputed=decision.recomputed,
        precision=facts.precision.precision,
        mixed_precision=mixed_precision,
        prompts=prompts,
        num_parameters=adapters.num_parameters,
        num_layers=adapters.num_layers,
        num_pictures=len(training_set.items),
        num_held_out=len(training_set.held_out),
        dataset_digest=data.snapshot.header.digest,
        prior_digest=data.prior.header.digest if data.prior else "",
        model=facts.model,
        model_revision=facts.model_revision,
        model_digests=dict(digests),
        device=facts.device,
        device_name=facts.device_name,
        versions=versions(),
        warmup_from_zero=False,
        notes=tuple(filter(None, (*notes, *settings_notes(settings)))),
    )
