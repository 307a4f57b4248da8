"""Captions by a model: what is asked, how far the job is, and what came out, to be taken or not."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import DatasetError
from studio.core.language import N_, _
from studio.core.paths import UserData
from studio.core.settings import parse_settings
from studio.core.text import counted, template
from studio.datasets.captioning import (
    CaptionFolder,
    CaptionSettings,
    ImageCaptions,
    begin_captioning,
    latest_of,
    outcome_words,
    read_captions,
    take_captions,
)
from studio.datasets.session import DatasetSession, SessionView
from studio.engine.caption_models import RECOMMENDED, assert_captioner_there
from studio.jobs.folder import BUSY_STATES, RunStatus, status_or
from studio.jobs.session import JobSession
from studio.ui.datasets.browser import info_of, label_of
from studio.ui.datasets.detail import SAVED_WITH_SUBJECT, read_subject
from studio.ui.datasets.html import thumbnail_url
from studio.ui.shell.parts import QUIET, Part, live_html, toast, toasts
from studio.ui.shell.selection import FieldErrors, error_box, follow_form

_template = template("ui/templates/datasets.html")

FIELDS = CaptionSettings.model_fields
MAX_SHOWN = 60
WHICH = {"missing": N_("without a caption"), "all": N_("all")}
_CLICKS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (button) trigger("click", { ...button.dataset });
});"""

CaptionJobs = JobSession[CaptionFolder]


def caption_jobs(user_data: UserData) -> CaptionJobs:
    """The jobs that write captions, as a page sees and steers them."""
    return JobSession(user_data, "caption", folder=CaptionFolder, parent=user_data.captions)


@dataclass(frozen=True)
class CaptioningBox:
    """Its components, by what they are for."""

    form: dict[str, gr.components.Component]
    start: gr.Button
    errors: gr.HTML
    result: gr.HTML


def build() -> CaptioningBox:
    """Lay it out, folded."""
    with gr.Accordion(_("Write captions with a model"), open=False, elem_id="dataset-captioning-box"):
        form: dict[str, gr.components.Component] = {}
        with gr.Row(elem_classes="fields"):
            form["model"] = gr.Dropdown(
                captioner_choices(), value=FIELDS["model"].default, allow_custom_value=True, **_words("model")
            )
            which = [(_(label), value) for value, label in WHICH.items()]
            form["which"] = gr.Radio(which, value=FIELDS["which"].default, **_words("which", info=False))
        with gr.Row(elem_classes="fields"):
            for name in ("prompt", "leave_out"):
                form[name] = gr.Textbox(**_words(name))
        with gr.Row(elem_classes="fields"):
            for name in ("prefix", "suffix"):
                form[name] = gr.Textbox(**_words(name))
        with gr.Row(elem_classes="fields"):
            for name in ("num_candidates", "max_new_tokens"):
                form[name] = gr.Number(FIELDS[name].default, precision=0, **_words(name))
            for name in ("general_threshold", "character_threshold"):
                form[name] = gr.Number(FIELDS[name].default, step=0.05, **_words(name))
        start = gr.Button(_("Caption the images"), elem_id="dataset-captioning-start", variant="primary")
        errors = error_box("dataset-captioning")
        result = live_html("dataset-captioning", js_on_load=_CLICKS)
    return CaptioningBox(form, start, errors, result)


def _words(name: str, *, info: bool = True) -> dict[str, Any]:
    elem_id = f"dataset-captioning-{name.replace('_', '-')}"
    said = info_of(FIELDS[name]) if info else None
    return {"label": label_of(FIELDS[name]), "info": said, "elem_id": elem_id, "interactive": True}


def captioner_choices() -> list[tuple[str, str]]:
    """`Salesforce/blip-image-captioning-large · 1.9 GB · BSD-3 · one plain sentence`."""
    return [
        (
            _(
                "{model} · {size} · {licence} · {good_at}",
                model=model.name,
                size=_("{gigabytes:g} GB", gigabytes=model.gigabytes),
                licence=model.licence,
                good_at=_(model.good_at),
            ),
            model.name,
        )
        for model in RECOMMENDED
    ]


def render(session: DatasetSession, view: SessionView, jobs: CaptionJobs) -> dict[str, Part]:
    """How far the newest job of the dataset is, and what came out of it."""
    return {"dataset-captioning": lambda: captioning_html(session, jobs) if view.name else Markup()}


