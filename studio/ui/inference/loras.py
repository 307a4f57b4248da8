"""The LoRA library: a card for each file, and a place to drop new ones."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio.core.errors import StudioError
from studio.core.results import LoraCard
from studio.core.text import escape
from studio.engine.process.client import EngineClient
from studio.engine.process.messages import LoraChecked
from studio.engine.process.view import EngineView
from studio.loras.library import LoraLibrary
from studio.ui.forms import NO_CHANGE
from studio.ui.shell.parts import QUIET, Update


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
    cards = "".join(_card(card, view.lora_checks.get(card.name)) for card in library.cards())
    return {
        "lora-cards": f'<div class="lora-cards">{cards}</div>',
        "check-loras": gr.update(interactive=view.phase == "ready"),
    }


def _card(card: LoraCard, checked: LoraChecked | None) -> str:
    empty = '<span class="sign" aria-hidden="true">◻</span>'
    picture = f'<img src="{escape(card.thumbnail)}" alt="">' if card.thumbnail else empty
    facts = [
        f"rank {card.rank}" if card.rank else "",
        f"{card.size_bytes / 2**20:.1f} MB",
        f"for {card.base_model}" if card.base_model else "",
    ]
    trigger = f"<p>words: <b>{escape(card.trigger)}</b></p>" if card.trigger else ""
    description = f"<p>{escape(card.description)}</p>" if card.description else ""
    return (
        f'<article class="lora-card"><div class="thumb">{picture}</div><div><h3>{escape(card.name)}</h3>'
        f"<p class='quiet'>{escape(' · '.join(filter(None, facts)))}</p>{description}{trigger}"
        f"{_verdict(card, checked)}</div></article>"
    )


def _verdict(card: LoraCard, checked: LoraChecked | None) -> str:
    problem = card.problem or (checked.problem if checked else "")
    if problem:
        return f'<p class="bad"><span aria-hidden="true">✗</span> {escape(problem)}</p>'
    if checked:
        return "".join(
            f'<p class="good"><span aria-hidden="true">✓</span> {escape(note)}</p>' for note in checked.notes
        )
    return ""


def wire(panel: LoraPanel, engine: EngineClient, library: LoraLibrary, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the drop and the check."""

    def add(files: list[str] | None) -> dict[Any, Any]:
        if not files:
            return NO_CHANGE
        return {panel.words: "".join(_added(Path(file)) for file in files), panel.drop: None}

    def _added(file: Path) -> str:
        try:
            card = library.add(file)
        except StudioError as error:
            return f'<p class="bad" role="alert">{escape(error)}</p>'
        engine.check_lora(card.name)
        return f'<p class="good" role="status">{escape(card.name)} was added to the library.</p>'

    def check_all() -> None:
        for card in library.cards():
            engine.check_lora(card.name)

    then_refresh(panel.drop.upload(add, panel.drop, [panel.words, panel.drop], **QUIET))
    then_refresh(panel.check.click(check_all, **QUIET))
