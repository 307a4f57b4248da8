"""A few real images of a batch, to know what all of them take."""

import itertools
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from studio.batches.forecast import PlanFacts, passes_of
from studio.batches.plan import BatchItem, BatchPlan
from studio.batches.settings import BatchSettings
from studio.core.errors import InvalidImageError
from studio.core.language import _
from studio.core.paths import UserData
from studio.core.settings import GenerationSettings, ModelSettings
from studio.engine.device import pick_device
from studio.engine.pipeline import PipelineManager
from studio.images.a1111 import to_parameters
from studio.images.files import PARAMETERS_KEY, encode_picture
from studio.images.scores.image import score_picture
from studio.loras.library import LoraLibrary

MEASURED = 3


def measure(
    settings: BatchSettings, plan: BatchPlan, user_data: UserData, *, report: Callable[[str], None] = lambda _step: None
) -> PlanFacts:
    """The plan in short with time and disk, from a few of its images; the first, which warms up, is not counted.

    Args:
        report: told what is being done.

    Raises:
        StudioError: where the model or a LoRA cannot be used.
    """
    manager = PipelineManager(
        pick_device(cpu_only=settings.cpu),
        rejected_folder=user_data.rejected,
        library=LoraLibrary(user_data.loras),
        device_checks=user_data.device_checks,
    )
    report(_("Loading the model."))
    loaded = manager.load(ModelSettings(model=settings.model, precision=settings.precision))
    native = loaded.width * loaded.height
    shown = plan.examples(MEASURED + 1)
    numbers = itertools.count(1)
    num_images = len(shown) if len(shown) > 1 else 2  # a single one is made twice

    def make(item: BatchItem) -> tuple[float, int]:
        report(_("Making image {number} of {num_images}.", number=next(numbers), num_images=num_images))
        return _make(manager, item, settings)

    for item in shown[:1]:
        make(item)
    made = [(make(item), _work(item.generation, native)) for item in shown[1:] or shown]
    mean_work = statistics.mean(_work(item.generation, native) for item in plan.examples(200))
    seconds = statistics.median(seconds / work for (seconds, __), work in made) * mean_work
    return PlanFacts.of(plan).model_copy(
        update={
            "seconds_per_picture": seconds,
            "bytes_per_picture": statistics.mean(num_bytes for (__, num_bytes), __ in made),
            "load_seconds": loaded.load_seconds,
            "free_bytes": shutil.disk_usage(_existing(user_data)).free,
        }
    )


def _make(manager: PipelineManager, item: BatchItem, settings: BatchSettings) -> tuple[float, int]:
    """(seconds, bytes) of one image with everything around it."""

    started = time.perf_counter()
    try:
        made = manager.generate(item.generation)
    except InvalidImageError:
        return time.perf_counter() - started, 0
    score_picture(made.picture, prompt=item.caption)
    texts = {PARAMETERS_KEY: to_parameters(made.record)}
    encoded = encode_picture(made.picture, texts, picture_format=settings.picture_format, quality=settings.quality)
    return time.perf_counter() - started, len(encoded)


def _work(generation: GenerationSettings, native: int) -> float:
    """What an image's time is in proportion to: passes of the U-Net times pixels."""
    pixels = (generation.width or 0) * (generation.height or 0) or native
    return passes_of(generation) * pixels


def _existing(user_data: UserData) -> Path:
    place = user_data.root
    while not place.exists():
        place = place.parent
    return place
