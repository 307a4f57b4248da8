"""The preflight's place on the Training tab: a sentence, and its offers as buttons that change the form."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup
from pydantic import ValidationError

from studio.core.html import template
from studio.training.plan import Offer, Preflight
from studio.ui.shell.parts import QUIET, Update, paragraph, problem
from studio.ui.shell.preflight_runner import PreflightRunner, PreflightState

MAX_OFFERS = 3
_template = template("ui/templates/training.html")


@dataclass(frozen=True)
class PreflightBox:
    """Its components."""

    check: gr.Button
    words: gr.HTML
    offers: tuple[gr.Button, ...]

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        return {
            "preflight-words": self.words,
            **{f"preflight-offer-{i}": button for i, button in enumerate(self.offers)},
        }


def build(check: gr.Button) -> PreflightBox:
    """Lay it out below the button that begins it."""
    words = gr.HTML(elem_id="preflight-words", padding=False)
    with gr.Column(elem_classes="offers"):
        offers = tuple(
            gr.Button("", visible=False, size="sm", elem_id=f"preflight-offer-{i}") for i in range(MAX_OFFERS)
        )
    return PreflightBox(check, words, offers)


def render(state: PreflightState) -> dict[str, Update]:
    """What the box shows now."""
    found = read_preflight(state)
    offers = found.offers[:MAX_OFFERS] if found else ()
    buttons: dict[str, Update] = {}
    for i in range(MAX_OFFERS):
        shown = i < len(offers)
        buttons[f"preflight-offer-{i}"] = gr.update(visible=shown, value=_offer_words(offers[i]) if shown else "")
    return {"preflight-words": _words(state, found), **buttons}


def read_preflight(state: PreflightState) -> Preflight | None:
    """What was found; None where nothing was, or not by this version."""
    if not state.result_json:
        return None
    try:
        return Preflight.model_validate_json(state.result_json)
    except ValidationError:
        return None


def _words(state: PreflightState, found: Preflight | None) -> Markup:
    if state.running:
        words = "A few real steps are being measured; nothing is trained."
        return paragraph("quiet", words, role="status")
    if state.problem:
        return problem(state.problem)
    if found is None:
        return paragraph("quiet", "“Preflight” measures a few real steps and tells time, memory and disk.")
    return _template("preflight", found=found)


def _offer_words(offer: Offer) -> str:
    return offer.effect[:1].upper() + offer.effect[1:]


def wire(
    box: PreflightBox,
    runner: PreflightRunner,
    named: dict[str, gr.components.Component],
    *,
    settings_json: Callable[[dict[str, Any]], str],
    then_refresh: Callable[[Any], None],
) -> None:
    """Begin it with what the form holds; an offer's button changes the form and measures again."""

    def begin(**values: Any) -> None:  # noqa: ANN401 - the form's values
        runner.start(settings_json(values))

    then_refresh(box.check.click(begin, inputs_kwargs=named, **QUIET))
    fields = [name for name in named if name not in ("dataset", "name", "model")]

    def take(index: int) -> Callable[[], list[Any]]:
        def act() -> list[Any]:
            found = read_preflight(runner.state)
            changes = found.offers[index].changes if found and index < len(found.offers) else {}
            return [changes.get(name, gr.skip()) for name in fields]

        return act

    for index, button in enumerate(box.offers):
        taken = button.click(take(index), None, [named[name] for name in fields], **QUIET)
        then_refresh(taken.then(begin, inputs_kwargs=named, **QUIET))
