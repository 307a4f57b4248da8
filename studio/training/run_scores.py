"""Scores of a run's validation pictures, the base's among them, and which checkpoint they speak for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from studio.dataset.pictures import open_rgb
from studio.errors import PictureFileError
from studio.runs.events import (
    AnyEvent,
    HeldOutEvent,
    NearestTold,
    ProposalEvent,
    ReferenceEvent,
    SampleEvent,
    ScoreEvent,
)
from studio.scoring.nearest import NearestIndex
from studio.scoring.picture import PictureScores, score_picture
from studio.scoring.proposal import CheckpointPoint, propose_checkpoint
from studio.scoring.summarise import summarise_scores
from studio.scoring.summary import ScoreSummary
from studio.training.training_set import TrainingItem

WHITE_SHARE = 0.5  # of a dataset's borders: from there on white grounds are what it teaches
MOST_REFERENCES = 64  # pictures of the dataset that are scored beside those that were made


@dataclass
class RunScores:
    """Scores pictures of one run against its training pictures. The index is built when it is first needed.

    Attributes:
        root: the run's folder, which events' paths are below.
        items: what is trained on, without regularisation pictures.
        points: what is known of each step that has pictures, those of before a resume too.
        knows_reference: whether the dataset's own scores were told.
    """

    root: Path
    items: Sequence[TrainingItem]
    points: dict[int, CheckpointPoint] = field(default_factory=dict)
    files: dict[int, str] = field(default_factory=dict)
    white_ground: bool = True
    knows_reference: bool = False
    _index: NearestIndex | None = field(default=None)
    _base: ScoreSummary | None = field(default=None)
    _losses: dict[int, HeldOutEvent] = field(default_factory=dict)

    def take_in(self, event: AnyEvent) -> None:
        """Learn what was told: of this process, and of those before a resume."""
        if isinstance(event, HeldOutEvent):
            self._losses[event.step] = event
        elif isinstance(event, SampleEvent):
            self.files[event.step] = event.lora
        elif isinstance(event, ReferenceEvent):
            whiteness = event.scores.whiteness
            self.white_ground = whiteness is not None and whiteness.mean >= WHITE_SHARE
            self.knows_reference = True
        elif isinstance(event, ScoreEvent) and event.step > 0:
            loss = self._losses.get(event.step)
            self.points[event.step] = CheckpointPoint(
                step=event.step,
                held_out_loss=loss.held_out_loss if loss else None,
                trained_loss=loss.trained_loss if loss else None,
                scores=event.scores,
                base=event.base,
            )

    def proposal(self) -> ProposalEvent | None:
        """The step that speaks for itself most so far; None before the first pictures."""
        if not self.points:
            return None
        chosen = propose_checkpoint(list(self.points.values()), white_ground=self.white_ground)
        file = self.files.get(chosen.step, "")
        return ProposalEvent(step=chosen.step, sentence=chosen.sentence, sure=chosen.is_sure, lora=file)

    def score(self, event: SampleEvent) -> ScoreEvent:
        """The summaries of a step's pictures and of the base's.

        Raises:
            DatasetError: where no training picture can be read.
        """
        scores = self._score_files(event.pictures, event.prompts)
        if self._base is None:
            base = scores if event.pictures == event.base else self._score_files(event.base, event.prompts)
            self._base = summarise_scores(list(filter(None, base)))
        return ScoreEvent(
            step=event.step,
            scores=summarise_scores(list(filter(None, scores))),
            base=self._base,
            nearest=tuple(map(self._nearest_told, scores)),
        )

    def reference(self) -> ReferenceEvent:
        """The same of some of the dataset's own pictures: what its grounds, places and colours are like."""
        chosen = self.items[:: max(1, len(self.items) // MOST_REFERENCES)][:MOST_REFERENCES]
        scores: list[PictureScores] = []
        for item in chosen:
            try:
                picture = np.asarray(open_rgb(item.path, background=item.background))
            except PictureFileError:  # it was read when its latents were made, and is gone since
                continue
            scores.append(score_picture(picture, prompt=item.caption))
        return ReferenceEvent(scores=summarise_scores(scores))

    def _score_files(self, files: Sequence[str | None], prompts: Sequence[str]) -> list[PictureScores | None]:
        """One entry a picture, None where it is not valid."""
        scores: list[PictureScores | None] = []
        for index, file in enumerate(files):
            if file is None:
                scores.append(None)
                continue
            with Image.open(self.root / file, formats=["PNG"]) as image:
                picture = np.asarray(image.convert("RGB"))
            prompt = prompts[index % len(prompts)] if prompts else ""
            scores.append(score_picture(picture, prompt=prompt, nearest=self._nearest()))
        return scores

    def _nearest_told(self, scores: PictureScores | None) -> NearestTold | None:
        nearest = scores.nearest if scores else None
        if nearest is None:
            return None
        key = next(item.key for item in self.items if item.path == nearest.path)
        return NearestTold(key=key, distance=nearest.distance, likeness=nearest.likeness, mirrored=nearest.mirrored)

    def _nearest(self) -> NearestIndex:
        if self._index is None:
            background = self.items[0].background
            self._index = NearestIndex.build([item.path for item in self.items], background=background)
        return self._index
