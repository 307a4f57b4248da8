"""Validation pictures between steps: made, told, scored. What a stop left undone is done when the run goes on."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from studio.engine.lora_weights import LoraWeights
from studio.errors import DatasetError, GenerationCancelledError
from studio.runs.events import ReferenceEvent, SampleEvent, ScoreEvent
from studio.training.patience import Patience
from studio.training.run_scores import RunScores
from studio.training.samples import Sampler
from studio.training.telling import Teller


@dataclass
class ValidationPictures:
    """The pictures of one run; only the first process of a launch has them.

    Attributes:
        scores: None where they are not scored any longer.
        made: the steps whose pictures were told, those of before a resume too.
    """

    sampler: Sampler
    scores: RunScores | None
    teller: Teller
    patience: Patience
    made: set[int]

    def make_base(self, *, at: int) -> None:
        """The base's pictures, which are those of step 0, at whatever step they are made.

        Raises:
            OSError: where they cannot be written, but for a full disk, which is waited for.
        """
        self._make(0, self.sampler.sample_base, "Making the pictures of the base model.", at=at)

    def make(self, step: int, weights: LoraWeights, metadata: Mapping[str, str]) -> None:
        """The pictures of a step.

        Raises:
            OSError: as `make_base`.
        """
        words = f"Making the pictures of step {step:,}."
        self._make(step, lambda: self.sampler.sample(step, weights, metadata), words, at=step)

    def score_the_rest(self, *, at: int) -> None:
        """Score what a stop or a kill left without scores."""
        unscored = self.scores.unscored() if self.scores is not None else []
        if not unscored:
            return
        self.teller.state("sampling", "Scoring pictures that were made before.", step=at)
        with suppress(GenerationCancelledError):  # a stop again
            for event in unscored:
                self._score(event)
        self.teller.state("running", step=at)

    def is_whole(self, step: int) -> bool:
        """Whether a step's pictures are made, and scored where any are."""
        return step in self.made and (self.scores is None or self.scores.has_scored(step))

    def _make(self, step: int, sample: Callable[[], SampleEvent], words: str, *, at: int) -> None:
        self.teller.state("sampling", words, step=at)
        try:
            event = self.patience.do(sample, step=at)
            self.made.add(step)
            self.teller.tell(event)
            # The LoRA's pictures will take as long as the base's.
            self.teller.between_steps.took("pictures", event.seconds + self._score(event))
        except GenerationCancelledError:
            pass  # a stop: pictures or scores are made when the run is resumed
        self.teller.state("running", step=at)

    def _score(self, event: SampleEvent) -> float:
        """Measure the pictures, and say which step is proposed so far; the seconds that this will take each time.

        Raises:
            GenerationCancelledError: where a stop came meanwhile.
        """
        if self.scores is None:
            return 0.0
        self.scores.take_in(event)
        try:
            if not self.scores.knows_reference:
                self._tell(self.scores, self.scores.reference())
            self.scores.look_at_training_pictures()
            started = time.perf_counter()
            self._tell(self.scores, self.scores.score(event))
        except DatasetError as error:  # the files are gone, as they may be with --use-snapshot
            self.scores = None
            self.teller.problem(f"Pictures are not scored any longer: {error}")
            return 0.0
        proposal = self.scores.proposal()
        if proposal is not None:
            self.teller.tell(proposal)
        return time.perf_counter() - started

    def _tell(self, scores: RunScores, event: ReferenceEvent | ScoreEvent) -> None:
        scores.take_in(event)
        self.teller.tell(event)
