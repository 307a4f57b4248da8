"""The blind vote as a game: pairs without names, 1, 2 or no difference, and at the end the score and what was what."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from markupsafe import Markup
from PIL import Image

from studio.core.errors import EngineError, LoraError
from studio.core.files import open_file
from studio.core.language import N_, _
from studio.core.paths import UserData
from studio.core.text import template
from studio.engine.process.client import EngineClient
from studio.images.comparison import SavedComparison
from studio.loras.votes import Vote, VoteCount, Winner, add_vote, count_votes, read_votes
from studio.ui.inference.compare_view import comparison_of, pair_files
from studio.ui.shell.images import small_picture_url
from studio.ui.shell.parts import QUIET, Update, data_url, paragraph, toasts

_template = template("ui/templates/inference.html")
# A press on an image is a vote for it.
_BALLOT_CLICKS = """element.addEventListener("click", (event) => {
  const image = event.target.closest("button[data-vote]");
  if (image) document.querySelector(`#vote-${image.dataset.vote}`)?.click();
});"""

_TO_SCORE = "() => setTimeout(() => document.querySelector('.vote-score')?.scrollIntoView({ block: 'center' }), 100)"


def ballot(saved: SavedComparison, index: int, *, swapped: bool) -> Markup:
    """One pair of the blind vote: nothing tells which side is which."""
    pair = saved.report.pairs[index]
    assert pair.right is not None
    sides = [pair.right, pair.left] if swapped else [pair.left, pair.right]
    urls = [_bare_url(saved.folder / side.file) for side in sides]
    return _template("ballot", prompt=pair.left.settings.prompt, urls=urls)


def _bare_url(path: Path) -> str:
    """An image without what its file tells of itself: the LoRA's name is among that."""
    with open_file(path) as file, Image.open(file, formats=("PNG",)) as picture:
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(picture.convert("RGB"))).save(buffer, format="PNG")
    return data_url(buffer.getvalue(), "image/png")


Ballots = list[list[Any]]  # [index of the pair, swapped, answer], the answer None until it was voted on
ANSWERS = (N_("1 is better"), N_("2 is better"), N_("No difference"))


@dataclass(frozen=True)
class VotePanel:
    """Its components, by what they are for; `of` names the comparison that the ballots are of."""

    start: gr.Button
    ballot: gr.HTML
    buttons: tuple[gr.Button, gr.Button, gr.Button]
    row: gr.Row
    result: gr.HTML
    ballots: gr.State
    of: gr.State
    shown: dict[str, gr.components.Component]


def build_vote() -> VotePanel:
    """Lay the panel out, below the comparison."""
    with gr.Accordion(_("Blind vote"), open=False, elem_id="vote-box", visible=False) as box:
        gr.HTML(
            paragraph(
                "quiet",
                _(
                    "The pairs above, shuffled and unlabelled: press the better image, or the keys 1, 2 "
                    "or 3. The score comes at the end, and is kept with the LoRA."
                ),
            ),
            padding=False,
        )
        start = gr.Button(_("Start the vote"), elem_id="vote-start")
        ballot = gr.HTML(elem_id="vote-ballot", padding=False, js_on_load=_BALLOT_CLICKS)
        with gr.Row(visible=False, elem_classes="actions") as row:
            first, second, third = (
                gr.Button(f"{_(words)} ({key})", elem_id=f"vote-{key}") for key, words in enumerate(ANSWERS, start=1)
            )
        result = gr.HTML(elem_id="vote-result", padding=False)
    shown: dict[str, gr.components.Component] = {"vote-box": box}
    buttons = (first, second, third)
    return VotePanel(start, ballot, buttons, row, result, gr.State([]), gr.State(""), shown)


def render_vote(*, finished: bool) -> dict[str, Update]:
    """The panel is there when there is something to vote on."""
    return {"vote-box": gr.update(visible=finished)}


def voted_lora(saved: SavedComparison) -> str:
    """The LoRA that the votes are kept with: the right side's, else the left side's."""
    sides = (*saved.report.settings.right, *saved.report.settings.left)
    return sides[0].name


