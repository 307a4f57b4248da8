"""What the Compare mode shows: the pair, the strip, a sentence, the blind vote."""

import io
import random
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
from studio.core.paths import UserData
from studio.core.text import template
from studio.engine.process.client import EngineClient
from studio.engine.process.view import EngineView
from studio.images.comparison import ComparedPair, ComparedPicture, CompareReport, SavedComparison, StripPicture
from studio.loras.votes import Vote, Winner, add_vote, count_votes, read_votes
from studio.ui.shell.images import card, empty_frame, picture_frame, running_frame
from studio.ui.shell.parts import QUIET, Update, data_url, paragraph, toasts

_template = template("ui/templates/inference.html")


def pair_name(index: int, pair: ComparedPair) -> str:
    """`1 · red sneakers · seed 42`."""
    settings = pair.left.settings
    prompt = settings.prompt if len(settings.prompt) <= 40 else settings.prompt[:39] + "…"
    return f"{index + 1} · {prompt} · seed {settings.seed}"


def pair_choices(saved: SavedComparison | None) -> list[tuple[str, int]]:
    """Name and number of every finished pair."""
    if saved is None:
        return []
    return [(pair_name(i, pair), i) for i, pair in enumerate(saved.report.pairs) if pair.right is not None]


def pair_files(saved: SavedComparison | None, index: int) -> tuple[str, str] | None:
    """The files of both sides of a pair, for the slider; None where one is missing."""
    if saved is None or index >= len(saved.report.pairs):
        return None
    pair = saved.report.pairs[index]
    files = [saved.folder / side.file for side in (pair.left, pair.right) if side and side.file]
    return (str(files[0]), str(files[1])) if len(files) == 2 and all(f.is_file() for f in files) else None


def comparison_of(view: EngineView, of: str) -> SavedComparison:
    """The comparison that a page shows, which a press on it is about.

    Raises:
        EngineError: where another one was begun meanwhile.
    """
    if not of or view.comparison is None or view.comparison.folder.name != of:
        raise EngineError(
            "Nothing was done: another comparison was started meanwhile, perhaps in another tab, and this page still "
            "showed the one before. Look at the new one, then press again."
        )
    return view.comparison


def finished_pairs(saved: SavedComparison | None) -> int:
    """How many pairs have both sides."""
    return sum(pair.right is not None for pair in saved.report.pairs) if saved else 0


def captions(report: CompareReport | None) -> Markup:
    """Under both ends of the slider."""
    left, right = (report.left_name, report.right_name) if report else ("base", "LoRA")
    return _template("ends", left=left, right=right)


def side_by_side(saved: SavedComparison | None, index: int, view: EngineView) -> Markup:
    """The pair as two small images, with what each is, its time, and how far they are apart."""
    if saved is None or index >= len(saved.report.pairs):
        return _template("pair", figures=_pair_to_come(saved, view))
    pair, report = saved.report.pairs[index], saved.report
    left = card(_frame(saved.folder, pair.left, "left image"), _side_words(report.left_name, pair.left))
    if pair.right is None:
        right = card(running_frame(view) if view.phase == "comparing" else _not_made(), report.right_name)
    else:
        right = card(_frame(saved.folder, pair.right, "right image"), _side_words(report.right_name, pair.right))
    sentence = f"{report.right_name} {pair.difference.words}." if pair.difference else ""
    return _template("pair", figures=[left, right], sentence=sentence)


def _pair_to_come(saved: SavedComparison | None, view: EngineView) -> list[Markup]:
    """The pair whose left side is being made; nothing where nothing is."""
    if view.phase != "comparing":
        return []
    left, right = (saved.report.left_name, saved.report.right_name) if saved else ("left", "right")
    return [card(running_frame(view), left), card(empty_frame("·", "not made yet"), right)]


def _not_made() -> Markup:
    return empty_frame("·", "not made")


def strip(saved: SavedComparison | None, view: EngineView) -> Markup:
    """The right side at each strength, in a row."""
    if saved is None or not saved.report.settings.strip:
        return Markup()
    figures = [_strip_figure(saved.folder, picture) for picture in saved.report.strip]
    missing = saved.report.settings.strip[len(figures) :]
    for number, strength in enumerate(missing):
        running = number == 0 and view.phase == "comparing" and saved.report.num_finished >= _num_pair_pictures(saved)
        frame = running_frame(view) if running else _not_made()
        figures.append(card(frame, _template("strength", strength=strength, difference=None)))
    return _template("strip", figures=figures)


def _num_pair_pictures(saved: SavedComparison) -> int:
    return 2 * len(saved.report.settings.pairs())


