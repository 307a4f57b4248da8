"""Before a training: a few real passes on real images, and from them time, memory, disk, and what would change them.

Nothing is trained: no optimizer step is made, and the LoRA layers are thrown away with the process or the model.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil
import torch

from studio.core.language import N_, _, for_later, percent
from studio.core.paths import UserData
from studio.core.text import counted, duration, gigabytes
from studio.datasets.snapshot import Snapshot, with_masks
from studio.engine.device import give_back_free_memory, pick_device, synchronize
from studio.engine.memory import MemoryMeter, all_present, free_bytes, read_accelerator
from studio.training.begin import assert_consistent, take_snapshot
from studio.training.folder import Offer, PassFacts, Preflight, TrainingPlan
from studio.training.settings import TrainingSettings
from studio.training.torch.caches import read_item, show_variants, to_pixels
from studio.training.torch.data import RunData, TrainingSet, captions_of, fewer_sizes, make_training_set
from studio.training.torch.loss import NUM_TRIPLES
from studio.training.torch.memory import (
    BACKWARD_FACTOR,
    MIN_FREE_TO_MEASURE,
    NEARLY_ALL,
    SHARE_OF_FREE,
    disk_bytes,
    latents_bytes,
    memory_warnings,
)
from studio.training.torch.paths import NUM_FIXED
from studio.training.torch.preparation import Prepared, prepare
from studio.training.torch.processes import Processes, precision_of_passes
from studio.training.torch.recomputation import RecomputationCosts, curve_of, measure_costs, set_checkpointing
from studio.training.torch.validation import settings_notes
from studio.training.variants import cut

TIMED_PASSES = 2
FEW_STEPS = 2
FEWER_STEPS_FROM = 100
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
    of_few = settings.model_copy(update={"held_out_percent": 0.0, "prior_dataset": "", "num_teacher_images": 1})
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
    """Of the few images: a batch with and without checkpointing, an image's encoding, a validation image.

    `without` is None where it was not tried, because memory would not do; `partly`, where not just that is done;
    `half`, of half a batch, where memory is not short, or a batch is one image; `costs`, where memory is very short.
    """

    with_checkpointing: PassFacts
    without: PassFacts | None
    encoding_seconds: float
    picture_seconds: float
    partly: PassFacts | None = None
    half: PassFacts | None = None
    costs: RecomputationCosts | None = None

    def chosen(self, plan: TrainingPlan) -> tuple[PassFacts, bool]:
        """The way that the training takes, and whether it is with full checkpointing."""
        if self.partly is not None:
            return self.partly, False
        if plan.gradient_checkpointing or self.without is None:
            return self.with_checkpointing, True
        return self.without, False


def _measure(prepared: Prepared, report: Callable[[str], None]) -> _Measured:
    device, plan, batch = prepared.manager.device, prepared.plan, prepared.settings.train_batch_size
    report(_("Measuring batches with gradient checkpointing."))
    with_checkpointing = _passes(prepared, on=True)
    without, partly, costs = None, None, None
    if plan.recomputed or free_bytes(device) > MIN_FREE_TO_MEASURE:
        costs = measure_costs(prepared.denoiser, prepared.maker.batch(0))
        if costs.kept_bytes * batch * BACKWARD_FACTOR < free_bytes(device) * SHARE_OF_FREE:
            report(_("Measuring batches without gradient checkpointing."))
            without = _passes(prepared)
    if plan.recomputed:
        report(_("Measuring batches with partial gradient checkpointing."))
        partly = _passes(prepared, recomputed=plan.recomputed)
    report(_("Measuring the encoding of an image and a validation image."))
    encoding, picture = _encoding_seconds(prepared), _picture_seconds(prepared)
    all_of_it = _Measured(with_checkpointing, without, encoding, picture, partly=partly, costs=costs)
    chosen, on = all_of_it.chosen(plan)
    size = _half(batch)
    if not size or chosen.peak_bytes < _memory_limit(device) * NEARLY_ALL:
        return all_of_it
    report(_("Measuring half batches, which take less memory."))
    return replace(all_of_it, half=_passes(prepared, on=on, recomputed=plan.recomputed, size=size))


def _memory_limit(device: torch.device) -> int:
    return read_accelerator(device)[1] or psutil.virtual_memory().total


def _half(batch: int) -> int:
    """The largest size up to a half of which a step has the same images; 0 where there is none."""
    return max((size for size in range(1, batch // 2 + 1) if batch % size == 0), default=0)


def _passes(
    prepared: Prepared, *, on: bool = False, recomputed: tuple[str, ...] = (), size: int | None = None
) -> PassFacts:
    """The least time of a few passes after a first one, of so many images of a batch; nothing is learned."""
    device = prepared.manager.device
    give_back_free_memory()  # what other passes took, which would be counted here
    set_checkpointing(prepared.denoiser, on=on, recomputed=() if on else recomputed)
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
    """Of one variant of one image through the VAE; of a Speed LoRA's, by its teacher."""
    if prepared.settings.makes_speed_lora:
        return _drawing_seconds(prepared, prepared.settings.teacher_steps)
    item, components = prepared.data.items[0], prepared.manager.components
    pixels = to_pixels(cut(read_item(item), item.variants[0], item.bucket))
    with all_present(prepared.offloaded), torch.inference_mode():
        started = time.perf_counter()
        components.vae.encode(pixels.to(components.vae.device, components.vae.dtype))
        synchronize(prepared.manager.device)
        return time.perf_counter() - started


