"""Keeping the page true: a timer while this page's processes work, a slower one while only jobs do, none when idle."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from studio.ui.parts import Seen, Update, any_changed, changed_parts

POLL_SECONDS = 0.5
JOBS_POLL_SECONDS = 1.0  # while only jobs go on: the page shares the processor with them
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


class Polling:
    """The timers, and what each browser tab is known to show. Made inside the page's layout.

    Args:
        parts_now: every part that is kept true as it should be now, the timers too, by its name.
        shown: the components of these parts.
        lively: names of the few that change while nothing but a job goes on.
    """

    def __init__(
        self,
        parts_now: Callable[[], Mapping[str, Update]],
        shown: Mapping[str, gr.components.Component],
        lively: Sequence[str],
    ) -> None:
        self._parts_now = parts_now
        self._lively = tuple(lively)
        self._timers = {
            "timer": gr.Timer(POLL_SECONDS, active=False),
            "jobs-timer": gr.Timer(JOBS_POLL_SECONDS, active=False),
        }
        self._seen, self._seen_lively = gr.JSON(visible=False), gr.JSON(visible=False)
        self._shown = {**shown, **self._timers}

    def wire(self, app: gr.Blocks, wake: gr.Button) -> None:
        """Refresh when the page is opened, at each tick, and when the script presses `wake`."""
        lively = [*(self._shown[name] for name in self._lively), self._timers["timer"], self._seen_lively]
        # Named functions: they are the names of the page's own API.
        seen, everything = self._seen, self._everything
        app.load(lambda: self.refresh(None), None, everything, **QUIET)
        self._timers["timer"].tick(self.refresh, seen, everything, **QUIET)
        self._timers["jobs-timer"].tick(self.follow_jobs, [seen, self._seen_lively], lively, **QUIET)
        wake.click(self.refresh, seen, everything, **QUIET)

    def then_refresh(self, event: Any) -> Any:  # noqa: ANN401 - gradio's Dependency
        """Refresh when what a person did is done; the refresh is what more may follow."""
        return event.then(self.refresh, self._seen, self._everything, **QUIET)

    def refresh(self, has: Seen | None) -> list[Any]:
        """All that the page does not show yet, and what it will show then."""
        # Timers are always told: `follow_jobs` sets one without noting it.
        known = {name: digest for name, digest in (has or {}).items() if name not in self._timers}
        now = self._parts_now()
        updates, seen = changed_parts({name: now[name] for name in self._shown}, known)
        return [*updates, seen, {}]

    def follow_jobs(self, has: Seen | None, has_lively: Seen | None) -> list[Any]:
        """Only what changes all the time, because for each part that is asked about Gradio makes a component anew.

        Where anything else changed the quick timer is set going, whose refresh brings it. What the page shows of that
        is noted by `refresh` alone: this answer may overtake one of those.
        """
        now = self._parts_now()
        updates, seen = changed_parts({name: now[name] for name in self._lively}, has_lively)
        more = any_changed({name: now[name] for name in self._shown}, has or {}, but=self._lively)
        return [*updates, gr.update(active=True) if more else gr.skip(), seen]

    @property
    def _everything(self) -> list[gr.components.Component]:
        return [*self._shown.values(), self._seen, self._seen_lively]


def timer_states(*, ours: bool, jobs: bool) -> dict[str, Update]:
    """The quick timer while this page's processes do something, the slow one while only jobs do, else neither."""
    return {"timer": gr.update(active=ours), "jobs-timer": gr.update(active=jobs and not ours)}
