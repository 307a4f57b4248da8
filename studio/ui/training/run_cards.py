"""The runs as cards: name, when, state, the last image, the best score. Pressed to show, ticked to compare."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.language import _
from studio.core.records import Label
from studio.core.text import template, when_text
from studio.jobs.folder import RunState, status_or
from studio.jobs.words import begun_at, short_title
from studio.training.folder import RunFolder
from studio.training.session import RunHistory, TrainingView, lora_to_send
from studio.ui.shell.images import run_thumbnail_url
from studio.ui.shell.parts import live_html
from studio.ui.shell.selection import Selection, select
from studio.ui.training.end_card import telling_score
from studio.ui.training.images import Thumbnails
from studio.ui.training.plot import OUTCOME_KINDS, OUTCOME_WORDS, OVERLAY_STYLES, Outcome
from studio.ui.training.queue import TrainingPage
from studio.ui.training.view import STATE_KINDS, STATE_WORDS

_template = template("ui/templates/training.html")

MAX_CARDS = 12

# A press counts in the browser at once, so that the next one is about the run that was chosen already.
_CHOICES = """element.addEventListener("click", (event) => {
  const card = event.target.closest("button[data-run]");
  if (!card) return;
  window.chosenRun = card.dataset.run;
  trigger("click");
});
element.addEventListener("change", ({ target }) => {
  window.tickedRun = { name: target.dataset.run, on: target.checked };
  trigger("select");
});"""
_TICKED = f"""compared: [
  ...now.compared.filter((name) => name !== window.tickedRun.name),
  ...(window.tickedRun.on ? [window.tickedRun.name] : []),
].slice(-{len(OVERLAY_STYLES)})"""


@dataclass(frozen=True)
class RunCard:
    """What one card says.

    Attributes:
        title: what people call it.
        when: it was begun, in words.
        sign, state, state_kind: of its state.
        image: the address of its last validation image; "" where there is none.
        score: its best score, in words; "" where nothing was scored.
        told, kind: how that compares with the base, in words and as a colour.
        is_compared: whether its curves are drawn over those of the run that is shown.
    """

    name: str
    title: str
    when: str
    sign: str
    state: str
    state_kind: str
    image: str
    score: str
    told: str
    kind: str
    is_compared: bool


def build() -> tuple[gr.Textbox, gr.HTML]:
    """Lay out the search, which only many runs need, and the cards."""
    search = gr.Textbox(
        show_label=False,
        placeholder=_("Search runs by name"),
        max_lines=1,
        visible=False,
        elem_id="training-run-search",
        interactive=True,
    )
    return search, live_html("training-runs", js_on_load=_CHOICES)


def runs_html(page: TrainingPage, view: TrainingView, selection: Selection, now: datetime | None = None) -> Markup:
    """The newest runs, or those that were searched for; the one that is shown and those it is compared with always.

    Args:
        now: for tests, the moment that `when` is told from.
    """
    shown = view.run.name if view.run else ""
    compared = [run.name for run in page.runs_to_compare(selection, view)]
    names = _to_show(view, selection.run_search, [shown, *compared] if shown else [])
    moment = now or datetime.now()
    runs = page.session.user_data.runs
    cards = [_card(page, RunFolder(runs / name), view, compared, moment) for name in names]
    left_out = len(view.names) - len(cards)
    return _template("run_cards", cards=cards, shown=shown, left_out=left_out) if cards else Markup()


def _to_show(view: TrainingView, search: str, chosen: Sequence[str]) -> list[str]:
    words = search.casefold().split()
    found = [
        name
        for name in view.names
        if not words or all(word in f"{view.titles.get(name, '')} {name}".casefold() for word in words)
    ]
    return [*(name for name in chosen if name not in found[:MAX_CARDS]), *found[:MAX_CARDS]]


def _card(page: TrainingPage, run: RunFolder, view: TrainingView, compared: Sequence[str], now: datetime) -> RunCard:
    history, state = page.session.history(run), _state(run, view)
    sign, word = STATE_WORDS[state]
    outcome, score = _best_score(history)
    moment = begun_at(run)
    return RunCard(
        name=run.name,
        title=short_title(run, view.labels.get(run.name, Label())),
        when=when_text(moment, now) if moment else "",
        sign=sign,
        state=_(word).rstrip("."),
        state_kind={"pass": "good", "fail": "bad"}.get(STATE_KINDS.get(state, ""), ""),
        image=_last_image(run, history, page.thumbnails),
        score=score,
        told=_(OUTCOME_WORDS[outcome]),
        kind=OUTCOME_KINDS[outcome],
        is_compared=run.name in compared,
    )


def _state(run: RunFolder, view: TrainingView) -> RunState:
    """As its folder says; one in the queue waits."""
    if any(line.job.run == run and line.job.state == "queued" for line in view.jobs):
        return "waiting"
    return status_or("failed", run).state


def _best_score(history: RunHistory) -> tuple[Outcome, str]:
    """Of the step that goes on from here, else of the last that was scored; how it compares, and the score."""
    best = lora_to_send(history)
    scores = dict(history.scores)
    scored = scores.get(best[0] if best else 0) or scores.get(max(scores, default=0))
    found = telling_score(history, scored) if scored is not None and scored.step > 0 else None
    if scored is None or found is None:
        return "", ""
    kind, outcome = found
    return outcome, f"{_(kind.title)} {kind.words(scored.scores)}"


def _last_image(run: RunFolder, history: RunHistory, thumbnails: Thumbnails) -> str:
    """The address of the newest image that is there."""
    for file in history.samples[-1].pictures if history.samples else ():
        try:
            return run_thumbnail_url(run.file(file), thumbnails.runs) if file else ""
        except OSError:
            continue
    return ""


def wire(search: gr.Textbox, cards: gr.HTML, selection: gr.HTML, *, then_refresh: Callable[[Any], Any]) -> None:
    """Connect the choice of a run, the ticks, and the search."""
    then_refresh(select(cards.click, selection, change="run: window.chosenRun ?? now.run, image: null"))
    then_refresh(select(cards.select, selection, change=_TICKED))
    then_refresh(select(search.input, selection, search, change='run_search: values[0] ?? ""'))
