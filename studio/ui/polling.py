"""Keeping the page true: a timer while this page's processes work, a slower one while only jobs do, none when idle."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import gradio as gr

from studio.ui.parts import Seen, Update, any_changed, changed_parts

POLL_SECONDS = 0.5
JOBS_POLL_SECONDS = 1.5  # while only jobs go on: the page shares the processor with them
QUICK = "timer"
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


class Polling:
    """The timers, and what each browser tab is known to show. Made inside the page's layout.

    Args:
        parts_now: every part that is kept true as it should be now, the timers too, by its name.
        shown: the components of these parts.
        lively: names of the few that change while nothing but a job of a kind goes on, by the name of its timer.
    """

    def __init__(
        self,
        parts_now: Callable[[], Mapping[str, Update]],
        shown: Mapping[str, gr.components.Component],
        lively: Mapping[str, Sequence[str]],
    ) -> None:
        self._parts_now = parts_now
        self._lively = {timer: tuple(names) for timer, names in lively.items()}
        self._timers = {
            QUICK: gr.Timer(POLL_SECONDS, active=False),
            **{timer: gr.Timer(JOBS_POLL_SECONDS, active=False) for timer in lively},
        }
        self._seen, self._seen_lively = gr.JSON(visible=False), gr.JSON(visible=False)
        self._shown = {**shown, **self._timers}

    def wire(self, app: gr.Blocks, wake: gr.Button) -> None:
        """Refresh when the page is opened, at each tick, and when the script presses `wake`."""
        # Named functions: they are the names of the page's own API.
        seen, everything = self._seen, self._everything
        app.load(lambda: self.refresh(None), None, everything, **QUIET)
        self._timers[QUICK].tick(self.refresh, seen, everything, **QUIET)
        for timer, names in self._lively.items():
            lively = [*(self._shown[name] for name in names), self._timers[QUICK], self._seen_lively]
            follow = self.following(timer)
            self._timers[timer].tick(follow, [seen, self._seen_lively], lively, api_name=timer, **QUIET)
        wake.click(self.refresh, seen, everything, **QUIET)

    def then_refresh(self, event: Any) -> Any:  # noqa: ANN401 - gradio's Dependency
        """Refresh when what a person did is done; the refresh is what more may follow."""
        return event.then(self.refresh, self._seen, self._everything, **QUIET)

    def refresh(self, has: Seen | None) -> list[Any]:
        """All that the page does not show yet, and what it will show then."""
        # Timers are always told: what follows a job sets one without noting it.
        known = {name: digest for name, digest in (has or {}).items() if name not in self._timers}
        now = self._parts_now()
        updates, seen = changed_parts({name: now[name] for name in self._shown}, known)
        return [*updates, seen, {}]

    def following(self, timer: str) -> Callable[[Seen | None, Seen | None], list[Any]]:
        """Asks only about what a job changes all the time: for each part that is asked about Gradio makes a component.

        Where anything else changed the quick timer is set going, whose refresh brings it. What the page shows of that
        is noted by `refresh` alone: this answer may overtake one of those.
        """
        lively = self._lively[timer]

        def follow(has: Seen | None, has_lively: Seen | None) -> list[Any]:
            now = self._parts_now()
            updates, seen = changed_parts({name: now[name] for name in lively}, has_lively)
            more = any_changed({name: now[name] for name in self._shown}, has or {}, but=lively)
            return [*updates, gr.update(active=True) if more else gr.skip(), seen]

        return follow

    @property
    def _everything(self) -> list[gr.components.Component]:
        return [*self._shown.values(), self._seen, self._seen_lively]


def timer_states(*, ours: bool, job: str, lively: Collection[str]) -> dict[str, Update]:
    """The quick timer while this page's processes do something, else the one of the job that goes on, else none.

    Args:
        job: the name of the timer of the job that goes on; "" where none does.
        lively: the names of all those timers.
    """
    states = {timer: gr.update(active=not ours and timer == job) for timer in lively}
    return {QUICK: gr.update(active=ours), **states}
