"""The Generate mode: the form on the left, the images of the last press on the right."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import PictureFileError
from studio.core.language import _
from studio.core.paths import UserData
from studio.core.records import label_beside, label_or_none
from studio.core.results import FailedImage, ImageRecord, ImagesReport, MadeImage
from studio.core.text import counted, template
from studio.engine.process.client import EngineClient
from studio.engine.process.view import ACTIVE_PHASES, RUNNING_PHASES, EngineView
from studio.images.files import read_picture_text
from studio.images.gallery import picture_name
from studio.loras.library import LoraLibrary
from studio.ui.inference import lora_chips
from studio.ui.inference.generate_form import (
    MODE,
    GenerateForm,
    build_form,
    prompt_notes_html,
    render_form,
    to_settings,
    token_words,
)
from studio.ui.shell.images import (
    card,
    check_marks,
    empty_frame,
    picture_frame,
    record_line,
    record_rows,
    running_frame,
    wire_size_note,
)
from studio.ui.shell.item_actions import label_html
from studio.ui.shell.parts import QUIET, Part, live_html, paragraph, problem, table, toasts, verdict
from studio.ui.shell.selection import FieldErrors, error_box
from studio.ui.shell.status import cancel_button, cancelling, phase_words

_template = template("ui/templates/inference.html")

# Each event carries the image that was pressed. Gradio allows its own event names only: select shows an image large,
# apply reuses its settings, copy its seed, submit makes variations, expand compares, like stars, edit notes, delete
# deletes, option_select turns the page.
IMAGE_CLICKS = """element.addEventListener("click", (event) => {
  const { act, image, page } = event.target.closest("button[data-act]")?.dataset ?? {};
  if (act) trigger(act, { image, page: Number(page) });
});"""
_QUEUE_CLICKS = """element.addEventListener("click", (event) => {
  const { number } = event.target.closest("button[data-number]")?.dataset ?? {};
  if (number) trigger("click", { number: number === "all" ? number : Number(number) });
});"""
# An image that is drawn anew may be loaded before the page has room for it.
_SCALES = """watch("value", () => requestAnimationFrame(() => {
  const images = [...element.querySelectorAll(".card .zoom img")];
  images.filter((image) => image.complete).forEach((image) => image.dispatchEvent(new Event("load")));
}));"""


@dataclass(frozen=True)
class GenerateMode:
    """The mode's components, by what they are for; `of` is the number of the run that Cancel is about."""

    form: GenerateForm
    run: gr.Button
    cancel: gr.Button
    errors: gr.HTML
    of: gr.Textbox
    queue: gr.HTML
    canvas: gr.Column
    pictures: gr.HTML
    shown: dict[str, gr.components.Component]


def build() -> GenerateMode:
    """Lay the mode out."""
    with gr.Row(elem_classes="workbench"):
        with gr.Column(elem_classes="controls", min_width=320):
            with gr.Row(elem_classes="actions"):
                run = gr.Button(_("Generate"), variant="primary", elem_id="run-generate", interactive=False)
                cancel = gr.Button(_("Cancel"), elem_id="cancel-generate", interactive=False)
            of = gr.Textbox(visible=False)
            errors = error_box(MODE)
            form = build_form()
        with gr.Column(elem_classes="canvas", min_width=480) as canvas:
            state = gr.HTML(elem_id="generate-state", padding=False)
            queue = live_html("generate-queue", js_on_load=_QUEUE_CLICKS)
            pictures = gr.HTML(elem_id="generate-pictures", padding=False, js_on_load=IMAGE_CLICKS + _SCALES)
    shown: dict[str, gr.components.Component] = {
        "generate-state": state,
        "generate-pictures": pictures,
        "run-generate": run,
        "cancel-generate": cancel,
        "generate-of": of,
        **form.shown,
    }
    return GenerateMode(form, run, cancel, errors, of, queue, canvas, pictures, shown)


def render(view: EngineView, library: LoraLibrary, user_data: UserData, past: Path | None = None) -> dict[str, Part]:
    """What every shown part of the mode should be now.

    Args:
        past: the past image to be shown large; None where the images of the last press are.
    """
    return {
        "generate-state": lambda: state_box(
            view, idle=_idle_words(view.images), is_whole=view.images is None or view.images.finished
        ),
        "generate-pictures": lambda: _pictures(view) if past is None else past_image(past),
        "generate-queue": lambda: queue_html(view),
        "run-generate": gr.update(
            interactive=view.takes_images, value=_("Add to queue") if view.phase in RUNNING_PHASES else _("Generate")
        ),
        "cancel-generate": cancel_button(view, "generating"),
        "generate-of": gr.update(value=str(view.run_number)),
        **render_form(view, library, user_data),
    }


def state_box(view: EngineView, *, idle: str, is_whole: bool = True) -> Markup:
    """What went wrong, and what is going on; `idle` where nothing is.

    Args:
        is_whole: whether what was asked for last was made or cancelled, and not ended by an error.
    """
    ready = _("Ready.") if is_whole else _("Ended early.")
    word, sentence = (ready, idle) if view.phase == "ready" else phase_words(view)
    return problem(view.problem) + verdict(word, sentence)


