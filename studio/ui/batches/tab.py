"""The Batch tab: the form, its preview, and the buttons.

What a plan would make, while it is written: how many, ten of them, how often each value. From facts to HTML.

What a batch would take, as measured: a sentence below the buttons.

The Batch tab: the plan with its preview on the left, the batch that runs on the right, past ones below it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup
from pydantic import ValidationError

from studio.batches.columns import own_seed
from studio.batches.folder import BatchFolder, begin_batch, plan_of, read_batch_settings
from studio.batches.forecast import PlanFacts
from studio.batches.session import BatchSession, BatchView, training_side
from studio.batches.settings import BatchSettings
from studio.core.errors import StudioError, error_message
from studio.core.paths import typed_path
from studio.core.settings import parse_settings
from studio.core.text import counted, template
from studio.datasets.session import DatasetSession
from studio.jobs.folder import RunRequest
from studio.loras.library import LoraLibrary
from studio.ui.batches import form as batch_form
from studio.ui.batches import view as batch_panel
from studio.ui.forms import LORA_ROWS, NO_LORA, by_component
from studio.ui.shell import item_actions
from studio.ui.shell.commands import COMPARED_ON_LOAD, PreflightRunner, PreflightState, forecast_box
from studio.ui.shell.parts import QUIET, Group, Part, paragraph, problem, show_folder, toasts
from studio.ui.shell.selection import FieldErrors, changed, error_box, read_selection, select

_template = template("ui/templates/batches.html")

COUNTED_UP_TO = 2_000_000  # items; more take a second and longer to count, too long for something that follows typing
READ_UP_TO_BYTES = 8_000_000  # of a file of prompts, likewise: about 200,000 lines
MAX_VALUES = 12

NO_PLAN = paragraph("quiet", "No plan yet: see the message at the form's fields.")
EMPTY = paragraph(
    "quiet",
    "The plan appears here as you type: the number of images, ten examples, and how often each value comes up.",
)
LARGE = paragraph(
    "note",
    "This prompt file is too large to preview as you type: “Measure” reads it and estimates how many images it "
    "makes, time and disk.",
)
COUNTED_LATER = "“Measure” counts this many, and estimates time and disk space."


def is_too_large_to_follow(settings: BatchSettings) -> bool:
    """Whether the file of prompts takes seconds to be read."""
    path = typed_path(settings.prompt_file.strip())
    return bool(settings.prompt_file.strip()) and path.is_file() and path.stat().st_size > READ_UP_TO_BYTES


def preview_html(facts: PlanFacts) -> Markup:
    """The plan in short."""
    later = (COUNTED_LATER,) if facts.num_columns and not facts.value_counts else ()
    return _template(
        "preview",
        num_items=facts.num_items,
        notes=[*facts.notes, *later],
        examples=facts.examples,
        counts=counts_html(facts.value_counts),
    )


def counts_html(counts: Mapping[str, Mapping[str, int] | int]) -> Markup:
    """A small table for each column."""
    if not counts:
        return Markup()
    return _template("counts", columns=[(column, *_values(found)) for column, found in counts.items()])


def _values(found: Mapping[str, int] | int) -> tuple[list[tuple[str, int]], str]:
    """The first values of a column, each with how often it comes up, and how many more there are in words."""
    if isinstance(found, int):
        return [], f"{found:,} different values"
    return list(found.items())[:MAX_VALUES], f"and {len(found) - MAX_VALUES:,} more" if len(found) > MAX_VALUES else ""


def forecast_html(state: PreflightState) -> Markup:
    """Where the measuring stands, or what it found, and for what."""
    return forecast_box(state, _forecast_words(state), form="batch", labels=batch_form.LABELS, button="Measure")


def _forecast_words(state: PreflightState) -> Markup:
    if state.running:
        words = f"A few real images are being made and measured, for {state.time_words} so far; none are kept."
        return paragraph("quiet", words, role="status") + paragraph("quiet", f"Now: {state.step_words}.")
    if state.problem:
        return problem(state.problem)
    facts = read_facts(state)
    if facts is None:
        return paragraph("quiet", "“Measure” makes a few real images to estimate the time, disk space and finish time.")
    counts = counts_html(facts.value_counts) if facts.num_items > COUNTED_UP_TO else ""
    return _template("forecast", sentence=facts.sentence, counts=counts)


def read_facts(state: PreflightState) -> PlanFacts | None:
    """What was found; None where nothing was, or not by this version."""
    if not state.result_json:
        return None
    try:
        return PlanFacts.model_validate_json(state.result_json)
    except ValidationError:
        return None


@dataclass(frozen=True)
class BatchTab:
    """The tab's parts."""

    start: gr.Button
    measure: gr.Button
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
        return {**measuring, **self.form.shown, **self.panel.shown}


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
                start = gr.Button("Start", variant="primary", elem_id="start-batch")
                measure = gr.Button("Measure", elem_id="measure-batch")
            errors = error_box(batch_form.FORM)
            forecast = gr.HTML(elem_id="batch-forecast", padding=False, js_on_load=COMPARED_ON_LOAD)
            cancel = gr.Button("Cancel", visible=False, size="sm", elem_id="batch-measure-cancel")
            of = gr.Textbox(visible=False)
            form = batch_form.build()
        with gr.Column(elem_classes="canvas", min_width=480):
            with gr.Accordion("Preview", open=True, elem_id="batch-preview-box") as preview_box:
                preview = gr.HTML(EMPTY, elem_id="batch-preview", padding=False)
            panel = batch_panel.build()
    return BatchTab(start, measure, errors, forecast, cancel, of, form, preview, preview_box, panel)


