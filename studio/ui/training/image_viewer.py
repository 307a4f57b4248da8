"""“Look closer”: one validation image large, in a slider with the base's of the same prompt and seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import PictureFileError, RunError
from studio.core.language import _, number
from studio.core.settings import GenerationSettings
from studio.core.text import template
from studio.images.files import read_picture_text
from studio.training.events import SampleEvent
from studio.training.folder import RunFolder
from studio.training.session import RunHistory, TrainingView
from studio.ui.shell.parts import QUIET, Update, toasts
from studio.ui.shell.selection import SelectedImage, changed, read_selection, select
from studio.ui.training.images import Thumbnails, looked_at_steps, training_picture_url
from studio.ui.training.queue import TrainingPage

_template = template("ui/templates/training.html")

# In the browser, so that each press counts while what the one before shows is still on its way. `known` has the number
# of each step's images, by position.
MOVED = """(image, known, steps, pictures) => {
  const from = known?.findIndex(([step]) => step === image?.step) ?? -1;
  if (from < 0) return image ?? null;
  const [step, number] = known[Math.min(Math.max(from + steps, 0), known.length - 1)];
  return { step, picture: Math.min(Math.max(image.picture + pictures, 0), number - 1) };
}"""
SHOWN = (
    "box",
    "known",
    "step",
    "picture",
    "slider",
    "words",
    "previous-step",
    "next-step",
    "previous-picture",
    "next-picture",
)
# The box is shown by the refresh that follows the press: some frames later, on a busy machine many.
TO_THE_BOX = """() => {
  const lead = (framesLeft) => {
    const close = document.querySelector("#closer-close");
    if (!close?.checkVisibility()) return framesLeft > 0 && requestAnimationFrame(() => lead(framesLeft - 1));
    document.getElementById("training-closer").scrollIntoView({ block: "nearest" });
    close.focus({ preventScroll: true });
  };
  lead(600);
}"""
BACK_TO_THE_PICTURE = """(step, picture) => {
  document.dispatchEvent(new CustomEvent("studio:scrub", { detail: step }));
  const same = [...document.querySelectorAll(`.sample[data-focus="${picture} ${step}"]`)];
  (same.find((image) => image.checkVisibility()) ?? document.querySelector(".scrubber input"))?.focus();
}"""


@dataclass(frozen=True)
class ImageViewer:
    """Its components; `known` has what one can go to: each step, with the number of its images."""

    box: gr.Column
    known: gr.JSON
    step: gr.Dropdown
    picture: gr.Dropdown
    previous_step: gr.Button
    next_step: gr.Button
    previous_picture: gr.Button
    next_picture: gr.Button
    close: gr.Button
    slider: gr.ImageSlider
    words: gr.HTML

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        """The parts that a refresh keeps true, by their names."""
        return {f"closer-{name}": getattr(self, name.replace("-", "_")) for name in SHOWN}


def build() -> ImageViewer:
    """Lay it out below the images, so that nothing moves when it opens."""
    with gr.Column(visible=False, elem_id="training-closer") as box:
        known = gr.JSON(visible=False)
        with gr.Row(elem_classes="closer-head"):
            step = gr.Dropdown([], label=_("Step"), elem_id="closer-step", interactive=True, min_width=96)
            picture = gr.Dropdown(
                [], label=_("Prompt"), elem_id="closer-picture", interactive=True, min_width=160, scale=3
            )
            previous_step = gr.Button(_("‹ Step"), size="sm", min_width=64, elem_id="closer-previous-step")
            next_step = gr.Button(_("Step ›"), size="sm", min_width=64, elem_id="closer-next-step")
            previous_picture = gr.Button(_("‹ Prompt"), size="sm", min_width=76, elem_id="closer-previous-picture")
            next_picture = gr.Button(_("Prompt ›"), size="sm", min_width=76, elem_id="closer-next-picture")
            close = gr.Button(_("Close"), size="sm", min_width=64, elem_id="closer-close")
        slider = gr.ImageSlider(
            interactive=False,
            format="png",  # its default loses detail
            show_label=False,
            elem_id="closer-slider",
            height=560,
            slider_position=50,
            buttons=["fullscreen"],
        )
        words = gr.HTML(elem_id="closer-words", padding=False)
    moves = (previous_step, next_step, previous_picture, next_picture)
    return ImageViewer(box, known, step, picture, *moves, close, slider, words)


def render(image: SelectedImage | None, view: TrainingView, thumbnails: Thumbnails) -> dict[str, Update]:
    """What the box shows now; it is away where no image is selected, or one that the run does not have."""
    event = _event_of(image, view)
    if image is None or event is None or view.run is None or view.history is None:
        return {**{f"closer-{name}": gr.update() for name in SHOWN}, "closer-box": gr.update(visible=False)}
    known = [(event.step, len(event.pictures)) for event in looked_at_steps(view.history)]
    steps = [step for step, num_pictures in known]
    place, last = steps.index(image.step), len(event.pictures) - 1
    files = _files(view.run, event, image.picture)
    prompts = [(f"{index + 1} · {prompt}", index) for index, prompt in enumerate(_prompts(event))]
    return {
        "closer-box": gr.update(visible=True),
        "closer-known": gr.update(value=known),
        "closer-step": gr.update(choices=[(number(step), step) for step in steps], value=image.step),
        "closer-picture": gr.update(choices=prompts, value=image.picture),
        "closer-previous-step": gr.update(interactive=place > 0),
        "closer-next-step": gr.update(interactive=place < len(steps) - 1),
        "closer-previous-picture": gr.update(interactive=image.picture > 0),
        "closer-next-picture": gr.update(interactive=image.picture < last),
        "closer-slider": gr.update(value=files, visible=files is not None),
        "closer-words": _words(view.run, view.history, event, image.picture, thumbnails, shown=files is not None),
    }


def _event_of(image: SelectedImage | None, view: TrainingView) -> SampleEvent | None:
    """The images of the step of the selected one; None where the run has no such, or they no longer count."""
    if image is None or view.run is None or view.history is None:
        return None
    events = [event for event in looked_at_steps(view.history) if event.step == image.step]
    return events[0] if events and 0 <= image.picture < len(events[0].pictures) else None


def _prompts(event: SampleEvent) -> list[str]:
    return [event.prompts[index % len(event.prompts)] for index in range(len(event.pictures))]


def _files(run: RunFolder, event: SampleEvent, picture: int) -> tuple[str, str] | None:
    """The base's image and the LoRA's; None where one is not valid or gone."""
    reported = (event.base[picture] if picture < len(event.base) else None, event.pictures[picture])
    try:
        files = [run.file(name) for name in reported if name is not None]
    except FileNotFoundError:
        return None
    return (str(files[0]), str(files[1])) if len(files) == 2 and all(file.is_file() for file in files) else None


def _words(
    run: RunFolder, history: RunHistory, event: SampleEvent, picture: int, thumbnails: Thumbnails, *, shown: bool
) -> Markup:
    """Captions under both ends, the prompt with its seed, and the training image that comes nearest."""
    reported = history.scores.get(event.step)
    nearest = reported.nearest[picture] if reported and picture < len(reported.nearest) else None
    return _template(
        "viewer",
        step=event.step,
        shown=shown,
        prompt=_prompts(event)[picture],
        settings=_settings(run, event, picture),
        nearest=nearest,
        url=training_picture_url(run, nearest.key, thumbnails) if nearest else "",
    )


def _settings(run: RunFolder, event: SampleEvent, picture: int) -> GenerationSettings | None:
    """What the image's own file says that it was made with."""
    file = event.pictures[picture]
    try:
        return read_picture_text(run.file(file)).settings if file else None
    except (OSError, PictureFileError):
        return None