def new_ballots(saved: SavedComparison, rng: random.Random) -> Ballots:
    """Every pair with two valid sides, in random order, each with its sides at random."""
    indices = [i for i in range(len(saved.report.pairs)) if pair_files(saved, i)]
    rng.shuffle(indices)
    return [[index, rng.random() < 0.5, None] for index in indices]


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


def wire_vote(panel: VotePanel, engine: EngineClient, user_data: UserData, *, of: gr.Textbox) -> None:
    """Connect the buttons; the keys 1, 2 and 3 press them, by the page's script.

    Args:
        of: names the comparison that the page shows.
    """
    outputs = [panel.ballots, panel.ballot, panel.row, panel.start, panel.result, panel.of]

    def show(saved: SavedComparison, ballots: Ballots) -> dict[Any, Any]:
        done, to_come = _split(ballots)
        shown, said = Markup(), Markup()
        if to_come:
            index, swapped, __ = to_come[0]
            shown = progress(len(done), len(to_come)) + ballot(saved, index, swapped=swapped)
        else:
            said = (score(saved, done) if done else Markup()) + _votes_html(user_data, saved)
        return {
            panel.ballots: ballots,
            panel.ballot: shown,
            panel.row: gr.update(visible=bool(to_come)),
            panel.start: gr.update(visible=not to_come, value=_("Vote again") if done else _("Start the vote")),
            panel.result: said,
            panel.of: saved.folder.name,
        }

    def begin(of: str) -> dict[Any, Any]:
        with toasts():
            saved = comparison_of(engine.view, of)
            return show(saved, new_ballots(saved, random.Random()))

    def answer(ballots: Ballots, vote_of: str, choice: int) -> dict[Any, Any]:
        with toasts():
            saved = comparison_of(engine.view, vote_of)
            done, to_come = _split(ballots)
            if not to_come:
                raise EngineError(_("This vote is over. Press “Start the vote” for another."))
            index, swapped, __ = to_come[0]
            add_vote(user_data.loras, voted_lora(saved), make_vote(saved, index, swapped=swapped, answer=choice))
        return show(saved, [*done, [index, swapped, choice], *to_come[1:]])

    panel.start.click(begin, of, outputs, **QUIET)
    for choice, button in enumerate(panel.buttons):
        voted = button.click(partial(answer, choice=choice), [panel.ballots, panel.of], outputs, **QUIET)
        voted.success(fn=None, js=_TO_SCORE)  # the pairs come back above it and push it out of sight


def _split(ballots: Ballots) -> tuple[Ballots, Ballots]:
    """(those that were voted on, those to come)."""
    return [b for b in ballots if b[2] is not None], [b for b in ballots if b[2] is None]


def progress(num_done: int, num_left: int) -> Markup:
    """`Pair 2 of 6`, with a bar; nothing of the score, which would tell which side is which."""
    return _template("vote_progress", number=num_done + 1, total=num_done + num_left)


def score(saved: SavedComparison, done: Ballots) -> Markup:
    """This vote's score, and of each pair what was what and which was taken."""
    votes = [make_vote(saved, index, swapped=swapped, answer=choice) for index, swapped, choice in done]
    count = _count(saved, votes)
    rounds = []
    for vote, (index, *__) in zip(votes, done, strict=True):
        pair = saved.report.pairs[index]
        assert pair.right is not None
        urls = [small_picture_url(saved.folder / side.file) for side in (pair.left, pair.right)]
        rounds.append((vote, urls))
    return _template("vote_score", count=count, rounds=rounds)


def _votes_html(user_data: UserData, saved: SavedComparison) -> Markup:
    """What all votes on these two sides say."""
    try:
        votes = read_votes(user_data.loras, voted_lora(saved))
    except LoraError as error:
        return paragraph("bad", error)
    return _template("vote_result", sentence=_count(saved, votes).sentence)


def _count(saved: SavedComparison, votes: Sequence[Vote]) -> VoteCount:
    """How votes stand, with the sides' names as people read them."""
    report = saved.report
    count = count_votes(votes, left=report.left_name, right=report.right_name)
    return count.model_copy(update={"left": report.shown_left, "right": report.shown_right})
