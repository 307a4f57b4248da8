"""Where the seconds of one picture go."""

import time
from dataclasses import dataclass, field

from studio.results import Timings


@dataclass
class Clock:
    """The seconds of each part of one call, as they come in."""

    started: float = field(default_factory=time.perf_counter)
    text_seconds: float = 0.0
    step_seconds: list[float] = field(default_factory=list)
    vae_seconds: float = 0.0
    _group_started: float = 0.0

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    def timings(self, *, first_call: bool) -> Timings:
        """All of it, at the end."""
        return Timings(
            text_seconds=self.text_seconds,
            step_seconds=tuple(self.step_seconds),
            vae_seconds=self.vae_seconds,
            total_seconds=self.elapsed,
            first_call=first_call,
        )

    def start_text(self) -> None:
        """The LoRAs act; now come the prompts."""
        self._group_started = self.elapsed

    def end_text(self) -> None:
        """The prompts are encoded."""
        self.text_seconds = self.elapsed - self._group_started

    def start_steps(self) -> None:
        """A group of steps begins."""
        self._group_started = self.elapsed

    def end_steps(self, step: int) -> None:
        """The group that ends with this step is done, and the device has caught up; the next one begins."""
        num_steps = step - len(self.step_seconds)
        self.step_seconds += [(self.elapsed - self._group_started) / num_steps] * num_steps
        self.start_steps()

    def leave_out(self, *, since: float) -> None:
        """What was done since then is no part of the steps."""
        self._group_started += self.elapsed - since
