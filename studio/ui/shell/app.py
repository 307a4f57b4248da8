"""The page: the status line, four tabs, and what keeps them true."""

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from studio.batches.folder import BatchFolder
from studio.batches.session import BatchSession
from studio.core.paths import UserData
from studio.datasets.session import DatasetSession
from studio.engine.process.client import EngineClient
from studio.loras.library import LoraLibrary
from studio.training.folder import RunFolder
from studio.training.session import TrainingSession
from studio.ui.batches import tab as batch_tab
from studio.ui.datasets import tab as dataset_tab
from studio.ui.inference import tab as inference_tab
from studio.ui.shell.blocking_jobs import BlockingJobs
from studio.ui.shell.parts import live_html
from studio.ui.shell.polling import JOBS_POLL_SECONDS, POLL_SECONDS, PageNow, Polling
from studio.ui.shell.preflight_runner import BATCH, PreflightRunner
from studio.ui.shell.selection import Selection
from studio.ui.shell.status import activity_words, jobs_words, memory_words, model_words
from studio.ui.training import tab as training_tab
from studio.ui.training.page import TrainingPage


@dataclass(frozen=True)
class Sessions:
    """What the page shows, and what it asks."""

    engine: EngineClient
    datasets: DatasetSession
    training: TrainingPage
    batches: batch_tab.BatchPage
    library: LoraLibrary
    blocking_jobs: BlockingJobs

    def now(self, selection: Selection) -> PageNow:
        """Every part of a page of that selection as it should be now, and when it will be another."""
        view = self.engine.view
        runs, made = self.training.session.view(selection.run), self.batches.session.view(selection.batch)
        shown = selection.model_copy(
            update={
                "run": _shown(selection.run, runs.run, runs.names),
                "batch": _shown(selection.batch, made.batch, made.names),
            }
        )
        job_runs = any(line.job.state == "running" for line in runs.jobs)
        ours = (
            (view.active and view.phase != "waiting")
            or self.datasets.view.active
            or self.training.preflight.state.running
            or self.batches.forecast.state.running
        )
        jobs = runs.active or made.active or view.active
        parts = {
            "status-model": model_words(view),
            "status-memory": memory_words(view),
            "status-jobs": jobs_words(runs.jobs),
            "status-activity": activity_words(view, owner_is_told=job_runs),
            **inference_tab.render(view, self.library, runs.jobs, self.blocking_jobs),
            **dataset_tab.render(self.datasets),
            **training_tab.render(self.training, runs, shown),
            **batch_tab.render(self.batches, made),
        }
        return PageNow(parts, POLL_SECONDS if ours else JOBS_POLL_SECONDS if jobs else 0, shown)


def _shown(chosen: str, found: RunFolder | BatchFolder | None, names: Sequence[str]) -> str:
    """What a page shows from now on: it never goes over to another by itself, not from one that is gone either."""
    return found.name if found else chosen if names else ""


def build_app(
    engine: EngineClient, session: DatasetSession, trainings: TrainingSession, user_data: UserData, *, cpu_only: bool
) -> gr.Blocks:
    """Lay out the page and wire it to the engine, the open dataset, trainings and batches. Nothing is started by it."""
    library, blocking_jobs = LoraLibrary(user_data.loras), BlockingJobs(user_data)
    training = TrainingPage(trainings, session, PreflightRunner(user_data), cpu_only)
    batches = batch_tab.BatchPage(
        BatchSession(user_data), session, library, PreflightRunner(user_data, BATCH), cpu_only
    )
    sessions = Sessions(engine, session, training, batches, library, blocking_jobs)
    with gr.Blocks(title="LoRA Studio", analytics_enabled=False) as app:
        status = _build_status_line()
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
        inference_tab.wire(tab, engine, trainings, blocking_jobs, then_refresh=then_refresh)
        dataset_tab.wire(datasets, session, then_refresh=then_refresh)
        selection = polling.selection
        training_tab.wire(training_parts, training, selection, compare=tab.compare.form, then_refresh=then_refresh)
        batch_tab.wire(batch_parts, batches, selection, tabs=tabs, then_refresh=then_refresh)
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
