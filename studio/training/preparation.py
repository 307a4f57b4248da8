"""Everything before the first step: model, pictures, caches, layers that learn, and what was decided."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler

from studio.dataset.snapshot import Snapshot
from studio.engine.denoise import assert_possible
from studio.engine.heap import give_back_between_blocks, give_back_free_memory
from studio.engine.hub_download import DownloadWatcher
from studio.engine.models import Components
from studio.engine.parking import ParkedModule
from studio.engine.pipeline import PipelineManager
from studio.errors import CancelledError, TrainingError
from studio.loras.library import LoraLibrary
from studio.machine import versions
from studio.paths import UserData
from studio.results import EngineFacts
from studio.runs.plan import TrainingPlan
from studio.settings import GenerationSettings, ModelSettings
from studio.training.adapters import Adapters
from studio.training.batches import BatchMaker
from studio.training.caches import LatentCache, TextCache, digest_of, fingerprint_of
from studio.training.checkpointing import CheckpointingDecision, decide_checkpointing, kept_bytes_of
from studio.training.noise_loss import Denoiser
from studio.training.order import seed_of
from studio.training.processes import Processes, precision_of_passes
from studio.training.samples import check_generation, choose_prompts, validation_generations
from studio.training.training_set import TrainingSet, make_training_set
from studio.training_settings import TrainingSettings

# Gradients were wrong on MPS where a batch has more tokens than this, after a change of shape (pytorch #177116).
MPS_TOKENS_LIMIT = 32_768


@dataclass(frozen=True)
class RunData:
    """What a run is trained on, as it was when the run began."""

    snapshot: Snapshot
    prior: Snapshot | None = None


@dataclass(frozen=True)
class Prepared:
    """All parts of a training, before its first step. `vae` and `text` are parked where training needs them not."""

    settings: TrainingSettings
    plan: TrainingPlan
    data: TrainingSet
    manager: PipelineManager
    vae: ParkedModule
    adapters: Adapters
    denoiser: Denoiser
    maker: BatchMaker
    generations: tuple[GenerationSettings, ...]
    check: GenerationSettings


def prepare(
    settings: TrainingSettings,
    data: RunData,
    *,
    user_data: UserData,
    processes: Processes,
    plan: TrainingPlan | None = None,
    tell: Callable[[str], None],
    cancelled: Callable[[], bool] = lambda: False,
) -> Prepared:
    """Load, encode what is not in the cache yet, put the layers in, decide.

    Args:
        plan: what a run that is resumed decided when it began.
        tell: told what is being done, and how far it is.
        cancelled: asked between pictures whether to stop.

    Raises:
        TrainingError: where pictures changed, a setting does not fit the model, or the model is another one.
        ModelError, DatasetError: where model or pictures cannot be read.
        SettingsError: where the model's scheduler cannot take the steps of validation pictures.
        OSError: where the caches cannot be written.
    """
    manager, facts = _load(settings, processes.device, user_data, tell=tell, cancelled=cancelled)
    components = manager.components
    resolution = plan.resolution if plan else settings.resolution or facts.width
    _assert_fits(settings, resolution=resolution, device=processes.device)
    training_set = make_training_set(data.snapshot, settings, resolution=resolution, prior=data.prior)
    digests = _digests(components)
    _assert_same_model(settings, plan, digests)
    latents, texts = _fill_caches(
        settings,
        training_set,
        components,
        digests,
        user_data=user_data,
        processes=processes,
        tell=tell,
        cancelled=cancelled,
    )
    prompts = plan.prompts if plan and not settings.validation_prompts else choose_prompts(settings, training_set)
    generations = validation_generations(settings, prompts, resolution=resolution)
    check = check_generation(settings, (*prompts, training_set.items[0].caption)[0], resolution=resolution)
    for generation in generations[:1]:  # all have the same steps
        assert_possible(components, generation)
    manager.remember_prompts((*generations, check))
    vae = _park(settings, components, digests, user_data=user_data)
    adapters, denoiser = _put_layers_in(components, settings, processes)
    maker = BatchMaker(
        training_set,
        settings,
        components=components,
        noise_scheduler=DDPMScheduler.from_config(components.pipeline.scheduler.config),
        latents=latents,
        texts=texts,
        device=processes.device,
    )
    if plan is None:
        decision = _decide(settings, denoiser, maker, processes)
        plan = _plan(settings, data, training_set, facts, decision, processes, digests, adapters, prompts, resolution)
    _checkpoint(components, processes.device, wanted=plan.gradient_checkpointing)
    give_back_free_memory()  # what encoding took
    return Prepared(settings, plan, training_set, manager, vae, adapters, denoiser, maker, generations, check)


def _load(
    settings: TrainingSettings,
    device: torch.device,
    user_data: UserData,
    *,
    tell: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> tuple[PipelineManager, EngineFacts]:
    tell("Loading the model.")
    manager = PipelineManager(device, rejected_folder=user_data.rejected, library=LoraLibrary(user_data.loras))
    facts = manager.load(
        ModelSettings(model=settings.model, prediction_type=settings.prediction_type),
        progress=DownloadWatcher(lambda p: tell(f"Downloading {p.file}: {p.done_bytes:,} bytes."), cancelled),
    )
    return manager, facts


def _put_layers_in(
    components: Components, settings: TrainingSettings, processes: Processes
) -> tuple[Adapters, Denoiser]:
    """Their weights are the same in every process; what dropout draws is not."""
    torch.manual_seed(seed_of("weights", settings.seed))
    adapters = Adapters(components, settings)
    torch.manual_seed(seed_of("dropout", settings.seed, processes.index))
    return adapters, Denoiser(components, train_text_encoder=settings.train_text_encoder)


def _checkpoint(components: Components, device: torch.device, *, wanted: bool) -> None:
    """Compute passes again in place of keeping them, where that is wanted."""
    if not wanted:
        return
    components.unet.enable_gradient_checkpointing()
    if device.type == "cpu":
        give_back_between_blocks(components.unet)


def _assert_same_model(settings: TrainingSettings, plan: TrainingPlan | None, digests: Mapping[str, str]) -> None:
    if plan is not None and plan.model_digests != digests:
        raise TrainingError(
            f"The model {settings.model} is another one than when the run began. Put the old one back, or duplicate "
            "the run to train on this one."
        )


def largest_batch(device_type: str, resolution: int) -> int | None:
    """The most pictures a batch may have on a device; None where there is no limit but memory.

    Not run on a Mac: the rule is tested as a rule.
    """
    if device_type != "mps":
        return None
    return max(1, MPS_TOKENS_LIMIT // (resolution // 8) ** 2)


def _assert_fits(settings: TrainingSettings, *, resolution: int, device: torch.device) -> None:
    most = largest_batch(device.type, resolution)
    if most is not None and settings.train_batch_size > most:
        raise TrainingError(
            f"train_batch_size must be at most {most} at {resolution} pixels on Apple's GPUs, whose gradients are "
            f"wrong beyond (pytorch #177116), got {settings.train_batch_size}. Raise "
            "gradient_accumulation_steps instead."
        )


def _digests(components: Components) -> dict[str, str]:
    return {
        "unet": fingerprint_of(components.unet),
        "vae": digest_of(components.vae),
        "text_encoder": digest_of(components.text_encoder),
    }


def _fill_caches(
    settings: TrainingSettings,
    data: TrainingSet,
    components: Components,
    digests: Mapping[str, str],
    *,
    user_data: UserData,
    processes: Processes,
    tell: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> tuple[LatentCache, TextCache]:
    """Encode what no run before has encoded; every process its share."""
    latents = LatentCache(user_data.cache / "latents", digests["vae"])
    tokenizer = hashlib.sha256(components.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    texts = TextCache(user_data.cache / "embeddings", f"{digests['text_encoder']} {tokenizer}")
    items = (*data.items, *data.held_out)
    missing = latents.missing(items, horizontal_flip=settings.horizontal_flip)
    for index, item in enumerate(missing):
        if index % processes.count == processes.index:
            latents.encode(item, components, horizontal_flip=settings.horizontal_flip)
            tell(f"Encoding pictures: {index + 1:,} of {len(missing):,}.")
        _stop_if(cancelled)
    if not (settings.train_text_encoder or settings.shuffle_caption):
        captions = texts.missing(["", *(item.caption for item in items)])
        for index, caption in enumerate(captions):
            if index % processes.count == processes.index:
                texts.encode(caption, components)
                tell(f"Encoding captions: {index + 1:,} of {len(captions):,}.")
            _stop_if(cancelled)
    processes.wait()
    return latents, texts


def _stop_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise CancelledError("Stopped before the first step. What was encoded is kept; resume to go on.")


def _park(
    settings: TrainingSettings, components: Components, digests: Mapping[str, str], *, user_data: UserData
) -> ParkedModule:
    """The VAE leaves memory, and comes back for pictures; the text encoder leaves where captions are all encoded."""
    parked = user_data.cache / "parked"
    vae = ParkedModule(components.vae, parked / f"{digests['vae']}.safetensors")
    vae.park()
    if not (settings.train_text_encoder or settings.shuffle_caption):
        ParkedModule(components.text_encoder, parked / f"{digests['text_encoder']}.safetensors").park()
    return vae


def _decide(
    settings: TrainingSettings, denoiser: Denoiser, maker: BatchMaker, processes: Processes
) -> CheckpointingDecision:
    denoiser.train()
    with torch.random.fork_rng():
        return decide_checkpointing(
            settings,
            device=processes.device,
            kept_bytes_per_picture=lambda: kept_bytes_of(denoiser, maker.batch(0)),
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
    notes = [*training_set.notes, decision.reason, facts.precision.reason, precision_note]
    if settings.num_validation_images and not prompts:
        notes.append("No validation pictures are made: no picture has a caption. Give validation_prompts to see some.")
    if settings.optimizer == "Prodigy" and settings.learning_rate < 0.1:
        notes.append(f"Prodigy finds the rate itself and expects learning_rate 1; it is {settings.learning_rate:g}.")
    if settings.optimizer == "Prodigy" and settings.train_text_encoder:
        notes.append("Prodigy finds one rate for all: text_encoder_learning_rate has no effect with it.")
    return TrainingPlan(
        resolution=resolution,
        gradient_checkpointing=decision.on,
        checkpointing_reason=decision.reason,
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
        notes=tuple(note for note in notes if note),
    )
