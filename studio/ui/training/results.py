"""What comes out of a run, as buttons: its LoRA to Inference or into a model, its report, folder, settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import RunError
from studio.core.language import N_, _
from studio.core.text import counted, gigabytes, template
from studio.jobs.folder import BUSY_STATES
from studio.jobs.words import title
from studio.loras.weights_file import MODEL_ENDINGS, ModelForm
from studio.training.begin import read_run_settings
from studio.training.folder import RunFolder
from studio.training.report import standalone_html, write_report
from studio.training.session import RunHistory, TrainingView, lora_of, lora_to_send
from studio.ui.shell import item_actions
from studio.ui.shell.commands import CommandState
from studio.ui.shell.parts import QUIET, Update, data_url, save_link, show_folder, toasts
from studio.ui.shell.selection import select
from studio.ui.training.destinations import Destinations, wire_compare
from studio.ui.training.form import TrainingForm
from studio.ui.training.queue import TrainingPage

_template = template("ui/templates/training.html")

EXPORT_WORDS: Mapping[ModelForm, str] = {"checkpoint": N_("Export checkpoint"), "merged": N_("Export model folder")}
SAVE_REPORT = '() => document.querySelector("#training-report-link a")?.click()'


@dataclass(frozen=True)
class ResultButtons:
    """Its components."""

    row: gr.Row
    send: gr.Button
    report: gr.Button
    report_link: gr.HTML
    folder: gr.Button
    copy: gr.Button
    exports: Mapping[ModelForm, gr.Button]
    rename: gr.Button
    label: item_actions.LabelBox
    delete: gr.Button
    trash: item_actions.TrashBox

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        exports = {f"training-export-{form}": button for form, button in self.exports.items()}
        own = {"training-results": self.row, "training-send": self.send, "training-delete": self.delete}
        return {**own, **exports}


def build() -> ResultButtons:
    """Lay them out in a row."""
    with gr.Row(elem_classes="run-results") as row:
        send = gr.Button(_("Compare with the base"), elem_id="training-send", size="sm", min_width=136, visible=False)
        report = gr.Button(_("Save the report"), elem_id="training-report", size="sm", min_width=112)
        folder = gr.Button(_("Open the folder"), elem_id="training-folder", size="sm", min_width=112)
        copy = gr.Button(_("Copy to form"), elem_id="training-duplicate", size="sm", min_width=112)
        exports = {
            form: gr.Button(_(words), elem_id=f"training-export-{form}", size="sm", min_width=112)
            for form, words in EXPORT_WORDS.items()
        }
        rename = gr.Button(_("Rename…"), elem_id="training-rename", size="sm", min_width=84)
        delete = gr.Button(_("Delete…"), elem_id="training-delete", size="sm", min_width=84)
    label = item_actions.build_label("training")
    trash = item_actions.build("training")
    report_link = gr.HTML(elem_id="training-report-link", visible="hidden", padding=False)
    return ResultButtons(row, send, report, report_link, folder, copy, exports, rename, label, delete, trash)


def render(view: TrainingView, export: CommandState) -> dict[str, Update]:
    """Which of them can be pressed. A whole model needs memory, so none is written beside a run that works."""
    found = view.history is not None and lora_to_send(view.history) is not None
    is_finished = view.status is not None and view.status.state == "finished"
    works = view.status is not None and view.status.state in BUSY_STATES
    may_export = gr.update(interactive=found and not works and not export.running)
    return {
        "training-results": gr.update(visible=view.run is not None),
        "training-send": gr.update(interactive=found, visible=not is_finished),  # its card has that button
        "training-delete": gr.update(interactive=view.status is not None and not works),
        **{f"training-export-{form}": may_export for form in EXPORT_WORDS},
    }


def export_html(run: RunFolder | None, export: CommandState) -> Markup:
    """Whether a whole model is being written, why it was not, and those that lie in the run's folder."""
    if run is None:
        return Markup()
    own = export if export.about == run.name else CommandState()
    return _template("exports", running=own.running, problem=own.problem, models=exported_models(run))


def exported_models(run: RunFolder) -> list[Path]:
    """The whole models in a run's folder."""
    endings = tuple(MODEL_ENDINGS.values())
    return sorted(path for path in run.root.glob("*-*") if path.name.endswith(endings))


