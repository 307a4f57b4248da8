"""Generate: some pictures, each checked, each saved with all that is needed to make it again."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from studio.engine.pipeline import PipelineManager
from studio.engine.validation import failed_checks
from studio.engine.watching import RunWatcher
from studio.errors import GenerationCancelledError, InvalidImageError
from studio.history import new_picture_path
from studio.picture_files import save_picture
from studio.results import FailedImage, ImagesReport, MadeImage
from studio.settings import GenerationSettings, ImagesSettings

Told = Callable[[ImagesReport], None]


def make_images(
    manager: PipelineManager,
    settings: ImagesSettings,
    *,
    outputs: Path,
    watcher: RunWatcher | None = None,
    on_image: Told = lambda _report: None,
) -> ImagesReport:
    """Make the pictures one after the other; an invalid one is reported and does not end the run.

    `on_image` is told the report so far after each picture.

    Raises:
        ModelError: where no model is loaded.
        LoraError: where a LoRA cannot be used.
        OSError: where a picture cannot be written; those before it are saved.
    """
    watcher = watcher or RunWatcher()
    report = ImagesReport(settings=settings)
    for index, generation in enumerate(settings.generations()):
        try:
            image = _make_image(manager, generation, index=index, outputs=outputs, watcher=watcher)
        except GenerationCancelledError:
            return report.model_copy(update={"cancelled": True, "finished": True})
        report = report.model_copy(
            update={"images": (*report.images, image), "finished": index + 1 == settings.num_images}
        )
        on_image(report)
    return report


def _make_image(
    manager: PipelineManager, generation: GenerationSettings, *, index: int, outputs: Path, watcher: RunWatcher
) -> MadeImage | FailedImage:
    try:
        made = manager.generate(generation, watcher=watcher.of_picture(index))
    except InvalidImageError as error:
        return FailedImage(settings=generation, checks=failed_checks(error), error=str(error))
    path = new_picture_path(outputs, now=datetime.now(), seed=generation.seed)
    save_picture(path, made.picture, made.record)
    return MadeImage(path=path, record=made.record)
