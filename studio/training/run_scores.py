"""Scores of a run's validation pictures, the base's among them, and which checkpoint they speak for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from studio.dataset.pictures import open_rgb
from studio.errors import PictureFileError
from studio.runs.events import SampleEvent, ScoreEvent
from studio.scoring.nearest import NearestIndex
from studio.scoring.picture import PictureScores, score_picture
from studio.scoring.summary import ScoreSummary, summarise_scores
from studio.training.training_set import TrainingItem

WHITE_SHARE = 0.5  # of a dataset's borders: from there on white grounds are what it teaches
MOST_REFERENCES = 64  # pictures of the dataset that are scored beside those that were made


@dataclass
class RunScores:
    """Scores pictures of one run against its training pictures. The index is built when it is first needed.

    Attributes:
        root: the run's folder, which events' paths are below.
        items: what is trained on, without regularisation pictures.
    """

    root: Path
    items: Sequence[TrainingItem]
    _index: NearestIndex | None = field(default=None)
    _base: ScoreSummary | None = field(default=None)

    def score(self, event: SampleEvent) -> ScoreEvent:
        """The summaries of a step's pictures and of the base's.

        Raises:
            DatasetError: where no training picture can be read.
        """
        self._base = self._base or self._summary(event.base, event.prompts)
        pictures = self._base if event.pictures == event.base else self._summary(event.pictures, event.prompts)
        return ScoreEvent(step=event.step, scores=pictures, base=self._base)

    def reference(self) -> ScoreSummary:
        """The same of some of the dataset's own pictures: what its grounds, places and colours are like."""
        chosen = self.items[:: max(1, len(self.items) // MOST_REFERENCES)][:MOST_REFERENCES]
        scores: list[PictureScores] = []
        for item in chosen:
            try:
                picture = np.asarray(open_rgb(item.path, background=item.background))
            except PictureFileError:  # it was read when its latents were made, and is gone since
                continue
            scores.append(score_picture(picture, prompt=item.caption))
        return summarise_scores(scores)

    def _summary(self, files: Sequence[str | None], prompts: Sequence[str]) -> ScoreSummary:
        scores = []
        for index, file in enumerate(files):
            if file is not None:
                with Image.open(self.root / file, formats=["PNG"]) as image:
                    picture = np.asarray(image.convert("RGB"))
                prompt = prompts[index % len(prompts)] if prompts else ""
                scores.append(score_picture(picture, prompt=prompt, nearest=self._nearest()))
        return summarise_scores(scores)

    def _nearest(self) -> NearestIndex:
        if self._index is None:
            background = self.items[0].background
            self._index = NearestIndex.build([item.path for item in self.items], background=background)
        return self._index