def render(page: BatchPage, view: BatchView) -> dict[str, Group]:
    """What makes every shown part of the tab as it should be now."""
    return {
        "The batch's form": lambda: _form_parts(page),
        "The batch": lambda: batch_panel.render(view),
    }


def _form_parts(page: BatchPage) -> dict[str, Part]:
    choices = gr.update(choices=[NO_LORA, *page.library.names()])
    return {
        "batch-forecast": lambda: forecast_html(page.forecast.state),
        "batch-measure-of": gr.update(value=str(page.forecast.state.number)),
        "batch-measure-cancel": gr.update(visible=page.forecast.state.running),
        **{f"batch-lora-{i}": choices for i in range(LORA_ROWS)},
    }


def wire(
    tab: BatchTab, page: BatchPage, selection: gr.HTML, *, tabs: gr.Tabs, then_refresh: Callable[[Any], Any]
) -> None:
    """Connect the form with its preview, and the batch's buttons."""
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
    _wire_batch(tab.panel, page, selection, tabs, then_refresh=then_refresh)


def settings_of(values: dict[str, Any], page: BatchPage) -> BatchSettings:
    """The settings that the form's values are; a studio that was started with --cpu makes batches so too.

    Raises:
        SettingsError: where one breaks its rule.
    """
    return parse_settings(BatchSettings, {**batch_form.read_form(values), "cpu": page.cpu_only})


def preview(values: dict[str, Any], page: BatchPage) -> tuple[str, StudioError | OSError | None]:
    """(what the form's plan would make, why there is none)."""
    if not values["prompts"].strip() and not values["prompt_file"].strip():
        return EMPTY, None
    try:
        settings = settings_of(values, page)
        if is_too_large_to_follow(settings):
            return LARGE, None
        plan = plan_of(settings, page.session.user_data)
        facts = PlanFacts.of(plan, counted=plan.num_items <= COUNTED_UP_TO)
    except (StudioError, OSError) as error:
        return NO_PLAN, error
    return preview_html(facts), None


def _wire_preview(tab: BatchTab, page: BatchPage, selection: gr.HTML, errors: FieldErrors) -> None:
    form = tab.form
    controls, previewed = list(form.named.values()), [tab.preview, form.problem, tab.preview_box, errors.box]

    def show(**values: Any) -> dict[Any, Any]:  # noqa: ANN401 - the form's values
        plan, error = preview(values, page)
        at_fields = errors.html(error, values, pressed=False)
        said = "" if at_fields or error is None else problem(error_message(error))
        opened = gr.update(open=True)
        return {tab.preview: plan, form.problem: said, tab.preview_box: opened, errors.box: at_fields}

    def then_show(event: Any) -> None:  # noqa: ANN401 - gradio's Dependency
        event.then(show, inputs_kwargs=form.named, outputs=previewed, queue=False, **QUIET)

    def fill_example() -> dict[Any, Any]:
        return form.filled_by(parse_settings(BatchSettings, batch_form.EXAMPLE))

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
    then_show(form.example.click(fill_example, None, controls, **QUIET))
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

    opened = gr.Textbox(visible=False)  # the name of the dataset

    def open_dataset(selection: str) -> dict[Any, Any]:
        with toasts():
            batch = page.batch_of(selection)
            side = training_side(batch)
            dataset = page.datasets.open_folder(str(batch.dataset), name=batch.name, resolution=side)
        return {tabs: gr.update(selected="dataset"), opened: dataset.name}

    def open_it(selection: str, request: gr.Request) -> None:
        with toasts():
            show_folder(page.batch_of(selection).root, request)

    def find(selection: str) -> item_actions.Question:
        batch = page.batch_of(selection)
        num_images = sum(1 for path in batch.dataset.glob("[0-9]*/[0-9]*.*") if path.suffix != ".txt")
        what = f"Its {counted(num_images, 'image')}, captions and report go with it."
        return item_actions.Question(batch.name, batch.name, what)

    def delete(name: str) -> str:
        return f"{name} is {page.session.delete(page.session.named(name))}."

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
    shown = panel.as_dataset.click(open_dataset, selection, [tabs, opened], **QUIET)
    then_refresh(select(shown.success, selection, opened, change="dataset: values[0] || now.dataset"))
