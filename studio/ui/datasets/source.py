"""Where a dataset comes from: a drop zone for folders, files and zips; a path; the datasets there are."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio.core.errors import DatasetError, StudioError, about, error_message
from studio.core.files import read_text, remove_uploads
from studio.core.language import _
from studio.core.paths import assets_folder
from studio.core.text import counted
from studio.datasets.session import DatasetSession, SessionView
from studio.datasets.upload import DroppedFile
from studio.ui.datasets.html import drop_zone
from studio.ui.shell.parts import QUIET, Update, problem, toasts, uploads_folder
from studio.ui.shell.path_chooser import FOLDER, path_box
from studio.ui.shell.selection import FieldErrors, error_box, select

DEMO_DATASET = "casual-shoes"
DEMO_RESOLUTION = 128  # of the model that ships with it
MAX_FILES = 100_000


@dataclass(frozen=True)
class SourceBox:
    """Its components, by what they are for; `opened` is the name of what this page opened last."""

    drop: gr.HTML
    path: gr.Textbox
    open: gr.Button
    errors: gr.HTML
    names: gr.Dropdown
    demo: gr.Button
    problem: gr.HTML
    opened: gr.Textbox

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        """What a refresh keeps true."""
        return {"dataset-names": self.names, "dataset-problem": self.problem}


def build() -> SourceBox:
    """Lay it out."""
    with gr.Row(elem_id="dataset-source", equal_height=True):
        drop = gr.HTML(
            elem_id="dataset-drop",
            html_template=str(drop_zone()),
            js_on_load=read_text(assets_folder() / "dropzone.js"),
            outcome=None,
        )
        with gr.Column(elem_classes="source-fields"):
            with gr.Row(elem_classes="toolbar"):
                path = path_box(
                    takes=[FOLDER],
                    label=_("Or open a folder in place"),
                    placeholder="/Users/you/Pictures",
                    elem_id="dataset-path",
                    interactive=True,
                )
                opener = gr.Button(_("Open"), elem_id="dataset-open", min_width=88)
            errors = error_box("dataset")
            with gr.Row(elem_classes="toolbar"):
                names = gr.Dropdown(
                    [],
                    value=None,
                    label=_("Your datasets"),
                    elem_id="dataset-names",
                    interactive=True,
                    allow_custom_value=True,
                )
                demo = gr.Button(_("Demo shoes"), elem_id="dataset-demo", min_width=176)
    problem = gr.HTML(elem_id="dataset-problem", padding=False, visible=False)
    return SourceBox(drop, path, opener, errors, names, demo, problem, gr.Textbox(visible=False))


def render(session: DatasetSession, view: SessionView) -> dict[str, Update]:
    """The list of datasets, and why one could not be opened."""
    return {
        "dataset-names": gr.update(choices=session.library.names(), value=view.name or None),
        "dataset-problem": gr.update(value=problem(view.problem), visible=bool(view.problem)),
    }


def wire(box: SourceBox, session: DatasetSession, selection: gr.HTML, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect every way to open a dataset, which this page shows then, and no other."""

    def discard_uploads(files: list[str]) -> None:
        """What the drop zone asks where a drop was cancelled or broke off."""
        remove_uploads(map(Path, files), uploads_folder())

    def take(event: gr.EventData) -> dict[Any, Any]:
        name, outcome = taken_drop(session, event)
        return {box.drop: outcome, **({box.opened: name} if name else {})}

    def open_path(path: str) -> str:
        with toasts(), about("path"):
            return session.open_folder(path, on_progress=_say_seen).name

    def open_name(name: str | None) -> str:
        with toasts():
            return session.show(name).name if name else ""

    def open_demo() -> str:
        with toasts():
            return session.open_folder(str(assets_folder() / DEMO_DATASET), resolution=DEMO_RESOLUTION).name

    errors = FieldErrors(box.errors, "dataset", {"path": box.path})
    typed: dict[str, Any] = {"inputs_kwargs": errors.controls, "outputs": [box.opened], **QUIET}
    gr.api(discard_uploads, api_name="discard_uploads", queue=False, api_visibility="private")
    for opened in (
        box.drop.upload(take, None, [box.drop, box.opened], **QUIET),
        errors.press(box.open.click, open_path, **typed),
        errors.press(box.path.submit, open_path, **typed),
        box.names.input(open_name, box.names, box.opened, **QUIET),
        box.demo.click(open_demo, None, box.opened, **QUIET),
    ):
        then_refresh(select(opened.success, selection, box.opened, change="dataset: values[0] || now.dataset"))


def _say_seen(num_seen: int) -> None:
    gr.Info(_("Looking through the folder: {num_seen:,} files and folders so far …", num_seen=num_seen), duration=3)


def _outcome(words: str, kind: str) -> Any:  # noqa: ANN401 - gradio's update
    """What the drop zone says; the time makes it another value, so that the same words are said again."""
    return gr.update(outcome={"words": words, "kind": kind, "at": time.monotonic_ns()})


def taken_drop(session: DatasetSession, event: gr.EventData) -> tuple[str, Any]:
    """The dataset that a drop became, "" where nothing of it can be used; and what its zone says."""
    try:
        opened = session.open_dropped(dropped_files(getattr(event, "files", None)), uploads=uploads_folder())
    except (StudioError, OSError) as error:
        return "", _outcome(error_message(error), "bad")
    images = counted(len(opened.reading.pictures), "image", "images")
    words = [_("{images} in the dataset {name}.", images=images, name=opened.name)]
    if opened.not_taken:
        num_skipped = counted(len(opened.not_taken), "file", "files")
        words.append(_("{files} skipped: the doctor lists them.", files=num_skipped))
    return opened.name, _outcome(" ".join(words), "good")


def dropped_files(files: object) -> list[DroppedFile]:
    """What the drop zone sent, which anyone could have sent.

    Raises:
        DatasetError: where it is not a list of files.
    """
    if not isinstance(files, list) or len(files) > MAX_FILES:
        raise DatasetError(
            _("A drop must be a list of at most {limit:,} files. Type the folder's path instead.", limit=MAX_FILES)
        )
    taken = []
    for file in files:
        if not isinstance(file, dict) or not isinstance(file.get("rel"), str) or not isinstance(file.get("path"), str):
            raise DatasetError(_("The drop names no files. Drop them again, or type the folder's path."))
        taken.append(DroppedFile(file["rel"], Path(file["path"])))
    return taken
