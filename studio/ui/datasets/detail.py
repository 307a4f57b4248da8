"""One image of the dataset, large, with its caption box.

The caption's box. Its script knows the captions of the grid and whose text is in the box; the studio only saves.

So nobody waits for the studio to know for which image they type, and no late answer replaces what they typed.

One image: large, with its crop; its caption; its problems, and what one click mends.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup
from pydantic import TypeAdapter, ValidationError

from studio.core.errors import DatasetError, StudioError, error_message
from studio.core.files import read_text
from studio.core.language import _
from studio.core.paths import assets_folder
from studio.datasets.captions import alternatives_of
from studio.datasets.rows import MAX_TOKENS, BucketFit, assign_bucket
from studio.datasets.session import DatasetSession, Stamp, TypedCaption
from studio.datasets.source import YOUR_EDIT, DatasetRow, Focus
from studio.ui.datasets.html import caption_box, facts_line, large_picture, not_shown, problem_list
from studio.ui.shell.parts import paragraph

# Before a handler of Gradio's runs: the image that the page shows at that moment takes the place of its first input …
WITH_SUBJECT = "(_, ...values) => [window.captionBox?.subject() ?? null, ...values]"
# … and what was typed before is saved first, so that undo, export and all that reads captions find it.
SAVED_WITH_SUBJECT = """async (_, ...values) => {
  const subject = window.captionBox?.subject() ?? null;
  await window.captionBox?.saved();
  return [subject, ...values];
}"""
SAVED = "async (...values) => { await window.captionBox?.saved(); return values; }"

_TYPED = TypeAdapter(tuple[TypedCaption, ...])

Answer = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """Which image of which dataset the page shows; names that came from a browser.

    Attributes:
        beyond: whether it is the first or last one of another page of the grid.
        selected: the images that are selected in the grid, which a press is about in place of the one that is shown.
    """

    dataset: str = ""
    key: str = ""
    beyond: bool = False
    selected: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the images that a press is about.

        Raises:
            DatasetError: where there is none.
        """
        if not (self.selected or self.key):
            raise DatasetError(_("Choose an image first."))
        return self.selected or (self.key,)


def build_caption_box() -> gr.HTML:
    """Lay it out."""
    return gr.HTML(
        elem_id="dataset-caption",
        html_template=str(caption_box()),
        js_on_load=read_text(assets_folder() / "captions.js"),
        padding=False,
        row=None,
    )


def read_subject(value: object) -> Subject:
    """What the page's script said is shown; nothing where it said nothing that can be."""
    if not isinstance(value, dict):
        return Subject()
    selected = value.get("selected")
    return Subject(
        str(value.get("dataset", "")),
        str(value.get("key", "")),
        beyond=value.get("beyond") is True,
        selected=tuple(map(str, selected)) if isinstance(selected, list) else (),
    )


def show_row(session: DatasetSession, asked: Subject, row: DatasetRow | None, stamp: Stamp) -> Any:  # noqa: ANN401 - gradio's update
    """Tell the script what was rendered; the time makes it another value, so that it hears of each."""
    known = _known(session, asked.dataset, row, stamp) if row else {"dataset": asked.dataset, "key": asked.key}
    return gr.update(row={**known, "gone": row is None, "at": time.monotonic_ns()})


def save_all(session: DatasetSession, typed: tuple[TypedCaption, ...]) -> Answer:
    """Save captions one by one; each is either saved or refused with a sentence."""
    saved, refused = [], []
    for caption in typed:
        try:
            row, stamp = session.save_caption(caption)
        except (StudioError, OSError) as error:
            which = caption.model_dump(include={"dataset", "key", "number"})
            refused.append({**which, "sentence": error_message(error)})
        else:
            saved.append({**_known(session, caption.dataset, row, stamp), "number": caption.number})
    return {"saved": saved, "refused": refused}


def _known(session: DatasetSession, dataset: str, row: DatasetRow, stamp: Stamp) -> Answer:
    """An image's caption, and the words below it: `14 of 75 tokens · from styles.csv row 3`."""
    tokens = max(map(session.count_tokens, alternatives_of(row.caption)))
    words = _("{tokens} of {limit} tokens", tokens=tokens, limit=MAX_TOKENS)
    if tokens > MAX_TOKENS:
        words = _(
            "{tokens} of {limit} tokens, the last {num_over} are not read",
            tokens=tokens,
            limit=MAX_TOKENS,
            num_over=tokens - MAX_TOKENS,
        )
    if row.caption_from:
        origin = _("from {source}", source=_(row.caption_from))
        words = f"{words} · {origin}"
    return {
        "dataset": dataset,
        "key": row.key,
        "caption": row.caption,
        "stamp": stamp,
        "words": words,
        "over": tokens > MAX_TOKENS,
    }


