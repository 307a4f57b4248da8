"""The Training tab's form: every preset fills it, what it holds is what is trained."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from studio.core.errors import SettingsError
from studio.core.settings import SHIPPED_DATASET, parse_settings
from studio.training.begin import read_settings_file
from studio.training.presets import PRESETS
from studio.training.settings import TrainingSettings
from studio.ui.forms import read_settings
from studio.ui.training import form as training_form


@pytest.fixture(scope="module")
def form() -> training_form.TrainingForm:
    with gr.Blocks():
        return training_form.build_form(training_form.build_way())


def held_by(form: training_form.TrainingForm, settings: TrainingSettings) -> dict[str, Any]:
    """What the controls hold once settings were put into them."""
    updates = form.filled_by(settings)
    return {name: updates[control] for name, control in form.settings.fields.items()}


def test_every_preset_is_read_back_as_the_settings_that_it_is(form: training_form.TrainingForm) -> None:
    for key, preset in PRESETS.items():
        shown = form.settings.shown(training_form.preset_values(key))
        values = {"dataset": "d", "name": "lora", "model": "shoes-demo", **shown}
        assert set(values) == set(form.settings.fields)
        settings = parse_settings(TrainingSettings, read_settings(TrainingSettings, values))
        assert settings == parse_settings(TrainingSettings, {"dataset": "d", **preset.changes}), key


def test_the_form_begins_with_a_preset(form: training_form.TrainingForm) -> None:
    values = {name: control.value for name, control in form.settings.fields.items()}  # type: ignore[attr-defined]
    settings = parse_settings(TrainingSettings, read_settings(TrainingSettings, values))
    changes = PRESETS[training_form.FIRST_PRESET].changes
    assert settings == parse_settings(TrainingSettings, {"dataset": values["dataset"], **changes})


def test_a_runs_settings_fill_the_form_and_are_read_back_the_same(form: training_form.TrainingForm) -> None:
    settings = TrainingSettings(dataset="d", rank=64, snr_gamma=5, validation_prompts=("one", "two"))
    values = held_by(form, settings)
    assert (values["rank"], values["validation_prompts"], values["resolution"]) == (64, "one\ntwo", "")
    assert parse_settings(TrainingSettings, read_settings(TrainingSettings, values)) == settings


def test_the_demo_dataset_is_always_offered() -> None:
    assert training_form.dataset_choices(["mine"]) == [("demo shoes (built in)", SHIPPED_DATASET), ("mine", "mine")]


def test_the_script_knows_each_fields_id_section_and_the_presets_values(form: training_form.TrainingForm) -> None:
    html = training_form.changes_html()
    fields, presets = (
        json.loads(unescape(re.search(rf'data-{name}="([^"]*)"', html)[1]))  # type: ignore[index]
        for name in ("fields", "presets")
    )
    assert set(fields) == set(form.settings.fields)
    for name, control in form.settings.fields.items():
        section = control.parent
        while section is not None and not isinstance(section, gr.Accordion):
            section = section.parent
        assert (fields[name]["id"], fields[name]["section"]) == (control.elem_id, section.elem_id if section else "")
    assert set(presets) == set(PRESETS)
    assert presets["quick-try"]["max_train_steps"] == 400
    assert presets["seed"]["validation_prompts"] == ""
    assert "dataset" not in presets["seed"], "no preset has one, so it is never marked"


def test_a_settings_file_has_all_settings_and_is_read_again(tmp_path: Path) -> None:
    settings = TrainingSettings(dataset="d", rank=64, validation_prompts=("one", "two"))
    file = tmp_path / "settings.json"
    file.write_text(settings.model_dump_json(indent=2), encoding="utf-8")
    assert read_settings_file(file) == settings
    for content, words in (("[1]", "by their names"), ("{", "settings.json"), ('{"dataset": "d", "rnk": 3}', "rnk")):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(SettingsError, match=words):
            read_settings_file(file)
