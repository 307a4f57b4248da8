"""The Batch tab: the form with its preview on the left, the batch that runs on the right, past ones below it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.batches.columns import own_seed
from studio.batches.folder import BatchFolder, begin_batch, read_batch_settings
from studio.batches.review import scores_by_key
from studio.batches.session import BatchSession, BatchView, training_side
from studio.batches.settings import BatchSettings
from studio.core.errors import error_message
from studio.core.language import N_, _, for_later
from studio.core.settings import parse_settings
from studio.core.text import counted
from studio.datasets.session import DatasetSession
from studio.jobs.folder import RunRequest
from studio.jobs.words import short_title, title
from studio.loras.library import LoraLibrary
from studio.ui.batches import form as batch_form
from studio.ui.batches import images as batch_images
from studio.ui.batches import view as batch_panel
from studio.ui.batches.images import query_of
from studio.ui.batches.preview import ahead_html, empty_html, forecast_html, preview_of
from studio.ui.forms import LORA_ROWS, NO_LORA, by_component
from studio.ui.shell import item_actions
from studio.ui.shell.commands import COMPARED_ON_LOAD, PreflightRunner
from studio.ui.shell.parts import QUIET, Group, Part, live_html, problem, show_folder, toast, toasts
from studio.ui.shell.selection import FieldErrors, Selection, changed, error_box, read_selection, select
from studio.ui.shell.status import start_words
from studio.ui.speed import render_speed, wire_speed
from studio.ui.training.destinations import take_generation
from studio.ui.training.form import chosen_in

# The ready time assumes that the batch starts now, so it moves with the clock.
_CLOCK = """const tell = () => {
  const place = element.querySelector("[data-seconds]");
  if (!place) return;
  const ready = new Date(Date.now() + 1000 * Number(place.dataset.seconds));
  const { language, today, later } = place.dataset;
  const isToday = ready.toDateString() === new Date().toDateString();
  const day = ready.toLocaleDateString(language, { weekday: "long" });
  const time = ready.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  const words = (isToday ? today : later).replace("{day}", day).replace("{time}", time);
  if (place.textContent !== words) place.textContent = words;
};
watch("value", () => requestAnimationFrame(tell));
setInterval(tell, 10_000);
tell();
"""
# What waits before it changes without the form: then the line is made anew.
_AHEAD = """let asked;
setInterval(() => {
  const shown = element.querySelector("[data-ahead]")?.dataset.ahead;
  const ahead = document.querySelector("#batch-ahead [data-ahead]")?.dataset.ahead;
  if (shown === undefined || ahead === undefined || shown === ahead) asked = undefined;
  else if (asked !== ahead) {
    asked = ahead;
    trigger("click");
  }
}, 1000);"""


@dataclass(frozen=True)
class BatchTab:
    """The tab's parts."""

    start: gr.Button
    measure: gr.Button
    line: gr.HTML
    errors: gr.HTML
    forecast: gr.HTML
    cancel: gr.Button
    of: gr.Textbox
    form: batch_form.BatchForm
    preview: gr.HTML
    preview_box: gr.Accordion
    panel: batch_panel.BatchPanel

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        """Every part that a refresh keeps true, by its name."""
        measuring = {"batch-forecast": self.forecast, "batch-measure-cancel": self.cancel, "batch-measure-of": self.of}
        return {"batch-start": self.start, **measuring, **self.form.shown, **self.panel.shown}


@dataclass(frozen=True)
class BatchPage:
    """What the tab of every page is made from; what one page has chosen to show of it is its `Selection`."""

    session: BatchSession
    datasets: DatasetSession
    library: LoraLibrary
    forecast: PreflightRunner
    cpu_only: bool = False

    def batch_of(self, selection: str) -> BatchFolder:
        """The batch that a page shows, which a press on it is about.

        Raises:
            BatchError: where there is none, or it is gone.
        """
        return self.session.named(read_selection(selection).batch)


def build() -> BatchTab:
    """Lay the tab out."""
    with gr.Row(elem_classes="workbench"):
        with gr.Column(elem_classes="controls", min_width=320):
            with gr.Row(elem_classes="actions"):
                start = gr.Button(_("Start"), variant="primary", elem_id="start-batch")
                measure = gr.Button(_("Measure"), elem_id="measure-batch")
            line = gr.HTML(elem_id="batch-line", padding=False, js_on_load=_CLOCK + _AHEAD)
            live_html("batch-ahead")
            errors = error_box(batch_form.FORM)
            forecast = gr.HTML(elem_id="batch-forecast", padding=False, js_on_load=f"{{ {_CLOCK} }}" + COMPARED_ON_LOAD)
            cancel = gr.Button(_("Cancel"), visible=False, size="sm", elem_id="batch-measure-cancel")
            of = gr.Textbox(visible=False)
            form = batch_form.build()
        with gr.Column(elem_classes="canvas", min_width=480):
            with gr.Accordion(_("Preview"), open=True, elem_id="batch-preview-box") as preview_box:
                preview = gr.HTML(empty_html(), elem_id="batch-preview", padding=False)
            panel = batch_panel.build()
    return BatchTab(start, measure, line, errors, forecast, cancel, of, form, preview, preview_box, panel)


