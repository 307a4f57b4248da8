"""The form of a training: presets and the dataset, then every setting as `TrainingSettings` has it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from studio.core.paths import assets_folder
from studio.training.settings import PRESETS, TrainingSettings
from studio.ui.forms import SettingsForm, by_component
from studio.ui.shell.parts import paragraph

FIRST_PRESET = "quick-try"  # what fits the model and the dataset inside, and is done in minutes


OF_NO_PRESET = ("dataset", "name", "model")
LABELS = {name: field.title or name for name, field in TrainingSettings.model_fields.items() if name != "name"}
"""What the page calls the controls that a preflight depends on, by their names."""


@dataclass(frozen=True)
class TrainingForm:
    """The form: `settings` has the controls by the names of their settings."""

    preset: gr.Radio
    reset: gr.Button
    purpose: gr.HTML
    settings: SettingsForm

    @property
    def kept(self) -> dict[str, Component]:
        """What the browser keeps of it."""
        return {"preset": self.preset, **self.settings.fields}

    def filled_by(self, settings: TrainingSettings) -> dict[Any, Any]:
        """What an event returns so that the form says these settings."""
        return by_component(self.settings.fields, self.settings.shown(dict(settings)))


def build_form() -> TrainingForm:
    """Lay the form out with the first preset's values."""
    preset = gr.Radio(
        [(p.title, key) for key, p in PRESETS.items()],
        value=FIRST_PRESET,
        label="Preset",
        elem_id="training-preset",
        interactive=True,
    )
    reset = gr.Button("Back to the preset", elem_id="training-reset", size="sm")
    purpose = gr.HTML(purpose_html(FIRST_PRESET), elem_id="training-purpose", padding=False)
    form = SettingsForm(TrainingSettings, "training", preset_values(FIRST_PRESET))
    form.fields["dataset"] = gr.Dropdown(
        dataset_choices(()),
        value=dataset_choices(())[0][1],
        label=TrainingSettings.model_fields["dataset"].title,
        info="Or type the path of a folder.",
        allow_custom_value=True,
        elem_id="training-dataset",
        interactive=True,
    )
    with gr.Row(elem_classes="fields"):
        form.add("name")
        form.add("model")
    with gr.Row(elem_classes="fields training-fields"):
        form.rest()
    form.size_note = gr.HTML(elem_id="training-size-note", elem_classes="size-note", padding=False)
    form.accordions()
    return TrainingForm(preset, reset, purpose, form)


def dataset_choices(names: Sequence[str]) -> list[tuple[str, str]]:
    """The demo dataset, which is always there, and those of the Dataset tab."""
    demo = assets_folder() / "casual-shoes"
    return [("demo shoes (built in)", str(demo)), *((name, name) for name in names)]


def purpose_html(key: str) -> Markup:
    """What a preset is for."""
    return paragraph("quiet", PRESETS[key].purpose)


def preset_values(key: str) -> dict[str, object]:
    """The value of every setting under a preset, but of those that no preset has."""
    defaults = {
        name: field.default for name, field in TrainingSettings.model_fields.items() if name not in OF_NO_PRESET
    }
    return defaults | PRESETS[key].changes
