"""Taking a dataset away: a snapshot, an imagefolder, kohya's folders, a zip; captions beside the images."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import gradio as gr

from studio.core.errors import DatasetError
from studio.core.language import N_, _
from studio.core.paths import typed_path
from studio.core.text import counted
from studio.datasets.export import export_imagefolder, export_kohya, export_zip, write_sidecars
from studio.datasets.library import SNAPSHOT
from studio.datasets.session import DatasetSession
from studio.datasets.snapshot import Snapshot, make_snapshot, write_snapshot
from studio.ui.datasets.detail import SAVED_WITH_SUBJECT, read_subject
from studio.ui.shell.images import served_copy
from studio.ui.shell.parts import QUIET, paragraph, toasts
from studio.ui.shell.path_chooser import FOLDER, path_box
from studio.ui.shell.selection import FieldErrors, error_box, follow_form

SNAPSHOT_TITLE = N_("Snapshot: what training reads, with every file's sha256")
FORMATS: dict[str, str] = {
    SNAPSHOT_TITLE: "snapshot",
    N_("imagefolder: images and metadata.jsonl (datasets.load_dataset)"): "imagefolder",
    N_("kohya: folders with repeats and .txt captions"): "kohya",
    N_("zip: an imagefolder in one file"): "zip",
}
"""By their titles, which the browser keeps in English, whatever language it shows them in."""


@dataclass(frozen=True)
class ExportBox:
    """Its components, by what they are for."""

    format: gr.Radio
    cropped: gr.Checkbox
    folder: gr.Textbox
    export: gr.Button
    errors: gr.HTML
    words: gr.HTML
    file: gr.File
    sure: gr.Checkbox
    sidecars: gr.Button


def build() -> ExportBox:
    """Lay it out, folded."""
    with gr.Accordion(_("Export"), open=False, elem_id="dataset-export-box"):
        choice = gr.Radio(
            [(_(title), title) for title in FORMATS],
            value=SNAPSHOT_TITLE,
            label=_("Format"),
            elem_id="dataset-format",
            interactive=True,
        )
        cropped = gr.Checkbox(
            False,
            label=_("Crop images as they are trained"),
            info=_(
                "Otherwise images stay whole; a column “crop” says where a moved crop lies, except in kohya’s folders."
            ),
            elem_id="dataset-export-cropped",
            interactive=True,
        )
        folder = path_box(
            takes=[FOLDER],
            label=_("Folder"),
            info=_("A new or empty folder. Leave empty to use exports, in the dataset's folder."),
            elem_id="dataset-export-folder",
            interactive=True,
        )
        export = gr.Button(_("Export"), elem_id="dataset-export", variant="primary")
        errors = error_box("dataset-export")
        words = gr.HTML(elem_id="dataset-export-words", padding=False)
        file = gr.File(label=_("Download"), visible=False, elem_id="dataset-export-file", interactive=False)
        with gr.Row(elem_classes="toolbar"):
            sure = gr.Checkbox(
                False,
                label=_("Write captions next to the original images"),
                info=_("Replaces existing .txt files; the old ones are kept in the dataset's folder."),
                elem_id="dataset-sidecars-sure",
                interactive=True,
            )
            sidecars = gr.Button(_("Write the captions"), elem_id="dataset-sidecars", interactive=False, min_width=160)
    return ExportBox(choice, cropped, folder, export, errors, words, file, sure, sidecars)


def wire(
    box: ExportBox,
    session: DatasetSession,
    *,
    subject: gr.JSON,
    of: gr.Textbox,
    then_refresh: Callable[[Any], None],
) -> None:
    """Connect the buttons, each to the dataset that the page shows; what was said of another is cleared."""

    def export(
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - gradio's way
        *,
        subject: object,
        title: str,
        cropped: bool,
        folder: str,
    ) -> dict[Any, Any]:
        with toasts():
            place, snapshot = export_dataset(
                session.named(read_subject(subject).dataset),
                FORMATS.get(title, "snapshot"),
                folder.strip(),
                cropped=cropped,
                progress=lambda done, total: progress((done, total), desc=_("Writing"), unit=_("images")),
            )
            download = str(served_copy(place)) if place.is_file() else None
        images = counted(snapshot.header.num_pictures, "image", "images")
        words = paragraph("good", _("{images} exported to {path}", images=images, path=place))
        return {box.words: words, box.file: gr.update(value=download, visible=download is not None)}

    def write(subject: object) -> dict[Any, Any]:
        with toasts():
            written = write_sidecars(session.named(read_subject(subject).dataset).opened)
        captions = counted(written.num_written, "caption", "captions")
        words = paragraph("good", _("{captions} written beside the images.", captions=captions))
        if written.skipped_files:
            first = written.skipped_files[0]
            captions = counted(len(written.skipped_files), "caption", "captions")
            why = f"{first.name}: {first.problem.sentence}"
            words += paragraph("bad", _("{captions} could not be written: {why}", captions=captions, why=why))
        return {box.words: words, box.sure: False}

    of.change(_clearing(box, session), of, [box.words, box.file, box.folder, box.sure, box.cropped], **QUIET)
    errors = FieldErrors(box.errors, "dataset-export", {"folder": box.folder})
    follow_form("dataset-export", errors.controls)
    errors.press(
        box.export.click,
        export,
        inputs_kwargs={"subject": subject, "title": box.format, "cropped": box.cropped, "folder": box.folder},
        outputs=[box.words, box.file],
        js=SAVED_WITH_SUBJECT,
        api_visibility="private",
        show_progress_on=box.words,
    )
    box.sure.change(lambda sure: gr.update(interactive=sure), box.sure, box.sidecars, **QUIET)
    then_refresh(box.sidecars.click(write, subject, [box.words, box.sure], js=SAVED_WITH_SUBJECT, **QUIET))


def _clearing(box: ExportBox, session: DatasetSession) -> Callable[[str], dict[Any, Any]]:
    """What clears the box for another dataset: images are cut as they are trained where a crop of it was moved."""

    def clear(of: str) -> dict[Any, Any]:
        with toasts():
            rows = session.named(of).opened.rows if of else ()
        moved = any(row.focus is not None for row in rows)
        cleared = {box.words: "", box.file: gr.update(value=None, visible=False), box.folder: "", box.sure: False}
        return {**cleared, box.cropped: moved}

    return clear


def export_dataset(
    session: DatasetSession, kind: str, folder: str, *, cropped: bool, progress: Callable[[int, int], None]
) -> tuple[Path, Snapshot]:
    """Write the open dataset in one format; where it lies now, and what is in it.

    Raises:
        DatasetError: where it is still being checked, has no image to train on, or the folder is not empty.
        OSError: where the disk is full.
    """
    dataset = session.opened
    if dataset.progress.running:
        raise DatasetError(_("The images are still being checked. Export when that is done."))
    snapshot = make_snapshot(dataset.name, dataset.recipe, dataset.rows)
    background = dataset.recipe.background
    write_snapshot(dataset.folder / SNAPSHOT, snapshot)
    if kind == "snapshot":
        return dataset.folder / SNAPSHOT, snapshot
    default = dataset.folder / "exports" / f"{datetime.now():%Y%m%d-%H%M%S}-{kind}"
    target = typed_path(folder) if folder else default
    if not target.is_absolute():
        raise DatasetError(_("folder must be a whole path, got {folder!r}.", folder=folder)).about("folder")
    if kind == "zip":
        target = target if target.suffix == ".zip" else target / f"{dataset.name}.zip"
        export_zip(snapshot, target, background=background, cropped=cropped, progress=progress)
    elif kind == "kohya":
        export_kohya(snapshot, target, background=background, cropped=cropped, progress=progress)
    else:
        export_imagefolder(snapshot, target, background=background, cropped=cropped, progress=progress)
    return target, snapshot