def render(page: BatchPage, view: BatchView, selection: Selection) -> dict[str, Group]:
    """What makes every shown part of the tab as it should be now."""
    return {
        N_("The batch's form"): lambda: _form_parts(page, view),
        N_("The batch"): lambda: batch_panel.render(view),
        N_("The batch's images"): lambda: batch_images.render(page.session, view, query_of(selection)),
    }


def _form_parts(page: BatchPage, view: BatchView) -> dict[str, Part]:
    choices = gr.update(choices=[(_(NO_LORA), NO_LORA), *((name, name) for name in page.library.usable_names())])
    return {
        "batch-start": gr.update(value=start_words(view.jobs)),
        "batch-speed": render_speed(page.library),
        "batch-forecast": lambda: forecast_html(page.forecast.state, view.jobs),
        "batch-ahead": lambda: ahead_html(view.jobs),
        "batch-measure-of": gr.update(value=str(page.forecast.state.number)),
        "batch-measure-cancel": gr.update(visible=page.forecast.state.running),
        **{f"batch-lora-{i}": choices for i in range(LORA_ROWS)},
    }


def wire(
    tab: BatchTab,
    page: BatchPage,
    selection: gr.HTML,
    *,
    tabs: gr.Tabs,
    trained: Sequence[gr.Dropdown],
    then_refresh: Callable[[Any], Any],
) -> None:
    """Connect the form with its preview, and the batch's buttons.

    Args:
        trained: the datasets that the Training tab's forms name.
    """
    named = tab.form.named
    errors = FieldErrors(tab.errors, batch_form.FORM, tab.form.kept)

    def start(sent: str, **values: Any) -> dict[Any, Any]:  # noqa: ANN401 - the form's values
        with toasts():
            batch = begin_batch(settings_of(values, page), page.session.user_data)
            page.session.enqueue(batch)
        # What is made is looked at now, no longer what would be.
        return {tab.preview_box: gr.update(open=False), selection: changed(read_selection(sent), batch=batch.name)}

    def measure(**values: Any) -> None:  # noqa: ANN401
        with toasts():
            page.forecast.start(settings_of(values, page).model_dump_json(), values)

    with_selection = {"sent": selection, **named}
    outputs = [tab.preview_box, selection]
    then_refresh(errors.press(tab.start.click, start, inputs_kwargs=with_selection, outputs=outputs, **QUIET))

    def cancel(of: str) -> None:
        with toasts():
            page.forecast.cancel(int(of or 0))

    then_refresh(tab.cancel.click(cancel, tab.of, **QUIET))
    then_refresh(errors.press(tab.measure.click, measure, inputs_kwargs=named, **QUIET))
    _wire_preview(tab, page, selection, errors)
    batch_images.wire(tab.panel.images, page.session, selection, then_refresh=then_refresh)
    _wire_batch(tab.panel, page, selection, tabs, then_refresh=then_refresh)
    _wire_datasets(tab.panel, page, selection, tabs, trained, then_refresh=then_refresh)


def settings_of(values: dict[str, Any], page: BatchPage) -> BatchSettings:
    """The settings that the form's values are; a studio that was started with --cpu makes batches so too.

    Raises:
        SettingsError: where one breaks its rule.
    """
    return parse_settings(BatchSettings, {**batch_form.read_form(values), "cpu": page.cpu_only})


def _wire_preview(tab: BatchTab, page: BatchPage, selection: gr.HTML, errors: FieldErrors) -> None:
    form = tab.form
    controls, previewed = list(form.named.values()), [tab.preview, tab.line, form.problem, tab.preview_box, errors.box]

    def show(**values: Any) -> dict[Any, Any]:  # noqa: ANN401 - the form's values
        found = preview_of(values, lambda: settings_of(values, page), page.session, page.forecast.state)
        at_fields = errors.html(found.error, values, pressed=False)
        said = "" if at_fields or found.error is None else problem(error_message(found.error))
        shown = {tab.preview: found.plan, tab.line: found.line, form.problem: said, errors.box: at_fields}
        return {**shown, tab.preview_box: gr.update(open=True)}

    def renew(**values: Any) -> str:  # noqa: ANN401 - likewise
        return preview_of(values, lambda: settings_of(values, page), page.session, page.forecast.state).line

    def then_show(event: Any) -> None:  # noqa: ANN401 - gradio's Dependency
        event.then(show, inputs_kwargs=form.named, outputs=previewed, queue=False, **QUIET)

    def fill_example(**values: Any) -> dict[Any, Any]:  # noqa: ANN401 - the form's LoRAs
        filled = form.filled_by(parse_settings(BatchSettings, batch_form.EXAMPLE))
        if any(values[f"lora_{i}"] != NO_LORA for i in range(LORA_ROWS)):  # “Make a batch with it” chose them
            filled = {control: value for control, value in filled.items() if control not in loras.values()}
        return filled

    def copy(selection: str) -> dict[Any, Any]:
        with toasts():
            return form.filled_by(read_batch_settings(page.batch_of(selection)))

    def make_grid(seed: str, **axes: str) -> dict[Any, Any]:
        with toasts():
            columns = batch_form.grid_columns(**axes, seed=own_seed(seed))
        plan = {**columns, "images_per_prompt": 1, "total": "", "combine": "every combination"}
        return by_component(form.named, plan)

    # While one answer is on its way only the last change is kept: a large plan is followed at its own pace.
    last = {"trigger_mode": "always_last", "queue": False, **QUIET}
    gr.on(form.changes(), show, inputs_kwargs=form.named, outputs=previewed, **last)
    tab.line.click(renew, inputs_kwargs=form.named, outputs=tab.line, **last)
    loras = {name: form.named[name] for i in range(LORA_ROWS) for name in (f"lora_{i}", f"strength_{i}")}
    then_show(form.example.click(fill_example, inputs_kwargs=loras, outputs=controls, **QUIET))
    then_show(wire_speed(form.named, page.library))
    then_show(tab.panel.duplicate.click(copy, selection, controls, **QUIET))
    axes = {"seed": form.named["seed"], **form.grid.named}
    then_show(errors.press(form.grid.fill.click, make_grid, inputs_kwargs=axes, outputs=controls, **QUIET))


