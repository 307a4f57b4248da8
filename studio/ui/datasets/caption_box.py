"""The caption's box. Its script knows the captions of the grid and whose text is in the box; the studio only saves.

So nobody waits for the studio to know for which image they type, and no late answer replaces what they typed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from pydantic import TypeAdapter

from studio.core.errors import StudioError, system_error_message
from studio.core.paths import assets_folder
from studio.datasets.rows import MAX_TOKENS
from studio.datasets.session import DatasetSession, Stamp, TypedCaption
from studio.datasets.source import DatasetRow

# Before a handler of Gradio's runs: the image that the page shows at that moment takes the place of its first input …
WITH_SUBJECT = "(_, ...values) => [window.captionBox?.subject() ?? null, ...values]"
# … and what was typed before is saved first, so that undo, export and all that reads captions find it.
SAVED_WITH_SUBJECT = """async (_, ...values) => {
  const subject = window.captionBox?.subject() ?? null;
  await window.captionBox?.saved();
  return [subject, ...values];
}"""
SAVED = "async (...values) => { await window.captionBox?.saved(); return values; }"

_BOX = """<div class="caption-box">
<div class="stand-in"><div class="shown"></div><p class="facts"></p></div>
<label for="dataset-caption-text">Caption</label>
<textarea id="dataset-caption-text" rows="3" maxlength="4000" disabled></textarea>
<p id="dataset-saved" class="tokens" role="status"></p>
<div class="problem unsaved" role="alert" hidden><p></p>
<button type="button" class="link-button">Discard this text</button></div>
</div>"""

_TYPED = TypeAdapter(tuple[TypedCaption, ...])

Answer = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """Which image of which dataset the page shows; names that came from a browser.

    Attributes:
        beyond: whether it is the first or last one of another page of the grid.
    """

    dataset: str = ""
    key: str = ""
    beyond: bool = False


def build() -> gr.HTML:
    """Lay it out."""
    return gr.HTML(
        elem_id="dataset-caption",
        html_template=_BOX,
        js_on_load=(assets_folder() / "captions.js").read_text(encoding="utf-8"),
        padding=False,
        row=None,
    )


def read_subject(value: object) -> Subject:
    """What the page's script said is shown; nothing where it said nothing that can be."""
    if not isinstance(value, dict):
        return Subject()
    return Subject(str(value.get("dataset", "")), str(value.get("key", "")), value.get("beyond") is True)


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
            sentence = str(error) if isinstance(error, StudioError) else system_error_message(error)
            which = caption.model_dump(include={"dataset", "key", "number"})
            refused.append({**which, "sentence": sentence})
        else:
            saved.append({**_known(session, caption.dataset, row, stamp), "number": caption.number})
    return {"saved": saved, "refused": refused}


def _known(session: DatasetSession, dataset: str, row: DatasetRow, stamp: Stamp) -> Answer:
    """An image's caption, and the words below it: `14 of 75 tokens · from styles.csv row 3`."""
    tokens = session.count_tokens(row.caption)
    over = f", the last {tokens - MAX_TOKENS} are not read" if tokens > MAX_TOKENS else ""
    origin = f" · from {row.caption_from}" if row.caption_from else ""
    return {
        "dataset": dataset,
        "key": row.key,
        "caption": row.caption,
        "stamp": stamp,
        "words": f"{tokens} of {MAX_TOKENS} tokens{over}{origin}",
        "over": bool(over),
    }


def saver(session: DatasetSession) -> Callable[[list[dict[str, Any]]], Answer]:
    """What the script asks to have captions saved."""

    def save_captions(captions: list[dict[str, Any]]) -> Answer:
        return save_all(session, _TYPED.validate_python(captions))

    return save_captions
