"""Watching a run of several pictures: what it is told, what it is asked."""

from collections.abc import Callable
from dataclasses import dataclass

from studio.engine.pipeline import StepProgress, Watcher


@dataclass(frozen=True)
class RunWatcher:
    """Told of every step of every picture (from 0) and what a large one takes, asked whether to stop."""

    on_step: Callable[[int, StepProgress], None] = lambda _index, _progress: None
    cancelled: Callable[[], bool] = lambda: False
    on_note: Callable[[str], None] = lambda _note: None

    def of_picture(self, index: int) -> Watcher:
        """The watcher for one call of `generate()`."""
        return Watcher(lambda progress: self.on_step(index, progress), self.cancelled, self.on_note)
