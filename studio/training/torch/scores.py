"""Scores of a run's validation images, the base's among them, and which checkpoint they speak for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from studio.core.errors import GenerationCancelledError, PictureFileError
from studio.core.files import open_file
from studio.core.language import _
from studio.images.decoding import open_rgb
from studio.images.files import is_whole_png
from studio.images.scores.image import PictureScores, score_picture, summarise_scores
from studio.images.scores.likeness import NearestIndex
from studio.images.scores.parts import rms_distance
from studio.images.scores.summary import ScoreSummary
from studio.training.events import (
    AnyEvent,
    HeldOutEvent,
    NearestReported,
    ProposalEvent,
    ReferenceEvent,
    SampleEvent,
    ScoreEvent,
)
from studio.training.proposal import CheckpointPoint, propose_checkpoint, wants_white_background
from studio.training.torch.data import TrainingItem

MAX_REFERENCES = 64  # images of the dataset that are scored beside those that were made


@dataclass
class RunScores:
    """Scores images of one run against its training images. The index is built when it is first needed.

    Attributes:
        root: the run's folder, which events' paths are below.
        items: what is trained on, without regularisation images.
        points: what is known of each step that has images, those of before a resume too.
        knows_reference: whether the dataset's own scores were told.
        tell: told how far looking at the training images is.
        cancelled: asked between training images whether to stop.
        has_teacher: the base's images are those of a Speed LoRA's teacher: how far its own are from them is what
            counts, and not what the dataset's are like.
    """

    root: Path
    items: Sequence[TrainingItem]
    report: Callable[[str], None] = lambda words: None
    cancelled: Callable[[], bool] = lambda: False
    has_teacher: bool = False
    points: dict[int, CheckpointPoint] = field(default_factory=dict)
    distances: dict[int, float] = field(default_factory=dict)
    files: dict[int, str] = field(default_factory=dict)
    white_background: bool = True
    knows_reference: bool = False
    _index: NearestIndex | None = field(default=None)
    _base: ScoreSummary | None = field(default=None)
    _losses: dict[int, HeldOutEvent] = field(default_factory=dict)
    _unscored: dict[int, SampleEvent] = field(default_factory=dict)

    def take_in(self, event: AnyEvent) -> None:
        """Learn what was told: of this process, and of those before a resume."""
        if isinstance(event, HeldOutEvent):
            self._losses[event.step] = event
        elif isinstance(event, SampleEvent):
            self.files[event.step] = event.lora
            self._unscored[event.step] = event
        elif isinstance(event, ReferenceEvent):
            self.white_background = wants_white_background(event.scores)
            self.knows_reference = True
        elif isinstance(event, ScoreEvent):
            self._unscored.pop(event.step, None)
            if known := [distance for distance in event.distances if distance is not None]:
                self.distances[event.step] = sum(known) / len(known)
            if event.step > 0:
                loss = self._losses.get(event.step)
                self.points[event.step] = CheckpointPoint(
                    step=event.step,
                    held_out_loss=loss.held_out_loss if loss else None,
                    trained_loss=loss.trained_loss if loss else None,
                    scores=event.scores,
                    base=event.base,
                )

    def has_scored(self, step: int) -> bool:
        """Whether no scores of this step are still to be made."""
        return all(event.step != step for event in self.unscored())

    def unscored(self) -> list[SampleEvent]:
        """What was told of images that have no scores, and are all still there and whole."""
        return [event for event in self._unscored.values() if self._has_whole_files(event)]

    def _has_whole_files(self, event: SampleEvent) -> bool:
        return all(is_whole_png(self.root / f) for f in (*event.pictures, *event.base) if f is not None)

    def proposal(self) -> ProposalEvent | None:
        """The step that speaks for itself most so far; None before the first images."""
        if not self.points:
            return None
        if self.distances:
            distance, step = min((distance, step) for step, distance in self.distances.items())
            words = _("its images are nearest to the teacher's: {distance:.1f} of 255", distance=distance)
            return ProposalEvent(step=step, sentence=words, sure=True, lora=self.files.get(step, ""))
        chosen = propose_checkpoint(list(self.points.values()), white_background=self.white_background)
        file = self.files.get(chosen.step, "")
        return ProposalEvent(step=chosen.step, sentence=chosen.sentence, sure=chosen.is_sure, lora=file)

    def score(self, event: SampleEvent) -> ScoreEvent:
        """The summaries of a step's images and of the base's.

        Raises:
            DatasetError: where no training image can be read.
        """
        scores = self._score_files(event.pictures, event.prompts)
        if self._base is None:
            base = scores if event.pictures == event.base else self._score_files(event.base, event.prompts)
            self._base = summarise_scores(list(filter(None, base)))
        return ScoreEvent(
            step=event.step,
            scores=summarise_scores(list(filter(None, scores))),
            base=self._base,
            nearest=tuple(map(self._nearest_reported, scores)),
            distances=self._distances(event) if self.has_teacher and event.step > 0 else (),
        )

    def _distances(self, event: SampleEvent) -> tuple[float | None, ...]:
        """RMS of 255 between each image and the teacher's; None where one is not valid."""
        pairs = zip(event.pictures, event.base, strict=True)
        return tuple(
            None if ours is None or theirs is None else rms_distance(self._read(ours), self._read(theirs))
            for ours, theirs in pairs
        )

    def _read(self, file: str) -> np.ndarray:
        """(height, width, 3) uint8."""
        with open_file(self.root / file) as opened, Image.open(opened, formats=["PNG"]) as image:
            return np.asarray(image.convert("RGB"))

    def reference(self) -> ReferenceEvent:
        """The same of some of the dataset's own images: what its grounds, places and colours are like.

        Raises:
            GenerationCancelledError: where `cancelled` said so.
        """
        chosen = self.items[:: max(1, len(self.items) // MAX_REFERENCES)][:MAX_REFERENCES]
        scores: list[PictureScores] = []
        for number, item in enumerate(chosen):
            self._go_on(_("Scoring the dataset's own images: {number:,} of {all:,}.", number=number, all=len(chosen)))
            try:
                picture = np.asarray(open_rgb(item.path, background=item.background))
            except PictureFileError:  # it was read when its latents were made, and is gone since
                continue
            scores.append(score_picture(picture, prompt=item.caption))
        return ReferenceEvent(scores=summarise_scores(scores))

    def _score_files(self, files: Sequence[str | None], prompts: Sequence[str]) -> list[PictureScores | None]:
        """One entry an image, None where it is not valid."""
        scores: list[PictureScores | None] = []
        for index, file in enumerate(files):
            if file is None:
                scores.append(None)
                continue
            picture = self._read(file)
            prompt = prompts[index % len(prompts)] if prompts else ""
            scores.append(score_picture(picture, prompt=prompt, nearest=None if self.has_teacher else self._nearest()))
        return scores

    def _nearest_reported(self, scores: PictureScores | None) -> NearestReported | None:
        nearest = scores.nearest if scores else None
        if nearest is None:
            return None
        key = next(item.key for item in self.items if item.path == nearest.path)
        return NearestReported(key=key, distance=nearest.distance, likeness=nearest.likeness, mirrored=nearest.mirrored)

    def look_at_training_pictures(self) -> None:
        """Build the index of them, once: about 25 ms each.

        Raises:
            GenerationCancelledError: where `cancelled` said so.
            DatasetError: where none can be read.
        """
        if not self.has_teacher:
            self._nearest()

    def _nearest(self) -> NearestIndex:
        if self._index is None:
            paths, background = [item.path for item in self.items], self.items[0].background

            def looked_at(number: int) -> None:
                self._go_on(
                    _(
                        "Looking at the training images, to find likenesses: {number:,} of {all:,}.",
                        number=number,
                        all=len(paths),
                    )
                )

            self._index = NearestIndex.build(paths, background=background, on_picture=looked_at)
        return self._index

    def _go_on(self, words: str) -> None:
        if self.cancelled():
            raise GenerationCancelledError(_("Stopped while images were scored."))
        self.report(words)
