"""The form of the Compare mode: prompts, two sides, and what both share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.core.errors import SettingsError
from studio.core.settings import CompareSettings, GenerationSettings, bounds, parse_settings
from studio.loras.library import LoraLibrary
from studio.ui.forms import (
    LoraRow,
    PictureControls,
    build_lora_row,
    build_picture_controls,
    lora_choices,
    size_values,
)

MODE, BASE = "compare", "base"
STRIP = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
FIELDS = CompareSettings.model_fields
FIRST_PROMPTS = "black casual shoes, white background\nred canvas sneakers, white background"


@dataclass(frozen=True)
class CompareForm:
    """The controls, by what they set."""

    prompts: gr.Textbox
    negative_prompt: gr.Textbox
    left: LoraRow
    right: LoraRow
    num_seeds: gr.Slider
    strip: gr.Checkbox
    controls: PictureControls

    def named(self) -> dict[str, gr.components.Component]:
        """Every control that is read, by its name."""
        return {
            "prompts": self.prompts,
            "negative_prompt": self.negative_prompt,
            "left": self.left.name,
            "left_strength": self.left.strength,
            "right": self.right.name,
            "right_strength": self.right.strength,
            "num_seeds": self.num_seeds,
            "strip": self.strip,
            **self.controls.named(),
        }


def build() -> CompareForm:
    """Lay the form out; it begins with the base against the first LoRA that ships."""
    prompts = gr.Textbox(
        FIRST_PROMPTS,
        label=FIELDS["prompts"].title,
        info=FIELDS["prompts"].description,
        lines=3,
        max_lines=8,
        elem_id="compare-prompts",
        interactive=True,
    )
    negative = gr.Textbox(
        "",
        label=GenerationSettings.model_fields["negative_prompt"].title,
        lines=1,
        max_lines=4,
        elem_id="compare-negative",
        interactive=True,
    )
    with gr.Group(elem_classes="lora-rows"):
        left = build_lora_row(MODE, 0, label="Left", none=BASE)
        first = next(iter(LoraLibrary().names()), BASE)
        right = build_lora_row(MODE, 1, label="Right", none=BASE, first=first)
    low, high = bounds(CompareSettings, "num_seeds")
    num_seeds = gr.Slider(
        low, high, 1, step=1, label="Seeds for each prompt", elem_id="compare-num-seeds", interactive=True
    )
    strip = gr.Checkbox(
        False,
        label=f"{FIELDS['strip'].title} (0 to {STRIP[-1]:g})",
        info=FIELDS["strip"].description,
        elem_id="compare-strip",
        interactive=True,
    )
    return CompareForm(prompts, negative, left, right, num_seeds, strip, build_picture_controls(MODE))


def to_settings(values: Mapping[str, Any]) -> CompareSettings:
    """What the form says.

    Raises:
        SettingsError: for each rule that is broken, and where both sides are the same.
    """
    left = lora_choices((values["left"], values["left_strength"]))
    right = lora_choices((values["right"], values["right_strength"]))
    if left == right:
        raise SettingsError("Left and right are the same: choose a LoRA for one of them, or another strength.")
    prompts = tuple(line.strip() for line in values["prompts"].splitlines() if line.strip())
    shared = {name: values[name] for name in GenerationSettings.model_fields if name in values}
    return parse_settings(
        CompareSettings,
        {
            "prompts": prompts,
            "num_seeds": values["num_seeds"],
            "generation": parse_settings(GenerationSettings, {"prompt": "", **shared, **size_values(values["size"])}),
            "left": left,
            "right": right,
            "strip": STRIP if values["strip"] and right else (),
        },
    )
