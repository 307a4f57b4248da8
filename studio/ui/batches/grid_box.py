"""The X/Y grid's place in the form: two choices that become two columns of the plan, and the grid of both."""

from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr

from studio.core.errors import SettingsError
from studio.core.settings import GenerationSettings, LoraChoice
from studio.ui.shell.parts import paragraph

NOTHING = "nothing"
WORD = "a word of the prompts"
_SHARED = GenerationSettings.model_fields
KINDS: Mapping[str, str] = {
    "seed": "Seed",
    "num_inference_steps": str(_SHARED["num_inference_steps"].title),
    "guidance_scale": str(_SHARED["guidance_scale"].title),
    "lora": "LoRA",
    "strength": f"{LoraChoice.model_fields['strength'].title} of the LoRA",
    "scheduler": str(_SHARED["scheduler"].title),
    "negative_prompt": str(_SHARED["negative_prompt"].title),
}
"""Columns that are settings, and what they are called here."""


@dataclass(frozen=True)
class GridBox:
    """Its components."""

    across: gr.Dropdown
    across_values: gr.Textbox
    down: gr.Dropdown
    down_values: gr.Textbox
    fill: gr.Button

    def named(self) -> dict[str, gr.components.Component]:
        """What `grid_columns` reads, by its names."""
        return {
            "across": self.across,
            "across_values": self.across_values,
            "down": self.down,
            "down_values": self.down_values,
        }


def build() -> GridBox:
    """Lay it out."""
    gr.HTML(
        paragraph(
            "quiet",
            "One image for each pair of values, all with one seed, side by side on a large one. A word of the prompts "
            "stands there as {x} (across) or {y} (down). It replaces the attributes above.",
        ),
        padding=False,
    )
    across, across_values = _axis("across", "num_inference_steps", "4, 8, 16, 25")
    down, down_values = _axis("down", "guidance_scale", "3, 5, 7.5, 10")
    fill = gr.Button("Put it into the plan", size="sm", elem_id="batch-grid-fill")
    return GridBox(across, across_values, down, down_values, fill)


def _axis(side: str, kind: str, values: str) -> tuple[gr.Dropdown, gr.Textbox]:
    choices = [(WORD, WORD), *((title, name) for name, title in KINDS.items())]
    with gr.Row(elem_classes="fields"):
        what = gr.Dropdown(
            [*([(NOTHING, NOTHING)] if side == "down" else []), *choices],
            value=kind,
            label=side.capitalize(),
            elem_id=f"batch-grid-{side}",
            interactive=True,
            min_width=140,
        )
        box = gr.Textbox(
            values, label=f"Values {side}", max_lines=1, elem_id=f"batch-grid-{side}-values", interactive=True
        )
    return what, box


def grid_columns(across: str, across_values: str, down: str, down_values: str, *, seed: int) -> tuple[str, str, str]:
    """(attributes, grid_x, grid_y) of a grid. All its images have one seed, where the seed is not an axis itself.

    Raises:
        SettingsError: where an axis has no values, or both are the same.
    """
    axes = [("across", "x" if across == WORD else across, across_values)]
    if down != NOTHING:
        axes.append(("down", "y" if down == WORD else down, down_values))
    for side, _, values in axes:
        if not values.strip():
            raise SettingsError(f"values {side} must be some, with commas between, got none.")
    if len(axes) == 2 and axes[0][1] == axes[1][1]:
        raise SettingsError(f"across and down must be two things, got {KINDS[axes[0][1]]} for both.")
    names = [name for _, name, _ in axes]
    lines = [f"{name}: {values.strip()}" for _, name, values in axes]
    if "seed" not in names:
        lines.append(f"seed: {seed}")
    return "\n".join(lines), names[0], names[1] if len(names) == 2 else ""
