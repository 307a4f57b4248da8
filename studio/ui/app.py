"""The page: the status line, four tabs, and the two timers that keep them true."""

from typing import Any

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
from studio.ui.parts import Seen, Update, changed_of, changed_parts
from studio.ui.status_line import activity_words, memory_words, model_words

POLL_SECONDS = 0.5
JOBS_POLL_SECONDS = 1.0  # while only jobs go on: the page shares the processor with them
# All that changes while nothing but a job goes on; few, because the browser looks for each of them in the whole page.
LIVELY = ("memory", "jobs", "taken-words", *training_tab.LIVELY, "timer")


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
        timers = {
            "timer": gr.Timer(POLL_SECONDS, active=False),
            "jobs-timer": gr.Timer(JOBS_POLL_SECONDS, active=False),
        }
        seen = gr.JSON(visible=False)
        wake = gr.Button("Refresh", elem_id="wake", visible="hidden")
        shown = {**status, **tab.shown, **datasets.shown, **training_parts.shown, **timers}

        def parts_now() -> dict[str, Update]:
            view, runs = engine.view, trainings.view
            job_runs = any(line.job.state == "running" for line in runs.jobs)
            parts = {
                "model": model_words(view),
                "memory": memory_words(view),
                "jobs": jobs_words(runs.jobs),
                "activity": activity_words(view, owner_is_told=job_runs),
                **inference_tab.render(view, library, runs, ahead),
                **dataset_tab.render(desk),
                **training_tab.render(training, runs),
            }
            ours = (view.active and view.phase != "waiting") or desk.view.active or training.preflight.state.running
            parts |= _timer_states(ours=ours, jobs=runs.active or view.active)
            return {name: parts[name] for name in shown}

        def refresh(has: Seen | None) -> list[Update]:
            updates, now = changed_parts(parts_now(), has)
            return [*updates, now]

        def follow_jobs(has: Seen | None) -> list[Update]:
            """Only what changes all the time: for each part that is asked about, Gradio makes a component anew."""
            parts = parts_now()
            updates, now, others_changed = changed_of(parts, LIVELY, has or {})
            if others_changed:  # the other timer brings all of them, once
                updates[LIVELY.index("timer")] = gr.update(active=True)
                now["timer"] = ""
            return [*updates, now]

        lively = [shown[name] for name in LIVELY]
        quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

        def then_refresh(event: Any) -> None:  # noqa: ANN401 - gradio's Dependency
            event.then(refresh, seen, [*shown.values(), seen], **quiet)

        inference_tab.wire(tab, engine, trainings, ahead, then_refresh=then_refresh)
        dataset_tab.wire(datasets, desk, then_refresh=then_refresh)
        training_tab.wire(training_parts, training, then_refresh=then_refresh)
        app.load(lambda: refresh(None), None, [*shown.values(), seen], **quiet)
        timers["timer"].tick(refresh, seen, [*shown.values(), seen], **quiet)
        timers["jobs-timer"].tick(follow_jobs, seen, [*lively, seen], **quiet)
        # Another tab may have started something: the script presses this when the page becomes visible.
        wake.click(refresh, seen, [*shown.values(), seen], **quiet)
    return app


def _timer_states(*, ours: bool, jobs: bool) -> dict[str, Update]:
    """The quick timer while this page's processes do something, the slow one while only jobs do, else neither."""
    return {"timer": gr.update(active=ours), "jobs-timer": gr.update(active=jobs and not ours)}
