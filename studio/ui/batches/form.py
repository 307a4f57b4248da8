"""The form of a batch: its texts, what all images share, then every setting as `BatchSettings` has it; the X/Y grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.batches.settings import BatchSettings
from studio.core.errors import SettingsError
from studio.core.language import N_, _
from studio.core.settings import GenerationSettings, LoraChoice
from studio.ui.forms import (
    LORA_ROWS,
    SettingsForm,
    build_generation,
    build_lora_rows,
    build_reset,
    by_component,
    generation_values,
    help_html,
    read_generation,
    read_settings,
    shown_value,
)
from studio.ui.shell.parts import paragraph
from studio.ui.speed import build_speed

FORM = "batch"
# Half a second after the last key: a request for each key would keep the page busier than whoever types.
_TYPED = """let timer;
element.closest(".controls").addEventListener("input", (event) => {
  if (!event.target.matches("textarea, input:not([type=range])")) return;
  clearTimeout(timer);
  timer = setTimeout(() => trigger("click"), 400);
});
// What the browser kept is a plan as well, once the form shows it.
const recalled = () => {
  const kept = window.keptForms?.batch;
  if (!kept) return;
  document.removeEventListener("studio:form", recalled);
  if (kept.prompts?.trim() || kept.prompt_file?.trim()) timer = setTimeout(() => trigger("click"), 400);
};
document.addEventListener("studio:form", recalled);
recalled();"""
EXAMPLE: Mapping[str, object] = {
    "name": "shoes",
    "prompts": "product photo of {colour} {type}, white background",
    "attributes": "colour: black, brown, red, navy, green\ntype: sneakers, boots, loafers, sandals",
    "images_per_prompt": 3,
    "generation": {"prompt": "", "num_inference_steps": 20, "loras": [{"name": "white-ground"}]},
}
"""Shoes that the model inside can draw: sixty images in about a minute."""
NOTHING = N_("nothing")
WORD = N_("a word of the prompts")
KINDS: Mapping[str, str] = {
    "seed": N_("Seed"),
    "num_inference_steps": str(GenerationSettings.model_fields["num_inference_steps"].title),
    "guidance_scale": str(GenerationSettings.model_fields["guidance_scale"].title),
    "lora": N_("LoRA"),
    "strength": N_("Strength of the LoRA"),
    "scheduler": str(GenerationSettings.model_fields["scheduler"].title),
    "negative_prompt": str(GenerationSettings.model_fields["negative_prompt"].title),
}
"""Columns that are settings, and what they are called here."""
NO_VALUES: Mapping[str, str] = {
    "across": N_("values across must be a comma-separated list, got none."),
    "down": N_("values down must be a comma-separated list, got none."),
}
LABELS: Mapping[str, str] = {
    **{name: field.title or name for name, field in GenerationSettings.model_fields.items()},
    **{name: field.title or name for name, field in BatchSettings.model_fields.items() if name != "name"},
    "size": N_("Size"),
    "speed": N_("Speed"),
    **{f"lora_{i}": N_("LoRA") for i in range(LORA_ROWS)},
    **{f"strength_{i}": str(LoraChoice.model_fields["strength"].title) for i in range(LORA_ROWS)},
}
"""What the page calls the controls that a forecast depends on, by their names."""


@dataclass(frozen=True)
class GridBox:
    """The X/Y grid: two choices that become two columns of the plan; `named` is what `grid_columns` reads."""

    named: dict[str, Component]
    fill: gr.Button


@dataclass(frozen=True)
class BatchForm:
    """The form: `named` holds every control that a setting comes from, by its name."""

    named: dict[str, Any]
    problem: gr.HTML
    grid: GridBox
    example: gr.Button
    generation: SettingsForm

    def changes(self) -> tuple[Any, ...]:
        """The events after which the plan is another: what was typed, a while after, and what was picked."""
        picked = (self.named[name] for name in ("combine", "size", "scheduler"))
        return (self.problem.click, *(control.input for control in picked))

    @property
    def kept(self) -> dict[str, Component]:
        """What the browser keeps of it."""
        return {**self.named, **self.grid.named}

    @property
    def shown(self) -> dict[str, Component]:
        """What a refresh keeps true."""
        rows = {f"batch-lora-{i}": self.named[f"lora_{i}"] for i in range(LORA_ROWS)}
        return {"batch-speed": self.named["speed"], **rows}

    def filled_by(self, settings: BatchSettings) -> dict[Any, Any]:
        """What an event returns so that the form says these settings.

        Raises:
            SettingsError: where it has more LoRAs than the form has rows.
        """
        return by_component(self.named, form_values(self.named, settings))


def build() -> BatchForm:
    """Lay the form out; why its plan is none is said below its texts."""
    form, shared = SettingsForm(BatchSettings, FORM), SettingsForm(GenerationSettings, FORM)
    with gr.Row(elem_classes="fields"):
        form.add("name")
        form.add("model")
    example = gr.Button(_("Fill in an example"), size="sm", elem_id="batch-example")
    for name in ("prompts", "attributes"):
        form.add(name)
        help_words = _(str(BatchSettings.model_fields[name].description))
        gr.HTML(help_html(help_words), elem_classes="help", padding=False)
    problem = gr.HTML(elem_id="batch-problem", padding=False, js_on_load=_TYPED)
    with gr.Row(elem_classes="fields batch-numbers"):
        form.rest()
    rows = build_lora_rows(FORM)
    shared.add("negative_prompt")
    generation = build_generation(FORM, speed=build_speed)
    form.accordions()
    with gr.Accordion(_("X/Y grid"), open=False, elem_id="batch-section-grid"):
        grid = build_grid()
    made = BatchForm({**form.fields, **shared.fields, **rows, **generation.fields}, problem, grid, example, generation)
    build_reset(made.kept, form=FORM)
    return made


def read_form(values: Mapping[str, Any]) -> dict[str, object]:
    """What the controls hold, as values for the settings.

    Raises:
        SettingsError: where the size is none.
    """
    return {**read_settings(BatchSettings, values), "generation": {"prompt": "", **read_generation(values)}}


def form_values(named: Mapping[str, Any], settings: BatchSettings) -> dict[str, object]:
    """What every control shows of a batch's settings.

    Raises:
        SettingsError: where it has more LoRAs than the form has rows.
    """
    if len(settings.generation.loras) > LORA_ROWS:
        raise SettingsError(
            _(
                "This batch has {num} LoRAs for all images, and the form has rows for {most}. "
                "Start another from its settings.json: python -m studio batch FILE.",
                num=len(settings.generation.loras),
                most=LORA_ROWS,
            )
        )
    own = {name: shown_value(value) for name, value in settings}
    values = {**own, **generation_values(settings.generation)}
    return {name: values[name] for name in named}


def build_grid() -> GridBox:
    """Lay it out."""
    gr.HTML(
        paragraph(
            "quiet",
            _(
                "One image for each pair of values, all with one seed, side by side on a large one. "
                "A word of the prompts stands there as {x} (across) or {y} (down). It replaces the "
                "attributes above."
            ),
        ),
        padding=False,
    )
    labels = _("Across"), _("Values across")
    named = _axis("across", "num_inference_steps", "4, 8, 16, 25", labels=labels)
    labels = _("Down"), _("Values down")
    named |= _axis("down", "guidance_scale", "3, 5, 7.5, 10", labels=labels)
    fill = gr.Button(_("Add to the plan"), size="sm", elem_id="batch-grid-fill")
    return GridBox(named, fill)


def _axis(side: str, kind: str, values: str, *, labels: tuple[str, str]) -> dict[str, Component]:
    """`labels` are those of what the axis is, and of its values."""
    kinds = {**({NOTHING: NOTHING} if side == "down" else {}), WORD: WORD, **KINDS}
    with gr.Row(elem_classes="fields"):
        what = gr.Dropdown(
            [(_(title), name) for name, title in kinds.items()],
            value=kind,
            label=labels[0],
            elem_id=f"batch-grid-{side}",
            interactive=True,
            min_width=140,
        )
        box = gr.Textbox(
            values,
            label=labels[1],
            max_lines=1,
            elem_id=f"batch-grid-{side}-values",
            interactive=True,
        )
    return {side: what, f"{side}_values": box}


def grid_columns(across: str, across_values: str, down: str, down_values: str, *, seed: int) -> dict[str, str]:
    """The batch's settings `attributes`, `grid_x` and `grid_y` of a grid.

    All its images have one seed, where the seed is not an axis itself.

    Raises:
        SettingsError: where an axis has no values, or both are the same.
    """
    axes = [("across", "x" if across == WORD else across, across_values)]
    if down != NOTHING:
        axes.append(("down", "y" if down == WORD else down, down_values))
    for side, __, values in axes:
        if not values.strip():
            raise SettingsError(_(NO_VALUES[side])).about(f"{side}_values")
    names = [name for __, name, __ in axes]
    if len(names) > len(set(names)):
        same = SettingsError(_("across and down must differ, got {kind} for both.", kind=_(KINDS[names[0]])))
        raise same.about("across", "down")
    lines = [f"{name}: {values.strip()}" for __, name, values in axes]
    if "seed" not in names:
        lines.append(f"seed: {seed}")
    return {"attributes": "\n".join(lines), "grid_x": names[0], "grid_y": names[1] if len(names) == 2 else ""}
