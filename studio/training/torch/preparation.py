"""Everything before the first step: model, images, caches, layers that learn, and what was decided."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import DDPMScheduler

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
from studio.engine.lora_layers import read_lora
from studio.engine.memory import OffloadedModule
from studio.engine.models import Components
from studio.engine.pipeline import PipelineManager
from studio.images.prompts import take_lora_tags
from studio.loras.files import file_at, with_content
from studio.loras.library import LoraLibrary
from studio.training.folder import LoraFile, TrainingPlan
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
    assert_possible_here,
    decide_checkpointing,
    offload_unneeded,
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
        report, cancelled: told what is being done and how far it is; asked between images whether to stop.

    Raises:
        TrainingError: where images, masks or the model changed, or a setting or a prompt's LoRA does not fit the model.
        ModelError, DatasetError, OSError: where model or images cannot be read, or the caches cannot be written.
        SettingsError: where the model's scheduler cannot take the steps of validation images.
    """
    manager, facts = _load(settings, processes.device, user_data, report=report, cancelled=cancelled)
    components = manager.components
    resolution = plan.resolution if plan else settings.resolution or facts.width
    assert_possible_here(settings, components, facts.device_check, processes, resolution=resolution)
    lora_files = _hold_loras(settings, manager, plan)
    training_set = make_training_set(data.snapshot, settings, resolution=resolution, prior=data.prior)
    alone, digests = _digests(settings, manager, plan)
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
    offloaded = offload_unneeded(settings, components, digests, manager.loras, user_data=user_data, processes=processes)
    maker: BatchMaker | SegmentMaker = _batch_maker(settings, training_set, components, caches, processes.device)
    if settings.makes_speed_lora:
        teacher = Teacher(components, settings, caches[1], digests, resolution, user_data.cache / "paths")
        maker = teacher.maker(training_set, processes, report=report, cancelled=cancelled)
    adapters, denoiser = _put_layers_in(components, settings, processes, maker)
    noise_loss = NoiseLoss(settings, maker.noise_scheduler)
    if plan is None:
        decision = _decide(settings, denoiser, maker, processes)
        plan = _plan(
            settings, data, training_set, facts, decision, processes, alone, lora_files, adapters, prompts, resolution
        )
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
    return manager, facts


def _hold_loras(settings: TrainingSettings, manager: PipelineManager, plan: TrainingPlan | None) -> dict[str, LoraFile]:
    """The teacher's LoRA and those of the user's validation prompts by their names, each checked against the model.

    From now on their names mean what is read here, whatever becomes of the files. A run that goes on finds them under
    other names, too; without a prompt's that is gone its images are told as missing when they are due.

    Raises:
        TrainingError, LoraError: where a prompt of a new run cannot be followed; where the teacher's LoRA is gone.
    """
    files, known = dict[str, LoraFile](), plan.loras if plan else {}

    def hold(name: str) -> None:
        if name in files:
            return
        own = manager.library.name_of(name)
        path = _file_of(name, known.get(name), manager.library)
        lora = read_lora(own, path, manager.components)
        files[name] = LoraFile(sha256=lora.sha256, size_bytes=path.stat().st_size)
        manager.loras.held |= {name: lora, own: lora}

    for choice in settings.teacher_loras:
        hold(choice.name)
    for prompt in settings.validation_prompts:
        try:
            for choice in take_lora_tags(prompt)[1]:
                hold(choice.name)
        except (SettingsError, LoraError, WeightsFileError) as error:
            words = _("validation_prompts: {prompt!r} cannot be used. {error}", prompt=prompt, error=error)
            if plan is None:
                raise TrainingError(words) from error
    return files


def _file_of(name: str, begun_with: LoraFile | None, library: LoraLibrary) -> Path:
    """The file of a LoRA; of one with which a run began the same bytes, whatever they are called now."""
    if begun_with is None:
        return library.find(name)
    named = [library.path_of(other) for other in library.names()]
    path = with_content([*filter(None, [file_at(name)]), *named], begun_with.sha256, begun_with.size_bytes)
    if path is None:
        words = _("The library no longer has the LoRA {name} with which the run began. Put it back.", name=name)
        raise LoraError(words)
    return path


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


def _digests(
    settings: TrainingSettings, manager: PipelineManager, plan: TrainingPlan | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Of the model's parts: as they are alone, and with the teacher's LoRA, which acts from now on.

    A run that goes on has the model with which it began. That is seen without the LoRA: another device adds it to the
    weights with other last bits.

    Raises:
        TrainingError: where it is another one.
    """
    alone = learned_from = _digests_of(manager.components)
    if settings.teacher_loras:  # as weights, not as hooks: what learns computes with the weights themselves
        manager.loras.sum_limit_bytes = sys.maxsize
        manager.loras.use(settings.teacher_loras)
        learned_from = _digests_of(manager.components)
    # Runs from before their LoRAs were kept in the plan kept what they learned from.
    is_old = plan is not None and bool(settings.teacher_loras) and not plan.loras
    if plan is not None and plan.model_digests != (learned_from if is_old else alone):
        words = _(
            "The model {model} is another one than when the run began. Put the old one back, or duplicate the run to "
            "train on this one.",
            model=settings.model,
        )
        raise TrainingError(words)
    return alone, learned_from


def _digests_of(components: Components) -> dict[str, str]:
    return {
        "unet": fingerprint_of(components.unet),
        "vae": digest_of(components.vae),
        "text_encoder": digest_of(components.text_encoder),
    }


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
    lora_files: dict[str, LoraFile],
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
        loras=lora_files,
        device=facts.device,
        device_name=facts.device_name,
        versions=versions(),
        warmup_from_zero=False,
        notes=tuple(filter(None, (*notes, *settings_notes(settings)))),
    )