def _picture_seconds(prepared: Prepared) -> float:
    """Of one validation image, from one with a few steps: its steps take the same time each."""
    if not prepared.generations:
        return 0.0
    return _drawing_seconds(prepared, prepared.generations[0].num_inference_steps)


def _drawing_seconds(prepared: Prepared, num_steps: int) -> float:
    """Of one image of so many steps, guided as validation images are."""
    wanted = next(iter(prepared.generations), prepared.check)
    with all_present(prepared.offloaded), prepared.adapters.taken_out():
        timings = prepared.manager.generate(wanted.model_copy(update={"num_inference_steps": FEW_STEPS})).timings
    a_step = min(timings.step_seconds)
    return timings.text_seconds + timings.vae_seconds + a_step * num_steps


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
        steps, sides, num_passes = settings.max_train_steps, 2 if whole.held_out else 1, NUM_TRIPLES
        num_looks = steps // settings.held_out_steps
        num_samples: float = (steps // settings.validation_steps + 1) * settings.num_validation_images
        if settings.makes_speed_lora:  # its images take a pass a step, the teacher's two
            num_samples = num_samples * settings.speed_steps / (2 * settings.validation_inference_steps)
            sides, num_passes = 2, NUM_FIXED * settings.speed_steps  # of trained captions too
        return cls(
            num_steps=steps,
            step=chosen.seconds * settings.gradient_accumulation_steps,
            encoding=_num_variants(settings, whole) * measured.encoding_seconds,
            pictures=(settings.num_validation_images + num_samples) * measured.picture_seconds,
            # A forward pass is a third of forward and backward.
            held_out=(num_looks + 1) * sides * num_passes / settings.train_batch_size * chosen.seconds / 3,
        )

    @property
    def total(self) -> float:
        return self.encoding + self.num_steps * self.step + self.held_out + self.pictures


def _num_variants(settings: TrainingSettings, whole: TrainingSet) -> int:
    """How many latents are kept; of a Speed LoRA, how many images its teacher draws."""
    if settings.makes_speed_lora:
        return settings.num_teacher_images + NUM_FIXED
    return sum(len(item.variants) for item in (*whole.items, *whole.held_out))


@for_later()
def _forecast(
    prepared: Prepared, settings: TrainingSettings, whole: TrainingSet, measured: _Measured, user_data: UserData
) -> Preflight:
    """From what one batch took to what all of them will."""
    (chosen, on), costs = measured.chosen(prepared.plan), measured.costs
    steps, batches = settings.max_train_steps, settings.gradient_accumulation_steps
    times = _Times.of(settings, whole, measured, chosen)
    items = (*whole.items, *whole.held_out)
    num_variants = _num_variants(settings, whole)
    fewer = settings.model_copy(update={"max_train_steps": steps // 2})
    facts = prepared.manager.facts
    assert facts is not None, "prepare loads a model"
    disk = disk_bytes(
        settings,
        prepared.manager.components,
        prepared.plan,
        num_loaded=facts.parameters,
        num_variants=num_variants,
        num_captions=len(captions_of(items)),
    )
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
        warnings=(*memory_warnings(chosen, limit=limit, disk=disk, free_disk=free_disk), *settings_notes(settings)),
        curve=() if costs is None else curve_of(costs, measured.with_checkpointing, measured.without, settings),
        checkpointing_percent=100.0 if on or costs is None else costs.percent_of(prepared.plan.recomputed),
        num_latents=num_variants,
        latents_bytes=latents_bytes(settings, prepared.manager.components, prepared.plan, num_variants),
        variants=None if settings.makes_speed_lora else show_variants(whole.items),
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
    share = percent(other.seconds / chosen.seconds - 1, "+.0f").replace("-", "−")
    return _("{memory}, {share} time (measured)", memory=memory, share=share)


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


def _memory_change(num_bytes: int) -> str:
    return _(N_("−{size}") if num_bytes < 0 else N_("+{size}"), size=gigabytes(abs(num_bytes)))
