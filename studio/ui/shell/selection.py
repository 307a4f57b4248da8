"""What one page has chosen to show. The page holds it itself: no two pages share a choice, and a reload keeps it.

Every press on a run or a batch carries the selection of the page that it was made on, so it acts on what is shown there
and on nothing else.
"""

from typing import Any

import gradio as gr
from pydantic import ValidationError

from studio.core.results import Record
from studio.ui.training.plot import ALL_STEPS

# The browser's tab keeps it, so that it outlives a reload and a restart of the studio; live.js sends it from there.
_KEEP = """watch("value", () => {
  sessionStorage.setItem("selection", props.value);
  document.dispatchEvent(new Event("studio:selection"));
});"""
_KEPT = 'sessionStorage.getItem("selection") ?? ""'
RECALL = f"() => {_KEPT}"
# A refresh may be asked for while the page is being opened: Gradio tells of controls that nobody has touched.
SEEN_AND_RECALL = f"(seen, selection) => [seen, selection || ({_KEPT})]"


class SelectedImage(Record):
    """A validation image of the run that is shown: of which step, and its number among those of the step."""

    step: int
    picture: int


class Selection(Record):
    """The choices of one page.

    Attributes:
        run, batch, dataset: names; "" where there was none to be shown yet.
        window, log: which part of the curves is drawn, and whether on a logarithmic scale.
        compared: names of the runs that are drawn over it.
        image: the image that is open in “Look closer”; None where that is closed.
    """

    run: str = ""
    batch: str = ""
    dataset: str = ""
    window: str = ALL_STEPS
    log: bool = False
    compared: tuple[str, ...] = ()
    image: SelectedImage | None = None


def selection_box() -> gr.HTML:
    """The hidden component that holds it, as JSON; its template never writes the value into the page."""
    return gr.HTML("", html_template="<i></i>", elem_id="selection", visible="hidden", js_on_load=_KEEP)


def read_selection(sent: str | None) -> Selection:
    """What a page sent; the one of a page that chose nothing, where it is none of this version's."""
    try:
        return Selection.model_validate_json(sent or "{}")
    except ValidationError:
        return Selection()


def changed(selection: Selection, **changes: object) -> str:
    """Another selection, as the page holds it."""
    return selection.model_copy(update=changes).model_dump_json()


def select(event: Any, box: gr.HTML, *inputs: gr.components.Component, change: str) -> Any:  # noqa: ANN401 - gradio's event and Dependency
    """Change the selection in the browser at once, so that the next press carries it already.

    Args:
        change: JavaScript, the changed fields of an object, in terms of `now` (the selection) and `values` (of
            `inputs`).
    """
    js = f"""(selection, ...values) => {{
  if (!selection) return selection; // the page is being opened
  const now = JSON.parse(selection);
  return JSON.stringify({{ ...now, {change} }});
}}"""
    return event(fn=None, inputs=[box, *inputs], outputs=box, js=js, queue=False, show_progress="hidden")
