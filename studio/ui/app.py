"""The page: the status line, four tabs, and the two timers that keep them true."""

import gradio as gr

from studio.dataset.desk import DatasetDesk
from studio.engine_process.client import EngineClient
from studio.jobs.ahead import JobsAhead
from studio.jobs.preflight_runner import PreflightRunner
from studio.jobs.training_desk import TrainingDesk
from studio.loras.library import LoraLibrary
from studio.paths import UserData
from studio.ui import coming_tabs, dataset_tab, inference_tab, training_tab
from studio.ui.jobs_line import jobs_words
from studio.ui.parts import Update
from studio.ui.polling import Polling, timer_states
from studio.ui.status_line import activity_words, memory_words, model_words

# All that changes while nothing but a job goes on; few, because the browser looks for each of them in the whole page.
LIVELY = ("memory", "jobs", "taken-words", *training_tab.LIVELY)


def build_app(
    engine: EngineClient, desk: DatasetDesk, trainings: TrainingDesk, user_data: UserData, *, cpu_only: bool
) -> gr.Blocks:
    """Lay out the page and wire it to the engine, the open dataset and the trainings. Nothing is started by it."""
    library, ahead = LoraLibrary(user_data.loras), JobsAhead(user_data)
    training = training_tab.TrainingPage(trainings, desk, PreflightRunner(user_data), cpu_only)
    with gr.Blocks(title="LoRA Studio", analytics_enabled=False) as app:
        with gr.Row(elem_id="status-line"):
            gr.HTML("<h1>LoRA Studio</h1>", elem_id="brand", min_width=0, padding=False)
            status = {
                "model": gr.HTML(elem_id="status-model", min_width=0, padding=False),
                "memory": gr.HTML(elem_id="status-memory", min_width=0, padding=False),
                "jobs": gr.HTML(elem_id="status-jobs", min_width=0, padding=False),
                "activity": gr.HTML(elem_id="status-activity", min_width=0, padding=False),
            }
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Inference", id="inference"):
                tab = inference_tab.build()
            with gr.Tab("Dataset", id="dataset"):
                datasets = dataset_tab.build()
            with gr.Tab("Training", id="training"):
                training_parts = training_tab.build()
            for name in coming_tabs.COMING:
                with gr.Tab(name, id=name.lower()):
                    coming_tabs.build(name)
        wake = gr.Button("Refresh", elem_id="wake", visible="hidden")
        shown = {**status, **tab.shown, **datasets.shown, **training_parts.shown}

        def parts_now() -> dict[str, Update]:
            view, runs = engine.view, trainings.view
            job_runs = any(line.job.state == "running" for line in runs.jobs)
            ours = (view.active and view.phase != "waiting") or desk.view.active or training.preflight.state.running
            return {
                "model": model_words(view),
                "memory": memory_words(view),
                "jobs": jobs_words(runs.jobs),
                "activity": activity_words(view, owner_is_told=job_runs),
                **inference_tab.render(view, library, runs, ahead),
                **dataset_tab.render(desk),
                **training_tab.render(training, runs),
                **timer_states(ours=ours, jobs=runs.active or view.active),
            }

        polling = Polling(parts_now, shown, LIVELY)
        inference_tab.wire(tab, engine, trainings, ahead, then_refresh=polling.then_refresh)
        dataset_tab.wire(datasets, desk, then_refresh=polling.then_refresh)
        training_tab.wire(training_parts, training, then_refresh=polling.then_refresh)
        # Another tab may have started something: the script presses it when the page becomes visible.
        polling.wire(app, wake)
    return app