def queue_html(view: EngineView) -> Markup:
    """What waits behind what runs; empty where nothing does."""
    waiting = [(queued.number, queued.run.settings) for queued in view.queue.waiting]
    return _template("run_queue", waiting=waiting) if waiting else Markup()


def _idle_words(report: ImagesReport | None) -> str:
    if report is None:
        return _("Describe an image and press “Generate”, or Ctrl+Enter.")
    failed = sum(isinstance(image, FailedImage) for image in report.images)
    made = len(report.images) - failed
    if not report.images and not report.finished:  # an error ended it, which stands above
        return _("No image was made.")
    images = counted(report.settings.num_images, "image", "images")
    words = [_("{made} of {images} made, checked and saved.", made=made, images=images)]
    if failed:
        words.append(_("{failed} not valid.", failed=failed))
    if report.cancelled:
        words.append(_("Cancelled."))
    return " ".join(words)


def _pictures(view: EngineView) -> Markup:
    """The images of the last press: one large, several as a sheet; places are kept for those to come."""
    report = view.images
    if report is None:
        return _template(
            "sheet", cards=[card(empty_frame("", _("Your image will appear here")), _template("first_run"))]
        )
    cards = [_card(i, image) for i, image in enumerate(report.images)]
    if view.phase == "generating":
        cards.append(card(running_frame(view), paragraph("facts", _step_words(view))))
    left = report.settings.num_images - len(cards) if not report.finished else 0
    waiting = view.phase in ACTIVE_PHASES  # else an error ended it: none of them comes
    missing = _("not made yet") if waiting else _("not made")
    cards += [card(empty_frame(str(len(cards) + i + 1), missing), "") for i in range(left)]
    return _template("sheet", cards=cards)


def _card(index: int, image: MadeImage | FailedImage) -> Markup:
    if isinstance(image, FailedImage):
        words = _template("failed_image", marks=check_marks(image.checks), error=image.error)
        return card(empty_frame("✗", _("invalid, not shown")), words)
    return _image_card(image.path, image.record, name=_("image {number}", number=index + 1))


def _image_card(path: Path, record: ImageRecord, *, name: str) -> Markup:
    """An image, what it was made with, and what can be done with it."""
    label = label_or_none(label_beside(path))
    acts = _template("image_acts", image=picture_name(path), starred=label.starred)
    note = label_html(label_beside(path)) if label.note or not label.starred else ""
    words = record_line(record, path) + acts + note
    return card(picture_frame(path, name=name, alt=record.settings.prompt), words)


def past_image(path: Path) -> Markup:
    """A past image in the place of the last ones, or why it cannot be read."""
    shown, rows = Markup(), Markup()
    try:
        record = read_picture_text(path).record
    except PictureFileError as error:
        record, shown = None, problem(error)
    if record is not None:
        rows = table((_("Item"), _("Value")), record_rows(record), caption=record.settings.prompt)
        shown = _template("sheet", cards=[_image_card(path, record, name=_("past image"))])
    return _template("past_image", image=picture_name(path), shown=shown, rows=rows)


def _step_words(view: EngineView) -> str:
    return _("step {step} of {num_steps}", step=view.step.step, num_steps=view.step.num_steps) if view.step else "…"


def wire(
    mode: GenerateMode, tab: gr.Tab, engine: EngineClient, user_data: UserData, *, then_refresh: Callable[[Any], None]
) -> None:
    """Connect the buttons, the token count and the chips."""
    library = LoraLibrary(user_data.loras)

    def generate(**values: Any) -> str:  # noqa: ANN401 - the form's values, checked by to_settings
        with toasts():
            settings = to_settings(values)
            engine.generate(settings)
            return str(settings.generation.seed)

    def unqueue(event: gr.EventData) -> None:
        number = getattr(event, "number", 0)
        with toasts():
            engine.unqueue(number if isinstance(number, int) else None if number == "all" else 0)

    def count_tokens(prompt: str, negative_prompt: str, long_prompt: bool) -> Markup:
        negative = prompt_notes_html(engine, {_("Negative prompt"): negative_prompt}, long_prompt=long_prompt)
        return Markup().join([token_words(engine, prompt, long_prompt=long_prompt), negative])

    named = mode.form.named
    errors = FieldErrors(mode.errors, MODE, named)
    then_refresh(errors.press(mode.run.click, generate, inputs_kwargs=named, outputs=[named["seed"]], **QUIET))
    then_refresh(mode.cancel.click(cancelling(engine, "generating"), mode.of, **QUIET))
    then_refresh(mode.queue.click(unqueue, None, None, **QUIET))
    wire_size_note(mode.form.generation, engine, named)
    mode.form.size.wire(engine)
    then_refresh(mode.form.speeds.wire(named, engine, user_data))
    lora_chips.wire(mode.form.chips, named, library, also=[tab.select])
    counted_from = {name: named[name] for name in ("prompt", "negative_prompt", "long_prompt")}
    for trigger in (tab.select, *(control.change for control in counted_from.values())):
        trigger(count_tokens, inputs_kwargs=counted_from, outputs=mode.form.tokens, queue=False, **QUIET)
