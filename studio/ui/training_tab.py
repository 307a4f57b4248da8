"""The Training tab: the form on the left, the run on the right; below it pictures, past runs and the queue."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.dataset.desk import DatasetDesk
from studio.jobs.preflight_runner import PreflightRunner
from studio.jobs.training_desk import TrainingDesk, TrainingView
from studio.runs.folder import BUSY_STATES, RunRequest, find_run
from studio.ui import training_form, training_plot, training_preflight, training_view
from studio.ui.parts import Update

HIDDEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
REQUEST_WORDS: dict[RunRequest, str] = {
    "sample": "Sample now",
    "save": "Save now",
    "pause": "Pause",
    "stop": "Stop",
}


@dataclass(frozen=True)
class RunPanel:
    """The right side: which run, its buttons, and what is told of it."""

    run: gr.Dropdown
    buttons: dict[RunRequest, gr.Button]
    resume: gr.Button
    duplicate: gr.Button
    window: gr.Radio
    log_scale: gr.Checkbox
    overlay: gr.Dropdown
    shown: dict[str, gr.components.Component]


@dataclass(frozen=True)
class TrainingTab:
    """The tab's parts."""

    form: training_form.TrainingForm
    preflight: training_preflight.PreflightBox
    start: gr.Button
    panel: RunPanel

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        """Every part that the timer keeps true, by its name."""
        return {"training-dataset": self.form.dataset, **self.preflight.shown, **self.panel.shown}


def build() -> TrainingTab:
    """Lay the tab out."""
    with gr.Row(elem_classes="workbench"):
        with gr.Column(elem_classes="controls", min_width=320):
            with gr.Row(elem_classes="actions"):
                start = gr.Button("Start", variant="primary", elem_id="start-training")
                check = gr.Button("Preflight", elem_id="run-preflight")
            preflight = training_preflight.build(check)
            form = training_form.build()
        with gr.Column(elem_classes="canvas", min_width=480):
            panel = _build_panel()
    return TrainingTab(form, preflight, start, panel)


def _build_panel() -> RunPanel:
    with gr.Row(elem_classes="run-head"):
        run = gr.Dropdown([], label="Run", elem_id="training-run", interactive=True, scale=2, min_width=240)
        buttons = {
            request: gr.Button(words, elem_id=f"training-{request}", size="sm", min_width=88)
            for request, words in REQUEST_WORDS.items()
        }
        resume = gr.Button("Resume", elem_id="training-resume", size="sm", min_width=88)
        duplicate = gr.Button("Copy to form", elem_id="training-duplicate", size="sm", min_width=104)
    state = gr.HTML(elem_id="training-state", padding=False)
    memory = gr.HTML(elem_id="training-memory", padding=False)
    with gr.Row(elem_classes="plot-options"):
        window = gr.Radio(
            list(training_plot.WINDOWS),
            value=training_plot.ALL_STEPS,
            label="Shown",
            elem_id="plot-window",
            interactive=True,
        )
        log_scale = gr.Checkbox(False, label="Log scale", elem_id="plot-log", interactive=True, min_width=96)
        overlay = gr.Dropdown(
            [],
            multiselect=True,
            max_choices=len(training_plot.OVERLAY_STYLES),
            label="Lay over",
            elem_id="plot-overlay",
            interactive=True,
            min_width=200,
        )
    plot = gr.HTML(elem_id="training-plot", padding=False)
    samples = gr.HTML(elem_id="training-samples", padding=False)
    notes = gr.HTML(elem_id="training-notes", padding=False)
    with gr.Accordion("Effect per layer", open=False):
        effect = gr.HTML(elem_id="training-effect", padding=False)
    with gr.Accordion("Log", open=False):
        log = gr.HTML(elem_id="training-log", padding=False)
    queue = gr.HTML(elem_id="training-queue", padding=False)
    shown: dict[str, gr.components.Component] = {
        "training-run": run,
        "training-state": state,
        "training-memory": memory,
        "training-plot": plot,
        "training-overlay": overlay,
        "training-samples": samples,
        "training-notes": notes,
        "training-effect": effect,
        "training-log": log,
        "training-queue": queue,
        **{f"training-{request}": button for request, button in buttons.items()},
        "training-resume": resume,
        "training-duplicate": duplicate,
    }
    return RunPanel(run, buttons, resume, duplicate, window, log_scale, overlay, shown)


@dataclass
class TrainingPage:
    """What the tab is about, for all browser tabs alike: the runs, the preflight, and how curves are drawn."""

    desk: TrainingDesk
    datasets: DatasetDesk
    preflight: PreflightRunner
    options: training_plot.PlotOptions = training_plot.PlotOptions()
    overlay: tuple[str, ...] = ()


def render(page: TrainingPage, view: TrainingView) -> dict[str, Update]:
    """What every shown part of the tab should be now."""
    history, run = view.history, view.run
    others = {name: page.desk.history(find_run(name, page.desk.user_data.runs)) for name in page.overlay}
    return {
        "training-dataset": gr.update(choices=_dataset_choices(page)),
        **training_preflight.render(page.preflight.state),
        "training-run": gr.update(choices=list(view.names), value=run.name if run else None),
        "training-state": training_view.state_html(view),
        "training-memory": training_view.memory_html(history),
        "training-plot": training_plot.plot_html(history, page.options, others),
        "training-overlay": gr.update(choices=[name for name in view.names if run is None or name != run.name]),
        "training-samples": training_view.samples_html(run, history, page.desk.scores(run), page.desk.base_scores(run)),
        "training-notes": training_view.notes_html(history),
        "training-effect": training_view.effect_html(history),
        "training-log": training_view.log_html(run),
        "training-queue": training_view.queue_html(view.jobs),
        **_button_states(view),
    }


def _dataset_choices(page: TrainingPage) -> list[str]:
    return page.datasets.library.names()


def _button_states(view: TrainingView) -> dict[str, Update]:
    state = view.status.state if view.status else None
    working, waiting = state in ("running", "sampling"), state in BUSY_STATES
    can_resume = state in ("paused", "stopped", "failed", "new")
    return {
        "training-sample": gr.update(interactive=working),
        "training-save": gr.update(interactive=working),
        "training-pause": gr.update(interactive=waiting),
        "training-stop": gr.update(interactive=waiting),
        "training-resume": gr.update(interactive=can_resume),
        "training-duplicate": gr.update(interactive=view.run is not None),
    }
