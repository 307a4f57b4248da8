"""What each speed costs on the loaded model, measured: how long an image takes, and how far it is from that in full.

Each speed is measured beside the same images at full speed: with the LoRA that it was made for and its guidance, where
it is a Speed LoRA.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean

import numpy as np

from studio.core.errors import GenerationCancelledError, InvalidImageError, LoraError, ModelError
from studio.core.language import _
from studio.core.paths import UserData
from studio.core.settings import GenerationSettings
from studio.engine.pipeline import PipelineManager
from studio.engine.progress import RunWatcher, Watcher
from studio.images.scores.image import score_picture, summarise_scores
from studio.images.scores.parts import rms_distance
from studio.images.scores.summary import ScoreSummary
from studio.loras.library import LoraLibrary
from studio.loras.speed import (
    FULL,
    MeasuredSpeeds,
    SpeedCost,
    all_speeds,
    at_speed,
    keep_speeds,
    speed_loras,
    without_speed,
)


@dataclass(frozen=True)
class Drawn:
    """One image and what it took; None where it is not valid."""

    prompt: str
    picture: np.ndarray | None
    seconds: float
    cpu_seconds: float


def draw(manager: PipelineManager, settings: GenerationSettings, watcher: Watcher | None = None) -> Drawn:
    """Make one image, and time it."""
    started, cpu_started = time.perf_counter(), time.process_time()
    try:
        picture = manager.generate(settings, watcher=watcher).picture
    except InvalidImageError:
        picture = None
    return Drawn(settings.prompt, picture, time.perf_counter() - started, time.process_time() - cpu_started)


def distance_of(ours: Sequence[Drawn], theirs: Sequence[Drawn]) -> float | None:
    """Mean distance of the pairs that are valid; None where none is."""
    pairs = [(our.picture, their.picture) for our, their in zip(ours, theirs, strict=True)]
    known = [rms_distance(our, their) for our, their in pairs if our is not None and their is not None]
    return fmean(known) if known else None


def scores_of(drawn: Sequence[Drawn]) -> ScoreSummary:
    """The scores of those that are valid."""
    return summarise_scores([score_picture(one.picture, prompt=one.prompt) for one in drawn if one.picture is not None])


def measure_speeds(
    manager: PipelineManager,
    library: LoraLibrary,
    generations: Sequence[GenerationSettings],
    *,
    watcher: RunWatcher | None = None,
    num_before: int = 0,
) -> MeasuredSpeeds:
    """What every speed costs on these images. A Speed LoRA of another kind of model is left out.

    Args:
        num_before: images that the watcher was told of already.

    Raises:
        ModelError: where no model is loaded.
        GenerationCancelledError: where it is stopped.
    """
    if manager.facts is None:
        raise ModelError(_("No model is loaded. Choose one first."))
    watched, made = watcher or RunWatcher(), dict[GenerationSettings, Drawn]()

    def drawn(settings: Sequence[GenerationSettings]) -> list[Drawn]:
        for one in settings:
            if one not in made:
                made[one] = draw(manager, one, watched.of_picture(num_before + len(made)))
        return [made[one] for one in settings]

    costs = dict[str, SpeedCost]()
    for speed in all_speeds(library):
        if speed == FULL:
            continue
        wanted = [at_speed(speed, generation, library) for generation in generations]
        full = [without_speed(one, library) for one in wanted]
        try:
            theirs, ours = drawn(full), drawn(wanted)
        except LoraError:  # of another kind of model, or gone: its card says so
            continue
        if cost := _cost(ours, theirs):
            costs[speed] = cost
    return MeasuredSpeeds(
        model=manager.facts.model, measured_at=datetime.now().astimezone(), num_images=len(generations), costs=costs
    )


def measure_and_keep(
    manager: PipelineManager,
    user_data: UserData,
    generations: Sequence[GenerationSettings],
    *,
    watcher: RunWatcher | None = None,
    num_before: int = 0,
) -> MeasuredSpeeds | None:
    """The same, remembered for the page's switch; None, and what was known stays, where it is stopped.

    Raises:
        ModelError: where no model is loaded.
        OSError: where it cannot be written.
    """
    library = LoraLibrary(user_data.loras)
    try:
        measured = measure_speeds(manager, library, generations, watcher=watcher, num_before=num_before)
    except GenerationCancelledError:
        return None
    keep_speeds(user_data.speeds, measured)
    return measured


def num_images_of_speeds(user_data: UserData, num_prompts: int) -> int:
    """How many images `measure_speeds` makes at the most."""
    return num_prompts * (2 + 2 * len(speed_loras(LoraLibrary(user_data.loras))))


def _cost(ours: Sequence[Drawn], theirs: Sequence[Drawn]) -> SpeedCost | None:
    distance = distance_of(ours, theirs)
    if distance is None:
        return None
    scores, full = scores_of(ours), scores_of(theirs)
    assert scores.whiteness and full.whiteness and scores.sharpness and full.sharpness
    return SpeedCost(
        seconds=fmean(one.seconds for one in ours),
        full_seconds=fmean(one.seconds for one in theirs),
        distance=distance,
        whiteness=scores.whiteness.mean - full.whiteness.mean,
        sharpness=scores.sharpness.mean / full.sharpness.mean - 1 if full.sharpness.mean else 0.0,
        named_right=scores.num_named_right - full.num_named_right,
    )
