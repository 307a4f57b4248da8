"""The blind vote: pairs of the last comparison, left and right shuffled; the count is kept with the LoRA."""

import random
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import LoraError
from studio.core.html import template
from studio.core.paths import UserData
from studio.engine.process.client import EngineClient
from studio.images.comparison import SavedComparison
from studio.loras.votes import Vote, Winner, add_vote, count_votes, read_votes
from studio.ui.inference import compare_view
from studio.ui.shell.parts import QUIET, Update, paragraph, toasts

_template = template("ui/templates/inference.html")

Ballots = list[list[Any]]  # [index of the pair, swapped], those that are still to be voted on
ANSWERS = ("1 is better", "2 is better", "No difference")


@dataclass(frozen=True)
class VotePanel:
    """Its components, by what they are for."""

    start: gr.Button
    ballot: gr.HTML
    answers: tuple[gr.Button, gr.Button, gr.Button]
    row: gr.Row
    result: gr.HTML
    ballots: gr.State
    shown: dict[str, gr.components.Component]


def build() -> VotePanel:
    """Lay the panel out, below the comparison."""
    with gr.Accordion("Blind vote", open=False, elem_id="vote-box", visible=False) as box:
        gr.HTML(
            paragraph(
                "quiet",
                "The pairs above, in random order, without names. Press 1, 2 or 3. The count is kept with the LoRA.",
            ),
            padding=False,
        )
        start = gr.Button("Begin the vote", elem_id="vote-start")
        ballot = gr.HTML(elem_id="vote-ballot", padding=False)
        with gr.Row(visible=False, elem_classes="actions") as row:
            first, second, third = (
                gr.Button(f"{words} ({key})", elem_id=f"vote-{key}") for key, words in enumerate(ANSWERS, start=1)
            )
        result = gr.HTML(elem_id="vote-result", padding=False)
    return VotePanel(start, ballot, (first, second, third), row, result, gr.State([]), {"vote-box": box})


def render(*, finished: bool) -> dict[str, Update]:
    """The panel is there when there is something to vote on."""
    return {"vote-box": gr.update(visible=finished)}


def voted_lora(saved: SavedComparison) -> str:
    """The LoRA that the votes are kept with: the right side's, else the left side's."""
    sides = (*saved.report.settings.right, *saved.report.settings.left)
    return sides[0].name


def new_ballots(saved: SavedComparison, rng: random.Random) -> Ballots:
    """Every pair with two valid sides, in random order, each with its sides at random."""
    indices = [i for i in range(len(saved.report.pairs)) if compare_view.pair_files(saved, i)]
    rng.shuffle(indices)
    return [[index, rng.random() < 0.5] for index in indices]


def make_vote(saved: SavedComparison, index: int, *, swapped: bool, answer: int) -> Vote:
    """The vote that an answer (0: first, 1: second, 2: neither) means for the sides' real names."""
    winner: Winner = "neither" if answer == 2 else "right" if (answer == 1) != swapped else "left"
    settings = saved.report.pairs[index].left.settings
    return Vote(
        left=saved.report.left_name,
        right=saved.report.right_name,
        winner=winner,
        prompt=settings.prompt,
        seed=settings.seed,
        voted_at=datetime.now().astimezone(),
    )


def wire(panel: VotePanel, engine: EngineClient, user_data: UserData) -> None:
    """Connect the buttons; the keys 1, 2 and 3 press them, by the page's script."""
    outputs = [panel.ballots, panel.ballot, panel.row, panel.start, panel.result]

    def show(saved: SavedComparison, ballots: Ballots) -> list[Any]:
        if ballots:
            index, swapped = ballots[0]
            words = paragraph("", f"{len(ballots)} to go.")
            picture = compare_view.ballot(saved, index, swapped=swapped)
            return [ballots, picture, gr.update(visible=True), gr.update(visible=False), words]
        return [[], "", gr.update(visible=False), gr.update(visible=True), _result(saved)]

    def _result(saved: SavedComparison) -> Markup:
        try:
            votes = read_votes(user_data.loras, voted_lora(saved))
        except LoraError as error:
            return paragraph("bad", error)
        count = count_votes(votes, left=saved.report.left_name, right=saved.report.right_name)
        return _template("vote_result", sentence=count.sentence)

    def begin() -> list[Any]:
        saved = engine.view.comparison
        return show(saved, new_ballots(saved, random.Random())) if saved else [gr.skip()] * len(outputs)

    def answer(ballots: Ballots, choice: int) -> list[Any]:
        saved = engine.view.comparison
        if saved is None or not ballots or ballots[0][0] >= len(saved.report.pairs):
            return [gr.skip()] * len(outputs)
        index, swapped = ballots[0]
        with toasts():
            add_vote(user_data.loras, voted_lora(saved), make_vote(saved, index, swapped=swapped, answer=choice))
        return show(saved, ballots[1:])

    panel.start.click(begin, None, outputs, **QUIET)
    for choice, button in enumerate(panel.answers):
        button.click(lambda ballots, choice=choice: answer(ballots, choice), panel.ballots, outputs, **QUIET)
