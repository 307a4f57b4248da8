"""What stands above a run that is finished: before and after, a verdict in one sentence, and where its LoRA goes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.language import N_, _
from studio.core.text import template
from studio.loras.library import LoraLibrary
from studio.training.begin import begin_making_fast
from studio.training.events import SampleEvent, ScoreEvent
from studio.training.folder import RunFolder
from studio.training.session import RunHistory, TrainingView, add_to_library, lora_to_send
from studio.training.speed import speed_advice
from studio.ui.shell.images import run_thumbnail_url
from studio.ui.shell.parts import QUIET, live_html, toast, toasts
from studio.ui.shell.selection import changed, read_selection
from studio.ui.training.destinations import Destinations, in_rows, lead_to, wire_compare, wire_use
from studio.ui.training.images import Thumbnails, is_speed_run
from studio.ui.training.plot import OUTCOME_KINDS, SCORES, WHITE_BORDER, Outcome, ScoreKind, capitalized, reached
from studio.ui.training.queue import TrainingPage
from studio.ui.training.view import reasons

_template = template("ui/templates/training.html")

CHOSEN_IN_GENERATE = N_("{name} is chosen in Generate.")
BESIDE_BASE: Mapping[Outcome, str] = {
    "better": N_("better than the base"),
    "worse": N_("worse than the base"),
    "like the base": N_("like the base"),
}

# Gradio's HTML takes events of its own: which of them a button is goes with its step.
ACTS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (button) trigger(button.dataset.act, { step: button.dataset.step ? Number(button.dataset.step) : null });
});"""


def build() -> gr.HTML:
    """Lay it out."""
    return live_html("training-end", js_on_load=ACTS)


def end_card_html(view: TrainingView, thumbnails: Thumbnails) -> Markup:
    """The card; empty where the run is not finished, or nothing came out of it."""
    run, history = view.run, view.history
    if run is None or history is None or view.status is None or view.status.state != "finished":
        return Markup()
    best = lora_to_send(history)
    if best is None:
        return Markup()
    step, speed = best[0], is_speed_run(run)
    scored = history.scores.get(step)
    outcome, sentence = verdict(history, scored) if scored is not None else ("", "")
    if speed and scored is not None:
        enough, sentence = speed_advice(scored)
        outcome = "better" if enough else "worse"
    comparison = None if speed else history.comparison
    return _template(
        "end_card",
        step=step,
        images=_before_and_after(run, history, step, thumbnails, is_speed=speed),
        kind=OUTCOME_KINDS[outcome] if outcome else "",
        sentence=sentence or _("Step {step:,} is the LoRA of this run. Its images were not scored.", step=step),
        why=capitalized(reasons(history.proposal)) if history.proposal is not None else "",
        better=comparison.better if comparison else (),
        worse=comparison.worse if comparison else (),
        is_speed=speed,
    )


def telling_score(history: RunHistory, scored: ScoreEvent) -> tuple[ScoreKind, Outcome] | None:
    """The score of a step that says most, and how it compares with the base; None where none can be compared.

    White borders where they are wanted, else the first score that moved.
    """
    reference = history.reference.scores if history.reference is not None else None
    outcomes = [(kind, said) for kind in SCORES if (said := kind.verdict(scored, reference))]
    moved = [(kind, said) for kind, said in outcomes if kind.title == WHITE_BORDER or said in ("better", "worse")]
    return next(iter(moved or outcomes), None)


def verdict(history: RunHistory, scored: ScoreEvent) -> tuple[Outcome, str]:
    """How a step compares with the base, and that in a sentence about the score that says most."""
    found = telling_score(history, scored)
    if found is None:
        return "", ""
    kind, outcome = found
    scores = f"{capitalized(_(kind.title))} {kind.words(scored.base)} → {kind.words(scored.scores)}"
    told = f"{scores}, {_(BESIDE_BASE[outcome])}"
    if goal := reached(kind, history):
        told = " ".join((told, _("(dataset {score})", score=goal)))
    return outcome, f"{told}."


def _before_and_after(
    run: RunFolder, history: RunHistory, step: int, thumbnails: Thumbnails, *, is_speed: bool
) -> list[tuple[str, str, str]]:
    """(caption, address, prompt) of the base's image and the LoRA's, of the first prompt that has both."""
    events = [event for event in history.samples if event.step == step] or history.samples[-1:]
    for event in events:
        for index in range(min(len(event.base), len(event.pictures))):
            urls = _urls(run, event, index, thumbnails)
            if len(urls) == 2:
                prompt = event.prompts[index % len(event.prompts)]
                before = _("Before: all steps, guided") if is_speed else _("Before: the base")
                captions = (before, _("After: step {step:,}", step=event.step))
                return [(caption, url, prompt) for caption, url in zip(captions, urls, strict=True)]
    return []


def _urls(run: RunFolder, event: SampleEvent, index: int, thumbnails: Thumbnails) -> list[str]:
    files: Sequence[str | None] = (event.base[index], event.pictures[index])
    try:
        return [run_thumbnail_url(run.file(file), thumbnails.runs) for file in files if file is not None]
    except OSError:  # one is gone, or damaged: the next prompt's are shown
        return []


def wire(
    card: gr.HTML, page: TrainingPage, selection: gr.HTML, to: Destinations, *, then_refresh: Callable[[Any], Any]
) -> None:
    """Connect its buttons; their events are named in `ACTS`' template."""
    uses = (
        (card.click, to.generate, CHOSEN_IN_GENERATE, lead_to("Inference", "Generate")),
        (card.apply, to.batch, N_("{name} is chosen in Batch."), lead_to("Batch")),
    )
    for pressed, form, says, js in uses:
        then_refresh(wire_use(pressed, page, selection, form, fill=in_rows, says=says, js=js))
    then_refresh(wire_compare(card.select, page, selection, to))

    def make_fast(sent: str) -> str:
        with toasts():
            run, user_data = page.run_of(sent), page.session.user_data
            lora = add_to_library(run, page.session.history(run), LoraLibrary(user_data.loras))
            made = begin_making_fast(run, lora, user_data)
            page.session.enqueue(made)
            toast(_("{name} is made fast: its Speed LoRA is in the queue.", name=lora))
            return changed(read_selection(sent), run=made.name, image=None)

    then_refresh(card.submit(make_fast, selection, selection, **QUIET))
