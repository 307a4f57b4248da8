"""What one page has chosen to show, and what its forms hold. The page keeps it itself, also through a reload.

Every press on a run or a batch carries the selection of the page that it was made on, so it acts on what is shown there
and on nothing else.
"""

import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any
from uuid import uuid4

import gradio as gr
from markupsafe import Markup
from pydantic import ValidationError

from studio.batches.review import ALL, NEWEST
from studio.core.errors import StudioError
from studio.core.records import Record
from studio.core.text import template
from studio.ui.forms import LORA_ROWS, names_lora
from studio.ui.shell.commands import COMPARED_ON_LOAD
from studio.ui.shell.parts import QUIET, Refusal
from studio.ui.training.plot import ALL_STEPS

_template = template("ui/templates/shell.html")

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
        run_search: what the runs are searched for.
        image: the image that is open in “Look closer”; None where that is closed.
        lora_search, lora_page: which cards of the LoRA library are shown.
        batch_state, batch_sort, batch_page, batch_value: which images of the batch are shown; see `ReviewQuery`.
        pair: the pair that was chosen in the Compare mode; None where the newest is shown.
        past: the past image that Generate shows large, by its name; "" where it shows the last press.
        past_search, past_page: which past images lie in the strip.
    """

    run: str = ""
    batch: str = ""
    dataset: str = ""
    window: str = ALL_STEPS
    log: bool = False
    compared: tuple[str, ...] = ()
    run_search: str = ""
    image: SelectedImage | None = None
    lora_search: str = ""
    lora_page: int = 1
    batch_state: str = ALL
    batch_sort: str = NEWEST
    batch_page: int = 1
    batch_value: tuple[str, str] | None = None
    pair: SelectedPair | None = None
    past: str = ""
    past_search: str = ""
    past_page: int = 1


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
    recall = gr.Button("Recall", elem_id=f"recall-{form}", elem_classes="unseen", visible="hidden")
    in_the_page: dict[str, Any] = {"fn": None, "inputs": shown, "queue": False, **QUIET}
    app.load(js=_of_form(_RECALL_WHERE_ANOTHER, form, controls), **in_the_page)
    recall.click(outputs=shown, js=_of_form(_RECALL_FORM, form, controls), **in_the_page)
    gr.on([control.change for control in shown], js=_of_form(_KEEP_FORM, form, controls), **in_the_page)


def _of_form(function: str, form: str, controls: Mapping[str, gr.components.Component]) -> str:
    """JavaScript that calls a function of a form's name, its controls' names and their values."""
    return f"(...values) => ({function})({json.dumps(form)}, {json.dumps(list(controls))}, values)"


# The same for a form that is not kept: what it holds now, for those who compare it with what it held.
_FOLLOW_FORM = """(form, names, values) => {
  (window.keptForms ??= {})[form] = Object.fromEntries(names.map((name, i) => [name, values[i]]));
  document.dispatchEvent(new Event("studio:form"));
  return [];
}"""


def follow_form(form: str, controls: Mapping[str, gr.components.Component]) -> None:
    """Have the browser know what a form holds that is filled anew for each dataset, so that it is not kept."""
    shown = list(controls.values())
    in_the_page: dict[str, Any] = {"fn": None, "inputs": shown, "queue": False, **QUIET}
    gr.on([control.change for control in shown], js=_of_form(_FOLLOW_FORM, form, controls), **in_the_page)


def error_box(form: str) -> gr.HTML:
    """Where a form says how many of its fields need fixing; laid out near the button that reads it."""
    return gr.HTML(elem_id=f"{form}-errors", padding=False, js_on_load=COMPARED_ON_LOAD)


class FieldErrors:
    """Says of a form's fields what is wrong with them: there, until they change. The page's script shows it.

    Args:
        form: the name under which the browser follows what the form holds.
        controls: its fields, by the names that `control_of` gives.
    """

    def __init__(self, box: gr.HTML, form: str, controls: Mapping[str, gr.components.Component]) -> None:
        self.box, self.form, self.controls = box, form, controls

    def press(
        self,
        event: Any,  # noqa: ANN401 - gradio's event
        act: Callable[..., Any],
        *,
        inputs_kwargs: Mapping[str, gr.components.Component],
        outputs: Sequence[gr.components.Component] = (),
        **options: Any,  # noqa: ANN401 - of gradio's
    ) -> Any:  # noqa: ANN401 - gradio's Dependency
        """Connect what reads the form: what it refuses because of fields is said at them, all else as ever.

        Args:
            act: takes the fields by their names; what it returns is for the outputs.
        """

        signature = inspect.signature(act)

        @wraps(act)
        def answer(*args: Any, **values: Any) -> dict[Any, Any]:  # noqa: ANN401 - as gradio has them
            try:
                made = act(*args, **values)
            except Refusal as refusal:
                given = signature.bind(*args, **values).arguments  # Gradio gives by position what has a parameter
                rest = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), "")
                said = self.html(refusal.__cause__, {**given, **given.get(rest, {})})
                if not said:
                    raise
                return {self.box: said}
            by_output = made if isinstance(made, dict) and "__type__" not in made else dict.fromkeys(outputs[:1], made)
            return {self.box: "", **by_output}

        answer.field_errors = self  # type: ignore[attr-defined]  # for `Page`, where Gradio refuses a value itself
        return event(answer, inputs_kwargs=dict(inputs_kwargs), outputs=[self.box, *outputs], **options)

    def html(self, error: BaseException | None, values: Mapping[str, Any], *, pressed: bool = True) -> Markup:
        """What the box shows of an error; empty where no field is to blame.

        Args:
            values: what the fields hold, by their names.
            pressed: whether the page leads to the first of the fields; not while one types.
        """
        problems, elsewhere = [], []
        for problem in error.problems if isinstance(error, StudioError) else ():
            names = dict.fromkeys(control_of(field, values) for field in problem.fields)
            fields = [self._field(name, values[name]) for name in names if name in self.controls and name in values]
            if fields:
                problems.append({"text": problem.text, "fields": fields})
            else:
                elsewhere.append(problem.text)
        if not problems:
            return Markup()
        return self._told(problems, elsewhere, pressed=pressed)

    def of_control(self, control: gr.components.Component, value: object, text: str) -> Markup:
        """The same of a value that one control does not take; empty where it is none of the form's."""
        names = [name for name, field in self.controls.items() if field is control]
        if not names:
            return Markup()
        return self._told([{"text": text, "fields": [self._field(names[0], value)]}], [], pressed=True)

    def _told(self, problems: Sequence[object], elsewhere: Sequence[str], *, pressed: bool) -> Markup:
        told = json.dumps(problems, default=str)
        return _template(
            "field_errors", form=self.form, problems=told, elsewhere=elsewhere, pressed=uuid4().hex if pressed else ""
        )

    def _field(self, name: str, value: object) -> dict[str, object]:
        """What the script needs to find it: its id, and the folded sections that it is in, the outermost first."""
        control = self.controls[name]
        sections, block = list[str](), control.parent
        while block is not None:
            if isinstance(block, gr.Accordion) and block.elem_id:
                sections.insert(0, block.elem_id)
            block = block.parent
        held = value if not isinstance(value, float) or math.isfinite(value) else str(value)
        return {"name": name, "id": control.elem_id, "value": held, "sections": sections}


def control_of(setting: str, values: Mapping[str, Any]) -> str:
    """The name of the control that holds a setting, which is named as in `FieldProblem`.

    Args:
        values: what the form's controls hold, by their names.
    """
    *path, last = (part for part in setting.split(".") if part != "generation")
    part = "strength" if last == "strength" else "lora"
    if path[:1] == ["loras"]:  # of the rows that name one
        rows = [i for i in range(LORA_ROWS) if names_lora(values.get(f"lora_{i}"))]
        return f"{part}_{rows[int(path[1])]}"
    if path[:1] in (["left"], ["right"]):
        return f"{path[0]}_strength" if part == "strength" else path[0]
    if path and last.isdigit():  # a line of a text, or a box of its own
        return path[0] if path[0] in values else f"{path[0].removesuffix('s')}_{int(last) + 1}"
    return "size" if last in ("width", "height") and last not in values else last
