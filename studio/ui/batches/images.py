"""A batch's images one by one: found by state, value and score, kept, rejected, made again."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup
from PIL import Image

from studio.batches.review import ALL, NEWEST, NUMBER, TAKES, ReviewedImage, ReviewPage, ReviewQuery
from studio.batches.session import BatchSession, BatchView
from studio.core.errors import BatchError
from studio.core.language import N_, _, number
from studio.core.text import template
from studio.images.scores.image import PictureScores
from studio.ui.shell.images import run_thumbnail_url
from studio.ui.shell.parts import QUIET, Part, live_html, paragraph, toasts
from studio.ui.shell.selection import Selection, changed, read_selection

_template = template("ui/templates/batches.html")

PIXELS = 768  # of the copies that the page shows: they open large, too
STATES: Mapping[str, str] = {
    ALL: N_("All"),
    "done": N_("In the dataset"),
    "rejected": N_("Rejected by you"),
    "again": N_("To be made again"),
    "failed": N_("Failed"),
    TAKES: N_("Tries not taken"),
}
SORTS: Mapping[str, str] = {
    NEWEST: N_("Newest first"),
    NUMBER: N_("By number"),
    "whiteness best": N_("Whitest border first"),
    "whiteness worst": N_("Least white border first"),
    "sharpness best": N_("Sharpest first"),
    "sharpness worst": N_("Least sharp first"),
    "colour best": N_("Closest to the asked colour first"),
    "colour worst": N_("Furthest from the asked colour first"),
    "centring best": N_("Best centred first"),
    "centring worst": N_("Worst centred first"),
    "distance best": N_("Furthest from training images first"),
    "distance worst": N_("Closest to training images first"),
}
SIGNS: Mapping[str, str] = {
    "done": "",
    "rejected": N_("✗ rejected by you"),
    "again": N_("↻ to be made again"),
    "failed": N_("✗ failed"),
}
# The event carries which button was pressed, and on which image.
_CLICKS = """const send = ({ act, value }) => trigger("click", { act, value });
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (button) send(button.dataset);
});
element.addEventListener("change", (event) => {
  if (event.target.dataset.act) send({ act: event.target.dataset.act, value: event.target.value });
});"""


def build() -> tuple[gr.HTML, ...]:
    """Lay them out: filters, order, images."""
    with gr.Row(elem_classes="review-bar"):
        bar = live_html("batch-images-bar", js_on_load=_CLICKS)
        order = live_html("batch-images-order", js_on_load=_CLICKS, min_width=200)
    return bar, order, live_html("batch-images", js_on_load=_CLICKS)


def render(session: BatchSession, view: BatchView, query: ReviewQuery) -> dict[str, Part]:
    """What the page shows of the batch's images now.

    Raises:
        BatchError: where they cannot be read.
    """
    if view.batch is None or view.problem:
        return dict.fromkeys(("batch-images-bar", "batch-images-order", "batch-images"), Markup())
    page = session.review(view.batch, query)
    return {
        "batch-images-bar": bar_html(page, can_remake=not (view.busy or view.in_line)),
        "batch-images-order": order_html(page),
        "batch-images": images_html(page, session.thumbnails),
    }


def query_of(selection: Selection) -> ReviewQuery:
    """What a page asks for; what it names that there is not is the usual."""
    state = selection.batch_state if selection.batch_state in STATES else ALL
    sort = selection.batch_sort if selection.batch_sort in SORTS else NEWEST
    return ReviewQuery(state, sort, selection.batch_page, selection.batch_value)


def bar_html(page: ReviewPage, *, can_remake: bool) -> Markup:
    """A button for each state that some image has, with their number; and one that makes others again."""
    shown = [
        (name, _(words), page.counts.get(name, 0))
        for name, words in STATES.items()
        if name in (ALL, page.query.state) or page.counts.get(name)
    ]
    to_remake = page.num_again if can_remake else 0
    return _template("review_bar", states=shown, chosen=page.query.state, to_remake=to_remake)


def order_html(page: ReviewPage) -> Markup:
    """The choices of a value and of an order."""
    values = {
        column: [(json.dumps([column, value]), value, page.query.value == (column, value)) for value in values]
        for column, values in page.values.items()
    }
    sorts = [(name, _(words)) for name, words in SORTS.items()]
    return _template("review_order", values=values, sorts=sorts, chosen=page.query.sort)


def images_html(page: ReviewPage, thumbnails: Path) -> Markup:
    """The images, and the way to the others."""
    if not page.images:
        narrowed = page.query.state != ALL or page.query.value is not None
        words = N_("No images of this kind.") if narrowed else N_("Images appear here as they are made.")
        return paragraph("quiet", _(words))
    images = [_shown(image, thumbnails) for image in page.images]
    return _template("review", images=images, number=page.query.page, num_pages=page.num_pages)


def _shown(image: ReviewedImage, thumbnails: Path) -> dict[str, object]:
    sign = _("try {attempt} not taken", attempt=image.attempt) if image.is_take else _(SIGNS[image.state])
    scores = score_words(image.scores) if image.scores else ""
    url, missing = "", _("no image")
    if image.path is not None:
        try:
            url = run_thumbnail_url(image.path, thumbnails, pixels=PIXELS)
        except (OSError, Image.DecompressionBombError):
            missing = _("gone")
    words = " · ".join(filter(None, (f"#{number(image.item)}: {image.prompt}", sign, scores, image.reason)))
    return {"image": image, "url": url, "missing": missing, "sign": sign, "scores": scores, "words": words}


def score_words(scores: PictureScores) -> str:
    """`93% white · sharpness 0.41 · ΔE 6.2 · 3% off centre`: those that the image has."""
    words = [_("{share:.0%} white", share=scores.border.whiteness)]
    if scores.sharpness is not None:
        words.append(_("sharpness {score:.2f}", score=scores.sharpness))
    if scores.colour is not None:
        words.append(f"ΔE {number(scores.colour.difference, '.1f')}")
    if scores.centring is not None:
        words.append(_("{share:.0%} off centre", share=scores.centring.offset))
    if scores.nearest is not None:
        words.append(_("distance {distance:.2f}", distance=scores.nearest.distance))
    return " · ".join(words)


def wire(
    parts: tuple[gr.HTML, ...], session: BatchSession, selection: gr.HTML, *, then_refresh: Callable[[Any], Any]
) -> None:
    """Connect filters, order, pages, and what is decided of an image."""

    def act(selection: str, event: gr.EventData) -> Any:  # noqa: ANN401 - gradio's update
        chosen = read_selection(selection)
        act, value = str(getattr(event, "act", "")), str(getattr(event, "value", ""))
        if act in ("state", "sort"):
            return changed(chosen, **{f"batch_{act}": value}, batch_page=1)
        if act == "value":
            return changed(chosen, batch_value=_value(value), batch_page=1)
        if act == "page":
            return changed(chosen, batch_page=max(1, _number(value)))
        with toasts():
            batch = session.named(chosen.batch)
            if act == "remake":
                session.remake(batch)
            else:
                session.decide(batch, _number(value), act)
        return gr.skip()

    # A press counts while the one before is still on its way: one goes through images fast.
    pressed: dict[str, Any] = {**QUIET, "trigger_mode": "multiple", "concurrency_limit": 1, "concurrency_id": "review"}
    for part in parts:
        then_refresh(part.click(act, selection, selection, **pressed))


def _value(sent: str) -> tuple[str, str] | None:
    """A column and one of its values, as the choice sends them; None where all are wanted, or it sends anything."""
    try:
        column, value = json.loads(sent)
    except (ValueError, TypeError):
        return None
    return str(column), str(value)


def _number(value: str) -> int:
    """
    Raises:
        BatchError: where it is none.
    """
    if not value.isdecimal() or len(value) > 9:
        raise BatchError(_("The page names no image. Reload it."))
    return int(value)
