"""`PipelineManager.generate()` beside the plain pipeline: the same image, in how much time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diffusers import StableDiffusionPipeline

from bench.figures import Figure, measure_pairs, paired_figure, plain_figure
from bench.plain_pipeline import load_plain_pipeline, plain_picture
from bench.real_size_model import real_size_model
from bench.settings import BenchSettings
from bench.validation_cost import validation_seconds
from studio.core.paths import UserData
from studio.core.settings import SHIPPED_MODEL, SMOKE_PROMPTS, GenerationSettings, ModelSettings
from studio.engine.denoise import make_scheduler, set_timesteps
from studio.engine.device import pick_device
from studio.engine.pipeline import PipelineManager

TIME_LIMIT = 1.02
PICTURE_LIMIT = 1e-3
GPU_PICTURE_LIMIT = 1 / 255  # a GPU rounds two prompts that are encoded together otherwise than each alone
VALIDATION_LIMIT_PERCENT = 1.0
PEER = "plain diffusers"
SHIPPED_STEPS = 25
REAL_SIZE_STEPS = 2
PAIRS_A_RUN = 5  # of the shipped model's images, which take a second: one pair of them says little


@dataclass(frozen=True)
class Contest:
    """Both sides, loaded from the same folder onto the same device, and what they are to make."""

    manager: PipelineManager
    pipeline: StableDiffusionPipeline
    settings: GenerationSettings

    def our_picture(self) -> np.ndarray:
        return self.manager.generate(self.settings).picture

    def their_picture(self) -> np.ndarray:
        return plain_picture(self.pipeline, self.settings)


def bench_shipped(settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    """The shipped model at its usual 25 steps."""
    contest = prepare_contest(
        SHIPPED_MODEL, num_inference_steps=SHIPPED_STEPS, cpu=settings.cpu, rejected=user_data.rejected
    )
    return compare(contest, "shipped model, 25 steps", pairs=settings.runs * PAIRS_A_RUN)


def bench_real_size(settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    """Stable Diffusion 1.5's size at 512 × 512 and two steps; and what share of that the checks take.

    Two steps make the share of the checks the strictest: those of the decoder's output and of the image come
    once, however many steps there are.
    """
    with real_size_model(user_data.cache) as folder:
        contest = prepare_contest(
            str(folder), num_inference_steps=REAL_SIZE_STEPS, cpu=settings.cpu, rejected=user_data.rejected
        )
        figures = compare(contest, "512 × 512, 2 steps", pairs=settings.runs)
    made = contest.settings
    assert made.width and made.height
    scheduler = make_scheduler(made.scheduler, contest.manager.components.pipeline.scheduler)
    num_steps = len(set_timesteps(scheduler, made, contest.manager.device))  # PNDM takes one more than it is asked for
    checks = validation_seconds(contest.manager.device, num_steps=num_steps, width=made.width, height=made.height)
    share = 100 * checks / figures[0].ours.median
    validation = plain_figure("validation's share of that time", [share], unit="%", limit=VALIDATION_LIMIT_PERCENT)
    return (*figures, validation)


def prepare_contest(model: str, *, num_inference_steps: int, cpu: bool, rejected: Path) -> Contest:
    """Load a model twice, once for each side."""
    manager = PipelineManager(pick_device(cpu_only=cpu), rejected_folder=rejected)
    facts = manager.load(ModelSettings(model=model))
    settings = GenerationSettings(
        prompt=SMOKE_PROMPTS[0],
        num_inference_steps=num_inference_steps,
        width=facts.width,
        height=facts.height,
    )
    return Contest(manager, load_plain_pipeline(Path(facts.model_folder), manager.device), settings)


def compare(contest: Contest, what: str, *, pairs: int) -> tuple[Figure, Figure]:
    """The time in pairs, and the largest difference between the images of the first calls, which warm up."""
    difference = largest_difference(contest.our_picture(), contest.their_picture())
    ours, theirs = measure_pairs(
        lambda: _seconds(contest.our_picture), lambda: _seconds(contest.their_picture), pairs=pairs
    )
    limit = PICTURE_LIMIT if contest.manager.device.type == "cpu" else GPU_PICTURE_LIMIT
    return (
        paired_figure(f"an image ({what})", ours, theirs, peer=PEER, unit="s", limit=TIME_LIMIT),
        plain_figure(f"largest difference of values in [0, 1] ({what})", [difference], unit="", limit=limit),
    )


def largest_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Of two uint8 images, with values taken to [0, 1]; infinite where their shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max() / 255)


def _seconds(make: Callable[[], np.ndarray]) -> float:
    """Both sides end with an image in the CPU's memory, so the device is done when they return."""
    start = time.perf_counter()
    make()
    return time.perf_counter() - start
