"""Before a training: a few real passes on real images, and from them time, memory, disk, and what would change them.

Nothing is trained: no optimizer step is made, and the LoRA layers are thrown away with the process or the model.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil
import torch

from studio.core.language import _, number
from studio.core.paths import UserData
from studio.core.text import counted, duration, gigabytes
from studio.datasets.snapshot import Snapshot, with_masks
from studio.engine.device import pick_device, synchronize
from studio.engine.memory import MemoryMeter, all_present, free_bytes, read_accelerator
from studio.training.begin import assert_consistent, take_snapshot
from studio.training.folder import Offer, PassFacts, Preflight, TrainingPlan
from studio.training.settings import TrainingSettings
from studio.training.torch.caches import crop_to_pixels, read_item, variants_of
from studio.training.torch.data import TrainingSet, captions_of, fewer_sizes, make_training_set
from studio.training.torch.loss import NUM_TRIPLES
from studio.training.torch.memory import BACKWARD_FACTOR, SHARE_OF_FREE, kept_bytes_of
from studio.training.torch.preparation import Prepared, RunData, prepare
from studio.training.torch.processes import Processes, precision_of_passes
from studio.training.torch.validation import settings_notes

TIMED_PASSES = 2
FEW_STEPS = 2
FEWER_STEPS_FROM = 100
NEARLY_ALL = 0.9  # of memory or disk: from here on it is short
NOTICEABLE = 0.05  # of time or memory: less is what two measurements of the same differ by


def run_preflight(
    settings: TrainingSettings, user_data: UserData, *, report: Callable[[str], None] = lambda words: None
) -> Preflight:
    """Measure on the images of one batch; other images are not even opened after the dataset's check.

    Args:
        report: told what is being done.

    Raises:
        StudioError: what would stop the training too: model, dataset, settings.
        OSError: where the caches cannot be written.
    """
    assert_consistent(settings)
    report(_("Checking the dataset."))
    data = with_masks(take_snapshot(settings.dataset, user_data).snapshot, settings.mask_folder)
    prior = take_snapshot(settings.prior_dataset, user_data).snapshot if settings.prior_dataset else None
    device = pick_device(cpu_only=settings.cpu)
    mixed_precision = precision_of_passes(device, settings.mixed_precision)[0]
    processes = Processes(cpu_only=settings.cpu, mixed_precision=mixed_precision)
    # Of a few images, nothing can be held out.
    of_few = settings.model_copy(update={"held_out_percent": 0.0, "prior_dataset": ""})
    prepared = prepare(of_few, RunData(_few(data, settings)), user_data=user_data, processes=processes, report=report)
    whole = make_training_set(data, settings, resolution=prepared.plan.resolution, prior=prior)
    return _forecast(prepared, settings, whole, _measure(prepared, report), user_data)


def _few(data: Snapshot, settings: TrainingSettings) -> Snapshot:
    """As many images as a batch needs, spread over the dataset."""
    num_images = min(len(data.entries), settings.train_batch_size)
    every = len(data.entries) // num_images
    return Snapshot(data.header, data.entries[::every][:num_images])


@dataclass(frozen=True)
class _Measured:
    """Of the few images: both ways of one batch, an image's encoding, a validation image.

    `without` is None where it was not tried, because memory would not do; `half`, of half a batch, where memory is not
    short, or a batch is one image.
    """

    with_checkpointing: PassFacts
    without: PassFacts | None
    encoding_seconds: float
    picture_seconds: float
    half: PassFacts | None = None

    def chosen(self, plan: TrainingPlan) -> tuple[PassFacts, bool]:
        """The way that the training takes, and whether it is with checkpointing."""
        if plan.gradient_checkpointing or self.without is None:
            return self.with_checkpointing, True
        return self.without, False


def _measure(prepared: Prepared, report: Callable[[str], None]) -> _Measured:
    device = prepared.manager.device
    report(_("Measuring batches with gradient checkpointing."))
    with_checkpointing = _passes(prepared, on=True)
    without = None
    kept = kept_bytes_of(prepared.denoiser, prepared.maker.batch(0)) if free_bytes(device) > 3 * 2**30 else None
    needed = None if kept is None else kept * prepared.settings.train_batch_size * BACKWARD_FACTOR
    if needed is not None and needed < free_bytes(device) * SHARE_OF_FREE:
        report(_("Measuring batches without gradient checkpointing."))
        without = _passes(prepared, on=False)
    report(_("Measuring the encoding of an image and a validation image."))
    both = _Measured(with_checkpointing, without, _encoding_seconds(prepared), _picture_seconds(prepared))
    chosen, on = both.chosen(prepared.plan)
    size = _half(prepared.settings.train_batch_size)
    if not size or chosen.peak_bytes < _memory_limit(device) * NEARLY_ALL:
        return both
    report(_("Measuring half batches, which take less memory."))
    return replace(both, half=_passes(prepared, on=on, size=size))


def _memory_limit(device: torch.device) -> int:
    return read_accelerator(device)[1] or psutil.virtual_memory().total


def _half(batch: int) -> int:
    """The largest size up to a half of which a step has the same images; 0 where there is none."""
    return max((size for size in range(1, batch // 2 + 1) if batch % size == 0), default=0)


def _passes(prepared: Prepared, *, on: bool, size: int | None = None) -> PassFacts:
    """The least time of a few passes after a first one, of so many images of a batch; nothing is learned."""
    unet, device = prepared.denoiser.unet, prepared.manager.device
    (unet.enable_gradient_checkpointing if on else unet.disable_gradient_checkpointing)()
    prepared.denoiser.train()
    seconds = []
    with torch.random.fork_rng(devices=[]), MemoryMeter(device) as meter:
        for index in range(1 + TIMED_PASSES):
            started = time.perf_counter()
            losses = prepared.noise_loss(prepared.denoiser, prepared.maker.batch(index).first(size))
            torch.autograd.backward(losses.mean())
            synchronize(device)
            meter.sample_accelerator()
            seconds.append(time.perf_counter() - started)
    for parameter in prepared.adapters.parameters():
        parameter.grad = None
    peak = meter.use.peak_accelerator_bytes
    return PassFacts(seconds=min(seconds[1:]), peak_bytes=peak or meter.use.peak_process_bytes)


def _encoding_seconds(prepared: Prepared) -> float:
    """Of one variant of one image through the VAE."""
    item, components = prepared.data.items[0], prepared.manager.components
    pixels = crop_to_pixels(read_item(item), item.crops[0], item.bucket, flip=False)
    with all_present(prepared.offloaded), torch.inference_mode():
        started = time.perf_counter()
        components.vae.encode(pixels.to(components.vae.device, components.vae.dtype))
        synchronize(prepared.manager.device)
        return time.perf_counter() - started


def _picture_seconds(prepared: Prepared) -> float:
    """Of one validation image, from one with a few steps: its steps take the same time each."""
    if not prepared.generations:
        return 0.0
    wanted = prepared.generations[0]
    with all_present(prepared.offloaded), prepared.adapters.taken_out():
        timings = prepared.manager.generate(wanted.model_copy(update={"num_inference_steps": FEW_STEPS})).timings
    a_step = min(timings.step_seconds)
    return timings.text_seconds + timings.vae_seconds + a_step * wanted.num_inference_steps


@dataclass(frozen=True)
class _Times:
    """Seconds of a step, and of all that is done besides the steps."""

    num_steps: int
    step: float
    encoding: float
    pictures: float
    held_out: float

    @classmethod
    def of(cls, settings: TrainingSettings, whole: TrainingSet, measured: _Measured, chosen: PassFacts) -> "_Times":
        steps, sides = settings.max_train_steps, 2 if whole.held_out else 1
        num_samples = (steps // settings.validation_steps + 2) * settings.num_validation_images
        num_looks = steps // settings.held_out_steps + 1
        return cls(
            num_steps=steps,
            step=chosen.seconds * settings.gradient_accumulation_steps,
            encoding=_num_variants(settings, whole) * measured.encoding_seconds,
            pictures=num_samples * measured.picture_seconds,
            # A forward pass is a third of forward and backward.
            held_out=num_looks * sides * NUM_TRIPLES / settings.train_batch_size * chosen.seconds / 3,
        )

    @property
    def total(self) -> float:
        return self.encoding + self.num_steps * self.step + self.held_out + self.pictures


def _num_variants(settings: TrainingSettings, whole: TrainingSet) -> int:
    items = (*whole.items, *whole.held_out)
    return sum(len(variants_of(item, horizontal_flip=settings.horizontal_flip)) for item in items)


def _forecast(
    prepared: Prepared, settings: TrainingSettings, whole: TrainingSet, measured: _Measured, user_data: UserData
) -> Preflight:
    """From what one batch took to what all of them will."""
    chosen, on = measured.chosen(prepared.plan)
    steps, batches = settings.max_train_steps, settings.gradient_accumulation_steps
    times = _Times.of(settings, whole, measured, chosen)
    items = (*whole.items, *whole.held_out)
    num_variants = _num_variants(settings, whole)
    fewer = settings.model_copy(update={"max_train_steps": steps // 2})
    disk = _disk_bytes(prepared, settings, num_variants=num_variants, num_captions=len(captions_of(items)))
    user_data.root.mkdir(parents=True, exist_ok=True)
    free_disk = shutil.disk_usage(user_data.root).free
    limit = _memory_limit(prepared.manager.device)
    return Preflight(
        num_steps=steps,
        batches_per_step=batches,
        num_pictures=sum(not item.is_prior for item in whole.items),
        epochs=steps * batches * settings.train_batch_size / whole.pictures_per_epoch,
        gradient_checkpointing=on,
        reason=prepared.plan.checkpointing_reason,
        step_seconds=times.step,
        encoding_seconds=times.encoding,
        pictures_seconds=times.pictures,
        held_out_seconds=times.held_out,
        total_seconds=times.total,
        peak_bytes=chosen.peak_bytes,
        limit_bytes=limit,
        disk_bytes=disk,
        free_disk_bytes=free_disk,
        offers=(
            *_measured_offers(settings, measured, chosen, on=on),
            *_fewer_steps(settings, times.total - _Times.of(fewer, whole, measured, chosen).total),
            *_fewer_sizes(settings, whole, prepared.plan.resolution),
        ),
        warnings=(
            *_warnings(chosen, limit=limit, disk=disk, free_disk=free_disk),
            *settings_notes(settings),
        ),
    )


def _disk_bytes(prepared: Prepared, settings: TrainingSettings, *, num_variants: int, num_captions: int) -> int:
    """Caches, checkpoints that are kept, validation images, LoRA files, parked parts."""
    area = prepared.plan.resolution**2
    components = prepared.manager.components
    latent = 2 * 4 * int(components.vae.config.latent_channels) * area // 64
    embedding = 4 * 77 * int(components.unet.config.cross_attention_dim)
    facts = prepared.manager.facts
    assert facts is not None, "prepare loads a model"
    # What is parked has no parameters now: all that were loaded, without the U-Net's own.
    own = sum(p.numel() for p in components.unet.parameters()) - prepared.plan.num_parameters
    offloaded = 4 * (facts.parameters - int(own))
    weights = 4 * prepared.plan.num_parameters
    a_checkpoint = weights * (4 if settings.use_ema else 3)  # the optimizer keeps two numbers for each weight
    every = settings.keep_every_steps
    num_checkpoints = settings.keep_checkpoints + (settings.max_train_steps // every if every else 0)
    num_samples = settings.max_train_steps // settings.validation_steps + 1
    a_sample = weights // 2 + settings.num_validation_images * 2 * area
    return (
        num_variants * latent
        + num_captions * embedding
        + offloaded
        + num_checkpoints * a_checkpoint
        + num_samples * a_sample
        + 2 * weights
    )


def _measured_offers(
    settings: TrainingSettings, measured: _Measured, chosen: PassFacts, *, on: bool
) -> tuple[Offer, ...]:
    """Changes that were tried too, each with what it did to time and memory; without those that gained nothing."""
    offers = []
    other = measured.without if on else measured.with_checkpointing
    if other is not None and _gains(other, chosen):
        changes: dict[str, object] = {"gradient_checkpointing": "off" if on else "on"}
        change = _change_words(other, chosen)
        words = (
            _("checkpointing off: {change}", change=change) if on else _("checkpointing on: {change}", change=change)
        )
        offers.append(Offer(changes=changes, effect=words))
    if measured.half is not None:
        batch, size = settings.train_batch_size, _half(settings.train_batch_size)
        accumulation = settings.gradient_accumulation_steps * batch // size
        seconds = measured.half.seconds * batch / size  # of as many images
        as_many = PassFacts(seconds=seconds, peak_bytes=measured.half.peak_bytes)
        if _gains(as_many, chosen):
            changes = {"train_batch_size": size, "gradient_accumulation_steps": accumulation}
            change = _change_words(as_many, chosen)
            words = _("batches of {size}, {num} to a step: {change}", size=size, num=accumulation, change=change)
            offers.append(Offer(changes=changes, effect=words))
    return tuple(offers)


def _gains(other: PassFacts, chosen: PassFacts) -> bool:
    """Whether it took noticeably less memory or time."""
    most = 1 - NOTICEABLE
    return other.peak_bytes < chosen.peak_bytes * most or other.seconds < chosen.seconds * most


def _change_words(other: PassFacts, chosen: PassFacts) -> str:
    memory = _memory_change(other.peak_bytes - chosen.peak_bytes)
    return _("{memory}, {share} time (measured)", memory=memory, share=_percent(other.seconds / chosen.seconds))


def _fewer_steps(settings: TrainingSettings, saved_seconds: float) -> tuple[Offer, ...]:
    """Half of the steps, where there are many; all that is done less often then counts, too."""
    if settings.max_train_steps <= FEWER_STEPS_FROM:
        return ()
    steps = settings.max_train_steps // 2
    effect = _("{steps:,} steps: {time} less", steps=steps, time=duration(saved_seconds))
    return (Offer(changes={"max_train_steps": steps}, effect=effect),)


def _fewer_sizes(settings: TrainingSettings, whole: TrainingSet, resolution: int) -> tuple[Offer, ...]:
    """A change that lets batches be filled with different images, where most sizes have too few."""
    own = [item for item in whole.items if not item.is_prior]
    now = len({item.bucket for item in own})
    return tuple(
        Offer(
            changes=changes,
            effect=_(
                "{sizes} instead of {now}: fewer repeats in a batch",
                sizes=counted(num_sizes, "training size", "training sizes"),
                now=now,
            ),
        )
        for changes, num_sizes in fewer_sizes(own, settings, resolution)[:1]
    )


def _warnings(chosen: PassFacts, *, limit: int, disk: int, free_disk: int) -> tuple[str, ...]:
    warnings = []
    if chosen.peak_bytes > limit * NEARLY_ALL:
        memory = _(
            "It needs {needed} of {limit}: the machine would swap or end it. Take one of the suggestions.",
            needed=gigabytes(chosen.peak_bytes),
            limit=gigabytes(limit),
        )
        warnings.append(memory)
    if disk > free_disk * NEARLY_ALL:
        needed, free = gigabytes(disk), gigabytes(free_disk)
        warnings.append(_("It needs {needed} of disk, {free} are free. Free some first.", needed=needed, free=free))
    return tuple(warnings)


def _memory_change(num_bytes: int) -> str:
    return f"{'−' if num_bytes < 0 else '+'}{gigabytes(abs(num_bytes))}"


def _percent(ratio: float) -> str:
    return f"{number(100 * (ratio - 1), '+.0f')} %".replace("-", "−")
