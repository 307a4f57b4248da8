"""How long the work between steps will still take: pictures with their scores, held-out losses, checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from studio.training_settings import TrainingSettings

Work = Literal["pictures", "held-out losses", "checkpoint"]


@dataclass
class BetweenSteps:
    """What a run does beside its steps, each kind as long as it took the last time.

    Attributes:
        num_steps: of the whole run.
        every: after how many steps each kind is due; it is due at the last step too.
    """

    num_steps: int
    every: Mapping[Work, int]
    _seconds: dict[Work, float] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: TrainingSettings) -> "BetweenSteps":
        """The work that a run with these settings has."""
        every: dict[Work, int] = {
            "pictures": settings.validation_steps,
            "held-out losses": settings.held_out_steps,
            "checkpoint": settings.checkpointing_steps,
        }
        return cls(settings.max_train_steps, every)

    def took(self, work: Work, seconds: float) -> None:
        """Note how long it took this time."""
        self._seconds[work] = seconds

    def seconds_left(self, step: int) -> float:
        """Seconds of all that is due after `step`; kinds that were not done yet count nothing."""
        return sum(seconds * self._times_left(work, step) for work, seconds in self._seconds.items())

    def _times_left(self, work: Work, step: int) -> int:
        every = self.every[work]
        at_the_last = self.num_steps % every != 0 and step < self.num_steps
        return self.num_steps // every - step // every + at_the_last
