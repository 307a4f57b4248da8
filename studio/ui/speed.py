"""The switch of Generate, Compare and Batch that sets scheduler, steps and guidance together, with a Speed LoRA or not.

Where the form has rows of LoRAs, a Speed LoRA goes into one of them; Compare lets it act on both sides.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import SettingsError
from studio.core.language import _, moment, number
from studio.core.paths import UserData
from studio.core.settings import GenerationSettings, LoraChoice, SmokeSettings, parse_settings
from studio.engine.process.client import EngineClient
from studio.engine.process.view import EngineView
from studio.loras.library import LoraLibrary
from studio.loras.speed import (
    FULL,
    NEAR_ENOUGH,
    SPEED_TITLES,
    MeasuredSpeeds,
    all_speeds,
    lora_of_speed,
    measured_speeds,
    speed_choices,
    with_speed,
)
from studio.ui.forms import LORA_ROWS, NO_LORA, by_component, lora_choices, lora_options
from studio.ui.shell.parts import QUIET, Update, paragraph, table, toasts


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


class SpeedPanel:
    """What each speed costs on the loaded model, measuring that, and choosing by it; `speed` is the switch."""

    speed: gr.Dropdown
    costs: gr.HTML
    measure: gr.Button
    tolerance: gr.Number
    fastest: gr.Button

    def build(self, mode: str) -> gr.Dropdown:
        """Lay it out below the switch."""
        self.speed = build_speed(mode)
        with gr.Accordion(_("Speeds on this model"), open=False, elem_id=f"{mode}-speeds"):
            self.costs = gr.HTML(elem_id=f"{mode}-speed-costs", padding=False)
            self.measure = gr.Button(_("Measure on this model"), elem_id=f"{mode}-measure-speeds", size="sm")
            with gr.Row(elem_classes="fields"):
                self.tolerance = gr.Number(
                    NEAR_ENOUGH,
                    label=_("Distance at most (of 255)"),
                    minimum=0,
                    elem_id=f"{mode}-speed-tolerance",
                    min_width=120,
                )
                self.fastest = gr.Button(
                    _("Use the fastest"), elem_id=f"{mode}-speed-fastest", size="sm", min_width=120
                )
        return self.speed

    def wire(self, named: Mapping[str, Any], engine: EngineClient, user_data: UserData) -> Any:  # noqa: ANN401 - gradio's Dependency
        """Connect its buttons, and the switch; returned is the event of measuring."""
        library = LoraLibrary(user_data.loras)

        def measure(**chosen: Any) -> None:  # noqa: ANN401 - the form's rows
            with toasts():
                before = _before(chosen)
                in_full, __ = with_speed(FULL, before, library)  # a Speed LoRA has turned guidance off
                guidance = in_full.get("guidance_scale", before.guidance_scale)
                engine.run_smoke_test(parse_settings(SmokeSettings, {"guidance_scale": guidance}), speeds=True)

        def fastest(tolerance: float | None, **chosen: Any) -> dict[Any, Any]:  # noqa: ANN401 - the form's rows
            with toasts():
                measured = _measured(engine.view, user_data.speeds)
                if measured is None:
                    raise SettingsError(_("No speed was measured on this model yet. Press “Measure on this model”."))
                speed = measured.fastest_within(tolerance or 0, all_speeds(library))
                return speed_values(named, speed, _before(chosen), library)

        wire_speed(named, library)
        chosen = {name: named[name] for name in (*BEFORE, *_rows(named))}
        outputs = [named[name] for name in ("speed", *CONTROLS, *_rows(named))]
        self.fastest.click(fastest, inputs_kwargs={"tolerance": self.tolerance, **chosen}, outputs=outputs, **QUIET)
        return self.measure.click(measure, inputs_kwargs=chosen, outputs=None, **QUIET)


def render_costs(view: EngineView, library: LoraLibrary, file: Path) -> Markup:
    """What each speed costs on the loaded model, as a table."""
    measured = _measured(view, file)
    if measured is None:
        return paragraph("quiet", _("Not measured yet. Measuring draws three images at each speed."))
    titles, head = all_speeds(library), (_("Speed"), _("Time"), _("Distance"), _("White"), _("Sharpness"))
    rows = [
        (
            titles[speed],
            f"{number(cost.seconds / cost.full_seconds, '.2f')}\u00a0×",
            number(cost.distance, ".1f"),
            number(cost.whiteness, "+.0%"),
            number(cost.sharpness, "+.0%"),
        )
        for speed, cost in measured.costs.items()
        if speed in titles
    ]
    caption = _("Measured on {model}, {moment}", model=measured.model, moment=moment(measured.measured_at))
    return table(head, rows, caption=caption)


def _measured(view: EngineView, file: Path) -> MeasuredSpeeds | None:
    return measured_speeds(file, view.facts.model) if view.facts else None


def render_speed(library: LoraLibrary) -> Update:
    """What it offers now."""
    offered: Update = gr.update(choices=speed_choices(library))
    return offered


BEFORE = ("scheduler", "guidance_scale")
CONTROLS = (*BEFORE, "num_inference_steps", "guidance_start", "guidance_end")


def _rows(named: Mapping[str, Any]) -> list[str]:
    return [f"{part}_{i}" for i in range(LORA_ROWS) for part in ("lora", "strength") if f"lora_{i}" in named]


def _before(chosen: Mapping[str, Any]) -> GenerationSettings:
    """What of a form a speed depends on.

    Raises:
        SettingsError: where a rule is broken.
    """
    pairs = [(chosen[f"lora_{i}"], chosen[f"strength_{i}"]) for i in range(LORA_ROWS) if f"lora_{i}" in chosen]
    known = {name: chosen[name] for name in BEFORE if chosen[name] is not None}
    return parse_settings(GenerationSettings, {**known, "prompt": "", "loras": lora_choices(*pairs)})


def wire_speed(named: Mapping[str, Any], library: LoraLibrary) -> Any:  # noqa: ANN401 - gradio's Dependency
    """Connect it with the controls that it sets; `named` holds it as `speed`."""

    def choose(speed: str, **chosen: Any) -> dict[Any, Any]:  # noqa: ANN401 - the form's rows
        with toasts():
            return speed_values(named, speed, _before(chosen), library)

    inputs = {name: named[name] for name in ("speed", *BEFORE, *_rows(named))}
    outputs: list[Any] = [named[name] for name in ("speed", *CONTROLS, *_rows(named))]
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
