"""What one page has chosen to show, and what its forms hold. The page keeps it itself, also through a reload.

Every press on a run or a batch carries the selection of the page that it was made on, so it acts on what is shown there
and on nothing else.
"""

import json
from collections.abc import Mapping
from typing import Any

import gradio as gr
from pydantic import ValidationError

from studio.core.records import Record
from studio.ui.shell.parts import QUIET
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


class SelectedPair(Record):
    """A pair of the Compare mode: of which comparison, by its folder's name, and its number in it."""

    comparison: str
    number: int


class Selection(Record):
    """The choices of one page.

    Attributes:
        run, batch, dataset: names; "" where there was none to be shown yet.
        window, log: which part of the curves is drawn, and whether on a logarithmic scale.
        compared: names of the runs that are drawn over it.
        image: the image that is open in “Look closer”; None where that is closed.
        lora_search, lora_page: which cards of the LoRA library are shown.
        pair: the pair that was chosen in the Compare mode; None where the newest is shown.
    """

    run: str = ""
    batch: str = ""
    dataset: str = ""
    window: str = ALL_STEPS
    log: bool = False
    compared: tuple[str, ...] = ()
    image: SelectedImage | None = None
    lora_search: str = ""
    lora_page: int = 1
    pair: SelectedPair | None = None


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


# What the page shows counts only once it was recalled: Gradio reports changes of controls that nobody has touched.
# To set a control costs Gradio several searches of the whole page, so a form that shows what was kept is left alone.
_RECALL_FORM = """(form, names, values) => {
  const kept = JSON.parse(sessionStorage.getItem(`form ${form}`) ?? localStorage.getItem(`form ${form}`) ?? "{}");
  const shown = names.map((name, i) => (name in kept ? kept[name] : values[i]));
  (window.keptForms ??= {})[form] = Object.fromEntries(names.map((name, i) => [name, shown[i]]));
  document.dispatchEvent(new Event("studio:form"));
  return shown;
}"""
_RECALL_WHERE_ANOTHER = f"""(form, names, values) => {{
  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
  const shown = ({_RECALL_FORM})(form, names, values);
  if (shown.some((value, i) => !same(value, values[i]))) document.getElementById("recall-" + form).click();
  return [];
}}"""
_KEEP_FORM = """(form, names, values) => {
  if (!window.keptForms?.[form]) return [];
  const now = Object.fromEntries(names.map((name, i) => [name, values[i]]));
  window.keptForms[form] = now;
  for (const storage of [sessionStorage, localStorage]) storage.setItem(`form ${form}`, JSON.stringify(now));
  document.dispatchEvent(new Event("studio:form"));
  return [];
}"""


def keep_form(app: gr.Blocks, form: str, controls: Mapping[str, gr.components.Component]) -> None:
    """Have the browser keep what a form holds, so that it outlives a reload and a restart of the studio.

    A tab of the browser finds its own form again; a new one begins with that which was changed last in any of them.
    """
    shown = list(controls.values())
    recall = gr.Button("Recall", elem_id=f"recall-{form}", elem_classes="wake", visible="hidden")
    in_the_page: dict[str, Any] = {"fn": None, "inputs": shown, "queue": False, **QUIET}

    def js(function: str) -> str:
        return f"(...values) => ({function})({json.dumps(form)}, {json.dumps(list(controls))}, values)"

    app.load(js=js(_RECALL_WHERE_ANOTHER), **in_the_page)
    recall.click(outputs=shown, js=js(_RECALL_FORM), **in_the_page)
    gr.on([control.change for control in controls.values()], js=js(_KEEP_FORM), **in_the_page)
