"""The Training tab: the form on the left, the run on the right; below it pictures, past runs and the queue."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr

from studio.dataset.desk import DatasetDesk
from studio.errors import RunError
from studio.jobs.preflight_runner import PreflightRunner
from studio.jobs.training_desk import TrainingDesk, TrainingView
from studio.loras.library import LoraLibrary
from studio.runs.begin import begin_run
from studio.runs.folder import BUSY_STATES, RunFolder, RunRequest, find_run
from studio.runs.run_settings import read_run_settings
from studio.settings import parse_settings
from studio.training_settings import TrainingSettings
from studio.ui import training_form, training_plot, training_preflight, training_view
from studio.ui.html import text
from studio.ui.parts import Update
from studio.ui.toasts import toasts

HIDDEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# What changes with nearly every step; all else changes now and then.
LIVELY = ("training-state", "training-memory", "training-plot", "training-log", "training-queue")
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
    take_proposed: gr.Button
    window: gr.Dropdown
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
    with gr.Row(elem_classes="proposal-row"):
        proposal = gr.HTML(elem_id="training-proposal", padding=False)
        take_proposed = gr.Button("Add it to the library", elem_id="training-take", size="sm", visible=False)
    memory = gr.HTML(elem_id="training-memory", padding=False)
    with gr.Row(elem_classes="plot-options"):
        window = gr.Dropdown(
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
    files = gr.HTML(elem_id="training-files", padding=False)
    notes = gr.HTML(elem_id="training-notes", padding=False)
    with gr.Accordion("Effect per layer", open=False):
        effect = gr.HTML(elem_id="training-effect", padding=False)
    with gr.Accordion("Log", open=False):
        log = gr.HTML(elem_id="training-log", padding=False)
    queue = gr.HTML(elem_id="training-queue", padding=False)
    shown: dict[str, gr.components.Component] = {
        "training-run": run,
        "training-state": state,
        "training-proposal": proposal,
        "training-memory": memory,
        "training-plot": plot,
        "training-overlay": overlay,
        "training-samples": samples,
        "training-files": files,
        "training-notes": notes,
        "training-effect": effect,
        "training-log": log,
        "training-queue": queue,
        **{f"training-{request}": button for request, button in buttons.items()},
        "training-resume": resume,
        "training-duplicate": duplicate,
        "training-take": take_proposed,
    }
    return RunPanel(run, buttons, resume, duplicate, take_proposed, window, log_scale, overlay, shown)


@dataclass
class TrainingPage:
    """What the tab is about, for all browser tabs alike: the runs, the preflight, and how curves are drawn."""

    desk: TrainingDesk
    datasets: DatasetDesk
    preflight: PreflightRunner
    cpu_only: bool = False
    options: training_plot.PlotOptions = field(default_factory=training_plot.PlotOptions)
    overlay: tuple[str, ...] = ()
    plot: training_plot.PlotCache = field(default_factory=training_plot.PlotCache)


def render(page: TrainingPage, view: TrainingView) -> dict[str, Update]:
    """What every shown part of the tab should be now."""
    history, run = view.history, view.run
    running = view.status is not None and view.status.state in BUSY_STATES
    others = {name: page.desk.history(find_run(name, page.desk.user_data.runs)) for name in page.overlay}
    return {
        "training-dataset": gr.update(choices=training_form.dataset_choices(page.datasets.library.names())),
        **training_preflight.render(page.preflight.state),
        "training-run": gr.update(choices=list(view.names), value=run.name if run else None),
        "training-state": training_view.state_html(view),
        "training-memory": training_view.memory_html(history),
        "training-plot": page.plot.html(history, page.options, others, running=running),
        "training-overlay": gr.update(choices=[name for name in view.names if run is None or name != run.name]),
        "training-samples": training_view.samples_html(run, history),
        "training-proposal": training_view.proposal_html(history),
        "training-files": training_view.files_html(run, history),
        "training-take": gr.update(visible=history is not None and history.proposal is not None),
        "training-notes": training_view.notes_html(history),
        "training-effect": training_view.effect_html(history),
        "training-log": training_view.log_html(run),
        "training-queue": training_view.queue_html(view.jobs),
        **_button_states(view),
    }


def _button_states(view: TrainingView) -> dict[str, Update]:
    state = view.status.state if view.status else None
    working, waiting = state in ("running", "sampling"), state in BUSY_STATES
    # The run says that it ended a moment before the queue knows; until then there is nothing to resume.
    in_queue = any(
        view.run and line.job.run == view.run and line.job.state in ("queued", "running") for line in view.jobs
    )
    can_resume = state in ("paused", "stopped", "failed", "new") and not in_queue
    return {
        "training-sample": gr.update(interactive=working),
        "training-save": gr.update(interactive=working),
        "training-pause": gr.update(interactive=waiting),
        "training-stop": gr.update(interactive=waiting),
        "training-resume": gr.update(interactive=can_resume),
        "training-duplicate": gr.update(interactive=view.run is not None),
    }


def wire(tab: TrainingTab, page: TrainingPage, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the form, the run's buttons and the plot's options."""
    form, panel = tab.form, tab.panel
    named = form.named()

    def show_preset(preset: str) -> list[Any]:
        values = training_form.preset_values(preset)
        return [training_form.purpose_words(preset), *(values[name] for name in form.fields)]

    def start(**values: Any) -> None:  # noqa: ANN401 - the form's values
        with toasts():
            page.desk.queue_run(begin_run(settings_of(values, page), page.desk.user_data))

    form.preset.input(show_preset, form.preset, [form.purpose, *form.fields.values()], **HIDDEN)

    def settings_json(values: dict[str, Any]) -> str:
        with toasts():
            return settings_of(values, page).model_dump_json()

    training_preflight.wire(
        tab.preflight, page.preflight, named, settings_json=settings_json, then_refresh=then_refresh
    )
    then_refresh(tab.start.click(start, inputs_kwargs=named, **HIDDEN))
    _wire_run(panel, page, form, then_refresh=then_refresh)
    _wire_plot(panel, page, then_refresh=then_refresh)


