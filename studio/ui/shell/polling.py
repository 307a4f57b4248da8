"""Keeping each page true: its script asks for live parts while something goes on, and a refresh brings all the rest."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.ui.shell.parts import QUIET, Seen, Update, changed_parts, digest_of, digests_of, follower
from studio.ui.shell.selection import RECALL, SEEN_AND_RECALL, Selection, read_selection, selection_box

POLL_SECONDS = 0.5  # while this page's own processes work
JOBS_POLL_SECONDS = 1.0  # while only jobs go on: the page shares the processor with them
UNQUEUED: dict[str, Any] = {"queue": False, **QUIET}


@dataclass(frozen=True)
class PageNow:
    """One page as it should be now.

    Attributes:
        parts: every part of it by its name; those that are no component of Gradio's are live, and HTML.
        look_again_seconds: until it should be looked at again; 0 while nothing goes on.
        selection: what it shows: where the page had chosen nothing, with what was chosen for it.
    """

    parts: Mapping[str, Update]
    look_again_seconds: float
    selection: Selection


class Polling:
    """What each browser tab is known to show. Made inside the page's layout.

    Args:
        now: a page of that selection as it should be now.
        shown: the components that a refresh brings up to date, by their parts' names.

    Attributes:
        selection: the component that holds what the page has chosen.
    """

    def __init__(self, now: Callable[[Selection], PageNow], shown: Mapping[str, gr.components.Component]) -> None:
        self._now = now
        self._shown = dict(shown)
        self._seen = gr.JSON(visible=False)
        self._brought = follower("brought")
        self.selection = selection_box()

    def wire(self, app: gr.Blocks, wake: gr.Button) -> None:
        """Refresh when the page is opened and when its script presses `wake`; answer the script."""
        # Named functions: they are the names of the page's own API.
        app.load(self.open, self.selection, self._everything, js=RECALL, **UNQUEUED)
        wake.click(self.refresh, self._has, self._everything, js=SEEN_AND_RECALL, **UNQUEUED)
        gr.api(self.live, api_name="live", queue=False, api_visibility="private")

    def then_refresh(self, event: Any) -> Any:  # noqa: ANN401 - gradio's Dependency
        """Refresh when what a person did is done; the script follows what comes of it."""
        return event.then(self.refresh, self._has, self._everything, js=SEEN_AND_RECALL, **UNQUEUED)

    def open(self, selection: str, request: gr.Request) -> list[Any]:
        """All of the page, for one that was just opened, with what it had chosen before a reload."""
        return self.refresh(None, selection, request)

    def refresh(self, has: Seen | None, selection: str, request: gr.Request) -> list[Any]:
        """All that the page does not show yet, what it will show then, and its selection where that is another now.

        The value before the selection is for the script: a digest of what the page shows then, Gradio's name of the
        page's session, and a number that is never the same twice, so that the script hears of each refresh.
        """
        chosen = read_selection(selection)
        now = self._now(chosen)
        updates, seen = changed_parts({name: now.parts[name] for name in self._shown}, has)
        brought = f"{digest_of(repr(seen))} {request.session_hash} {time.monotonic_ns()}"
        # Else left alone: one may have chosen again while this was on its way.
        kept = gr.skip() if has is not None and now.selection == chosen else now.selection.model_dump_json()
        return [*updates, seen, brought, kept]

    def live(self, has: dict[str, Any], selection: str) -> dict[str, Any]:
        """What the script asks: the live parts it lacks, a digest of the rest, and when to ask again.

        Args:
            has: by the names of the live parts that are in the page now, the digest of what they show.
            selection: of the page that asks.
        """
        now = self._now(read_selection(selection))
        digests = digests_of(now.parts)
        lacking = {
            name: {"digest": digests[name], "html": now.parts[name]}
            for name, digest in has.items()
            if name in digests and digests[name] != digest
        }
        rest = {name: digests[name] for name in self._shown}
        return {"parts": lacking, "rest": digest_of(repr(rest)), "look_again_seconds": now.look_again_seconds}

    @property
    def _has(self) -> list[gr.components.Component]:
        return [self._seen, self.selection]

    @property
    def _everything(self) -> list[gr.components.Component]:
        return [*self._shown.values(), self._seen, self._brought, self.selection]
