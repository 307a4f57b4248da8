"""The form of the Generate mode: from controls to settings, and from settings back to controls."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.core.settings import GenerationSettings, ImagesSettings, bounds, parse_settings
from studio.ui.forms import (
    FIELDS,
    NO_LORA,
    LoraRow,
    PictureControls,
    build_lora_row,
    build_picture_controls,
    lora_choices,
    size_values,
    size_words,
)

LORA_ROWS = 3  # more go into the prompt, as <lora:name:0.8>
RANDOM_SEED_LIMIT = 2**32  # as other programs draw them: ten digits, easy to write down
MODE = "generate"


@dataclass(frozen=True)
class GenerateForm:
    """The controls, by what they set."""

    prompt: gr.Textbox
    negative_prompt: gr.Textbox
    tokens: gr.HTML
    loras: tuple[LoraRow, ...]
    controls: PictureControls
    new_seed: gr.Checkbox
    num_images: gr.Slider

    def named(self) -> dict[str, gr.components.Component]:
        """Every control that is read, by its name."""
        rows = {f"lora_{i}": row.name for i, row in enumerate(self.loras)}
        strengths = {f"strength_{i}": row.strength for i, row in enumerate(self.loras)}
        return {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            **rows,
            **strengths,
            **self.controls.named(),
            "new_seed": self.new_seed,
            "num_images": self.num_images,
        }

    def filled_by(self, settings: GenerationSettings) -> list[Any]:
        """Updates for the controls of `named()`, in its order, so that they say these settings."""
        names = ("prompt", "negative_prompt", *self.controls.named())
        values: dict[str, Any] = {name: getattr(settings, name) for name in names if name != "size"}
        values["size"] = size_words(settings)
        tags = "".join(f" <lora:{c.name}:{c.strength:g}>" for c in settings.loras[len(self.loras) :])
        values["prompt"] = settings.prompt + tags
        for i in range(len(self.loras)):
            choice = settings.loras[i] if i < len(settings.loras) else None
            values[f"lora_{i}"] = choice.name if choice else NO_LORA
            values[f"strength_{i}"] = choice.strength if choice else 1.0
        values["new_seed"] = False
        return [gr.update(value=values[name]) if name in values else gr.skip() for name in self.named()]


def build() -> GenerateForm:
    """Lay the form out."""
    prompt = gr.Textbox(
        "a photo of red canvas sneakers, on grass",
        label=FIELDS["prompt"].title,
        lines=3,
        max_lines=8,
        elem_id="generate-prompt",
        interactive=True,
    )
    tokens = gr.HTML(elem_id="generate-tokens", padding=False)
    negative = gr.Textbox(
        "", label=FIELDS["negative_prompt"].title, lines=1, max_lines=4, elem_id="generate-negative", interactive=True
    )
    with gr.Group(elem_classes="lora-rows"):
        first = build_lora_row(MODE, 0, label="LoRA")
    with gr.Accordion("More LoRAs", open=False, elem_classes="lora-rows"):
        more = [build_lora_row(MODE, i, label=f"LoRA {i + 1}") for i in range(1, LORA_ROWS)]
    controls = build_picture_controls(MODE)
    with gr.Row(elem_classes="fields"):
        new_seed = gr.Checkbox(True, label="New seed each time", elem_id="generate-new-seed", interactive=True)
        low, high = bounds(ImagesSettings, "num_images")
        num_images = gr.Slider(
            low,
            min(high or 16, 16),
            1,
            step=1,
            label=ImagesSettings.model_fields["num_images"].title,
            elem_id="generate-num-images",
            interactive=True,
        )
    return GenerateForm(prompt, negative, tokens, (first, *more), controls, new_seed, num_images)


def to_settings(values: Mapping[str, Any]) -> ImagesSettings:
    """What the form says; a new seed is drawn where it asks for one.

    Raises:
        SettingsError: for each rule that is broken.
    """
    rows = [(values[f"lora_{i}"], values[f"strength_{i}"]) for i in range(LORA_ROWS)]
    seed = secrets.randbelow(RANDOM_SEED_LIMIT) if values["new_seed"] else values["seed"]
    names = {name for name in GenerationSettings.model_fields if name in values}
    generation = parse_settings(
        GenerationSettings,
        {
            **{name: values[name] for name in names},
            **size_values(values["size"]),
            "seed": seed,
            "loras": lora_choices(*rows),
        },
    )
    return parse_settings(ImagesSettings, {"generation": generation, "num_images": values["num_images"]})