def settings_of(values: dict[str, Any], page: TrainingPage) -> TrainingSettings:
    """The settings that the form's values are; a studio that was started with --cpu trains so too.

    Raises:
        SettingsError: where one breaks its rule.
    """
    return parse_settings(TrainingSettings, {**training_form.read_form(values), "cpu": page.cpu_only})


def _wire_run(
    panel: RunPanel, page: TrainingPage, form: training_form.TrainingForm, *, then_refresh: Callable[[Any], None]
) -> None:
    def looked_at() -> RunFolder:
        run = page.desk.view.run
        if run is None:
            raise RunError("There is no run yet.")
        return run

    def choose(name: str) -> None:
        with toasts():
            page.desk.choose(name)

    def asking(request: RunRequest) -> Callable[[], None]:
        def act() -> None:
            with toasts():
                page.desk.ask(looked_at(), request)

        return act

    def resume() -> None:
        with toasts():
            page.desk.resume(looked_at())

    def copy() -> list[Any]:
        with toasts():
            settings = read_run_settings(looked_at())
            values = training_form.settings_values(settings)
            return [settings.dataset, settings.name, settings.model, *(values[name] for name in form.fields)]

    def take() -> None:
        with toasts():
            view = page.desk.view
            proposal = view.history.proposal if view.history else None
            if view.run is None or proposal is None:
                raise RunError("No step is proposed yet.")
            name = f"{read_run_settings(view.run).name} step {proposal.step}"
            card = LoraLibrary(page.desk.user_data.loras).add(view.run.root / proposal.lora, name=name)
            gr.Info(f"In the library as {text(card.name)}: choose it under Inference.")

    panel.take_proposed.click(take, api_visibility="private")
    then_refresh(panel.run.input(choose, panel.run, None, **HIDDEN))
    for request, button in panel.buttons.items():
        then_refresh(button.click(asking(request), **HIDDEN))
    then_refresh(panel.resume.click(resume, **HIDDEN))
    panel.duplicate.click(copy, None, [form.dataset, form.name, form.model, *form.fields.values()], **HIDDEN)


def _wire_plot(panel: RunPanel, page: TrainingPage, *, then_refresh: Callable[[Any], None]) -> None:
    def change_window(window: str) -> None:
        page.options = replace(page.options, window=window)

    def change_scale(log: bool) -> None:
        page.options = replace(page.options, log=log)

    def lay_over(names: list[str]) -> None:
        page.overlay = tuple(names)

    then_refresh(panel.window.input(change_window, panel.window, None, **HIDDEN))
    then_refresh(panel.log_scale.input(change_scale, panel.log_scale, None, **HIDDEN))
    then_refresh(panel.overlay.input(lay_over, panel.overlay, None, **HIDDEN))
