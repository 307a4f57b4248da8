"""Where a run's LoRA goes from the Training tab: into the library, and from there into Generate, Batch or Compare."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.core.language import N_, _
from studio.core.paths import UserData
from studio.core.settings import GenerationSettings, LoraChoice
from studio.datasets.generation import lineage_words, note_generation
from studio.datasets.opened import OpenedDataset
from studio.images.comparison import BASE
from studio.images.scores.image import PictureScores
from studio.loras.library import LoraLibrary
from studio.loras.speed import FULL, OF_LORA, lora_of_speed, speed_loras
from studio.training.folder import RunFolder
from studio.training.session import add_to_library
from studio.ui.forms import LORA_ROWS, NO_LORA, by_component
from studio.ui.shell.parts import QUIET, toast, toasts
from studio.ui.speed import speed_loras_of, speed_values
from studio.ui.training.queue import TrainingPage


@dataclass(frozen=True)
class Destinations:
    """The forms that take a LoRA, each by the names of its controls."""

    generate: Mapping[str, Any]
    batch: Mapping[str, Any]
    compare: Mapping[str, Any]


def in_rows(form: Mapping[str, Any], name: str, library: LoraLibrary, speed: str) -> dict[Any, Any]:
    """What an event returns so that a form's LoRA rows have this one alone, at full strength.

    A Speed LoRA sets the form's speed, and brings the LoRA that it was made for. Where the form's `speed` was that of
    another one, which leaves, it is full again.
    """
    if name in speed_loras(library):
        return speed_values(form, f"{OF_LORA}{name}", GenerationSettings(prompt=""), library)
    if lora_of_speed(speed):
        return speed_values(form, FULL, _drawn_with(speed, library, LoraChoice(name=name)), library)
    rows = [i for i in range(LORA_ROWS) if f"lora_{i}" in form]
    choices = [(_(NO_LORA), NO_LORA), *((name, name) for name in library.usable_names())]
    loras = {form[f"lora_{i}"]: gr.update(choices=choices, value=NO_LORA if i else name) for i in rows}
    return loras | {form["strength_0"]: 1.0}


def beside_base(form: Mapping[str, Any], name: str, library: LoraLibrary, speed: str) -> dict[Any, Any]:
    """The same for Compare: the base on the left, the LoRA on the right.

    A Speed LoRA acts on both sides, and the LoRA that it was made for on the right; one of the base itself is compared
    at its own steps.
    """
    use, right, values = speed_loras(library).get(name), name, dict[Any, Any]()
    if use is not None and use.teacher_lora in library.usable_names():
        right, values = use.teacher_lora, speed_values(form, f"{OF_LORA}{name}", GenerationSettings(prompt=""), library)
    elif use is not None:
        values = by_component(form, {"speed": FULL, **use.changes})
    elif lora_of_speed(speed):
        values = speed_values(form, FULL, _drawn_with(speed, library), library)
    choices = [(_(BASE), BASE), *((one, one) for one in library.usable_names())]
    sides = {form[side]: gr.update(choices=choices, value=value) for side, value in (("left", BASE), ("right", right))}
    return {**values, **sides, form["right_strength"]: 1.0}


def _drawn_with(speed: str, library: LoraLibrary, *loras: LoraChoice) -> GenerationSettings:
    """What a form that has a Speed LoRA draws with, beside other LoRAs: without guidance."""
    known = [choice for choice in speed_loras_of(speed) if choice.name in speed_loras(library)]
    return GenerationSettings(prompt="", scheduler="Euler trailing", guidance_scale=1, loras=(*loras, *known))


def wire_use(
    pressed: Callable[..., Any],
    page: TrainingPage,
    selection: gr.HTML,
    form: Mapping[str, Any],
    *,
    fill: Callable[[Mapping[str, Any], str, LoraLibrary, str], dict[Any, Any]],
    says: str,
    js: str,
) -> Any:  # noqa: ANN401 - gradio's Dependency
    """Connect what puts a LoRA of the shown run into a form, and leads there.

    Args:
        pressed: the event; where it names a step, that step's LoRA is meant.
        fill: `in_rows` or `beside_base`.
        says: what a toast says of it: a message with the LoRA's `name` in it.
        js: leads to the form's tab.
    """

    def use(selection: str, speed: str, event: gr.EventData) -> dict[Any, Any]:
        step = getattr(event, "step", None)
        with toasts():
            run, library = page.run_of(selection), LoraLibrary(page.session.user_data.loras)
            name = add_to_library(run, page.session.history(run), library, step if isinstance(step, int) else None)
            toast(_(says, name=name))
            return fill(form, name, library, speed)

    filled = pressed(use, [selection, form["speed"]], list(form.values()), **QUIET)
    filled.success(fn=None, js=js, queue=False, show_progress="hidden")
    return filled


def wire_compare(pressed: Callable[..., Any], page: TrainingPage, selection: gr.HTML, to: Destinations) -> Any:  # noqa: ANN401 - gradio's Dependency
    """Connect what puts the LoRA into Compare, beside the base."""
    says, js = N_("{name} is chosen beside the base: press “Compare”."), lead_to("Inference", "Compare")
    return wire_use(pressed, page, selection, to.compare, fill=beside_base, says=says, js=js)


def take_generation(
    dataset: OpenedDataset, user_data: UserData, made_by: str, scores: Mapping[str, PictureScores]
) -> str:
    """Have a dataset of images that were made here ready to be trained on; what was done, in sentences.

    Raises:
        DatasetError, OSError: as `note_generation`.
    """
    snapshots = [run.dataset for run in RunFolder.all_in(user_data.runs)]
    made = note_generation(dataset, user_data, made_by=made_by, scores=scores, snapshots=snapshots)
    return " ".join(lineage_words(made))


def lead_to(tab: str, mode: str = "") -> str:
    """JavaScript that goes to a tab of the page, and to a mode of it."""
    return f"""() => {{
  const link = document.createElement("a");
  Object.assign(link.dataset, {{ tab: "{tab}"{f', mode: "{mode}"' if mode else ""} }});
  document.body.append(link);
  link.click();
  link.remove();
}}"""
