"""The Generate mode: the form on the left, the images of the last press on the right."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import EngineError, PictureFileError, SettingsError
from studio.core.records import label_beside, label_or_none
from studio.core.results import FailedImage, ImageRecord, ImagesReport, MadeImage
from studio.core.settings import GenerationSettings, ImagesSettings, parse_settings
from studio.core.text import counted, template
from studio.engine.process.client import EngineClient
from studio.engine.process.view import RUNNING_PHASES, EngineView, Phase
from studio.images.files import read_picture_text
from studio.images.gallery import picture_name
from studio.images.prompts import unlike_a1111
from studio.images.tokens import PART_TOKENS, TokenCounter, prompt_notes
from studio.ui.forms import (
    LORA_ROWS,
    NO_LORA,
    SettingsForm,
    build_generation,
    build_lora_rows,
    build_reset,
    generation_values,
    read_generation,
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
from studio.ui.shell.status import cancel_button, phase_words

_template = template("ui/templates/inference.html")

MODE = "generate"
RANDOM_SEED_LIMIT = 2**32  # as other programs draw them: ten digits, easy to write down
FIRST_PROMPT = "a photo of red canvas sneakers, on grass"
# Gradio's HTML takes events of its own; which image was pressed goes with ours. The names of the events are Gradio's,
# too: select shows an image large, apply reuses its settings, copy its seed, submit makes variations, expand compares,
# like stars, edit notes, delete deletes, option_select turns the page.
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
class GenerateForm:
    """The form: `named` holds every control that is read, by its name."""

    named: dict[str, Any]
    tokens: gr.HTML
    generation: SettingsForm

    def filled_by(self, settings: GenerationSettings) -> dict[Any, Any]:
        """What an event returns so that the form says these settings; LoRAs past its rows go into the prompt."""
        values = generation_values(settings) | {"new_seed": False}
        tags = "".join(f" <lora:{c.name}:{c.strength:g}>" for c in settings.loras[LORA_ROWS:])
        values["prompt"] = settings.prompt + tags
        return {control: values[name] for name, control in self.named.items() if name in values}

    def with_seed(self, seed: int) -> dict[Any, Any]:
        """What an event returns so that the next image has this seed."""
        return {self.named["seed"]: str(seed), self.named["new_seed"]: False}


def build_form() -> GenerateForm:
    """Lay the form out."""
    form = SettingsForm(GenerationSettings, MODE, {"prompt": FIRST_PROMPT})
    form.add("prompt")
    tokens = gr.HTML(elem_id="generate-tokens", padding=False)
    form.add("negative_prompt", elem_id="generate-negative")
    rows, generation = build_lora_rows(MODE), build_generation(MODE)
    images = SettingsForm(ImagesSettings, MODE)
    with gr.Row(elem_classes="fields"):
        new_seed = gr.Checkbox(True, label="New seed each time", elem_id="generate-new-seed", interactive=True)
        images.rest()
    named = {**form.fields, **rows, **generation.fields, "new_seed": new_seed, **images.fields}
    build_reset(named, form=MODE)
    return GenerateForm(named, tokens, generation)


def to_settings(values: Mapping[str, Any]) -> ImagesSettings:
    """What the form says; a new seed is drawn where it asks for one.

    Raises:
        SettingsError: for each rule that is broken.
    """
    seed = secrets.randbelow(RANDOM_SEED_LIMIT) if values["new_seed"] else values["seed"]
    generation = read_generation({**values, "seed": seed})
    return parse_settings(ImagesSettings, {"generation": generation, "num_images": values["num_images"]})


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
                run = gr.Button("Generate", variant="primary", elem_id="run-generate", interactive=False)
                cancel = gr.Button("Cancel", elem_id="cancel-generate", interactive=False)
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
        **{f"generate-lora-{i}": form.named[f"lora_{i}"] for i in range(LORA_ROWS)},
    }
    return GenerateMode(form, run, cancel, errors, of, queue, canvas, pictures, shown)


def render(view: EngineView, lora_names: Sequence[str], past: Path | None = None) -> dict[str, Part]:
    """What every shown part of the mode should be now.

    Args:
        past: the past image to be shown large; None where the images of the last press are.
    """
    choices = gr.update(choices=[NO_LORA, *lora_names])
    return {
        "generate-state": lambda: state_box(view, idle=_idle_words(view.images)),
        "generate-pictures": lambda: _pictures(view) if past is None else past_image(past),
        "generate-queue": lambda: queue_html(view),
        "run-generate": gr.update(
            interactive=view.takes_images, value="Generate" if view.phase not in RUNNING_PHASES else "Add to queue"
        ),
        "cancel-generate": cancel_button(view, "generating"),
        "generate-of": gr.update(value=str(view.run_number)),
        **{f"generate-lora-{i}": choices for i in range(LORA_ROWS)},
    }


def state_box(view: EngineView, *, idle: str) -> Markup:
    """What went wrong, and what is going on; `idle` where nothing is."""
    word, sentence = ("Ready.", idle) if view.phase == "ready" else phase_words(view)
    return problem(view.problem) + verdict(word, sentence)


def queue_html(view: EngineView) -> Markup:
    """What waits behind what runs; empty where nothing does."""
    waiting = [(queued.number, queued.run.settings) for queued in view.queue.waiting]
    return _template("run_queue", waiting=waiting) if waiting else Markup()


def _idle_words(report: ImagesReport | None) -> str:
    if report is None:
        return "Describe an image and press “Generate”, or Ctrl+Enter."
    failed = sum(isinstance(image, FailedImage) for image in report.images)
    made = len(report.images) - failed
    words = f"{made} of {counted(report.settings.num_images, 'image')} made, checked and saved."
    words += f" {failed} not valid." if failed else ""
    return words + (" Cancelled." if report.cancelled else "")


def _pictures(view: EngineView) -> Markup:
    """The images of the last press: one large, several as a sheet; places are kept for those to come."""
    report = view.images
    if report is None:
        return _template("sheet", cards=[card(empty_frame("◻", "Your image will appear here"), _template("first_run"))])
    cards = [_card(i, image) for i, image in enumerate(report.images)]
    if view.phase == "generating":
        cards.append(card(running_frame(view), paragraph("facts", _step_words(view))))
    to_come = report.settings.num_images - len(cards) if not report.finished else 0
    cards += [card(empty_frame(str(len(cards) + i + 1), "not made yet"), "") for i in range(to_come)]
    return _template("sheet", cards=cards)


def _card(index: int, image: MadeImage | FailedImage) -> Markup:
    if isinstance(image, FailedImage):
        words = _template("failed_image", marks=check_marks(image.checks), error=image.error)
        return card(empty_frame("✗", "invalid, not shown"), words)
    return _image_card(image.path, image.record, name=f"image {index + 1}")


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
        rows = table(("Item", "Value"), record_rows(record), caption=record.settings.prompt)
        shown = _template("sheet", cards=[_image_card(path, record, name="past image")])
    return _template("past_image", image=picture_name(path), shown=shown, rows=rows)


def _step_words(view: EngineView) -> str:
    return f"step {view.step.step} of {view.step.num_steps}" if view.step else "…"


def prompt_notes_html(engine: EngineClient, prompts: Mapping[str, str], *, long_prompt: bool) -> Markup:
    """What of these prompts acts otherwise than in A1111 or is cut off; their names stand before it."""
    words = []
    for name, prompt in prompts.items():
        try:
            notes = prompt_notes(prompt, long_prompt=long_prompt, tokens=_token_counter(engine))
        except SettingsError as error:
            notes = (str(error),)
        words += [paragraph("tokens bad", f"{name}: {note}") for note in notes]
    return Markup().join(words)


def _token_counter(engine: EngineClient) -> TokenCounter | None:
    file = engine.view.tokenizer_file
    return TokenCounter(file) if file is not None and file.is_file() else None


def token_words(engine: EngineClient, prompt: str, *, long_prompt: bool) -> Markup:
    """`12 of 75 tokens`, what is cut off, and A1111's commands; the tokens are empty until a model is loaded."""
    unlike = (paragraph("tokens bad", note) for note in unlike_a1111(prompt))
    return Markup().join([_num_tokens(engine, prompt, long_prompt=long_prompt), *unlike])


