"""The switch of Generate, Compare and Batch that sets scheduler, steps and guidance together, with a Speed LoRA or not.

Where the form has rows of LoRAs, a Speed LoRA goes into one of them; Compare lets it act on both sides.
"""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from studio.core.errors import SettingsError
from studio.core.language import _
from studio.core.settings import GenerationSettings, LoraChoice, parse_settings
from studio.loras.library import LoraLibrary
from studio.loras.speed import FULL, SPEED_TITLES, lora_of_speed, speed_choices, with_speed
from studio.ui.forms import LORA_ROWS, NO_LORA, by_component, lora_choices, lora_options
from studio.ui.shell.parts import QUIET, Update, toasts


def build_speed(mode: str) -> gr.Dropdown:
    """What sets scheduler, steps and guidance together; `wire_speed` (ui/speed.py) connects it."""
    return gr.Dropdown(
        [(_(title), key) for key, title in SPEED_TITLES.items()],
        value=FULL,
        label=_("Speed"),
        info=_("Sets scheduler and steps together; a Speed LoRA sets guidance too."),
        elem_id=f"{mode}-speed",
        allow_custom_value=True,  # Gradio forgets what it offered when the studio is started again
        interactive=True,
        min_width=160,
    )


def render_speed(library: LoraLibrary) -> Update:
    """What it offers now."""
    offered: Update = gr.update(choices=speed_choices(library))
    return offered


def wire_speed(named: Mapping[str, Any], library: LoraLibrary) -> Any:  # noqa: ANN401 - gradio's Dependency
    """Connect it with the controls that it sets; `named` holds it as `speed`."""
    rows = [f"{part}_{i}" for i in range(LORA_ROWS) for part in ("lora", "strength") if f"lora_{i}" in named]
    before = ("scheduler", "guidance_scale")
    controls = (*before, "num_inference_steps", "guidance_start", "guidance_end", *rows)

    def choose(speed: str, **chosen: Any) -> dict[Any, Any]:  # noqa: ANN401 - the form's rows
        pairs = [(chosen[f"lora_{i}"], chosen[f"strength_{i}"]) for i in range(LORA_ROWS) if rows]
        known = {name: chosen[name] for name in before}
        with toasts():
            settings = parse_settings(GenerationSettings, {**known, "prompt": "", "loras": lora_choices(*pairs)})
            return speed_values(named, speed, settings, library)

    inputs = {name: named[name] for name in ("speed", *before, *rows)}
    outputs: list[Any] = [named[name] for name in ("speed", *controls)]
    return named["speed"].input(choose, inputs_kwargs=inputs, outputs=outputs, **QUIET)


def speed_values(
    named: Mapping[str, Any], speed: str, before: GenerationSettings, library: LoraLibrary
) -> dict[Any, Any]:
    """What an event returns so that a form's controls are those of a speed, with the LoRAs of `before` and its own.

    Raises:
        LoraError: where there is no such speed.
        SettingsError: where the form has too few rows.
    """
    changes, acting = with_speed(speed, before, library)
    rows = _row_values(acting, library) if "lora_0" in named else {}
    return by_component(named, {"speed": gr.update(choices=speed_choices(library), value=speed), **changes, **rows})


def speed_loras_of(speed: str) -> tuple[LoraChoice, ...]:
    """The Speed LoRA that a speed is; none of those without one."""
    name = lora_of_speed(speed)
    return (LoraChoice(name=name),) if name else ()


def _row_values(loras: tuple[LoraChoice, ...], library: LoraLibrary) -> dict[str, object]:
    if len(loras) > LORA_ROWS:
        raise SettingsError(
            _("The form has rows for {most} LoRAs, and they are taken: clear one for the Speed LoRA.", most=LORA_ROWS)
        )
    options, values = lora_options(library.usable_names()), dict[str, object]()
    for i in range(LORA_ROWS):
        choice = loras[i] if i < len(loras) else None
        values[f"lora_{i}"] = gr.update(choices=options, value=choice.name if choice else NO_LORA)
        values[f"strength_{i}"] = choice.strength if choice else 1.0
    return values
