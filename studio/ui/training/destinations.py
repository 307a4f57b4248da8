"""Where a run's LoRA goes from the Training tab: into the library, and from there into Generate, Batch or Compare."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio.core.errors import RunError
from studio.core.language import N_, _
from studio.images.comparison import BASE
from studio.loras.library import LoraLibrary
from studio.training.begin import read_run_settings
from studio.training.folder import RunFolder
from studio.training.session import RunHistory
from studio.ui.forms import LORA_ROWS, NO_LORA
from studio.ui.shell.parts import QUIET, toast, toasts
from studio.ui.training.queue import TrainingPage

CHECKPOINT_LORA = "lora.safetensors"


@dataclass(frozen=True)
class Destinations:
    """The forms that take a LoRA, each by the names of its controls."""

    generate: Mapping[str, Any]
    batch: Mapping[str, Any]
    compare: Mapping[str, Any]


def lora_to_send(history: RunHistory) -> tuple[int, str] | None:
    """Step and file of the LoRA that speaks for itself most: the proposed one, else the last one there is."""
    proposal = history.proposal
    if proposal is not None and proposal.lora:
        return proposal.step, proposal.lora
    known = loras_by_step(history)
    trained = [event.step for event in history.samples if event.step > 0]
    step = trained[-1] if trained else max(known, default=0)
    return (step, known[step]) if step else None


def loras_by_step(history: RunHistory) -> dict[int, str]:
    """The file of the LoRA of every step that has one: that of its images, else that of its checkpoint."""
    saved = {event.step: f"{event.folder}/{CHECKPOINT_LORA}" for event in history.checkpoints}
    return saved | {event.step: event.lora for event in history.samples if event.step > 0}


def lora_of(run: RunFolder, history: RunHistory, step: int | None = None) -> tuple[int, Path]:
    """Step and file of a LoRA of the run: of that step, else of the one that goes on from here.

    Raises:
        RunError: where the run has none yet, or its file is gone.
    """
    found = lora_to_send(history) if step is None else (step, loras_by_step(history).get(step, ""))
    if found is None:
        raise RunError(_("No LoRA yet: wait for the first images, or press “Sample now”."))
    at, reported = found
    try:
        file: Path = run.file(reported) if reported else run.root
    except FileNotFoundError:
        file = run.root
    if not file.is_file():
        said = (
            _(
                "The LoRA of step {step:,} is no longer in {folder}: {file} is gone.",
                step=at,
                folder=run.root,
                file=reported,
            )
            if reported
            else _("The LoRA of step {step:,} is no longer in {folder}: its file is gone.", step=at, folder=run.root)
        )
        raise RunError(said)
    return at, file


def add_to_library(run: RunFolder, history: RunHistory, library: LoraLibrary, step: int | None = None) -> str:
    """Put a LoRA of a run into the library, where it is not there already; its name there.

    Args:
        step: whose LoRA; the best one's where None.

    Raises:
        RunError: where there is none, or its file is gone.
        LoraError, WeightsFileError: where the file is damaged.
        OSError: where the library cannot be written.
    """
    at, file = lora_of(run, history, step)
    known = library.name_of_copy(file)
    return known or library.add(file, name=f"{read_run_settings(run).name} step {at}").name


def in_rows(form: Mapping[str, Any], name: str, names: Sequence[str]) -> dict[Any, Any]:
    """What an event returns so that a form's LoRA rows have this one alone, at full strength."""
    rows = [i for i in range(LORA_ROWS) if f"lora_{i}" in form]
    choices = [(_(NO_LORA), NO_LORA), *((name, name) for name in names)]
    loras = {form[f"lora_{i}"]: gr.update(choices=choices, value=NO_LORA if i else name) for i in rows}
    return loras | {form["strength_0"]: 1.0}


def beside_base(form: Mapping[str, Any], name: str, names: Sequence[str]) -> dict[Any, Any]:
    """The same for Compare: the base on the left, the LoRA on the right."""
    choices = [(_(BASE), BASE), *((name, name) for name in names)]
    left, right = (gr.update(choices=choices, value=value) for value in (BASE, name))
    return {form["left"]: left, form["right"]: right, form["right_strength"]: 1.0}


def wire_use(
    pressed: Callable[..., Any],
    page: TrainingPage,
    selection: gr.HTML,
    form: Mapping[str, Any],
    *,
    fill: Callable[[Mapping[str, Any], str, Sequence[str]], dict[Any, Any]],
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

    def use(selection: str, event: gr.EventData) -> dict[Any, Any]:
        step = getattr(event, "step", None)
        with toasts():
            run, library = page.run_of(selection), LoraLibrary(page.session.user_data.loras)
            name = add_to_library(run, page.session.history(run), library, step if isinstance(step, int) else None)
            toast(_(says, name=name))
            return fill(form, name, library.names())

    filled = pressed(use, selection, list(form.values()), **QUIET)
    filled.success(fn=None, js=js, queue=False, show_progress="hidden")
    return filled


def wire_compare(pressed: Callable[..., Any], page: TrainingPage, selection: gr.HTML, to: Destinations) -> Any:  # noqa: ANN401 - gradio's Dependency
    """Connect what puts the LoRA into Compare, beside the base."""
    says, js = N_("{name} is chosen beside the base: press “Compare”."), lead_to("Inference", "Compare")
    return wire_use(pressed, page, selection, to.compare, fill=beside_base, says=says, js=js)


def lead_to(tab: str, mode: str = "") -> str:
    """JavaScript that goes to a tab of the page, and to a mode of it."""
    return f"""() => {{
  const link = document.createElement("a");
  Object.assign(link.dataset, {{ tab: "{tab}"{f', mode: "{mode}"' if mode else ""} }});
  document.body.append(link);
  link.click();
  link.remove();
}}"""