def captioning_html(session: DatasetSession, jobs: CaptionJobs) -> Markup:
    """The job's state with its buttons, and the first of what it wrote."""
    folder = latest_of(session.opened.name, jobs.folders())
    if folder is None:
        return Markup()
    status, made = status_or("failed", folder), read_captions(folder)
    rows = [_shown(session, one) for one in list(made.values())[-MAX_SHOWN:] if session.opened.has(one.key)]
    return _template(
        "captioning",
        folder=folder,
        dataset=session.opened.name,
        state=_state_words(status, made.values()),
        busy=status.state in (*BUSY_STATES, "new"),
        can_resume=status.state in ("paused", "stopped", "failed"),
        rows=rows,
        several=any(len(one.candidates) > 1 for one in made.values()),
        num_made=sum(bool(one.candidates) for one in made.values()),
    )


def _shown(session: DatasetSession, made: ImageCaptions) -> dict[str, object]:
    row = session.opened.row(made.key)
    return {"made": made, "url": thumbnail_url(session, row), "caption": row.caption}


def _state_words(status: RunStatus, made: Collection[ImageCaptions]) -> str:
    """In the language of the page; what ended a job early is told in the job's own."""
    if status.state == "finished":
        return outcome_words(made)
    if status.state == "new":
        return _("It waits in the queue.")
    if status.state == "running":
        return _("{step:,} of {num_steps:,} images are captioned.", step=status.step, num_steps=status.num_steps)
    return status.message


def start(session: DatasetSession, jobs: CaptionJobs, values: dict[str, Any], *, cpu_only: bool) -> CaptionFolder:
    """Begin a job for the open dataset and queue it.

    Raises:
        SettingsError: where a value breaks its rule.
        ModelError: where there is no such model.
        DatasetError: where it is being captioned already, or there is nothing to do.
    """
    given = {name: value for name, value in values.items() if name in FIELDS and value is not None}
    settings = parse_settings(CaptionSettings, {**given, "dataset": session.opened.name, "cpu": cpu_only})
    before = latest_of(settings.dataset, jobs.folders())
    if before is not None and status_or("failed", before).state in (*BUSY_STATES, "new"):
        raise DatasetError(_("Captions of {name} are being written already. Stop them first.", name=settings.dataset))
    assert_captioner_there(settings.model)
    folder = begin_captioning(settings, jobs.user_data)
    jobs.enqueue(folder)
    return folder


def act(session: DatasetSession, jobs: CaptionJobs, sent: dict[str, str]) -> str:
    """Do what a button of the job asks; what to say of it, "" where the page shows it.

    Raises:
        DatasetError: where the job or the image is gone, or there is nothing to take.
    """
    folder, wish = jobs.named(sent.get("job", "")), sent.get("act")
    if wish in ("pause", "stop"):
        jobs.ask(folder, "pause" if wish == "pause" else "stop")
    elif wish == "resume":
        jobs.resume(folder)
    elif wish in ("take", "take all"):
        num_changed = take_captions(session.opened, folder, candidate=None if wish == "take all" else 0)
        captions = counted(num_changed, "caption", "captions")
        return _("{captions} changed. Undo, beside the image, takes it back.", captions=captions)
    elif wish == "choose":
        number = sent.get("value", "")
        candidate = int(number) if number.isdecimal() and len(number) < 3 else 0
        take_captions(session.opened, folder, keys=[sent.get("key", "")], candidate=candidate)
    else:
        raise DatasetError(_("There is nothing like {act!r} to do.", act=wish))
    return ""


def wire(
    box: CaptioningBox,
    session: DatasetSession,
    jobs: CaptionJobs,
    *,
    cpu_only: bool,
    subject: gr.JSON,
    then_refresh: Callable[[Any], None],
) -> None:
    """Connect the start, and the buttons of the job."""

    def press_start(subject: object, **values: Any) -> None:  # noqa: ANN401 - the controls' values
        with toasts():
            start(session.named(read_subject(subject).dataset), jobs, values, cpu_only=cpu_only)

    def press(event: gr.EventData) -> None:
        sent = {name: str(getattr(event, name, "")) for name in ("act", "job", "dataset", "key", "value")}
        with toasts():
            if said := act(session.named(sent["dataset"]), jobs, sent):
                toast(said)

    errors = FieldErrors(box.errors, "dataset-captioning", box.form)
    follow_form("dataset-captioning", box.form)
    pressed = {"subject": subject, **box.form}
    then_refresh(errors.press(box.start.click, press_start, inputs_kwargs=pressed, js=SAVED_WITH_SUBJECT, **QUIET))
    then_refresh(box.result.click(press, None, None, trigger_mode="multiple", **QUIET))
