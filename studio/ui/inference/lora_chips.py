"""The LoRAs in use as chips, from the form's rows and from tags in its prompt: each with its strength and a remove."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gradio as gr
from markupsafe import Markup

from studio.core.errors import SettingsError
from studio.core.language import _
from studio.core.settings import LoraChoice, bounds, parse_settings
from studio.core.text import template
from studio.images.prompts import change_lora_tag, lora_choice, split_lora_tags
from studio.loras.library import LoraLibrary
from studio.ui.forms import LORA_ROWS, NO_LORA, by_component
from studio.ui.shell.parts import QUIET, toasts

_template = template("ui/templates/inference.html")
_CLICKS = """const about = ({ dataset: { source, index, name } }) => ({ source, index: Number(index), name });
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-source]");
  if (button) trigger("click", about(button));
});
element.addEventListener("change", (event) => {
  const box = event.target.closest("input[data-source]");
  if (!box) return;
  if (box.value === "") { box.value = box.defaultValue; return; } // nothing that can be read as a number
  box.value = Math.min(Math.max(Number(box.value), Number(box.min)), Number(box.max)); // so that it says what is used
  trigger("apply", { ...about(box), strength: Number(box.value) });
});"""


@dataclass(frozen=True)
class Chip:
    """A LoRA in use.

    Attributes:
        source, index: the row of the form, or the tag of the prompt, that names it.
        name: as it is written there.
        problem: why it cannot be used; "" where it can.
    """

    source: Literal["row", "tag"]
    index: int
    name: str
    strength: float
    problem: str = ""


def build() -> gr.HTML:
    """Where the chips are shown; nothing where no LoRA is in use."""
    return gr.HTML(elem_id="generate-loras", padding=False, js_on_load=_CLICKS)


def chips_of(values: Mapping[str, Any], names: Sequence[str], *, broken: Sequence[str] = ()) -> list[Chip]:
    """Those that the form's values name, the rows first.

    Args:
        names: can be used.
        broken: further ones of the library.
    """
    problems = {**dict.fromkeys(broken, _("cannot be used: the LoRA library says why")), **dict.fromkeys(names, "")}
    chips = []
    for row in range(LORA_ROWS):
        name = values.get(f"lora_{row}")
        if name and name != NO_LORA:
            chips.append(_chip("row", row, str(name), float(values.get(f"strength_{row}") or 0), problems))
    tags = split_lora_tags(str(values.get("prompt") or ""))[1]
    for index, tag in enumerate(tags):
        try:
            choice = lora_choice(tag)
        except SettingsError as error:
            chips.append(Chip("tag", index, tag, 1, str(error)))
        else:
            chips.append(_chip("tag", index, choice.name, choice.strength, problems))
    return chips


def _chip(source: Literal["row", "tag"], index: int, name: str, strength: float, problems: Mapping[str, str]) -> Chip:
    return Chip(source, index, name, strength, problems.get(name, _("not in the library")))


def chips_html(chips: Sequence[Chip]) -> Markup:
    """The chips in a line that wraps."""
    return _template("lora_chips", chips=chips, limits=bounds(LoraChoice, "strength")) if chips else Markup()


def changed_values(values: Mapping[str, Any], chip: Chip, strength: float | None) -> dict[str, object]:
    """What of the form's values changes where a chip gets another strength; None takes it away.

    Raises:
        SettingsError: where the strength is out of bounds.
    """
    if strength is not None:
        strength = parse_settings(LoraChoice, {"name": chip.name, "strength": strength}).strength
    if chip.source == "row":
        part, value = (f"lora_{chip.index}", NO_LORA) if strength is None else (f"strength_{chip.index}", strength)
        return {part: value}
    tag = "" if strength is None else f"<lora:{chip.name}:{strength:g}>"
    return {"prompt": change_lora_tag(str(values["prompt"]), chip.index, tag)}


def wire(box: gr.HTML, named: Mapping[str, Any], library: LoraLibrary, *, also: Sequence[Callable[..., Any]]) -> None:
    """Keep the chips true, and connect what is on them.

    Args:
        also: further events after which they are shown anew.
    """
    rows = (f"{part}_{row}" for row in range(LORA_ROWS) for part in ("lora", "strength"))
    asked = {name: named[name] for name in ("prompt", *rows)}

    def now(values: Mapping[str, Any]) -> list[Chip]:
        return chips_of(values, library.usable_names(), broken=library.names())

    def show(**values: Any) -> Markup:  # noqa: ANN401 - the form's values
        return chips_html(now(values))

    def change(event: gr.EventData, values: Mapping[str, Any], strength: float | None) -> dict[Any, Any]:
        pressed = tuple(getattr(event, name, None) for name in ("source", "index", "name"))
        with toasts():
            for chip in now(values):
                if (chip.source, chip.index, chip.name) == pressed:
                    return by_component(asked, changed_values(values, chip, strength))
            raise SettingsError(_("Nothing was changed: the form was changed meanwhile. Press again."))

    def remove(event: gr.EventData, **values: Any) -> dict[Any, Any]:  # noqa: ANN401 - likewise
        return change(event, values, None)

    def set_strength(event: gr.EventData, **values: Any) -> dict[Any, Any]:  # noqa: ANN401 - likewise
        strength = getattr(event, "strength", None)
        return change(event, values, strength if isinstance(strength, int | float) else 0.0)

    follows: dict[str, Any] = {"queue": False, **QUIET}
    changes = [*also, *(control.change for control in asked.values())]
    gr.on(changes, show, inputs_kwargs=asked, outputs=box, trigger_mode="always_last", **follows)
    for event, act in ((box.click, remove), (box.apply, set_strength)):
        event(act, inputs_kwargs=asked, outputs=list(asked.values()), **follows)
