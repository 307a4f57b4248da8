"""The model box and the LoRA cards of the Inference tab.

The LoRA library: a card for each file, and a place to drop new ones.

Which model, on which device: choosing, loading, and checking the device. Below all modes of the Inference tab.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import StudioError
from studio.core.results import AttentionTrial, DeviceCheck, DeviceDifference, LoraCard
from studio.core.settings import ModelSettings, parse_settings
from studio.core.text import gigabytes, template
from studio.engine.process.client import EngineClient
from studio.engine.process.messages import LoraChecked
from studio.engine.process.view import EngineView
from studio.loras.library import LoraLibrary
from studio.ui.forms import NO_CHANGE, SettingsForm
from studio.ui.shell.parts import QUIET, Part, paragraph, table, toasts
from studio.ui.shell.status import phase_words


@dataclass(frozen=True)
class LoraPanel:
    """Its components, by what they are for."""

    drop: gr.File
    words: gr.HTML
    check: gr.Button
    shown: dict[str, gr.components.Component]


def build_loras() -> LoraPanel:
    """Lay the panel out, below all modes."""
    with gr.Accordion("LoRA library", open=False, elem_id="lora-box"):
        drop = gr.File(
            label="Drop .safetensors files to add them",
            file_count="multiple",
            height=120,
            elem_id="drop-lora",
            interactive=True,
        )
        words = gr.HTML(elem_id="lora-words", padding=False)
        cards = gr.HTML(elem_id="lora-cards", padding=False)
        check = gr.Button("Check all against the model", elem_id="check-loras", interactive=False)
    return LoraPanel(drop, words, check, {"lora-cards": cards, "check-loras": check})


def render_loras(view: EngineView, library: LoraLibrary) -> dict[str, Part]:
    """What every shown part of the panel should be now."""

    def cards() -> str:
        shown = [_card(card, view.lora_checks.get(card.name)) for card in library.cards()]
        return _template("lora_cards", cards=shown)

    return {
        "lora-cards": cards,
        "check-loras": gr.update(interactive=view.phase == "ready"),
    }


def _card(card: LoraCard, checked: LoraChecked | None) -> tuple[LoraCard, str, str, tuple[str, ...]]:
    """A file, what it is in short, what is wrong with it, and what the model says of it."""
    facts = [
        f"rank {card.rank}" if card.rank else "",
        f"{card.size_bytes / 2**20:.1f} MB",
        f"for {card.base_model}" if card.base_model else "",
    ]
    problem = card.problem or (checked.problem if checked else "")
    notes = checked.notes if checked else card.notes
    return card, " · ".join(filter(None, facts)), problem, notes


def wire_loras(
    panel: LoraPanel, engine: EngineClient, library: LoraLibrary, *, then_refresh: Callable[[Any], None]
) -> None:
    """Connect the drop and the check."""

    def add(files: list[str] | None) -> dict[Any, Any]:
        if not files:
            return NO_CHANGE
        return {panel.words: Markup().join(_added(Path(file)) for file in files), panel.drop: None}

    def _added(file: Path) -> Markup:
        try:
            card = library.add(file)
        except StudioError as error:
            return paragraph("bad", error, role="alert")
        engine.check_lora(card.name)
        return paragraph("good", f"{card.name} was added to the library.", role="status")

    def check_all() -> None:
        for card in library.cards():
            engine.check_lora(card.name)

    then_refresh(panel.drop.upload(add, panel.drop, [panel.words, panel.drop], **QUIET))
    then_refresh(panel.check.click(check_all, **QUIET))


_template = template("ui/templates/inference.html")


@dataclass(frozen=True)
class ModelBox:
    """Its components, by what they are for."""

    named: dict[str, Any]
    load: gr.Button
    cancel: gr.Button
    check: gr.Button
    shown: dict[str, gr.components.Component]


def build() -> ModelBox:
    """Lay both sections out."""
    form = SettingsForm(ModelSettings, "model")
    with gr.Accordion("Model", open=False, elem_id="model-box"):
        form.add("model", info=True)
        with gr.Row(elem_classes="fields"):
            form.add("precision", info=True)
            form.add("prediction_type", info=True)
        form.rest(info=True)
        with gr.Row(elem_classes="actions"):
            load = gr.Button("Load", elem_id="load-model", interactive=False)
            cancel = gr.Button("Cancel", elem_id="cancel-load", interactive=False)
        facts = gr.HTML(elem_id="model-facts", padding=False)
    with gr.Accordion("Device check", open=False, elem_id="device-box"):
        words = gr.HTML(elem_id="device-words")
        check = gr.Button("Check the device against the CPU", elem_id="check-device", interactive=False)
    shown: dict[str, gr.components.Component] = {
        "device": words,
        "model-facts": facts,
        "load": load,
        "cancel-load": cancel,
        "check": check,
    }
    return ModelBox(form.fields, load, cancel, check, shown)


def render(view: EngineView) -> dict[str, Part]:
    """What every shown part should be now."""
    return {
        "device": lambda: _device_words(view),
        "model-facts": lambda: _model_facts(view),
        "load": gr.update(interactive=view.phase in ("ready", "no model")),
        "cancel-load": gr.update(interactive=view.phase == "loading" and not view.cancelling),
        "check": gr.update(interactive=view.phase == "ready"),
    }


def _model_facts(view: EngineView) -> Markup:
    """The loaded model; before it what goes on, or what went wrong."""
    going_on = " ".join(phase_words(view)) if view.phase == "loading" else ""
    facts = view.facts
    if facts is None:
        return _template("model_facts", problem=view.problem, going_on=going_on, notes=(), rows="")
    rows = [
        ("Loaded", facts.model),
        ("Revision", facts.model_revision or "–"),
        ("From", facts.model_folder),
        ("Parameters", f"{facts.parameters / 1e6:,.1f} million"),
        ("Its own size", f"{facts.width} × {facts.height}"),
        ("Precision", facts.precision.reason),
    ]
    loaded = table(("Item", "Value"), rows, caption="Loaded model")
    return _template("model_facts", problem=view.problem, going_on=going_on, notes=facts.notes, rows=loaded)


def _device_words(view: EngineView) -> Markup:
    check = view.device_check
    return _template("device", check=check, rows=_device_table(check) if check else "")


def _device_table(check: DeviceCheck) -> Markup:
    """Each part: how far from the CPU, what is allowed, the verdict, time and memory."""
    chosen = check.chosen_attention
    named: list[tuple[str, AttentionTrial | DeviceDifference, str]] = [
        *((f"attention: {trial.label}", trial, "used" if trial is chosen else "") for trial in check.attention),
        *((difference.part, difference, difference.consequence) for difference in check.differences),
    ]
    rows = [
        (
            name,
            f"{part.difference:.1e}",
            f"{part.limit:.0e}",
            (f"right{', used' if note == 'used' else ''}" if part.passed else f"wrong{f': {note}' if note else ''}"),
            "–" if part.seconds is None else f"{1000 * part.seconds:,.0f} ms",
            "–" if part.memory_bytes is None else gigabytes(part.memory_bytes),
        )
        for name, part, note in named
    ]
    heads = ("Part", "Difference", "Allowed", "Verdict", "Time", "Memory")
    return table(heads, rows, caption="Device compared with CPU") if rows else Markup()


def wire(box: ModelBox, engine: EngineClient, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the buttons."""

    def load(**values: Any) -> None:  # noqa: ANN401 - the form's values, checked by parse_settings
        with toasts():
            engine.load(parse_settings(ModelSettings, {**values, "model": values["model"].strip()}))

    def check() -> None:
        with toasts():
            engine.check_device()

    then_refresh(box.load.click(load, inputs_kwargs=box.named, **QUIET))
    then_refresh(box.cancel.click(engine.cancel, **QUIET))
    then_refresh(box.check.click(check, **QUIET))
