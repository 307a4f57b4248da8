"""The form of a training: presets, the six fields that people change, all others folded away."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.paths import assets_folder
from studio.training.settings import PRESETS, TrainingSettings
from studio.ui.forms import setting_control, whole_if_whole
from studio.ui.shell.parts import paragraph

FIRST_FIELDS = ("max_train_steps", "rank", "learning_rate", "resolution", "train_batch_size", "trigger_word")
NOT_IN_FORM = ("dataset", "model", "name", "cpu", *FIRST_FIELDS)
GROUPS: Mapping[str, tuple[str, ...]] = {
    "What is learned": (
        "lora_alpha",
        "lora_dropout",
        "targets",
        "train_text_encoder",
        "text_encoder_learning_rate",
        "use_dora",
        "use_rslora",
    ),
    "How it is learned": (
        "gradient_accumulation_steps",
        "optimizer",
        "lr_scheduler",
        "lr_warmup_steps",
        "lr_num_cycles",
        "weight_decay",
        "max_grad_norm",
        "mixed_precision",
        "tf32",
        "gradient_checkpointing",
        "seed",
    ),
    "The loss": (
        "prediction_type",
        "snr_gamma",
        "noise_offset",
        "prior_dataset",
        "prior_loss_weight",
        "mask_folder",
        "unmasked_weight",
        "use_ema",
        "ema_decay",
    ),
    "Images and captions": (
        "use_buckets",
        "crop",
        "horizontal_flip",
        "caption_dropout",
        "shuffle_caption",
        "keep_tokens",
    ),
    "Watching and keeping": (
        "validation_prompts",
        "num_validation_images",
        "validation_steps",
        "validation_seed",
        "validation_inference_steps",
        "validation_guidance_scale",
        "held_out_percent",
        "held_out_steps",
        "checkpointing_steps",
        "keep_checkpoints",
        "keep_every_steps",
        "save_dtype",
        "wandb",
    ),
}
# Numbers that may be left out: a number box of the page cannot be empty, so 0 stands for that.
ZERO_WORDS: Mapping[str, str] = {"resolution": "model's own", "snr_gamma": "off", "keep_every_steps": "none"}
FIELDS = TrainingSettings.model_fields


@dataclass(frozen=True)
class TrainingForm:
    """The form's controls: `fields` by the names of their settings."""

    preset: gr.Radio
    purpose: gr.HTML
    dataset: gr.Dropdown
    name: gr.Textbox
    model: gr.Textbox
    fields: dict[str, gr.components.Component]

    def named(self) -> dict[str, gr.components.Component]:
        """Every control that a setting comes from, by the setting's name."""
        return {"dataset": self.dataset, "name": self.name, "model": self.model, **self.fields}


def build() -> TrainingForm:
    """Lay the form out with the first preset's values."""
    first = "quick-try"  # what fits the model and the dataset inside, and is done in minutes
    preset = gr.Radio(
        [(p.title, key) for key, p in PRESETS.items()],
        value=first,
        label="Begin with",
        elem_id="training-preset",
        interactive=True,
    )
    purpose = gr.HTML(purpose_words(first), elem_id="training-purpose", padding=False)
    dataset = gr.Dropdown(
        dataset_choices(()),
        value=dataset_choices(())[0][1],
        label=FIELDS["dataset"].title,
        info="Or type the path of a folder.",
        allow_custom_value=True,
        elem_id="training-dataset",
        interactive=True,
    )
    with gr.Row(elem_classes="fields"):
        name = gr.Textbox(FIELDS["name"].default, label=FIELDS["name"].title, elem_id="training-name", min_width=120)
        model = gr.Textbox(
            FIELDS["model"].default, label=FIELDS["model"].title, elem_id="training-model", max_lines=1, min_width=160
        )
    fields: dict[str, gr.components.Component] = {}
    with gr.Row(elem_classes="fields training-fields"):
        for field in FIRST_FIELDS:
            fields[field] = _control(field, info=False)
    for title, names in GROUPS.items():
        with gr.Accordion(title, open=False):
            for field in names:
                fields[field] = _control(field, info=True)
    return TrainingForm(preset, purpose, dataset, name, model, fields)


def dataset_choices(names: Sequence[str]) -> list[tuple[str, str]]:
    """The demo dataset, which is always there, and those of the Dataset tab."""
    demo = assets_folder() / "casual-shoes"
    return [("demo shoes (inside)", str(demo)), *((name, name) for name in names)]


def purpose_words(key: str) -> Markup:
    """What a preset is for."""
    return paragraph("quiet", PRESETS[key].purpose)


def preset_values(key: str) -> dict[str, Any]:
    """What every control of the form shows under a preset."""
    changes = PRESETS[key].changes
    return {name: _shown(name, changes.get(name, FIELDS[name].default)) for name in _names()}


def settings_values(settings: TrainingSettings) -> dict[str, Any]:
    """What every control of the form shows of a run's settings."""
    return {name: _shown(name, getattr(settings, name)) for name in _names()}


def read_form(values: Mapping[str, Any]) -> dict[str, object]:
    """What the controls hold, as values for the settings: an empty number is None, lines are prompts."""
    return {name: _read(name, value) for name, value in values.items()}


def _names() -> tuple[str, ...]:
    return (*FIRST_FIELDS, *(name for names in GROUPS.values() for name in names))


def _control(name: str, *, info: bool) -> gr.components.Component:
    """The control that fits a setting's type."""
    return setting_control(
        TrainingSettings,
        name,
        preset_values("quick-try")[name],
        form="training",
        info=info,
        zero=ZERO_WORDS.get(name, ""),
        lines=2 if name == "validation_prompts" else 1,
    )


def _shown(name: str, value: object) -> object:
    if name == "validation_prompts":
        assert isinstance(value, tuple)
        return "\n".join(value)
    return 0 if name in ZERO_WORDS and value is None else value


def _read(name: str, value: object) -> object:
    if name == "validation_prompts":
        return tuple(line.strip() for line in str(value or "").splitlines() if line.strip())
    if name in ZERO_WORDS and not value:
        return None
    return whole_if_whole(value)