def checked_image(view: TrainingView, step: object, picture: object) -> SelectedImage:
    """An image that a page named.

    Raises:
        RunError: where there is no such image.
    """
    if isinstance(step, int) and isinstance(picture, int):
        image = SelectedImage(step=step, picture=picture)
        if _event_of(image, view) is not None:
            return image
    raise RunError(_("There is no image {picture} of step {step}.", picture=picture, step=step))


def wire(
    box: ImageViewer,
    pictures: Sequence[gr.HTML],
    page: TrainingPage,
    selection: gr.HTML,
    *,
    then_refresh: Callable[[Any], Any],
) -> None:
    """Open it by a press on an image, go through steps and prompts, close it."""

    def open_it(selection: str, event: gr.EventData) -> str:
        chosen = read_selection(selection)
        step, picture = getattr(event, "step", None), getattr(event, "picture", None)
        with toasts():
            return changed(chosen, image=checked_image(page.session.view(chosen.run), step, picture))

    def move(button: gr.Button, *, steps: int = 0, pictures: int = 0) -> None:
        moved = f"image: ({MOVED})(now.image, values[0], {steps}, {pictures})"
        then_refresh(select(button.click, selection, box.known, change=moved))

    def choose(control: gr.Dropdown, field: str) -> None:
        chosen = f"image: now.image && {{ ...now.image, {field}: values[0] ?? now.image.{field} }}"
        then_refresh(select(control.input, selection, control, change=chosen))

    in_the_page = {"fn": None, "queue": False, "show_progress": "hidden"}
    opened = gr.on([images.click for images in pictures], open_it, selection, selection, **QUIET)
    then_refresh(opened).then(js=TO_THE_BOX, **in_the_page)
    move(box.previous_step, steps=-1)
    move(box.next_step, steps=1)
    move(box.previous_picture, pictures=-1)
    move(box.next_picture, pictures=1)
    choose(box.step, "step")
    choose(box.picture, "picture")
    then_refresh(select(box.close.click, selection, change="image: null")).then(
        inputs=[box.step, box.picture], js=BACK_TO_THE_PICTURE, **in_the_page
    )