def _wire_batch(
    panel: batch_panel.BatchPanel,
    page: BatchPage,
    selection: gr.HTML,
    tabs: gr.Tabs,
    *,
    then_refresh: Callable[[Any], Any],
) -> None:
    def choose_past(selection: str, event: gr.EventData) -> str:
        with toasts():
            batch = page.session.named(str(getattr(event, "name", "")))
            return changed(read_selection(selection), batch=batch.name)

    def asking(request: RunRequest) -> Callable[[str], None]:
        def act(selection: str) -> None:
            with toasts():
                page.session.ask(page.batch_of(selection), request)

        return act

    def resume(selection: str) -> None:
        with toasts():
            page.session.resume(page.batch_of(selection))

    def open_it(selection: str, request: gr.Request) -> None:
        with toasts():
            show_folder(page.batch_of(selection).root, request)

    def find(selection: str) -> item_actions.Question:
        batch = page.batch_of(selection)
        num_images = sum(1 for path in batch.dataset.glob("[0-9]*/[0-9]*.*") if path.suffix != ".txt")
        what = _("Its {images}, captions and report go with it.", images=counted(num_images, "image", "images"))
        return item_actions.Question(batch.name, title(batch), what)

    def delete(name: str) -> str:
        batch = page.session.named(name)
        called = title(batch)  # as it was called while it was there
        return _("{name} is {place}.", name=called, place=page.session.delete(batch))

    renaming = panel.label, panel.rename.click, selection
    then_refresh(item_actions.wire_job_label(*renaming, folder_of=page.batch_of, session=page.session))
    deleted = item_actions.wire(panel.trash, panel.delete.click, selection, find=find, delete=delete)
    then_refresh(select(deleted.success, selection, change='batch: ""'))
    panel.folder.click(open_it, selection, **QUIET)
    then_refresh(select(panel.batch.input, selection, panel.batch, change="batch: values[0] ?? now.batch"))
    then_refresh(panel.past.click(choose_past, selection, selection, **QUIET))
    for request, button in panel.buttons.items():
        then_refresh(button.click(asking(request), selection, **QUIET))
    then_refresh(panel.resume.click(resume, selection, **QUIET))


def _wire_datasets(
    panel: batch_panel.BatchPanel,
    page: BatchPage,
    selection: gr.HTML,
    tabs: gr.Tabs,
    trained: Sequence[gr.Dropdown],
    *,
    then_refresh: Callable[[Any], Any],
) -> None:
    """Connect what leads from a batch to the Dataset and the Training tab."""
    opened = gr.Textbox(visible=False)  # the name of the dataset

    def dataset_of(selection: str) -> str:
        batch = page.batch_of(selection)
        side, called = training_side(batch), short_title(batch)
        return page.datasets.open_folder(str(batch.dataset), name=called, resolution=side).name

    def open_dataset(selection: str) -> dict[Any, Any]:
        with toasts():
            return {opened: dataset_of(selection), tabs: gr.update(selected="dataset")}

    def train(selection: str) -> dict[Any, Any]:
        with toasts():
            batch, name = page.batch_of(selection), dataset_of(selection)
            with for_later():
                made_by = _("the batch {name}", name=short_title(batch))
            toast(take_generation(page.datasets.of(name).opened, page.session.user_data, made_by, scores_by_key(batch)))
        shown = chosen_in(trained, name, page.datasets.library)
        return {opened: name, tabs: gr.update(selected="training"), **shown}

    pressed = (
        panel.as_dataset.click(open_dataset, selection, [tabs, opened], **QUIET),
        panel.train.click(train, selection, [tabs, opened, *trained], **QUIET),
    )
    for shown in pressed:
        then_refresh(select(shown.success, selection, opened, change="dataset: values[0] || now.dataset"))
