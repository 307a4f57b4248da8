"""The control that fits a setting's type; labels, help and bounds are the settings' own.

Controls that Generate and Compare share: sizes, steps, scheduler, LoRA rows. Labels and bounds are the settings'.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import gradio as gr
from markupsafe import Markup
from pydantic.fields import FieldInfo

from studio.core.errors import SettingsError
from studio.core.html import template
from studio.core.settings import SCHEDULER_NAMES, GenerationSettings, LoraChoice, Settings, bounds

_template = template("ui/templates/shell.html")


def setting_control(
    kind: type[Settings], name: str, value: object, *, form: str, info: bool, zero: str = "", lines: int = 1
) -> gr.components.Component:
    """Make it, with a value of the form.

    Args:
        form: what its id begins with.
        info: whether its help is shown.
        zero: what 0 stands for, where the number may be left out: a number box of the page cannot be empty.
        lines: of a text, at the least; one that begins with one line keeps to it.
    """
    field = kind.model_fields[name]
    common: dict[str, Any] = {
        "label": f"{field.title} (0: {zero})" if zero else field.title,
        "info": _help(field, zero) if info else None,
        "elem_id": f"{form}-{name.replace('_', '-')}",
        "interactive": True,
    }
    if field.annotation is bool:
        return gr.Checkbox(bool(value), **common)
    if get_origin(field.annotation) is Literal:
        return gr.Dropdown(list(get_args(field.annotation)), value=str(value), min_width=96, **common)
    if isinstance(value, str):
        size = {"lines": lines, "max_lines": 12} if lines > 1 else {"max_lines": 1}
        return gr.Textbox(value, min_width=96, **size, **common)
    assert isinstance(value, int | float)
    low, high = bounds(kind, name)
    return gr.Number(value, minimum=0 if zero else low, maximum=high, min_width=96, **common)


def _help(field: FieldInfo, zero: str) -> str:
    """A setting's help; what an empty one means is said by the label, where 0 stands for it."""
    words = field.description or ""
    return words.partition(" Empty:")[0] if zero else words


def help_html(words: str) -> Markup:
    """Help of its own, for words that gradio's would not show: what stands in `__` it takes for bold, also in code."""
    return _template("code_between_backticks", parts=words.split("`"))


def whole_if_whole(value: object) -> object:
    """Number boxes give 16.0 where 16 was typed."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


NO_LORA = "none"
OWN_SIZE = "model's own"
SIZES = (OWN_SIZE, "512 × 512", "512 × 768", "768 × 512", "640 × 640", "768 × 768")
SIZE = re.compile(r"(\d+)\s*[x×*, ]\s*(\d+)", re.IGNORECASE)
FIELDS = GenerationSettings.model_fields


@dataclass(frozen=True)
class LoraRow:
    """A LoRA and its strength."""

    name: gr.Dropdown
    strength: gr.Slider


@dataclass(frozen=True)
class PictureControls:
    """How an image is made, prompt and LoRAs aside."""

    size: gr.Dropdown
    num_inference_steps: gr.Slider
    guidance_scale: gr.Slider
    seed: gr.Number
    scheduler: gr.Dropdown
    guidance_start: gr.Slider
    guidance_end: gr.Slider
    long_prompt: gr.Checkbox

    def named(self) -> dict[str, gr.components.Component]:
        """The controls by their settings' names."""
        return dict(vars(self))


def build_picture_controls(mode: str) -> PictureControls:
    """Lay them out, the rarer ones folded away."""
    with gr.Row(elem_classes="fields"):
        size = gr.Dropdown(
            list(SIZES),
            value=OWN_SIZE,
            label="Size",
            allow_custom_value=True,
            elem_id=f"{mode}-size",
            interactive=True,
            min_width=160,
        )
        seed = gr.Number(
            GenerationSettings(prompt="").seed,
            precision=0,
            label=FIELDS["seed"].title,
            elem_id=f"{mode}-seed",
            interactive=True,
            min_width=96,
        )
    steps = slider("num_inference_steps", mode, step=1)
    guidance = slider("guidance_scale", mode, step=0.5)
    with gr.Accordion("Scheduler and the rest", open=False, elem_id=f"{mode}-rest"):
        scheduler = gr.Dropdown(
            list(SCHEDULER_NAMES),
            value=SCHEDULER_NAMES[0],
            label=FIELDS["scheduler"].title,
            info=FIELDS["scheduler"].description,
            elem_id=f"{mode}-scheduler",
            interactive=True,
        )
        start = slider("guidance_start", mode, step=0.05, info=True)
        end = slider("guidance_end", mode, step=0.05, info=True)
        long_prompt = gr.Checkbox(
            False, label=FIELDS["long_prompt"].title, info=FIELDS["long_prompt"].description, interactive=True
        )
    return PictureControls(size, steps, guidance, seed, scheduler, start, end, long_prompt)


def slider(name: str, mode: str, *, step: float, info: bool = False) -> gr.Slider:
    """A slider for one of the generation settings."""
    low, high = bounds(GenerationSettings, name)
    return gr.Slider(
        low,
        high,
        FIELDS[name].default,
        step=step,
        label=FIELDS[name].title,
        info=FIELDS[name].description if info else None,
        elem_id=f"{mode}-{name.replace('_', '-')}",
        interactive=True,
    )


def size_values(words: str) -> dict[str, int | None]:
    """`512 × 768`, or words of one's own in that form, as width and height.

    Raises:
        SettingsError: where it is no size.
    """
    if words == OWN_SIZE:
        return {"width": None, "height": None}
    match = SIZE.fullmatch(words.strip())
    if match is None:
        raise SettingsError(f"size must be width × height in pixels, such as 512 × 768, got {words!r}.")
    return {"width": int(match[1]), "height": int(match[2])}


def size_words(settings: GenerationSettings) -> str:
    """The other way round."""
    if settings.width is None or settings.height is None:
        return OWN_SIZE
    return f"{settings.width} × {settings.height}"


def build_lora_row(mode: str, number: int, *, label: str, none: str = NO_LORA, first: str | None = None) -> LoraRow:
    """A dropdown of the library's LoRAs, and a strength; `first` is chosen at the start."""
    low, high = -2, 2  # the setting allows -4 to 4; a slider is for what people use
    with gr.Row(elem_classes="lora-row"):
        name = gr.Dropdown(
            [none, *([first] if first else [])],
            value=first or none,
            label=label,
            elem_id=f"{mode}-lora-{number}",
            interactive=True,
            min_width=120,
        )
        strength = gr.Slider(
            low,
            high,
            LoraChoice.model_fields["strength"].default,
            step=0.05,
            label=LoraChoice.model_fields["strength"].title,
            elem_id=f"{mode}-strength-{number}",
            interactive=True,
            min_width=120,
        )
    return LoraRow(name, strength)


def lora_choices(*rows: tuple[str, float]) -> tuple[dict[str, object], ...]:
    """What the rows say, without those that name none."""
    return tuple(
        {"name": name, "strength": strength} for name, strength in rows if name and name not in (NO_LORA, "base")
    )