def _strip_figure(folder: Path, picture: StripPicture) -> Markup:
    words = _template("strength", strength=picture.strength, difference=picture.difference)
    return card(_frame(folder, picture.picture, f"strength {picture.strength:g}"), words)


def _frame(folder: Path, picture: ComparedPicture, name: str) -> Markup:
    if not picture.file:
        return empty_frame("✗", "invalid, not shown")
    return picture_frame(folder / picture.file, name=name, alt=picture.settings.prompt)


def _side_words(name: str, picture: ComparedPicture) -> Markup:
    return _template("side", name=name, seconds=picture.seconds if picture.file else None, error=picture.error)


def sentence(view: EngineView) -> Markup:
    """What the right side does; empty before the first finished pair."""
    if view.comparison is None or not finished_pairs(view.comparison):
        return Markup()
    return _template("finding", sentence=view.comparison.report.sentence)


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


Ballots = list[list[Any]]  # [index of the pair, swapped], those that are still to be voted on
ANSWERS = ("1 is better", "2 is better", "No difference")


@dataclass(frozen=True)
class VotePanel:
    """Its components, by what they are for; `of` names the comparison that the ballots are of."""

    start: gr.Button
    ballot: gr.HTML
    answers: tuple[gr.Button, gr.Button, gr.Button]
    row: gr.Row
    result: gr.HTML
    ballots: gr.State
    of: gr.State
    shown: dict[str, gr.components.Component]


def build_vote() -> VotePanel:
    """Lay the panel out, below the comparison."""
    with gr.Accordion("Blind vote", open=False, elem_id="vote-box", visible=False) as box:
        gr.HTML(
            paragraph(
                "quiet",
                "The pairs above, shuffled and unlabelled. Press 1, 2 or 3. The count is kept with the LoRA.",
            ),
            padding=False,
        )
        start = gr.Button("Start the vote", elem_id="vote-start")
        ballot = gr.HTML(elem_id="vote-ballot", padding=False)
        with gr.Row(visible=False, elem_classes="actions") as row:
            first, second, third = (
                gr.Button(f"{words} ({key})", elem_id=f"vote-{key}") for key, words in enumerate(ANSWERS, start=1)
            )
        result = gr.HTML(elem_id="vote-result", padding=False)
    shown: dict[str, gr.components.Component] = {"vote-box": box}
    return VotePanel(start, ballot, (first, second, third), row, result, gr.State([]), gr.State(""), shown)


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


def wire_vote(panel: VotePanel, engine: EngineClient, user_data: UserData, *, of: gr.Textbox) -> None:
    """Connect the buttons; the keys 1, 2 and 3 press them, by the page's script.

    Args:
        of: names the comparison that the page shows.
    """
    outputs = [panel.ballots, panel.ballot, panel.row, panel.start, panel.result, panel.of]

    def show(saved: SavedComparison, ballots: Ballots) -> dict[Any, Any]:
        return {
            panel.ballots: ballots,
            panel.ballot: ballot(saved, ballots[0][0], swapped=ballots[0][1]) if ballots else "",
            panel.row: gr.update(visible=bool(ballots)),
            panel.start: gr.update(visible=not ballots),
            panel.result: paragraph("", f"{len(ballots)} to go.") if ballots else _votes_html(user_data, saved),
            panel.of: saved.folder.name,
        }

    def begin(of: str) -> dict[Any, Any]:
        with toasts():
            saved = comparison_of(engine.view, of)
            return show(saved, new_ballots(saved, random.Random()))

    def answer(ballots: Ballots, vote_of: str, choice: int) -> dict[Any, Any]:
        with toasts():
            saved = comparison_of(engine.view, vote_of)
            if not ballots:
                raise EngineError("This vote is over. Press “Start the vote” for another.")
            index, swapped = ballots[0]
            add_vote(user_data.loras, voted_lora(saved), make_vote(saved, index, swapped=swapped, answer=choice))
        return show(saved, ballots[1:])

    panel.start.click(begin, of, outputs, **QUIET)
    for choice, button in enumerate(panel.answers):
        button.click(partial(answer, choice=choice), [panel.ballots, panel.of], outputs, **QUIET)


def _votes_html(user_data: UserData, saved: SavedComparison) -> Markup:
    """What all votes on these two sides say."""
    try:
        votes = read_votes(user_data.loras, voted_lora(saved))
    except LoraError as error:
        return paragraph("bad", error)
    count = count_votes(votes, left=saved.report.left_name, right=saved.report.right_name)
    return _template("vote_result", sentence=count.sentence)
