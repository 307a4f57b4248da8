"""The smoke test: the seed report's three images, each timed, measured and checked."""

import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from PIL import Image

from studio.core.errors import GenerationCancelledError, InvalidImageError, ModelError
from studio.core.files import write_atomically
from studio.core.results import InvalidPicture, SavedReport, SmokeReport, ValidPicture
from studio.core.settings import GenerationSettings, SmokeSettings
from studio.core.system import versions
from studio.engine.pipeline import PipelineManager
from studio.engine.progress import StepProgress, Watcher
from studio.engine.validation import failed_checks
from studio.images.smoke_report import new_report_folder, save_report


class SmokeWatcher:
    """Watches a smoke test: told of every step and of every image, asked whether to stop."""

    def __init__(
        self,
        on_step: Callable[[int, StepProgress], None] = lambda _index, _progress: None,
        on_picture: Callable[[int, ValidPicture | InvalidPicture, Path], None] = lambda _index, _record, _folder: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.on_step = on_step
        self.on_picture = on_picture
        self.cancelled = cancelled


def run_smoke_test(
    manager: PipelineManager, settings: SmokeSettings, *, outputs: Path, watcher: SmokeWatcher | None = None
) -> SavedReport:
    """Make the three images and save them with a report; an invalid one fails the test and does not end it.

    Raises:
        ModelError: where no model is loaded.
        OSError: where images or the report cannot be written.
    """
    watcher = watcher or SmokeWatcher()
    if manager.facts is None:
        raise ModelError("No model is loaded. Choose one first.")
    started_at = datetime.now().astimezone()
    folder = new_report_folder(outputs, now=started_at)
    pictures: list[ValidPicture | InvalidPicture] = []
    cancelled = False
    for index, generation in enumerate(settings.generations()):
        if watcher.cancelled():
            cancelled = True
            break
        try:
            pictures.append(_make_picture(manager, generation, index=index, folder=folder, watcher=watcher))
        except GenerationCancelledError:
            cancelled = True
            break
        watcher.on_picture(index, pictures[-1], folder)
    report = SmokeReport(
        started_at=started_at,
        settings=settings,
        engine=manager.facts,
        pictures=tuple(pictures),
        versions=versions(),
        cancelled=cancelled,
    )
    return save_report(folder, report)


def _make_picture(
    manager: PipelineManager, generation: GenerationSettings, *, index: int, folder: Path, watcher: SmokeWatcher
) -> ValidPicture | InvalidPicture:
    each_step = Watcher(lambda progress: watcher.on_step(index, progress), watcher.cancelled)
    try:
        image = manager.generate(generation, watcher=each_step)
    except InvalidImageError as error:
        return InvalidPicture(
            prompt=generation.prompt, seed=generation.seed, checks=failed_checks(error), error=str(error)
        )
    file = f"{index + 1}.png"
    buffer = io.BytesIO()
    Image.fromarray(image.picture).save(buffer, format="PNG")
    write_atomically(folder / file, buffer.getvalue())
    height, width, channels = image.picture.shape
    return ValidPicture(
        prompt=generation.prompt,
        seed=generation.seed,
        file=file,
        shape=(height, width, channels),
        dtype=str(image.picture.dtype),
        low=int(image.picture.min()),
        high=int(image.picture.max()),
        checks=image.record.checks,
        timings=image.timings,
        memory=image.memory,
    )
