"""The form of a training: presets and the dataset, then every setting as `TrainingSettings` has it.

The page's script searches it, marks what differs from the preset, and shows that as chips that put one setting back.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from studio.core.files import remove_uploads
from studio.core.language import _
from studio.core.settings import SHIPPED_DATASET
from studio.core.text import template
from studio.datasets.library import DatasetLibrary
from studio.training.begin import read_settings_file
from studio.training.presets import PRESETS
from studio.training.settings import TrainingSettings
from studio.ui.forms import SettingsForm, by_component, form_groups, section_slug, shown_value
from studio.ui.shell.commands import COMPARED_ON_LOAD
from studio.ui.shell.parts import QUIET, data_url, paragraph, save_link, toast, toasts, uploads_folder
from studio.ui.shell.path_chooser import FOLDER, path_list
from studio.ui.shell.selection import FieldErrors
from studio.ui.training.presets import MeasuredPresets, preset_choices

FIRST_PRESET = "quick-try"  # what fits the model and the dataset inside, and is done in minutes


_template = template("ui/templates/training.html")
_RESETS = """element.addEventListener("click", (event) => {
  const chip = event.target.closest("button[data-setting]");
  if (chip) trigger("click", { name: chip.dataset.setting });
});
"""
_SAVE_SETTINGS = '() => document.querySelector("#training-settings-link a")?.click()'
SHORT, FULL = "short", "full"
OF_NO_PRESET = ("dataset", "name", "model")


@dataclass(frozen=True)
class TrainingForm:
    """The form: `settings` has the controls by the names of their settings, `way` shows them or the short way."""

    way: gr.Radio
    preset: gr.Radio
    reset: gr.Button
    purpose: gr.HTML
    changes: gr.HTML
    save: gr.Button
    load: gr.UploadButton
    link: gr.HTML
    settings: SettingsForm

    @property
    def kept(self) -> dict[str, Component]:
        """What the browser keeps of it."""
        return {"way": self.way, "preset": self.preset, **self.settings.fields}

    @property
    def filled(self) -> list[Component]:
        """The outputs of an event that fills it."""
        return [self.way, *self.settings.fields.values()]

    def filled_by(self, settings: TrainingSettings) -> dict[Any, Any]:
        """What an event returns so that the form is shown, and says these settings."""
        return {self.way: FULL, **by_component(self.settings.fields, self.settings.shown(dict(settings)))}


def labels() -> dict[str, str]:
    """What the page calls the controls that a preflight depends on, by their names."""
    return {name: _(field.title or name) for name, field in TrainingSettings.model_fields.items() if name != "name"}


def build_way() -> gr.Radio:
    """The switch between the short way and the full form; the style sheet shows the one that is chosen."""
    return gr.Radio(
        [(_("Simple"), SHORT), (_("All settings"), FULL)],
        value=SHORT,
        label=_("How to choose the settings"),
        show_label=False,
        container=False,
        elem_id="training-way",
        elem_classes="way",
        interactive=True,
    )


def build_form(way: gr.Radio) -> TrainingForm:
    """Lay the form out with the first preset's values."""
    preset = gr.Radio(
        preset_choices(MeasuredPresets()),
        value=FIRST_PRESET,
        label=_("Preset"),
        elem_id="training-preset",
        interactive=True,
    )
    purpose = gr.HTML(purpose_html(FIRST_PRESET), elem_id="training-purpose", padding=False)
    changes = gr.HTML(changes_html(), elem_id="training-changes", padding=False, js_on_load=_RESETS + COMPARED_ON_LOAD)
    with gr.Row(elem_classes="form-tools"):
        reset = gr.Button(_("Back to the preset"), elem_id="training-reset", size="sm", min_width=120)
        save = gr.Button(_("Save settings"), elem_id="training-save-settings", size="sm", min_width=96)
        load = gr.UploadButton(
            _("Load settings"), elem_id="training-load-settings", file_types=[".json"], size="sm", min_width=96
        )
    link = gr.HTML(elem_id="training-settings-link", visible="hidden", padding=False)
    form = SettingsForm(TrainingSettings, "training", preset_values(FIRST_PRESET))
    form.fields["dataset"] = path_list(
        dataset_choices(()),
        takes=[FOLDER],
        value=dataset_choices(())[0][1],
        label=labels()["dataset"],
        info=_("Or type the path of a folder."),
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
    return TrainingForm(way, preset, reset, purpose, changes, save, load, link, form)


def dataset_choices(names: Sequence[str]) -> list[tuple[str, str]]:
    """The demo dataset, which is always there, and those of the Dataset tab."""
    return [(_("demo shoes (built in)"), SHIPPED_DATASET), *((name, name) for name in names)]


def chosen_in(lists: Sequence[gr.Dropdown], name: str, library: DatasetLibrary) -> dict[Any, Any]:
    """What an event returns so that lists of datasets have one chosen, which may be new."""
    choices = dataset_choices(library.names())
    return {each: gr.update(choices=choices, value=name) for each in lists}  # Gradio empties each update


def changes_html() -> Markup:
    """The search, and where the script shows what differs from the preset; with all that it needs to know."""
    fields = {
        name: {
            "label": _(field.title or name),
            "words": " ".join((_(field.title or name), _(field.description or name), name)).casefold(),
            "id": f"training-{name.replace('_', '-')}",
            "section": f"training-section-{section_slug(group)}" if group else "",
        }
        for group, names in form_groups(TrainingSettings).items()
        for name in names
        for field in (TrainingSettings.model_fields[name],)
    }
    shown = {
        key: {name: shown_value(value) for name, value in preset_values(key).items() if name in fields}
        for key in PRESETS
    }
    return _template("form_changes", fields=json.dumps(fields), presets=json.dumps(shown))


def wire_settings(
    form: TrainingForm,
    errors: FieldErrors,
    settings_of: Callable[[dict[str, Any]], TrainingSettings],
) -> None:
    """Connect the chips, and the settings as a file: out of the form, and into it."""
    fields = form.settings.fields

    def put_back(preset: str, event: gr.EventData) -> dict[Any, Any]:
        name = str(getattr(event, "name", ""))
        values = form.settings.shown(preset_values(preset)) if preset in PRESETS else {}
        return by_component(fields, {name: values[name]} if name in values else {})

    def save(**values: Any) -> Markup:  # noqa: ANN401 - the form's values
        with toasts():
            settings = settings_of(values)
        content = settings.model_dump_json(indent=2, exclude={"cpu"}).encode() + b"\n"  # of this start of the studio
        return save_link(
            f"{settings.name}-settings.json", data_url(content, "application/json"), _("Save the settings")
        )

    def load(file: str) -> dict[Any, Any]:
        uploaded = Path(file)
        with toasts():
            settings = read_settings_file(uploaded)
            remove_uploads([uploaded], uploads_folder())
            toast(_("The form has the settings of {name}.", name=uploaded.name))
            return form.filled_by(settings)

    form.changes.click(put_back, form.preset, list(fields.values()), **QUIET)
    saved = errors.press(form.save.click, save, inputs_kwargs=fields, outputs=[form.link], **QUIET)
    saved.success(fn=None, js=_SAVE_SETTINGS, queue=False, show_progress="hidden")
    form.load.upload(load, form.load, form.filled, **QUIET)


def purpose_html(key: str) -> Markup:
    """What a preset is for."""
    return paragraph("quiet", _(PRESETS[key].purpose))


def preset_values(key: str) -> dict[str, object]:
    """The value of every setting under a preset, but of those that no preset has."""
    defaults = {
        name: field.default for name, field in TrainingSettings.model_fields.items() if name not in OF_NO_PRESET
    }
    return defaults | PRESETS[key].changes
