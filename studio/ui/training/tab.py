"""The Training tab: the form on the left, the run on the right with its images, other runs and the queue."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.core.settings import parse_settings
from studio.training.begin import begin_run
from studio.training.session import TrainingView
from studio.training.settings import TrainingSettings
from studio.ui.inference.compare_form import CompareForm
from studio.ui.shell.parts import QUIET, Update, toasts
from studio.ui.shell.selection import Selection, changed, read_selection
from studio.ui.training import form as training_form
from studio.ui.training import panel as training_panel
from studio.ui.training import preflight as training_preflight
from studio.ui.training import results as training_results
from studio.ui.training.page import TrainingPage


@dataclass(frozen=True)
class TrainingTab:
    """The tab's parts."""

    form: training_form.TrainingForm
    preflight: training_preflight.PreflightBox
    start: gr.Button
    panel: training_panel.RunPanel

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        """Every part that a refresh keeps true, by its name."""
        return {"training-dataset": self.form.dataset, **self.preflight.shown, **self.panel.shown}


def build() -> TrainingTab:
    """Lay the tab out."""
    with gr.Row(elem_classes="workbench training"):
        with gr.Column(elem_classes="controls", min_width=320):
            with gr.Row(elem_classes="actions"):
                start = gr.Button("Start", variant="primary", elem_id="start-training")
                check = gr.Button("Preflight", elem_id="run-preflight")
            preflight = training_preflight.build(check)
            form = training_form.build()
        with gr.Column(elem_classes="canvas", min_width=480):
            panel = training_panel.build()
    return TrainingTab(form, preflight, start, panel)


def render(page: TrainingPage, view: TrainingView, selection: Selection) -> dict[str, Update]:
    """What every shown part of the tab should be now."""
    return {
        "training-dataset": gr.update(choices=training_form.dataset_choices(page.datasets.library.names())),
        **training_preflight.render(page.preflight.state),
        **training_panel.render(page, view, selection),
    }


def wire(
    tab: TrainingTab,
    page: TrainingPage,
    selection: gr.HTML,
    *,
    compare: CompareForm,
    then_refresh: Callable[[Any], Any],
) -> None:
    """Connect the form, the preflight and the run; `compare` takes the LoRA that is sent to Inference."""
    form = tab.form
    named = form.named()

    def show_preset(preset: str) -> list[Any]:
        values = training_form.preset_values(preset)
        return [training_form.purpose_words(preset), *(values[name] for name in form.fields)]

    def start(selection: str, **values: Any) -> str:  # noqa: ANN401 - the form's values
        with toasts():
            run = begin_run(settings_of(values, page), page.session.user_data)
            page.session.enqueue(run)
            return changed(read_selection(selection), run=run.name, image=None)

    def settings_json(values: dict[str, Any]) -> str:
        with toasts():
            return settings_of(values, page).model_dump_json()

    form.preset.input(show_preset, form.preset, [form.purpose, *form.fields.values()], **QUIET)
    training_preflight.wire(
        tab.preflight, page.preflight, named, settings_json=settings_json, then_refresh=then_refresh
    )
    started = tab.start.click(start, inputs_kwargs={"selection": selection, **named}, outputs=selection, **QUIET)
    then_refresh(started)
    training_panel.wire(tab.panel, page, selection, then_refresh=then_refresh)
    training_results.wire(tab.panel.results, page, selection, form, compare, then_refresh=then_refresh)


def settings_of(values: dict[str, Any], page: TrainingPage) -> TrainingSettings:
    """The settings that the form's values are; a studio that was started with --cpu trains so too.

    Raises:
        SettingsError: where one breaks its rule.
    """
    return parse_settings(TrainingSettings, {**training_form.read_form(values), "cpu": page.cpu_only})