def wire(
    buttons: ResultButtons,
    page: TrainingPage,
    selection: gr.HTML,
    form: TrainingForm,
    to: Destinations,
    *,
    then_refresh: Callable[[Any], Any],
) -> None:
    """Connect the buttons, each to the run that the page shows."""

    def report(selection: str) -> str:
        with toasts():
            run = page.run_of(selection)
            write_report(run)
            return report_link(run)

    def open_it(selection: str, request: gr.Request) -> None:
        with toasts():
            show_folder(page.run_of(selection).root, request)

    def copy(selection: str) -> dict[Any, Any]:
        with toasts():
            return form.filled_by(read_run_settings(page.run_of(selection)))

    in_the_page: dict[str, Any] = {"fn": None, "queue": False, "show_progress": "hidden"}
    then_refresh(wire_compare(buttons.send.click, page, selection, to))
    buttons.report.click(report, selection, buttons.report_link, **QUIET).success(js=SAVE_REPORT, **in_the_page)
    buttons.folder.click(open_it, selection, **QUIET)
    buttons.copy.click(copy, selection, form.filled, **QUIET)
    _wire_exports(buttons, page, selection, then_refresh=then_refresh)
    renaming = buttons.label, buttons.rename.click, selection
    then_refresh(item_actions.wire_job_label(*renaming, folder_of=page.run_of, session=page.session))
    _wire_delete(buttons, page, selection, then_refresh=then_refresh)


def _wire_exports(
    buttons: ResultButtons, page: TrainingPage, selection: gr.HTML, *, then_refresh: Callable[[Any], Any]
) -> None:
    def export(form: ModelForm, selection: str) -> None:
        with toasts():
            run = page.run_of(selection)
            if page.exports.state.running:
                raise RunError(_("A model is being written: wait until it is done."))
            page.exports.start(*export_arguments(run, page.session.history(run), form), about=run.name)

    for form, button in buttons.exports.items():
        then_refresh(button.click(partial(export, form), selection, **QUIET))


def _wire_delete(
    buttons: ResultButtons, page: TrainingPage, selection: gr.HTML, *, then_refresh: Callable[[Any], Any]
) -> None:
    def find(selection: str) -> item_actions.Question:
        run = page.run_of(selection)
        return item_actions.Question(run.name, title(run), _goes_with(run))

    def delete(name: str) -> str:
        run = page.session.named(name)
        called = title(run)  # as it was called while it was there
        return _("{name} is {place}.", name=called, place=page.session.delete(run))

    deleted = item_actions.wire(buttons.trash, buttons.delete.click, selection, find=find, delete=delete)
    then_refresh(select(deleted.success, selection, change='run: "", image: null'))


def export_arguments(run: RunFolder, history: RunHistory, form: ModelForm) -> tuple[str, ...]:
    """The command that merges a run's best LoRA into the model it was trained on, beside the run.

    Raises:
        RunError: where the run has none yet, or its file or the settings are gone.
        SettingsError: where the settings break a rule.
    """
    step, file = lora_of(run, history)
    settings = read_run_settings(run)
    output = run.root / f"{settings.name} step {step}{MODEL_ENDINGS[form]}"
    options = {"to": form, "output": str(output), "model": settings.model, "prediction-type": settings.prediction_type}
    return ("export", str(file), *(f"--{name}={value}" for name, value in options.items()))


def report_link(run: RunFolder) -> Markup:
    """A link that saves the report, whole in one file: no folder is served for it."""
    url = data_url(standalone_html(run).encode(errors="replace"), "text/html")
    return save_link(f"{run.name}-report.html", url, _("Save the report"))


def _goes_with(run: RunFolder) -> str:
    num_checkpoints = len(list(run.checkpoints.glob("step-*")))
    size = gigabytes(sum(path.stat().st_size for path in run.root.rglob("*") if path.is_file()))
    checkpoints = counted(num_checkpoints, "checkpoint", "checkpoints")
    goes = (
        _("Its {checkpoints}, images and log go with it, {size} in all.", checkpoints=checkpoints, size=size)
        if num_checkpoints
        else _("Its images and log go with it, {size} in all.", size=size)
    )
    stays = _("A LoRA that was sent to Inference stays in the library.")
    return f"{goes} {stays}"
