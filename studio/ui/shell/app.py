"""The page: status line, four tabs, and how it is kept true.

Keeping each page true: its script asks for live parts while something goes on, and a refresh brings all the rest.

The page: the status line, four tabs, and what keeps them true.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from studio.batches.folder import BatchFolder
from studio.batches.session import BatchSession, BatchView
from studio.core.paths import UserData
from studio.datasets.session import DatasetSession
from studio.engine.process.client import EngineClient
from studio.loras.library import LoraLibrary
from studio.training.folder import RunFolder
from studio.training.session import TrainingSession, TrainingView
from studio.ui.batches import tab as batch_tab
from studio.ui.datasets import tab as dataset_tab
from studio.ui.inference import tab as inference_tab
from studio.ui.shell.commands import Commands
from studio.ui.shell.device_busy_box import BlockingJobs
from studio.ui.shell.images import wire_size_note
from studio.ui.shell.parts import (
    PAGE_PROBLEMS,
    QUIET,
    Group,
    Guard,
    Page,
    Seen,
    Update,
    changed_parts,
    digest_of,
    digests_of,
    follower,
    live_html,
)
from studio.ui.shell.selection import RECALL, SEEN_AND_RECALL, Selection, keep_form, read_selection, selection_box
from studio.ui.shell.status import activity_words, jobs_words, measuring_words, memory_words, model_words
from studio.ui.training import tab as training_tab
from studio.ui.training.queue import TrainingPage

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
        updates, seen = changed_parts(self._rest_of(now), has)
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
        digests = digests_of({**self._rest_of(now), **now.parts})
        lacking = {
            name: {"digest": digests[name], "html": now.parts[name]}
            for name, digest in has.items()
            if name in digests and digests[name] != digest
        }
        rest = {name: digests[name] for name in self._shown}
        return {"parts": lacking, "rest": digest_of(repr(rest)), "look_again_seconds": now.look_again_seconds}

    def _rest_of(self, now: PageNow) -> dict[str, Update]:
        """What a refresh brings; a part that cannot be made stays as the page has it."""
        return {name: now.parts.get(name, gr.skip()) for name in self._shown}

    @property
    def _has(self) -> list[gr.components.Component]:
        return [self._seen, self.selection]

    @property
    def _everything(self) -> list[gr.components.Component]:
        return [*self._shown.values(), self._seen, self._brought, self.selection]


@dataclass(frozen=True)
class Sessions:
    """What the page shows, and what it asks."""

    engine: EngineClient
    datasets: DatasetSession
    training: TrainingPage
    batches: batch_tab.BatchPage
    library: LoraLibrary
    blocking_jobs: BlockingJobs
    guard: Guard = field(default_factory=Guard)

    def now(self, selection: Selection) -> PageNow:
        """Every part of a page of that selection as it should be now, and when it will be another."""
        view = self.engine.view
        runs = self.guard.attempt(
            "runs", lambda: self.training.session.view(selection.run), lambda why: TrainingView(problem=why)
        )
        made = self.guard.attempt(
            "batches", lambda: self.batches.session.view(selection.batch), lambda why: BatchView(problem=why)
        )
        datasets = self.datasets.of(selection.dataset)
        dataset = datasets.view
        shown = selection.model_copy(
            update={
                "run": _shown(selection.run, runs.run, runs.names),
                "batch": _shown(selection.batch, made.batch, made.names),
                "dataset": selection.dataset or dataset.name,
            }
        )
        job_runs = any(line.job.state == "running" for line in runs.jobs)
        ours = (
            (view.active and view.phase != "waiting")
            or dataset.active
            or self.training.preflight.state.running
            or self.training.exports.state.running
            or self.batches.forecast.state.running
        )
        jobs = runs.active or made.active or view.active
        groups: dict[str, Group] = {
            "The status line": lambda: {
                "status-model": lambda: model_words(view),
                "status-memory": lambda: memory_words(view),
                "status-jobs": lambda: (
                    jobs_words(runs.jobs)
                    + measuring_words("a training", self.training.preflight.state, "Training")
                    + measuring_words("a batch", self.batches.forecast.state, "Batch")
                ),
                "status-activity": lambda: activity_words(view, owner_is_told=job_runs),
            },
            **inference_tab.render(view, self.library, runs.jobs, self.blocking_jobs, shown),
            **dataset_tab.render(datasets.of(dataset.name), dataset),
            **training_tab.render(self.training, runs, shown),
            **batch_tab.render(self.batches, made),
        }
        parts = self.guard.parts(groups)
        return PageNow(parts, POLL_SECONDS if ours else JOBS_POLL_SECONDS if jobs else 0, shown)


def _shown(chosen: str, found: RunFolder | BatchFolder | None, names: Sequence[str]) -> str:
    """What a page shows from now on: it never goes over to another by itself, not from one that is gone either."""
    return found.name if found else chosen if names else ""


def build_app(
    engine: EngineClient,
    session: DatasetSession,
    trainings: TrainingSession,
    user_data: UserData,
    *,
    commands: Commands | None = None,
    cpu_only: bool,
) -> gr.Blocks:
    """Lay out the page and wire it to the engine, the open dataset, trainings and batches. Nothing is started by it."""
    library, blocking_jobs = LoraLibrary(user_data.loras), BlockingJobs(user_data)
    commands = commands or Commands(user_data)
    training = TrainingPage(trainings, session, commands.preflight, commands.exports, cpu_only)
    batches = batch_tab.BatchPage(BatchSession(user_data), session, library, commands.forecast, cpu_only)
    sessions = Sessions(engine, session, training, batches, library, blocking_jobs)
    with Page(title="LoRA Studio", analytics_enabled=False) as app:
        status = _build_status_line()
        live_html(PAGE_PROBLEMS)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Inference", id="inference"):
                tab = inference_tab.build()
            with gr.Tab("Dataset", id="dataset"):
                datasets = dataset_tab.build()
            with gr.Tab("Training", id="training"):
                training_parts = training_tab.build()
            with gr.Tab("Batch", id="batch"):
                batch_parts = batch_tab.build()
        wake = gr.Button("Refresh", elem_id="wake", visible="hidden")
        shown = {**status, **tab.shown, **datasets.shown, **training_parts.shown, **batch_parts.shown}
        polling = Polling(sessions.now, shown)
        then_refresh = polling.then_refresh
        selection = polling.selection
        inference_tab.wire(tab, engine, trainings, blocking_jobs, selection, then_refresh=then_refresh)
        dataset_tab.wire(datasets, session, selection, then_refresh=then_refresh)
        training_tab.wire(training_parts, training, selection, compare=tab.compare.form, then_refresh=then_refresh)
        batch_tab.wire(batch_parts, batches, selection, tabs=tabs, then_refresh=then_refresh)
        wire_size_note(training_parts.form.settings, engine, training_parts.form.settings.fields)
        wire_size_note(batch_parts.form.generation, engine, batch_parts.form.named)
        kept = {"dataset": datasets.form, "training": training_parts.form.kept, "batch": batch_parts.form.kept}
        for name, controls in {**tab.forms, **kept}.items():
            keep_form(app, name, controls)
        # Another tab may have started something: the script presses it when the page becomes visible.
        polling.wire(app, wake)
    return app


def _build_status_line() -> dict[str, gr.components.Component]:
    with gr.Row(elem_id="status-line"):
        gr.HTML("<h1>LoRA Studio</h1>", elem_id="brand", min_width=0, padding=False)
        model = gr.HTML(elem_id="status-model", min_width=0, padding=False)
        for name in ("status-memory", "status-jobs", "status-activity"):
            live_html(name, min_width=0)
        return {"status-model": model}
