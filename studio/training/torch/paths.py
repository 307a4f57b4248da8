"""What a Speed LoRA learns from: the paths on which the teacher's latents go from noise to an image, in segments.

The teacher (the base with a LoRA, guided) draws each path in `teacher_steps` steps of DPM++ 2M. The LoRA learns to
cross two or more of them in one unguided step of DDIM: `speed_steps` segments to a path (Salimans and Ho, arXiv
2202.00512).

Shapes: P paths, B images, S segments, C latent channels, H and W an eighth of the image's.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, SchedulerMixin

from studio.core.language import _
from studio.core.settings import GenerationSettings
from studio.engine.denoise import denoise, vae_scale_factor
from studio.engine.models import Components
from studio.training.settings import TrainingSettings
from studio.training.speed import segment_times
from studio.training.torch.batches import TrainingBatch
from studio.training.torch.caches import TextCache, cache_file, is_whole, read_array, write_array
from studio.training.torch.data import TrainingItem, TrainingSet, seed_of
from studio.training.torch.loss import Denoiser, NoiseLoss, one_step, one_step_target, predict
from studio.training.torch.processes import Processes, stop_if

LATENTS_AT_ONCE = 8 * 32 * 32  # of their height × width: paths of eight images of 256², of two of 512²
NUM_FIXED = 16  # paths that only the held-out loss sees


@dataclass(frozen=True)
class PathPlan:
    """One path that is to be drawn: its caption, and the seed of its noise."""

    key: str
    caption: str
    noise_seed: int


def plan_paths(data: TrainingSet, settings: TrainingSettings) -> tuple[tuple[PathPlan, ...], tuple[PathPlan, ...]]:
    """(paths to learn from, paths to test with): captions in turn, each path with noise of its own.

    Those to test with are of held-out captions, or of trained ones where none is held out.
    """

    def planned(items: Sequence[TrainingItem], number: int, side: str) -> tuple[PathPlan, ...]:
        rng = random.Random(seed_of("captions of paths", side, settings.seed))
        order = rng.sample(items, len(items))
        chosen = [order[i % len(order)] for i in range(number)]
        return tuple(PathPlan(c.key, c.caption, seed_of("path", side, settings.seed, i)) for i, c in enumerate(chosen))

    items = [item for item in data.items if not item.is_prior]
    trained = planned(items, settings.num_teacher_images, "trained")
    held_out = planned(data.held_out or items, min(NUM_FIXED, settings.num_teacher_images), "held out")
    return _in_other_words(trained, settings), held_out


def taught_captions(data: TrainingSet, settings: TrainingSettings) -> tuple[str, ...]:
    """Every caption of a Speed LoRA's paths; none of another training."""
    if not settings.makes_speed_lora:
        return ()
    return tuple(plan.caption for side in plan_paths(data, settings) for plan in side)


OPENINGS = ("", "", "a photo of ", "a picture of ", "product photo of ")
GROUNDS = ("", ", white background", " on a white background", ", studio lighting")


def _in_other_words(plans: tuple[PathPlan, ...], settings: TrainingSettings) -> tuple[PathPlan, ...]:
    """The same paths, a fraction of them with a caption that no image has."""
    rng = random.Random(seed_of("other words", settings.seed))
    captions = sorted({plan.caption for plan in plans})
    worded = [settings.caption_variety > rng.random() for __ in plans]
    return tuple(
        replace(plan, caption=worded_otherwise(plan.caption, captions, rng)) if otherwise else plan
        for plan, otherwise in zip(plans, worded, strict=True)
    )


def worded_otherwise(caption: str, captions: Sequence[str], rng: random.Random) -> str:
    """A caption as a prompt may say it: words of another one in the same places, an opening, a background.

    Where the other has another number of words before its first comma, none of them is taken.
    """
    ours, others = caption.partition(",")[0].split(), rng.choice(captions).partition(",")[0].split()
    if len(ours) == len(others):
        ours = [rng.choice(pair) for pair in zip(ours, others, strict=True)]
    return f"{rng.choice(OPENINGS)}{' '.join(ours).lower()}{rng.choice(GROUNDS)}"


def teacher_scheduler(own: SchedulerMixin) -> DPMSolverMultistepScheduler:
    """DPM++ 2M at the times of `segment_times`, with the model's own noise."""
    return DPMSolverMultistepScheduler.from_config(
        own.config, algorithm_type="dpmsolver++", use_karras_sigmas=False, timestep_spacing="trailing"
    )


