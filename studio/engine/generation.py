"""Generate: some images, each checked, each saved with all that is needed to make it again.

Compare: the same prompts and seeds with the LoRAs of the left and of the right, and how far they are apart.
The smoke test: three images, each timed, measured and checked.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from studio.core.errors import GenerationCancelledError, InvalidImageError, ModelError
from studio.core.files import write_atomically
from studio.core.language import _
from studio.core.results import (
    FailedImage,
    ImagesReport,
    InvalidPicture,
    MadeImage,
    SavedReport,
    SmokeReport,
    ValidPicture,
)
from studio.core.settings import CompareSettings, GenerationSettings, ImagesSettings, SmokeSettings
from studio.core.system import versions
from studio.engine.pipeline import GeneratedImage, PipelineManager
from studio.engine.progress import RunWatcher, StepProgress, Watcher
from studio.engine.validation import failed_checks
from studio.images.comparison import (
    NOTICEABLE,
    ComparedPair,
    ComparedPicture,
    CompareReport,
    Difference,
    SavedComparison,
    StripPicture,
    new_comparison_folder,
    save_comparison,
)
from studio.images.files import save_picture
from studio.images.gallery import new_picture_path
from studio.images.scores.parts import difference_by_part
from studio.images.smoke_report import new_report_folder, save_report

OnImage = Callable[[ImagesReport], None]


def make_images(
    manager: PipelineManager,
    settings: ImagesSettings,
    *,
    outputs: Path,
    folder: Path | None = None,
    watcher: RunWatcher | None = None,
    on_image: OnImage = lambda _report: None,
) -> ImagesReport:
    """Make the images one after the other; an invalid one is reported and does not end the run.

    Args:
        outputs: every day has a folder of images in it.
        folder: where they go instead, none over another file.
        on_image: told the report so far after each image.

    Raises:
        ModelError: where no model is loaded.
        LoraError: where a LoRA cannot be used.
        OSError: where an image cannot be written; those before it are saved.
    """
    watcher = watcher or RunWatcher()
    report = ImagesReport(settings=settings)
    for index, generation in enumerate(settings.generations()):
        try:
            image = _make_image(manager, generation, watcher.of_picture(index), outputs, folder)
        except GenerationCancelledError:
            return report.model_copy(update={"cancelled": True, "finished": True})
        report = report.model_copy(
            update={"images": (*report.images, image), "finished": index + 1 == settings.num_images}
        )
        on_image(report)
    return report


def _make_image(
    manager: PipelineManager, generation: GenerationSettings, watcher: Watcher, outputs: Path, folder: Path | None
) -> MadeImage | FailedImage:
    try:
        made = manager.generate(generation, watcher=watcher)
    except InvalidImageError as error:
        return FailedImage(settings=generation, checks=failed_checks(error), error=str(error))
    path = new_picture_path(outputs, now=datetime.now(), seed=generation.seed, folder=folder)
    save_picture(path, made.picture, made.record)
    return MadeImage(path=path, record=made.record)


OnComparison = Callable[[SavedComparison], None]


@dataclass(frozen=True)
class _Made:
    """An image of this comparison, and its pixels and latents for the differences; None where it is not valid."""

    picture: ComparedPicture
    image: GeneratedImage | None


@dataclass
class _Comparison:
    """One comparison in the making. An image whose settings were met before is not made again."""

    manager: PipelineManager
    folder: Path
    report: CompareReport
    watcher: RunWatcher
    on_change: OnComparison
    _made: dict[GenerationSettings, _Made] = field(default_factory=dict)

    def make(self, settings: GenerationSettings) -> _Made:
        if settings not in self._made:
            self._made[settings] = self._generate(settings)
        return self._made[settings]

    def change(self, **changes: object) -> SavedComparison:
        """Save and tell what there is now."""
        self.report = self.report.model_copy(update=changes)
        saved = SavedComparison(folder=self.folder, report=self.report)
        save_comparison(saved)
        self.on_change(saved)
        return saved

    def add_pair(self, left_settings: GenerationSettings, right_settings: GenerationSettings) -> None:
        before = self.report.pairs
        left = self.make(left_settings)
        self.change(pairs=(*before, ComparedPair(left=left.picture)))
        right = self.make(right_settings)
        pair = ComparedPair(left=left.picture, right=right.picture, difference=_difference(left, right))
        self.change(pairs=(*before, pair))

    def add_strip_picture(self, number: int, settings: GenerationSettings) -> None:
        pair, strength = divmod(number, len(self.report.settings.strip))
        made, left = self.make(settings), self.make(self.report.settings.pairs()[pair][0])
        picture = StripPicture(
            strength=self.report.settings.strip[strength], picture=made.picture, difference=_difference(left, made)
        )
        self.change(strip=(*self.report.strip, picture))

    def _generate(self, settings: GenerationSettings) -> _Made:
        index = len(self._made)
        try:
            image = self.manager.generate(settings, watcher=self.watcher.of_picture(index))
        except InvalidImageError as error:
            return _Made(ComparedPicture(settings=settings, error=str(error)), None)
        file = f"{index + 1:02d}.png"
        save_picture(self.folder / file, image.picture, image.record)
        return _Made(
            ComparedPicture(settings=settings, file=file, seconds=image.timings.total_seconds),
            image,
        )


def run_comparison(
    manager: PipelineManager,
    settings: CompareSettings,
    *,
    outputs: Path,
    folder: Path | None = None,
    watcher: RunWatcher | None = None,
    on_change: OnComparison = lambda _saved: None,
) -> SavedComparison:
    """Make every pair, then the strength strip of each. An invalid image is reported and does not end the comparison.

    Args:
        outputs: a folder is made in it for this comparison.
        folder: an empty one that is taken instead.
        on_change: told what there is after each image.

    Raises:
        ModelError: where no model is loaded.
        LoraError: where a LoRA cannot be used.
        OSError: where an image cannot be written.
    """
    if manager.facts is None:
        raise ModelError(_("No model is loaded. Choose one first."))
    for choice in (*settings.left, *settings.right, *settings.generation.loras):  # before anything is written
        manager.loras.read(choice.name)
    started_at = datetime.now().astimezone()
    comparison = _Comparison(
        manager,
        folder or new_comparison_folder(outputs, now=started_at),
        CompareReport(started_at=started_at, settings=settings, model=manager.facts.model),
        watcher or RunWatcher(),
        on_change,
    )
    try:
        for left, right in settings.pairs():
            comparison.add_pair(left, right)
        for number, generation in enumerate(settings.strip_generations()):
            comparison.add_strip_picture(number, generation)
    except GenerationCancelledError:
        return comparison.change(finished=True, cancelled=True)
    return comparison.change(finished=True)


def _difference(left: _Made, right: _Made) -> Difference | None:
    if left.image is None or right.image is None:
        return None
    return difference(left.image, right.image)


def difference(left: GeneratedImage, right: GeneratedImage) -> Difference:
    """How far two valid images of one size are apart."""
    pixels = np.abs(left.picture.astype(np.int16) - right.picture.astype(np.int16))
    latents = torch.mean(torch.abs(left.latents_CHW - right.latents_CHW))
    return Difference(
        pixels=float(pixels.mean()),
        changed_share=float((pixels.max(axis=2) >= NOTICEABLE).mean()),
        latents=float(latents),
        parts=difference_by_part(left.picture, right.picture),
    )


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
        raise ModelError(_("No model is loaded. Choose one first."))
    started_at = datetime.now().astimezone()
    folder = new_report_folder(outputs, now=started_at)
    pictures: list[ValidPicture | InvalidPicture] = []
    cancelled = False
    for index, generation in enumerate(settings.generations()):
        if watcher.cancelled():
            cancelled = True
            break
        try:
            pictures.append(_make_smoke_picture(manager, generation, index=index, folder=folder, watcher=watcher))
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


def _make_smoke_picture(
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
