"""The page: the status line, four tabs, and what keeps them true.

Its script asks for live parts while something goes on, and a refresh of an area brings all the rest.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from studio.batches.folder import BatchFolder
from studio.batches.session import BatchSession, BatchView
from studio.core.language import N_, _
from studio.core.paths import UserData
from studio.datasets.session import DatasetSession
from studio.engine.process.client import EngineClient
from studio.engine.process.view import EngineView
from studio.images.gallery import History
from studio.jobs.session import JobLine
from studio.loras.library import LoraLibrary
from studio.training.folder import RunFolder
from studio.training.session import TrainingSession, TrainingView
from studio.ui.batches import tab as batch_tab
from studio.ui.datasets import tab as dataset_tab
from studio.ui.datasets.captioning import CaptionJobs, caption_jobs
from studio.ui.inference import tab as inference_tab
from studio.ui.inference.history import PastImages
from studio.ui.shell import engine_panel, path_chooser
from studio.ui.shell.commands import Commands
from studio.ui.shell.device_busy_box import BlockingJobs
from studio.ui.shell.images import wire_size_note
from studio.ui.shell.parts import (
    PAGE_PROBLEMS,
    QUIET,
    Group,
    Guard,
    Page,
    Part,
    Seen,
    Update,
    changed_parts,
    digest_of,
    digests_of,
    follower,
    live_html,
)
from studio.ui.shell.selection import RECALL, SEEN_AND_RECALL, Selection, keep_form, read_selection, selection_box
from studio.ui.shell.status import (
    activity_words,
    header_tools,
    jobs_words,
    measuring_words,
    memory_words,
    model_words,
    title_words,
)
from studio.ui.training import tab as training_tab
from studio.ui.training.destinations import Destinations
from studio.ui.training.queue import TrainingPage

AREAS = ("status", "engine", "inference", "dataset", "training", "batch")
POLL_SECONDS = 0.5  # while this page's own processes work
JOBS_POLL_SECONDS = 1.0  # while only jobs go on: the page shares the processor with them
UNQUEUED: dict[str, Any] = {"queue": False, **QUIET}
_LOOK = '() => document.dispatchEvent(new Event("studio:look"))'
_LOOK_SOON = f"() => requestAnimationFrame({_LOOK})"  # what was chosen is shown in the next frame


@dataclass(frozen=True)
class PageNow:
    """One page as it should be now.

    Attributes:
        parts: every part of the areas that were asked for by its name; those that are no component of Gradio's are
            live, and HTML.
        look_again_seconds: until it should be looked at again; 0 while nothing goes on.
        title: what goes on, for the title of the browser's tab; "" while nothing does.
        selection: what it shows: where the page had chosen nothing, with what was chosen for it.
    """

    parts: Mapping[str, Update]
    look_again_seconds: float
    selection: Selection
    title: str = ""


class Polling:
    """What each browser tab is known to show, area by area. Made inside the page's layout.

    The status line is an area, and each of the page's tabs is one: what nobody looks at is not brought. Gradio looks
    for every component that an event of its own is about, changed or not, several times in the whole page.

    Args:
        now: a page of that selection as it should be now; of these areas at least, of all where none is named.
        shown: by area, the components that a refresh brings up to date, by their parts' names. The first is brought
            when the page is opened; the page's script asks for those that it shows.

    Attributes:
        selection: the component that holds what the page has chosen.
    """

    def __init__(
        self,
        now: Callable[[Selection, Collection[str]], PageNow],
        shown: Mapping[str, Mapping[str, gr.components.Component]],
    ) -> None:
        self._now = now
        self._shown = shown
        self._first = next(iter(shown))
        self._seen = {area: gr.JSON(visible=False) for area in shown}
        self._brought = follower("brought")
        self.selection = selection_box()

    def wire(self, app: gr.Blocks, tabs: Sequence[gr.Tab]) -> None:
        """Refresh when the page is opened and when its script presses an area's button; answer the script."""
        # Named functions: they are the names of the page's own API.
        app.load(self.open, self.selection, self._everything(self._first), js=RECALL, **UNQUEUED)
        for area, seen in self._seen.items():
            wake = gr.Button("Refresh", elem_id=f"wake-{area}", elem_classes="unseen", visible="hidden")
            has = [seen, self.selection]
            wake.click(
                self.refresh_of(area),
                has,
                self._everything(area),
                js=SEEN_AND_RECALL,
                api_name=f"refresh_{area}",
                **UNQUEUED,
            )
        for tab in tabs:
            tab.select(None, js=_LOOK_SOON, **UNQUEUED)
        gr.api(self.live, api_name="live", queue=False, api_visibility="private")

    def then_refresh(self, event: Any) -> Any:  # noqa: ANN401 - gradio's Dependency
        """Have the page's script look at once what came of a press, when it is done."""
        return event.then(None, js=_LOOK, **UNQUEUED)

    def open(self, selection: str, request: gr.Request) -> list[Any]:
        """The first area of a page that was just opened, with what it had chosen before a reload."""
        return self.refresh_of(self._first)(None, selection, request)

    def refresh_of(self, area: str) -> Callable[[Seen | None, str, gr.Request], list[Any]]:
        """What brings an area up to date."""

        def refresh(has: Seen | None, selection: str, request: gr.Request) -> list[Any]:
            """All that the page does not show yet of the area, what it will show then, and its selection.

            The value before the selection is for the script: the area, a digest of what the page shows of it then,
            Gradio's name of the page's session, and a number that is never the same twice, so that the script hears
            of each refresh. The selection is left alone where it is no other now.
            """
            chosen = read_selection(selection)
            now = self._now(chosen, (area,))
            updates, seen = changed_parts(self._rest_of(now, area), has)
            brought = f"{area} {digest_of(repr(seen))} {request.session_hash} {time.monotonic_ns()}"
            # Else left alone, also by a tab's first refresh: one may have chosen again while this was on its way.
            opens = has is None and area == self._first
            kept = gr.skip() if now.selection == chosen and not opens else now.selection.model_dump_json()
            return [*updates, seen, brought, kept]

        return refresh

    def live(self, has: dict[str, Any], selection: str, areas: list[str]) -> dict[str, Any]:
        """What the script asks: the live parts it lacks, a digest of the rest by area, and when to ask again.

        Args:
            has: by the names of the live parts that are in the page now, the digest of what they show.
            selection: of the page that asks.
            areas: those that it shows.
        """
        known = [area for area in self._shown if area in areas]
        now = self._now(read_selection(selection), known)
        digests = digests_of(now.parts)
        lacking = {
            name: {"digest": digests[name], "html": now.parts[name]}
            for name, digest in has.items()
            if name in digests and digests[name] != digest
        }
        rest = {area: digest_of(repr(digests_of(self._rest_of(now, area)))) for area in known}
        return {"parts": lacking, "rest": rest, "look_again_seconds": now.look_again_seconds, "title": now.title}

    def _rest_of(self, now: PageNow, area: str) -> dict[str, Update]:
        """What a refresh brings; a part that cannot be made stays as the page has it."""
        return {name: now.parts.get(name, gr.skip()) for name in self._shown[area]}

    def _everything(self, area: str) -> list[gr.components.Component]:
        return [*self._shown[area].values(), self._seen[area], self._brought, self.selection]


