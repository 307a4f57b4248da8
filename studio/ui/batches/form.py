"""The form of a batch: the plan's texts, what all images share, what is kept, how it is stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.batches.settings import BatchSettings
from studio.core.errors import SettingsError
from studio.core.settings import GenerationSettings
from studio.ui.batches import grid_box as batch_grid_box
from studio.ui.forms import (
    NO_LORA,
    LoraRow,
    PictureControls,
    build_lora_row,
    build_picture_controls,
    help_html,
    lora_choices,
    setting_control,
    size_values,
    size_words,
    whole_if_whole,
)

FORM = "batch"
LORA_ROWS = 3  # more go into a prompt, as <lora:name:0.8>, or into a column
SOURCES = ("prompt_file", "wildcards", "precision")
NUMBERS = ("combine", "total", "images_per_prompt")
KEPT = (
    "max_retries",
    "reject_copies",
    "near_duplicate_bits",
    "least_whiteness",
    "most_offset",
    "most_colour_difference",
    "least_sharpness",
    "least_distance",
    "nearest_to",
)
STORED = ("picture_format", "quality", "text_sidecars", "pictures_per_shard", "grid_x", "grid_y")
# Numbers that may be left out: a number box of the page cannot be empty, so 0 stands for that.
ZERO_WORDS: Mapping[str, str] = {
    "total": "all",
    "least_whiteness": "any",
    "most_offset": "any",
    "most_colour_difference": "any",
    "least_sharpness": "any",
    "least_distance": "any",
}
LINES: Mapping[str, int] = {"prompts": 3, "attributes": 3}
FIELDS = BatchSettings.model_fields
# Half a second after the last key: a request for each key would keep the page busier than whoever types.
_TYPED = """let timer;
element.closest(".controls").addEventListener("input", (event) => {
  if (!event.target.matches("textarea, input:not([type=range])")) return;
  clearTimeout(timer);
  timer = setTimeout(() => trigger("click"), 400);
});"""
OWN_NAMES = tuple(name for name in FIELDS if name not in ("cpu", "generation"))
EXAMPLE: Mapping[str, object] = {
    "name": "shoes",
    "prompts": "product photo of {colour} {type}, white background",
    "attributes": "colour: black, brown, red, navy, green\ntype: sneakers, boots, loafers, sandals",
    "images_per_prompt": 3,
    "generation": {"prompt": "", "num_inference_steps": 20, "loras": [{"name": "white-ground"}]},
}
"""Shoes that the model inside can draw: sixty images in about a minute."""


@dataclass(frozen=True)
class BatchForm:
    """The form's controls: `fields` by the names of the batch's own settings."""

    fields: dict[str, gr.components.Component]
    negative_prompt: gr.Textbox
    loras: tuple[LoraRow, ...]
    controls: PictureControls
    problem: gr.HTML
    grid: batch_grid_box.GridBox
    example: gr.Button

    def changes(self) -> tuple[Any, ...]:
        """The events after which the plan is another: what was typed, a while after, and what was picked."""
        picked = (self.fields["combine"], self.controls.size, self.controls.scheduler)
        return (self.problem.click, *(control.input for control in picked))

    def named(self) -> dict[str, gr.components.Component]:
        """Every control that a setting comes from, by its name."""
        return {
            **self.fields,
            "negative_prompt": self.negative_prompt,
            **{f"lora_{i}": row.name for i, row in enumerate(self.loras)},
            **{f"strength_{i}": row.strength for i, row in enumerate(self.loras)},
            **self.controls.named(),
        }

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        """What a refresh keeps true."""
        return {f"batch-lora-{i}": row.name for i, row in enumerate(self.loras)}


def build() -> BatchForm:
    """Lay the form out; why its plan is none is said below its texts."""
    fields: dict[str, gr.components.Component] = {}
    with gr.Row(elem_classes="fields"):
        fields["name"], fields["model"] = _control("name", info=False), _control("model", info=False)
    example = gr.Button("Fill in an example", size="sm", elem_id="batch-example")
    for name in LINES:
        fields[name] = _control(name, info=False)
        gr.HTML(help_html(FIELDS[name].description or ""), elem_classes="help", padding=False)
    problem = gr.HTML(elem_id="batch-problem", padding=False, js_on_load=_TYPED)
    with gr.Row(elem_classes="fields batch-numbers"):
        fields.update({name: _control(name, info=False) for name in NUMBERS})
    with gr.Group(elem_classes="lora-rows"):
        first = build_lora_row(FORM, 0, label="LoRA")
    with gr.Accordion("More LoRAs", open=False, elem_classes="lora-rows"):
        more = [build_lora_row(FORM, i, label=f"LoRA {i + 1}") for i in range(1, LORA_ROWS)]
    shared = GenerationSettings.model_fields
    negative = gr.Textbox(
        "",
        label=shared["negative_prompt"].title,
        lines=1,
        max_lines=4,
        elem_id="batch-negative-prompt",
        interactive=True,
    )
    controls = build_picture_controls(FORM)
    with gr.Accordion("Prompt file, wildcards, precision", open=False):
        fields.update({name: _control(name) for name in SOURCES})
    with gr.Accordion("What is kept", open=False):
        fields.update({name: _control(name) for name in KEPT})
    with gr.Accordion("How it is stored", open=False):
        fields.update({name: _control(name) for name in STORED})
    with gr.Accordion("X/Y grid", open=False):
        grid = batch_grid_box.build()
    return BatchForm(fields, negative, (first, *more), controls, problem, grid, example)


def read_form(values: Mapping[str, Any]) -> dict[str, object]:
    """What the controls hold, as values for the settings: where 0 stands for no value, None.

    Raises:
        SettingsError: where the size is none.
    """
    rows = [(values[f"lora_{i}"], values[f"strength_{i}"]) for i in range(LORA_ROWS)]
    shared = {name: whole_if_whole(values[name]) for name in GenerationSettings.model_fields if name in values}
    own = {name: _read(name, values[name]) for name in OWN_NAMES}
    return {**own, "generation": {"prompt": "", **shared, **size_values(values["size"]), "loras": lora_choices(*rows)}}


def form_values(settings: BatchSettings) -> dict[str, Any]:
    """What every control of `named()` shows of a batch's settings.

    Raises:
        SettingsError: where it has more LoRAs than the form has rows.
    """
    shared = settings.generation
    if len(shared.loras) > LORA_ROWS:
        raise SettingsError(
            f"This batch has {len(shared.loras)} LoRAs for all images, and the form has rows for {LORA_ROWS}. Begin "
            "another from its settings.json: python -m studio batch FILE."
        )
    rows: dict[str, Any] = {}
    for i in range(LORA_ROWS):
        choice = shared.loras[i] if i < len(shared.loras) else None
        rows[f"lora_{i}"] = choice.name if choice else NO_LORA
        rows[f"strength_{i}"] = choice.strength if choice else 1.0
    own = {name: _shown(name, getattr(settings, name)) for name in OWN_NAMES}
    names = set(GenerationSettings.model_fields) - {"prompt", "loras", "width", "height"}
    return {**own, **rows, **{name: getattr(shared, name) for name in names}, "size": size_words(shared)}


def _control(name: str, *, info: bool = True) -> gr.components.Component:
    default = _shown(name, FIELDS[name].default)
    zero, lines = ZERO_WORDS.get(name, ""), LINES.get(name, 1)
    return setting_control(BatchSettings, name, default, form=FORM, info=info, zero=zero, lines=lines)


def _shown(name: str, value: object) -> object:
    return 0 if name in ZERO_WORDS and value is None else value


def _read(name: str, value: object) -> object:
    return None if name in ZERO_WORDS and not value else whole_if_whole(value)
