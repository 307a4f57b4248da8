"""The short way: images, what is taught, a name; what follows from that, each in a sentence, and Start."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import StudioError, about, error_message
from studio.core.files import read_text
from studio.core.language import N_, _
from studio.core.paths import assets_folder
from studio.core.settings import SHIPPED_DATASET, SHIPPED_MODEL, parse_settings
from studio.core.text import template
from studio.datasets.session import DatasetSession
from studio.engine.caption_models import assert_captioner_there, captioner_at_hand
from studio.engine.process.client import EngineClient
from studio.loras.library import LoraLibrary
from studio.training.presets import BY_MEASURE, BY_MODEL, KINDS, NO_CAPTIONS, ShortWay
from studio.training.short_way import (
    Machine,
    ShortPlan,
    begin_short_way,
    facts_of,
    plan_short_way,
)
from studio.ui.datasets.captioning import CaptionJobs, captioner_choices
from studio.ui.datasets.html import drop_zone
from studio.ui.datasets.source import DEMO_DATASET, DEMO_RESOLUTION, taken_drop
from studio.ui.shell.parts import QUIET, Part, paragraph, problem, toast, toasts
from studio.ui.shell.path_chooser import FOLDER, path_list
from studio.ui.shell.selection import FieldErrors, Selection, changed, error_box, read_selection, select
from studio.ui.training.form import TrainingForm, chosen_in, dataset_choices
from studio.ui.training.presets import image_seconds, read_measured
from studio.ui.training.queue import TrainingPage

KIND_WORDS: Mapping[str, str] = {
    "product": N_("for a shop's images: white background, centred"),
    "style": N_("how images are drawn or painted, whatever they show"),
    "object": N_("one thing, in any scene"),
    "person": N_("one person, in any scene"),
}
FIELDS = ShortWay.model_fields
_template = template("ui/templates/training.html")
# Which setting is to be changed stays in the page: once the full form is shown, its field is gone to.
_CLICKS = """const more = ["short-more"];
const own = { name: [], captions: more, background: more, trigger_word: more };
const idOf = (form, about) => `${form}-${about.replaceAll("_", "-")}`;
element.addEventListener("click", (event) => {
  const about = event.target.closest("button[data-about]")?.dataset.about;
  if (!about) return;
  if (about in own) return window.leadToField({ id: idOf("short", about), sections: own[about] });
  window.wantedField = idOf("training", about);
  trigger("click", {});
});"""
# An answer that comes before the page's script knows what was typed is taken for one of before.
_ONCE_KEPT = "() => new Promise((resolve) => setTimeout(() => resolve([]), 150))"
_GO_TO_FIELD = """() => {
  const id = window.wantedField;
  window.wantedField = undefined;
  if (id) requestAnimationFrame(() => window.leadToField({ id, sections: [] }));
}"""


@dataclass(frozen=True)
class ShortWayBox:
    """Its components; `controls` by the names of what is asked, `version` changes when the plan may be another."""

    drop: gr.HTML
    controls: dict[str, gr.components.Component]
    errors: gr.HTML
    plan: gr.HTML
    start: gr.Button
    full: gr.Button
    version: gr.Textbox

    @property
    def kept(self) -> dict[str, gr.components.Component]:
        """What the browser keeps of it."""
        return self.controls

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        """What a refresh keeps true."""
        return {"short-dataset": self.controls["dataset"], "short-version": self.version}


def build() -> ShortWayBox:
    """Lay it out."""
    controls: dict[str, gr.components.Component] = {}
    with gr.Column(elem_classes="short-way"):
        with gr.Row(elem_classes="actions"):
            start = gr.Button(_("Start"), variant="primary", elem_id="short-start")
            full = gr.Button(_("Open the settings"), elem_id="short-full")
        errors = error_box("short")
        script = read_text(assets_folder() / "dropzone.js")
        drop = gr.HTML(elem_id="short-drop", html_template=str(drop_zone()), js_on_load=script, outcome=None)
        controls["dataset"] = path_list(
            dataset_choices(()),
            takes=[FOLDER],
            value=None,
            info=_("Or type the path of a folder."),
            **_words("dataset"),
        )
        kinds = [(f"{_(kind.title)}\n{_(KIND_WORDS[key])}", key) for key, kind in KINDS.items()]
        controls["kind"] = gr.Radio(kinds, value=FIELDS["kind"].default, elem_classes="cards", **_words("kind"))
        controls["name"] = gr.Textbox("", max_lines=1, placeholder=_("as the images"), **_words("name"))
        plan = gr.HTML(elem_id="short-plan", padding=False, js_on_load=_CLICKS)
        with gr.Accordion(_("Captions, background, trigger word"), open=False, elem_id="short-more"):
            controls["captions"] = gr.Dropdown(
                _captions(), value=BY_MODEL, allow_custom_value=True, **_words("captions")
            )
            controls["background"] = gr.Dropdown(
                _backgrounds(), value=FIELDS["background"].default, **_words("background")
            )
            controls["trigger_word"] = gr.Textbox(
                "", max_lines=1, placeholder=_("of the name"), **_words("trigger_word")
            )
        version = gr.Textbox(visible=False)
    return ShortWayBox(drop, controls, errors, plan, start, full, version)


def _words(name: str) -> dict[str, Any]:
    return {"label": _(FIELDS[name].title or name), "elem_id": f"short-{name.replace('_', '-')}", "interactive": True}


def _backgrounds() -> list[tuple[str, str]]:
    return [(_("as it is"), "as it is"), (_("white background"), "white")]


def _captions() -> list[tuple[str, str]]:
    usual = {BY_MODEL: _("automatic"), BY_MEASURE: _("what is measured"), NO_CAPTIONS: _("no captions")}
    return [*((words, key) for key, words in usual.items()), *captioner_choices()]


def render(page: TrainingPage, selection: Selection) -> dict[str, Part]:
    """The list of datasets, and what tells the page that the plan may be another one."""
    names = page.datasets.library.names()
    version = page.datasets.of(selection.dataset).view.version if selection.dataset else ""
    return {
        "short-dataset": gr.update(choices=dataset_choices(names)),
        "short-version": gr.update(value=version),
    }


def plan_html(plan: ShortPlan) -> Markup:
    """Each sentence with the way to change what it says."""
    return _template("short_plan", sentences=plan.sentences)


@dataclass(frozen=True)
class ShortWayPage:
    """What the short way reads, and what it starts."""

    page: TrainingPage
    engine: EngineClient
    captions: CaptionJobs

    @property
    def datasets(self) -> DatasetSession:
        return self.page.datasets

    def open(self, typed: str) -> str:
        """The name of the dataset that is meant: a known one, the demo shoes, or a folder's.

        Raises:
            DatasetError: where there is none, or nothing in it.
        """
        if typed == SHIPPED_DATASET:
            demo = assets_folder() / DEMO_DATASET
            return self.datasets.open_folder(str(demo), resolution=DEMO_RESOLUTION).name
        known = self.datasets.library.known_name(typed)
        return self.datasets.show(known).name if known else self.datasets.open_folder(typed).name

    def plan(self, values: Mapping[str, Any]) -> ShortPlan:
        """What follows from what the form holds, now.

        Raises:
            SettingsError: where a value breaks its rule.
            DatasetError: where the dataset is gone, or nothing of it can be trained on.
        """
        wanted = parse_settings(ShortWay, {name: value.strip() for name, value in values.items() if value is not None})
        with about("dataset"):
            opened = self.datasets.named(wanted.dataset).opened
        view = self.engine.view
        model = (view.facts.model if view.facts else view.model) or SHIPPED_MODEL
        return plan_short_way(
            wanted,
            facts_of(opened.name, opened.rows, opened.recipe.made_from),
            self._machine(model),
            model=model,
            captioner=captioner_at_hand(),
            taken=LoraLibrary(self.page.session.user_data.loras).names(),
        )

    def _machine(self, model: str) -> Machine:
        facts, memory = self.engine.view.facts, self.engine.view.memory
        seconds = image_seconds(read_measured(self.page.session.user_data), model)
        kind = facts.device.partition(":")[0] if facts and not self.page.cpu_only else "cpu"
        limit = memory.accelerator_limit_bytes if memory else None
        return Machine("cuda" if kind == "cuda" else "mps" if kind == "mps" else "cpu", limit, seconds)

    def start(self, values: Mapping[str, Any]) -> str:
        """Begin the run, and before it the job that writes its captions; the run's name.

        Raises:
            StudioError: where it cannot be begun.
        """
        with about("dataset"):
            name = self.open(values.get("dataset") or "")
        plan = self.plan({**values, "dataset": name})
        if plan.caption_model:
            with about("captions"):
                assert_captioner_there(plan.caption_model)
        run, captions = begin_short_way(plan, self.page.session.user_data, cpu=self.page.cpu_only)
        if captions is not None:
            self.captions.enqueue(captions)
        self.page.session.enqueue(run)
        return run.name


def wire(
    box: ShortWayBox,
    short: ShortWayPage,
    form: TrainingForm,
    selection: gr.HTML,
    *,
    then_refresh: Callable[[Any], Any],
) -> None:
    """Connect the images, the plan, Start, and the way to the full form."""
    controls, dataset = box.controls, box.controls["dataset"]

    def take(event: gr.EventData) -> dict[Any, Any]:
        name, outcome = taken_drop(short.datasets, event)
        return {box.drop: outcome, **(chosen_in([dataset], name, short.datasets.library) if name else {})}

    def open_typed(**values: Any) -> dict[Any, Any]:  # noqa: ANN401 - the form's values
        if not values.get("dataset"):
            return {dataset: gr.skip()}
        with toasts(), about("dataset"):
            name = short.open(values["dataset"])
        return chosen_in([dataset], name, short.datasets.library)

    def show_plan(**values: Any) -> Markup:  # noqa: ANN401 - the form's values
        if not values.get("dataset"):
            return paragraph("quiet", _("Drop images above, or choose a dataset: the demo shoes are there."))
        if not short.datasets.library.known_name(values["dataset"]):  # a path that is being opened, or cannot be
            return Markup()
        try:
            return plan_html(short.plan(values))
        except (StudioError, OSError) as error:
            return problem(error_message(error))

    def start(selection: str, **values: Any) -> str:  # noqa: ANN401 - the form's values
        with toasts():
            return changed(read_selection(selection), run=short.start(values), image=None)

    def open_full(**values: Any) -> dict[Any, Any]:  # noqa: ANN401 - the form's values
        with toasts():
            plan = short.plan(values)
        if plan.template or plan.caption_model or plan.on_white:
            toast(_("Captions and backgrounds are not in this form: start from “Simple”, or use the Dataset tab."))
        return form.filled_by(plan.settings)

    errors = FieldErrors(box.errors, "short", controls)
    known = dataset.input(fn=None, js=_ONCE_KEPT, queue=False, show_progress="hidden")
    typed = errors.press(known.then, open_typed, inputs_kwargs={"dataset": dataset}, outputs=[dataset], **QUIET)
    for opened in (box.drop.upload(take, None, [box.drop, dataset], **QUIET), typed):
        then_refresh(select(opened.success, selection, dataset, change="dataset: values[0] || now.dataset"))
    follows = [*(control.change for control in controls.values()), box.version.change]
    gr.on(follows, show_plan, inputs_kwargs=controls, outputs=box.plan, trigger_mode="always_last", **QUIET)
    pressed = {"selection": selection, **controls}
    then_refresh(errors.press(box.start.click, start, inputs_kwargs=pressed, outputs=[selection], **QUIET))
    for event in (box.full.click, box.plan.click):
        went = errors.press(event, open_full, inputs_kwargs=controls, outputs=form.filled, **QUIET)
        went.success(fn=None, js=_GO_TO_FIELD, queue=False, show_progress="hidden")