def saver(session: DatasetSession) -> Callable[[list[dict[str, Any]]], Answer]:
    """What the script asks to have captions saved."""

    def save_captions(captions: list[dict[str, Any]]) -> Answer:
        return save_all(session, _TYPED.validate_python(captions))

    return save_captions


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
    """Lay it out, in the column right of the grid."""
    subject, shown_file = gr.JSON(visible=False), gr.State("")
    with gr.Column(elem_id="dataset-detail"):
        crop = read_text(assets_folder() / "crop.js")
        picture = gr.HTML(_nothing_shown(), elem_id="dataset-picture", padding=False, js_on_load=crop)
        facts = gr.HTML(elem_id="dataset-facts", padding=False)
        caption = build_caption_box()
        with gr.Row(elem_classes="small-buttons"):
            previous = gr.Button(_("‹ Previous"), elem_id="dataset-previous", size="sm", min_width=80)
            following = gr.Button(_("Next ›"), elem_id="dataset-next", size="sm", min_width=80)
            exclude = gr.Button(_("Exclude"), elem_id="dataset-exclude", size="sm", min_width=80)
        with gr.Row(elem_classes="small-buttons"):
            undo = gr.Button(_("Undo"), elem_id="dataset-undo", size="sm", min_width=80)
            redo = gr.Button(_("Redo"), elem_id="dataset-redo", size="sm", min_width=80)
        with gr.Row(elem_classes="small-buttons"):
            convert = gr.Button(_("Convert a copy"), elem_id="dataset-convert", size="sm", visible=False)
            recode = gr.Button(_("Re-encode the caption"), elem_id="dataset-recode", size="sm", visible=False)
            reset = gr.Button(_("Restore the original caption"), elem_id="dataset-reset", size="sm", visible=False)
        problems = gr.HTML(elem_id="dataset-problems", padding=False)
        gr.HTML(
            paragraph(
                "quiet",
                _(
                    "Keys: ← → previous, next · Shift and arrows move the crop · X exclude · Ctrl+Z undo · "
                    "Enter to the caption, Esc back · captions are saved as you type"
                ),
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


def _nothing_shown() -> Markup:
    return not_shown(_("Click an image to enlarge it and edit its caption."))


def render_row(session: DatasetSession, asked: Subject, *, shown_file: str) -> dict[str, Any]:
    """Everything of the image that the page shows; of none where it is not there, or not in the open dataset.

    Args:
        shown_file: what the page's large image is of; it is not sent again where that is the same.
    """
    stamp = session.stamp
    row = find_row(session, asked)
    reported = show_row(session, asked, row, stamp)
    if row is None:
        nothing = {"shown_file": "", "picture": _nothing_shown(), "facts": ""}
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


_FOCUS = TypeAdapter(Focus | None)


def move_crop(session: DatasetSession, event: gr.EventData) -> bool:
    """What dragging the crop does, or pressing “Centre”: the page says of which image, and where it is now.

    Returns:
        Whether it is away from the centre now.

    Raises:
        DatasetError: where there is no such image or place.
        OSError: where it cannot be saved.
    """
    dataset, key, focus = (getattr(event, name, None) for name in ("dataset", "key", "focus"))
    try:
        place = _FOCUS.validate_python(focus)
    except ValidationError as error:
        raise DatasetError(_("The page does not say where the crop is. Reload it.")) from error
    session.named(str(dataset)).opened.set_focus(str(key), place)
    return place is not None


def _file_of(session: DatasetSession, row: DatasetRow) -> str:
    """Which file, in which state and cut how, a large image is of."""
    recipe = session.opened.recipe
    checked = row.facts.sha256 if row.facts else "not checked"
    return f"{row.path} {checked} {recipe.resolution} {recipe.background} {row.focus}"


def _render_buttons(session: DatasetSession, row: DatasetRow | None) -> dict[str, Any]:
    """Problems, and what can be done now. What has a key of its own is always offered: the page may be ahead of us."""
    remedies = {remedy for problem in row.problems for remedy in problem.remedies} if row else set()
    undo, redo = (session.opened.next_undo, session.opened.next_redo) if session.is_open else ("", "")
    return {
        "problems": problem_list(row) if row else "",
        "exclude": _("Include") if row and row.excluded else _("Exclude"),
        "convert": gr.update(visible="convert" in remedies),
        "recode": gr.update(visible="recode caption" in remedies),
        "reset": gr.update(visible=row is not None and row.caption_from == YOUR_EDIT),
        "undo": _step_words(_("Undo"), undo),
        "redo": _step_words(_("Redo"), redo),
    }


def _step_words(word: str, what: str) -> str:
    return f"{word}: {what[:28]}{'…' * (len(what) > 28)}" if what else word


def fit_of(session: DatasetSession, row: DatasetRow) -> BucketFit | None:
    """The bucket of an image that can be read."""
    if row.facts is None or not row.facts.is_usable:
        return None
    return assign_bucket(row.facts.width, row.facts.height, session.opened.buckets, focus=row.focus)


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
