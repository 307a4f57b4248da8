"""One picture: large, with its crop; its caption, saved while one types; its problems, and what one click mends."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.dataset.buckets import BucketFit, assign_bucket
from studio.dataset.desk import DatasetDesk
from studio.dataset.row import DatasetRow
from studio.dataset.rows import MAX_TOKENS
from studio.ui.dataset_html import facts_line, large_picture, problem_list
from studio.ui.html import text

_NOTHING = '<div class="shown"><span>Press a picture to see it large, with its caption.</span></div>'


@dataclass(frozen=True)
class Detail:
    """Its components, by what they are for.

    Attributes:
        selected: the key of the picture that is shown, as the browser knows it when something is pressed or typed.
        current: the same, as the server knows it when a handler runs: between the two another one may be chosen.
        shown_file: which file the large picture is of, to see when it must be drawn again.
        base: the caption that was last saved or shown; what is in the box differs where the user typed.
    """

    selected: gr.Textbox
    current: gr.State
    shown_file: gr.State
    base: gr.Textbox
    picture: gr.HTML
    facts: gr.HTML
    caption: gr.Textbox
    saved: gr.HTML
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
    def rendered(self) -> list[gr.components.Component]:
        """What `render_row` fills, in its order."""
        return [
            self.selected,
            self.current,
            self.shown_file,
            self.base,
            self.picture,
            self.facts,
            self.caption,
            *self.buttons,
        ]

    @property
    def buttons(self) -> list[gr.components.Component]:
        """What `render_buttons` fills, in its order: all but the picture and the caption that is typed in."""
        return [
            self.saved,
            self.problems,
            self.exclude,
            self.convert,
            self.recode,
            self.reset,
            self.undo,
            self.redo,
        ]


def build() -> Detail:
    """Lay it out, right of the grid."""
    current, shown_file = gr.State(""), gr.State("")
    with gr.Column(elem_id="dataset-detail", elem_classes="dataset-detail", min_width=320):
        selected = gr.Textbox(visible="hidden", elem_id="dataset-selected", label="Selected picture")
        base = gr.Textbox(visible="hidden", elem_id="dataset-base", label="Saved caption")
        picture = gr.HTML(_NOTHING, elem_id="dataset-picture", padding=False)
        facts = gr.HTML(elem_id="dataset-facts", padding=False)
        caption = gr.Textbox(
            label="Caption", lines=3, max_lines=8, elem_id="dataset-caption", interactive=False, max_length=4000
        )
        saved = gr.HTML('<p class="tokens"></p>', elem_id="dataset-saved", padding=False)
        with gr.Row(elem_classes="small-buttons"):
            previous = gr.Button("‹ Previous", elem_id="dataset-previous", size="sm", min_width=80)
            following = gr.Button("Next ›", elem_id="dataset-next", size="sm", min_width=80)
            exclude = gr.Button("Exclude", elem_id="dataset-exclude", size="sm", min_width=80, interactive=False)
        with gr.Row(elem_classes="small-buttons"):
            undo = gr.Button("Undo", elem_id="dataset-undo", size="sm", min_width=80, interactive=False)
            redo = gr.Button("Redo", elem_id="dataset-redo", size="sm", min_width=80, interactive=False)
        with gr.Row(elem_classes="small-buttons"):
            convert = gr.Button("Convert a copy", elem_id="dataset-convert", size="sm", visible=False)
            recode = gr.Button("Re-encode the caption", elem_id="dataset-recode", size="sm", visible=False)
            reset = gr.Button("Back to the found caption", elem_id="dataset-reset", size="sm", visible=False)
        problems = gr.HTML(elem_id="dataset-problems", padding=False)
        gr.HTML(
            "<p class='quiet'>Keys: ← → previous, next · X exclude · Ctrl+Z undo · Enter to the caption, Esc back · "
            "captions are saved as you type</p>",
            padding=False,
        )
    return Detail(
        selected=selected,
        current=current,
        shown_file=shown_file,
        base=base,
        picture=picture,
        facts=facts,
        caption=caption,
        saved=saved,
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


def render_row(desk: DatasetDesk, key: str) -> list[Any]:
    """Everything of one picture; of none where the key is empty or no longer there."""
    row = find_row(desk, key)
    if row is None:
        empty = gr.update(value="", interactive=False)
        return ["", "", "", "", _NOTHING, "", empty, *render_buttons(desk, None)]
    fit = fit_of(desk, row)
    return [
        row.key,
        row.key,
        file_of(row),
        row.caption,
        large_picture(desk, row, fit),
        facts_line(row, fit),
        gr.update(value=row.caption, interactive=True),
        *render_buttons(desk, row),
    ]


def renew_row(desk: DatasetDesk, *, current: str, shown_file: str, selected: str, base: str, caption: str) -> list[Any]:
    """What changed of the picture that is shown; a caption that is being typed stays."""
    row = find_row(desk, current)
    if row is None:
        return render_row(desk, "") if current else [gr.skip()] * 15
    renewed = render_row(desk, current)
    typed = selected != current or caption != base
    if typed or " ".join(base.split()) == row.caption:
        renewed[3] = renewed[6] = gr.skip()
    if file_of(row) == shown_file:
        renewed[4] = gr.skip()
    return [gr.skip(), *renewed[1:]]


def file_of(row: DatasetRow) -> str:
    """Which file, in which state, a large picture is of."""
    return f"{row.path} {row.facts.sha256 if row.facts else 'not checked'}"


def render_buttons(desk: DatasetDesk, row: DatasetRow | None, *, saved: str = "") -> list[Any]:
    """Tokens, problems, and what can be done now."""
    remedies = {remedy for problem in row.problems for remedy in problem.remedies} if row else set()
    undo, redo = (desk.opened.next_undo, desk.opened.next_redo) if desk.is_open else ("", "")
    return [
        tokens_line(desk, row, saved=saved) if row else '<p class="tokens"></p>',
        problem_list(row) if row else "",
        gr.update(value="Take back in" if row and row.excluded else "Exclude", interactive=row is not None),
        gr.update(visible="convert" in remedies),
        gr.update(visible="recode caption" in remedies),
        gr.update(visible=row is not None and row.caption_from == "your edit"),
        _step_button("Undo", undo),
        _step_button("Redo", redo),
    ]


def _step_button(word: str, what: str) -> Any:  # noqa: ANN401 - gradio's update
    return gr.update(interactive=bool(what), value=f"{word}: {what[:28]}{'…' * (len(what) > 28)}" if what else word)


def tokens_line(desk: DatasetDesk, row: DatasetRow, *, saved: str) -> str:
    """`14 of 75 tokens · from styles.csv row 3 · saved`."""
    tokens = desk.opened.count_tokens(row.caption)
    kind = "tokens bad" if tokens > MAX_TOKENS else "tokens"
    over = f", the last {tokens - MAX_TOKENS} are not read" if tokens > MAX_TOKENS else ""
    origin = f" · from {text(row.caption_from)}" if row.caption_from else ""
    return f'<p class="{kind}" role="status">{tokens} of {MAX_TOKENS} tokens{over}{origin}{text(saved)}</p>'


def fit_of(desk: DatasetDesk, row: DatasetRow) -> BucketFit | None:
    """The bucket of a picture that can be read."""
    if row.facts is None or not row.facts.is_usable:
        return None
    return assign_bucket(row.facts.width, row.facts.height, desk.opened.buckets)


def find_row(desk: DatasetDesk, key: str) -> DatasetRow | None:
    """The row of a key that came from the page; None where there is none."""
    if not key or not desk.is_open or not desk.opened.has(key):
        return None
    return desk.opened.row(key)