def _num_tokens(engine: EngineClient, prompt: str, *, long_prompt: bool) -> Markup:
    counter = _token_counter(engine)
    if counter is None:
        return Markup()
    try:
        count = counter.count(prompt)
    except SettingsError as error:
        return paragraph("tokens bad", error)
    if count.num_parts == 1:
        return paragraph("tokens", f"{count.num_tokens} of {PART_TOKENS} tokens")
    if long_prompt or not count.cut_off:  # BREAK begins a part, however short
        return paragraph("tokens", f"{count.num_tokens} tokens in {count.num_parts} parts of {PART_TOKENS}")
    lost = _shortened(count.cut_off)
    words = f"{count.num_tokens} of {PART_TOKENS} tokens. Cut off: “{lost}” (or switch on “Long prompts”)"
    return paragraph("tokens bad", words)


def _shortened(words: str, *, limit: int = 90) -> str:
    words = " ".join(words.split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def cancelling(engine: EngineClient, phase: Phase) -> Callable[..., None]:
    """What a Cancel button does: it ends what its own mode began, and nothing else.

    Where it is given the number of a run, it ends that run alone: the next one of a queue begins by itself.
    """

    def cancel(of: str = "") -> None:
        with toasts():
            view = engine.view
            if view.phase != phase or (of and of != str(view.run_number)):
                raise EngineError("Nothing was cancelled: what this button was about is over already.")
            engine.cancel()

    return cancel


def wire(mode: GenerateMode, tab: gr.Tab, engine: EngineClient, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the buttons and the token count."""

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
        negative = prompt_notes_html(engine, {"Negative prompt": negative_prompt}, long_prompt=long_prompt)
        return Markup().join([token_words(engine, prompt, long_prompt=long_prompt), negative])

    named = mode.form.named
    errors = FieldErrors(mode.errors, MODE, named)
    then_refresh(errors.press(mode.run.click, generate, inputs_kwargs=named, outputs=[named["seed"]], **QUIET))
    then_refresh(mode.cancel.click(cancelling(engine, "generating"), mode.of, **QUIET))
    then_refresh(mode.queue.click(unqueue, None, None, **QUIET))
    wire_size_note(mode.form.generation, engine, named)
    counted_from = {name: named[name] for name in ("prompt", "negative_prompt", "long_prompt")}
    for trigger in (tab.select, *(control.change for control in counted_from.values())):
        trigger(count_tokens, inputs_kwargs=counted_from, outputs=mode.form.tokens, queue=False, **QUIET)
