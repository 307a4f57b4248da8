"""Backgrounds and masks: what is asked, before and after of each image, to be used or not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import gradio as gr
from markupsafe import Markup

from studio.core.errors import DatasetError
from studio.core.language import _, percent, said
from studio.core.settings import parse_settings
from studio.core.text import counted, template
from studio.datasets.grounds import GroundResult, GroundWork, use_copies
from studio.datasets.session import DatasetSession, SessionView
from studio.images.records import GroundSettings
from studio.ui.datasets.browser import info_of, label_of, read_query
from studio.ui.datasets.detail import SAVED_WITH_SUBJECT, read_subject
from studio.ui.shell.parts import QUIET, Part, live_html, paragraph, toast, toasts
from studio.ui.shell.selection import FieldErrors, error_box, follow_form

_template = template("ui/templates/datasets.html")

FIELDS = GroundSettings.model_fields
MAX_SHOWN = 60
_CLICKS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (button) trigger("click", { ...button.dataset });
});"""


@dataclass(frozen=True)
class GroundsBox:
    """Its components, by what they are for."""

    form: dict[str, gr.components.Component]
    preview: gr.Button
    preview_all: gr.Button
    errors: gr.HTML
    result: gr.HTML


def build() -> GroundsBox:
    """Lay it out, folded."""
    with gr.Accordion(_("Backgrounds and masks"), open=False, elem_id="dataset-grounds-box"):
        gr.HTML(
            paragraph("quiet", _("Makes copies; originals are never changed. You see each before and after first.")),
            padding=False,
        )
        form: dict[str, gr.components.Component] = {}
        with gr.Row(elem_classes="fields"):
            for name in ("white", "shadow", "masks"):
                form[name] = gr.Checkbox(FIELDS[name].default, **_words(name))
            form["subject_percent"] = gr.Number(
                FIELDS["subject_percent"].default, precision=0, **_words("subject_percent")
            )
        with gr.Row(elem_classes="actions"):
            preview = gr.Button(
                _("Preview this image or the selection"), elem_id="dataset-grounds-preview", variant="primary"
            )
            preview_all = gr.Button(_("Preview all matching images"), elem_id="dataset-grounds-preview-all")
        errors = error_box("dataset-grounds")
        result = live_html("dataset-grounds", js_on_load=_CLICKS)
    return GroundsBox(form, preview, preview_all, errors, result)


def _words(name: str) -> dict[str, Any]:
    elem_id = f"dataset-grounds-{name.replace('_', '-')}"
    return {"label": label_of(FIELDS[name]), "info": info_of(FIELDS[name]), "elem_id": elem_id, "interactive": True}


def render(session: DatasetSession, view: SessionView) -> dict[str, Part]:
    """How far the work on the dataset is, and what came out of it."""
    return {"dataset-grounds": lambda: grounds_html(session) if view.name else Markup()}


def grounds_html(session: DatasetSession) -> Markup:
    """The state of the work with its buttons, and the first of its images before and after."""
    dataset = session.opened.name
    work = session.grounds.find(dataset)
    if work is None:
        return Markup()
    results = work.results
    usable = [result for result in results if not result.problem]
    # What needs a look comes first.
    rows = [*(result for result in results if result.problem), *usable][:MAX_SHOWN]
    return _template(
        "grounds",
        dataset=dataset,
        state=_state_words(work, results),
        problem=said(work.problem),
        running=work.running,
        num_made=len(usable),
        rows=[_shown(work, result) for result in rows],
        more=len(results) - len(rows),
    )


def _shown(work: GroundWork, result: GroundResult) -> dict[str, object]:
    urls = [f"gradio_api/file={quote(str(work.folder / f'{result.stem}-{when}.jpg'))}" for when in ("before", "after")]
    before, after = map(percent, result.whiteness)
    words = _("Border white: {before} before, {after} after", before=before, after=after)
    return {"key": result.key, "urls": urls, "problem": said(result.problem), "words": words}


def _state_words(work: GroundWork, results: list[GroundResult]) -> str:
    num_left_out = sum(bool(result.problem) for result in results)
    if work.running:
        return work.words
    words = [_("{images} to look at.", images=counted(len(results) - num_left_out, "image", "images"))]
    if num_left_out:
        words += [_("{images} could not be changed.", images=counted(num_left_out, "image", "images"))]
    return " ".join(words)


def act(session: DatasetSession, sent: dict[str, str]) -> str:
    """Do what a button of the result asks; what to say of it, "" where the page shows it.

    Raises:
        DatasetError: where there is nothing like it to do, or no image to use.
        OSError: where the copies cannot be kept.
    """
    opened, wish = session.opened, sent.get("act")
    work = session.grounds.find(opened.name)
    if work is None:
        raise DatasetError(_("The preview is gone. Preview again."))
    if wish == "stop":
        work.stop.set()
        return ""
    if wish == "discard":
        session.grounds.discard(opened.name)
        return ""
    if wish not in ("use", "use all"):
        raise DatasetError(_("There is nothing like {act!r} to do.", act=wish))
    num_changed = use_copies(opened, work, keys=None if wish == "use all" else [sent.get("key", "")])
    session.check()  # the copies are other files
    if not (work.running or work.results):
        session.grounds.discard(opened.name)
    images = counted(num_changed, "image", "images")
    if work.settings.masks:
        masks = opened.folder / "masks"
        return _("Done: {images}. Set Masks (mask_folder) of a training to {folder}.", images=images, folder=masks)
    return _("Done: {images}. Undo, beside the image, takes it back.", images=images)


def wire(
    box: GroundsBox,
    session: DatasetSession,
    *,
    query: dict[str, Any],
    subject: gr.JSON,
    then_refresh: Callable[[Any], None],
) -> None:
    """Connect the previews, and the buttons of the result."""

    def begin(page: DatasetSession, keys: list[str], values: dict[str, Any]) -> None:
        settings = parse_settings(GroundSettings, {name: values[name] for name in FIELDS if values[name] is not None})
        page.grounds.begin(page.opened, keys, settings)

    def preview(subject: object, **values: Any) -> None:  # noqa: ANN401 - the controls' values
        with toasts():
            asked = read_subject(subject)
            begin(session.named(asked.dataset), list(asked.keys), values)

    def preview_all(subject: object, **values: Any) -> None:  # noqa: ANN401
        with toasts():
            page = session.named(read_subject(subject).dataset)
            found = page.opened.found(read_query(values))
            begin(page, [row.key for row in found if not row.is_rejected], values)

    def press(event: gr.EventData) -> None:
        sent = {name: str(getattr(event, name, "")) for name in ("act", "dataset", "key")}
        with toasts():
            if words := act(session.named(sent["dataset"]), sent):
                toast(words)

    errors = FieldErrors(box.errors, "dataset-grounds", box.form)
    follow_form("dataset-grounds", box.form)
    asked = {"subject": subject, **box.form}
    then_refresh(errors.press(box.preview.click, preview, inputs_kwargs=asked, js=SAVED_WITH_SUBJECT, **QUIET))
    all_asked = {"subject": subject, **query, **box.form}
    then_refresh(
        errors.press(box.preview_all.click, preview_all, inputs_kwargs=all_asked, js=SAVED_WITH_SUBJECT, **QUIET)
    )
    then_refresh(box.result.click(press, None, None, trigger_mode="multiple", **QUIET))
