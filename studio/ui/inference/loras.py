"""The LoRA library: a card for each file, and a place to drop new ones."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import StudioError
from studio.core.html import template
from studio.core.results import LoraCard
from studio.engine.process.client import EngineClient
from studio.engine.process.messages import LoraChecked
from studio.engine.process.view import EngineView
from studio.loras.library import LoraLibrary
from studio.ui.forms import NO_CHANGE
from studio.ui.shell.parts import QUIET, Update, paragraph

_template = template("ui/templates/inference.html")


@dataclass(frozen=True)
class LoraPanel:
    """Its components, by what they are for."""

    drop: gr.File
    words: gr.HTML
    check: gr.Button
    shown: dict[str, gr.components.Component]


def build() -> LoraPanel:
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


def render(view: EngineView, library: LoraLibrary) -> dict[str, Update]:
    """What every shown part of the panel should be now."""
    cards = [_card(card, view.lora_checks.get(card.name)) for card in library.cards()]
    return {
        "lora-cards": _template("lora_cards", cards=cards),
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
    return card, " · ".join(filter(None, facts)), problem, checked.notes if checked else ()


def wire(panel: LoraPanel, engine: EngineClient, library: LoraLibrary, *, then_refresh: Callable[[Any], None]) -> None:
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
