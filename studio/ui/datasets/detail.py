"""One image: large, with its crop; its caption; its problems, and what one click mends."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.datasets.buckets import BucketFit, assign_bucket
from studio.datasets.session import DatasetSession
from studio.datasets.source import DatasetRow
from studio.ui.datasets import caption_box
from studio.ui.datasets.caption_box import Subject, show_row
from studio.ui.datasets.html import facts_line, large_picture, not_shown, problem_list
from studio.ui.shell.parts import paragraph

_NOTHING = not_shown("Click an image to enlarge it and edit its caption.")


@dataclass(frozen=True)
class Detail:
    """Its components, by what they are for.

    Attributes:
        subject: an input in whose place the page's script puts the image that it shows when something is pressed.
        shown_file: which file the large image is of, to see when it must be drawn again.
        caption: the box, with its words below.
    """

    subject: gr.JSON
    shown_file: gr.State
    picture: gr.HTML
    facts: gr.HTML
    caption: gr.HTML
    previous: gr.Button
    following: gr.Button
    exclude: gr.Button
    convert: gr.Button
    recode: gr.Button
    reset: gr.Button
    undo: gr.Button
    redo: gr.Button
    problems: gr.HTML

    @property
    def rendered(self) -> dict[str, gr.components.Component]:
        """What `render_row` fills, by its names."""
        names = ("caption", "shown_file", "picture", "facts", "problems")
        buttons = ("exclude", "convert", "recode", "reset", "undo", "redo")
        return {name: getattr(self, name) for name in (*names, *buttons)}


def build() -> Detail:
    """Lay it out, right of the grid."""
    subject, shown_file = gr.JSON(visible=False), gr.State("")
    with gr.Column(elem_id="dataset-detail", elem_classes="dataset-detail", min_width=320):
        picture = gr.HTML(_NOTHING, elem_id="dataset-picture", padding=False)
        facts = gr.HTML(elem_id="dataset-facts", padding=False)
        caption = caption_box.build()
        with gr.Row(elem_classes="small-buttons"):
            previous = gr.Button("‹ Previous", elem_id="dataset-previous", size="sm", min_width=80)
            following = gr.Button("Next ›", elem_id="dataset-next", size="sm", min_width=80)
            exclude = gr.Button("Exclude", elem_id="dataset-exclude", size="sm", min_width=80)
        with gr.Row(elem_classes="small-buttons"):
            undo = gr.Button("Undo", elem_id="dataset-undo", size="sm", min_width=80)
            redo = gr.Button("Redo", elem_id="dataset-redo", size="sm", min_width=80)
        with gr.Row(elem_classes="small-buttons"):
            convert = gr.Button("Convert a copy", elem_id="dataset-convert", size="sm", visible=False)
            recode = gr.Button("Re-encode the caption", elem_id="dataset-recode", size="sm", visible=False)
            reset = gr.Button("Restore the original caption", elem_id="dataset-reset", size="sm", visible=False)
        problems = gr.HTML(elem_id="dataset-problems", padding=False)
        gr.HTML(
            paragraph(
                "quiet",
                "Keys: ← → previous, next · X exclude · Ctrl+Z undo · Enter to the caption, Esc back · captions are "
                "saved as you type",
            ),
            padding=False,
        )
    return Detail(
        subject=subject,
        shown_file=shown_file,
        picture=picture,
        facts=facts,
        caption=caption,
        previous=previous,
        following=following,
        exclude=exclude,
        convert=convert,
        recode=recode,
        reset=reset,
        undo=undo,
        redo=redo,
        problems=problems,
    )


def render_row(session: DatasetSession, asked: Subject, *, shown_file: str) -> dict[str, Any]:
    """Everything of the image that the page shows; of none where it is not there, or not in the open dataset.

    Args:
        shown_file: what the page's large image is of; it is not sent again where that is the same.
    """
    stamp = session.stamp
    row = find_row(session, asked)
    reported = show_row(session, asked, row, stamp)
    if row is None:
        nothing = {"shown_file": "", "picture": _NOTHING, "facts": ""}
        return {"caption": reported, **nothing, **_render_buttons(session, None)}
    fit = fit_of(session, row)
    file = _file_of(session, row)
    picture = gr.skip() if file == shown_file else large_picture(session, row, fit)
    return {
        "caption": reported,
        "shown_file": file,
        "picture": picture,
        "facts": facts_line(row, fit),
        **_render_buttons(session, row),
    }


def _file_of(session: DatasetSession, row: DatasetRow) -> str:
    """Which file, in which state and cut how, a large image is of."""
    recipe = session.opened.recipe
    checked = row.facts.sha256 if row.facts else "not checked"
    return f"{row.path} {checked} {recipe.resolution} {recipe.background}"


def _render_buttons(session: DatasetSession, row: DatasetRow | None) -> dict[str, Any]:
    """Problems, and what can be done now. What has a key of its own is always offered: the page may be ahead of us."""
    remedies = {remedy for problem in row.problems for remedy in problem.remedies} if row else set()
    undo, redo = (session.opened.next_undo, session.opened.next_redo) if session.is_open else ("", "")
    return {
        "problems": problem_list(row) if row else "",
        "exclude": "Include" if row and row.excluded else "Exclude",
        "convert": gr.update(visible="convert" in remedies),
        "recode": gr.update(visible="recode caption" in remedies),
        "reset": gr.update(visible=row is not None and row.caption_from == "your edit"),
        "undo": _step_words("Undo", undo),
        "redo": _step_words("Redo", redo),
    }


def _step_words(word: str, what: str) -> str:
    return f"{word}: {what[:28]}{'…' * (len(what) > 28)}" if what else word


def fit_of(session: DatasetSession, row: DatasetRow) -> BucketFit | None:
    """The bucket of an image that can be read."""
    if row.facts is None or not row.facts.is_usable:
        return None
    return assign_bucket(row.facts.width, row.facts.height, session.opened.buckets)


def find_row(session: DatasetSession, asked: Subject) -> DatasetRow | None:
    """The row that a page asks for; None where there is none, or another dataset is open."""
    if (
        not asked.key
        or not session.is_open
        or session.opened.name != asked.dataset
        or not session.opened.has(asked.key)
    ):
        return None
    return session.opened.row(asked.key)
