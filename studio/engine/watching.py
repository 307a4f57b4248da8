"""Watching a run of several pictures: what it is told, what it is asked."""

from collections.abc import Callable
from dataclasses import dataclass

from studio.engine.pipeline import StepProgress, Watcher


@dataclass(frozen=True)
class RunWatcher:
    """Told of every step of every picture (from 0), asked between steps whether to stop."""

    on_step: Callable[[int, StepProgress], None] = lambda _index, _progress: None
    cancelled: Callable[[], bool] = lambda: False

    def of_picture(self, index: int) -> Watcher:
        """The watcher for one call of `generate()`."""
        return Watcher(lambda progress: self.on_step(index, progress), self.cancelled)