@dataclass(frozen=True)
class Sessions:
    """What the page shows, and what it asks."""

    engine: EngineClient
    datasets: DatasetSession
    training: TrainingPage
    batches: batch_tab.BatchPage
    library: LoraLibrary
    blocking_jobs: BlockingJobs
    past: PastImages
    captions: CaptionJobs
    guard: Guard = field(default_factory=Guard)

    def now(self, selection: Selection, areas: Collection[str] = AREAS) -> PageNow:
        """Every part of those areas of a page of that selection as it should be now, and when it will be another."""
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
        ours = (
            (view.active and view.phase != "waiting")
            or dataset.active
            or self.training.preflight.state.running
            or self.training.exports.state.running
            or self.batches.forecast.state.running
        )
        jobs = runs.active or made.active or view.active
        groups: dict[str, Callable[[], dict[str, Group]]] = {
            "status": lambda: {N_("The status line"): lambda: self._status_line(view, runs.jobs)},
            "engine": lambda: {N_("The model"): lambda: engine_panel.render(view, self.training.session.user_data)},
            "inference": lambda: inference_tab.render(
                view, self.library, self.past, runs.jobs, self.blocking_jobs, shown, self.training.session.user_data
            ),
            "dataset": lambda: dataset_tab.render(datasets.of(dataset.name), dataset, self.captions),
            "training": lambda: training_tab.render(self.training, runs, shown),
            "batch": lambda: batch_tab.render(self.batches, made, shown),
        }
        parts = self.guard.parts({title: group for area in areas for title, group in groups[area]().items()})
        look_again_seconds = POLL_SECONDS if ours else JOBS_POLL_SECONDS if jobs else 0
        return PageNow(parts, look_again_seconds, shown, title_words(runs.jobs, view))

    def _status_line(self, view: EngineView, jobs: Sequence[JobLine]) -> dict[str, Part]:
        job_runs = any(line.job.state == "running" for line in jobs)
        return {
            "status-model": lambda: model_words(view),
            "status-memory": lambda: memory_words(view),
            "status-jobs": lambda: (
                jobs_words(jobs)
                + measuring_words(self.training.preflight.state, "train")
                + measuring_words(self.batches.forecast.state, "batch")
            ),
            "status-activity": lambda: activity_words(view, owner_is_told=job_runs),
        }


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
    past = PastImages(History(user_data.outputs), trainings.thumbnails)
    captions = caption_jobs(user_data)
    sessions = Sessions(engine, session, training, batches, library, blocking_jobs, past, captions)
    with Page(title="LoRA Studio", analytics_enabled=False) as app:
        status = _build_status_line()
        panel = engine_panel.build()
        live_html(PAGE_PROBLEMS)
        path_chooser.build(user_data)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab(_("Inference"), id="inference", elem_id="tab-inference") as inference:
                tab = inference_tab.build()
            with gr.Tab(_("Dataset"), id="dataset", elem_id="tab-dataset") as dataset:
                datasets = dataset_tab.build()
            with gr.Tab(_("Training"), id="training", elem_id="tab-training") as training_place:
                training_parts = training_tab.build()
            with gr.Tab(_("Batch"), id="batch", elem_id="tab-batch") as batch:
                batch_parts = batch_tab.build()
        shown = (status, panel.shown, tab.shown, datasets.shown, training_parts.shown, batch_parts.shown)
        polling = Polling(sessions.now, dict(zip(AREAS, shown, strict=True)))
        then_refresh = polling.then_refresh
        selection = polling.selection
        engine_panel.wire(panel, engine, then_refresh=then_refresh)
        trained = (training_parts.form.settings.fields["dataset"], training_parts.short.controls["dataset"])
        shared: dict[str, Any] = {"datasets": session, "trained": trained, "then_refresh": then_refresh}
        inference_tab.wire(tab, engine, trainings, blocking_jobs, past, selection, **shared)
        with_jobs: dict[str, Any] = {"captions": captions, "cpu_only": cpu_only, "then_refresh": then_refresh}
        dataset_tab.wire(datasets, session, selection, **with_jobs)
        to = Destinations(tab.generate.form.named, batch_parts.form.named, tab.compare.form)
        training_tab.wire(
            training_parts, training, selection, engine=engine, captions=captions, to=to, then_refresh=then_refresh
        )
        batch_tab.wire(batch_parts, batches, selection, tabs=tabs, trained=trained, then_refresh=then_refresh)
        wire_size_note(training_parts.form.settings, engine, training_parts.form.settings.fields)
        wire_size_note(batch_parts.form.generation, engine, batch_parts.form.named)
        kept = {
            "model": panel.named,
            "dataset": datasets.form,
            "training": training_parts.kept,
            "short": training_parts.short.kept,
            "batch": batch_parts.form.kept,
        }
        for name, controls in {**tab.forms, **kept}.items():
            keep_form(app, name, controls)
        polling.wire(app, (inference, dataset, training_place, batch))
    return app


def _build_status_line() -> dict[str, gr.components.Component]:
    with gr.Row(elem_id="status-line"):
        gr.HTML("<h1>LoRA Studio</h1>", elem_id="brand", min_width=0, padding=False)
        model = gr.HTML(elem_id="status-model", min_width=0, padding=False)
        for name in ("status-memory", "status-jobs", "status-activity"):
            live_html(name, min_width=0)
        gr.HTML(header_tools(), elem_id="status-tools", min_width=0, padding=False)
        return {"status-model": model}