@dataclass(frozen=True)
class Teacher:
    """Draws paths, and keeps them by all that they depend on: another run, or this one resumed, finds them again."""

    components: Components
    settings: TrainingSettings
    texts: TextCache
    digests: Mapping[str, str]
    resolution: int
    folder: Path

    def maker(
        self,
        data: TrainingSet,
        processes: Processes,
        *,
        report: Callable[[str], None],
        cancelled: Callable[[], bool],
    ) -> "SegmentMaker":
        """Draw what is not drawn yet; what makes batches of it.

        Raises:
            CancelledError, OSError: as `draw`.
        """
        trained, held_out = plan_paths(data, self.settings)
        latents = self.draw((*trained, *held_out), processes, report=report, cancelled=cancelled)
        own = self.components.pipeline.scheduler
        return SegmentMaker(
            data=data,
            settings=self.settings,
            noise_scheduler=DDPMScheduler.from_config(own.config),
            texts=self.texts,
            device=processes.device,
            trained=trained,
            trained_PSCHW=latents[: len(trained)],
            held_out=held_out,
            held_out_PSCHW=latents[len(trained) :],
        )

    def draw(
        self,
        plans: Sequence[PathPlan],
        processes: Processes,
        *,
        report: Callable[[str], None],
        cancelled: Callable[[], bool],
    ) -> torch.Tensor:
        """(P, S + 1, C, H, W) latents at the beginning of each segment and at the end of the last, on the CPU.

        Raises:
            CancelledError: where `cancelled` said so; what was drawn is kept.
            OSError: where they cannot be kept.
        """
        side = self.resolution // vae_scale_factor(self.components)
        size = max(1, LATENTS_AT_ONCE // (side * side))  # by the size alone: the last bits depend on the neighbours
        groups = [plans[i : i + size] for i in range(0, len(plans), size)]
        for index, group in enumerate(groups):
            if index % processes.count == processes.index and not is_whole(self._file(group)):
                write_array(self._file(group), self._draw(group, side).numpy())
                done = min(len(plans), (index + 1) * size)
                report(_("The teacher draws: {done:,} of {all:,} images.", done=done, all=len(plans)))
            stop_if(cancelled)
        processes.wait()
        return torch.cat([read_array(self._file(group), _("the teacher's images")) for group in groups])

    def _file(self, group: Sequence[PathPlan]) -> Path:
        settings, unet = self.settings, self.components.unet
        made_by = (self.digests["unet"], self.texts.made_by, unet.device.type)
        noise = sorted(teacher_scheduler(self.components.pipeline.scheduler).config.items())
        drawn = (settings.speed_steps, settings.teacher_steps, settings.teacher_guidance_scale, self.resolution)
        of = tuple((plan.caption, plan.noise_seed) for plan in group)
        return cache_file(self.folder, repr((made_by, noise, drawn, of)))

    @torch.no_grad()
    def _draw(self, group: Sequence[PathPlan], side: int) -> torch.Tensor:
        """(B, S + 1, C, H, W) of one group, drawn together."""
        unet, steps = self.components.unet, self.settings.teacher_steps
        shape = (int(unet.config.in_channels), side, side)
        noise = torch.stack(
            [torch.randn(shape, generator=torch.Generator().manual_seed(plan.noise_seed)) for plan in group]
        ).to(unet.device, unet.dtype)
        negative = self.texts.embedding("")
        texts = [*([negative] * len(group)), *(self.texts.embedding(plan.caption) for plan in group)]
        wanted = GenerationSettings(
            prompt="", num_inference_steps=steps, guidance_scale=self.settings.teacher_guidance_scale
        )
        scheduler = teacher_scheduler(self.components.pipeline.scheduler)
        scheduler.set_timesteps(steps, device=unet.device)
        embeddings = torch.stack(texts).to(unet.device, unet.dtype)
        drawn = denoise(unet, scheduler, noise, embeddings, settings=wanted, generator=torch.Generator())
        latents = [noise, *(step.latents_BCHW for step in drawn)]
        return torch.stack(latents[:: steps // self.settings.speed_steps], dim=1).float().cpu()


@dataclass
class SegmentMaker:
    """Makes batches of random segments. The same number gives the same batch, in any process.

    Every segment of every path is seen once before one is seen again. With `on_own_path` all segments of a path come
    one after the other, each from where the LoRA itself comes to, with the weights of the moment, and to where the
    teacher was: what an earlier step did wrong, a later one learns to mend.

    Attributes:
        trained_PSCHW, held_out_PSCHW: latents of `Teacher.draw`, of the plans beside them.
        denoiser: what learns, where it is to go its own path.
    """

    data: TrainingSet
    settings: TrainingSettings
    noise_scheduler: DDPMScheduler
    texts: TextCache
    device: torch.device
    trained: Sequence[PathPlan]
    trained_PSCHW: torch.Tensor
    held_out: Sequence[PathPlan]
    held_out_PSCHW: torch.Tensor
    denoiser: Denoiser | None = None
    _orders: dict[int, list[int]] = field(default_factory=dict)

    def batch(self, number: int) -> TrainingBatch:
        """Batch `number`, from 0.

        Raises:
            TrainingError: where a cached text is gone or damaged.
        """
        size = self.settings.train_batch_size
        chosen = [self._nth(number * size + slot) for slot in range(size)]
        starts = torch.stack([self.trained_PSCHW[path, segment] for path, segment in chosen])
        if self.settings.on_own_path and self.denoiser is not None:
            starts = self._own_starts(self.denoiser, chosen)
        return self._batch(self.trained, self.trained_PSCHW, chosen, starts)

    @torch.no_grad()
    def _own_starts(self, denoiser: Denoiser, chosen: Sequence[tuple[int, int]]) -> torch.Tensor:
        """(B, C, H, W) where the LoRA has come to at the beginning of each segment, from the path's noise on."""
        paths = list(dict.fromkeys(path for path, __ in chosen))
        at = torch.stack([self.trained_PSCHW[path, 0] for path in paths])
        own = {(path, 0): start for path, start in zip(paths, at, strict=True)}
        was_training = denoiser.training
        denoiser.eval()
        for segment in range(max(segment for __, segment in chosen)):
            batch = self._batch(self.trained, self.trained_PSCHW, [(path, segment) for path in paths], at)
            at = one_step(at, predict(denoiser, batch).cpu(), *self._alphas([segment] * len(paths)), is_v=self._is_v)
            own |= {(path, segment + 1): start for path, start in zip(paths, at, strict=True)}
        denoiser.train(was_training)
        return torch.stack([own[place] for place in chosen])

    def fixed_batches(self, *, held_out: bool) -> Iterator[TrainingBatch]:
        """All segments of the paths to test with, or of as many of those that are learned."""
        plans, paths = (self.held_out, self.held_out_PSCHW) if held_out else (self.trained, self.trained_PSCHW)
        every = [(path, s) for path in range(min(len(plans), NUM_FIXED)) for s in range(self.settings.speed_steps)]
        size = self.settings.train_batch_size
        for i in range(0, len(every), size):
            chosen = every[i : i + size]
            yield self._batch(plans, paths, chosen, torch.stack([paths[path, segment] for path, segment in chosen]))

    def _nth(self, index: int) -> tuple[int, int]:
        """The path and the segment at a place in the endless order; of whole paths where they are its own."""
        segments = self.settings.speed_steps
        together = segments if self.settings.on_own_path else 1
        epoch, place = divmod(index, len(self.trained) * segments)
        if epoch not in self._orders:
            order = list(range(len(self.trained) * segments // together))
            random.Random(seed_of("segments", self.settings.seed, epoch)).shuffle(order)
            self._orders = {known: o for known, o in self._orders.items() if known == epoch - 1} | {epoch: order}
        of_order, within = divmod(place, together)
        return divmod(self._orders[epoch][of_order] * together + within, segments)

    @property
    def _begins(self) -> list[int]:
        return segment_times(self.settings.speed_steps, int(self.noise_scheduler.config.num_train_timesteps))

    @property
    def _is_v(self) -> bool:
        return bool(self.noise_scheduler.config.prediction_type == "v_prediction")

    def _alphas(self, segments: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """ᾱ (B,) at the beginning of each of these segments, and at its end."""
        alphas = torch.cat([self.noise_scheduler.alphas_cumprod[self._begins], torch.ones(1)])  # no noise is left
        at = torch.tensor(segments)
        return alphas[at], alphas[at + 1]

    def _batch(
        self,
        plans: Sequence[PathPlan],
        paths_PSCHW: torch.Tensor,
        chosen: Sequence[tuple[int, int]],
        starts: torch.Tensor,
    ) -> TrainingBatch:
        timesteps = torch.tensor([self._begins[segment] for __, segment in chosen])
        ends = torch.stack([paths_PSCHW[path, segment + 1] for path, segment in chosen])
        alphas = self._alphas([segment for __, segment in chosen])
        target = one_step_target(starts, ends, *alphas, is_v=self._is_v)
        text = torch.stack([self.texts.embedding(plans[path].caption) for path, __ in chosen])
        return TrainingBatch(
            keys=tuple(plans[path].key for path, __ in chosen),
            noisy_BCHW=starts.to(self.device),
            target_BCHW=target.to(self.device),
            timesteps_B=timesteps.to(self.device),
            text_BND=text.to(self.device),
            weights_B=torch.ones(len(chosen), device=self.device),
            mask_B1HW=None,
        )


@dataclass(frozen=True)
class SegmentLoss:
    """A loss that can be compared from step to step: of all segments of some test paths, and of trained ones."""

    maker: SegmentMaker
    noise_loss: NoiseLoss

    def measure(self, denoiser: Denoiser) -> tuple[float | None, float]:
        """(loss of the paths to test with, loss of trained ones)."""
        was_training = denoiser.training
        denoiser.eval()
        with torch.no_grad():
            held_out, trained = (self._mean(denoiser, held_out=side) for side in (True, False))
        denoiser.train(was_training)
        return held_out, trained

    def _mean(self, denoiser: Denoiser, *, held_out: bool) -> float:
        losses = [
            self.noise_loss.by_image(predict(denoiser, batch), batch)
            for batch in self.maker.fixed_batches(held_out=held_out)
        ]
        return float(torch.cat(losses).mean())
