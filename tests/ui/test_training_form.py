"""The Training tab's form: every setting has its place, every preset fills it, what it holds is what is trained."""

import gradio as gr

from studio.core.settings import parse_settings
from studio.training.settings import PRESETS, TrainingSettings
from studio.ui.training import form as training_form


def build() -> training_form.TrainingForm:
    with gr.Blocks():
        return training_form.build()


def test_every_setting_is_in_the_form_but_those_of_the_command_line() -> None:
    assert set(build().named()) == set(TrainingSettings.model_fields) - {"cpu"}


def test_every_preset_is_read_back_as_the_settings_that_it_is() -> None:
    for key, preset in PRESETS.items():
        values = {"dataset": "d", "name": "lora", "model": "shoes-demo", **training_form.preset_values(key)}
        settings = parse_settings(TrainingSettings, training_form.read_form(values))
        assert settings == parse_settings(TrainingSettings, {"dataset": "d", **preset.changes}), key


def test_numbers_of_the_page_become_whole_where_they_are_and_lines_become_prompts() -> None:
    typed = {"rank": 16.0, "learning_rate": 0.001, "validation_prompts": " a \n\nb", "snr_gamma": None}
    read = training_form.read_form(typed)
    assert read == {"rank": 16, "learning_rate": 0.001, "validation_prompts": ("a", "b"), "snr_gamma": None}
    assert isinstance(read["rank"], int)


def test_a_runs_settings_fill_the_form() -> None:
    settings = TrainingSettings(dataset="d", rank=64, validation_prompts=("one", "two"))
    values = training_form.settings_values(settings)
    assert (values["rank"], values["validation_prompts"]) == (64, "one\ntwo")


def test_numbers_that_may_be_left_out_are_0_on_the_page() -> None:
    values = training_form.preset_values("seed")
    assert (values["resolution"], values["snr_gamma"]) == (0, 0)
    read = training_form.read_form({"resolution": 0, "snr_gamma": 0, "keep_every_steps": 500})
    assert read == {"resolution": None, "snr_gamma": None, "keep_every_steps": 500}


def test_the_demo_dataset_is_always_offered() -> None:
    assert [title for title, _ in training_form.dataset_choices(["mine"])] == ["demo shoes (inside)", "mine"]
