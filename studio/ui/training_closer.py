"""“Look closer”: one validation picture large, in a slider with the base's of the same prompt and seed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from studio.errors import PictureFileError, RunError
from studio.jobs.training_desk import TrainingView
from studio.picture_files import read_picture_text
from studio.runs.events import SampleEvent
from studio.runs.folder import RunFolder
from studio.runs.follower import RunHistory
from studio.ui.html import text
from studio.ui.parts import Update
from studio.ui.toasts import toasts
from studio.ui.training_page import Look, TrainingPage
from studio.ui.training_pictures import Thumbnails, looked_at_steps, training_picture_url

HIDDEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
AGAIN = {**HIDDEN, "trigger_mode": "multiple"}  # a press counts while the one before is still on its way
TO_THE_BOX = """() => requestAnimationFrame(() => requestAnimationFrame(() => {
  const box = document.getElementById("training-closer");
  box?.scrollIntoView({ block: "nearest" });
  document.querySelector("#closer-close")?.focus({ preventScroll: true });
}))"""
BACK_TO_THE_PICTURE = """(step, picture) => {
  const pressed = document.querySelector(`.samples .sample[data-focus="${picture} ${step}"]`);
  (pressed ?? document.querySelector(".samples-frame"))?.focus();
}"""


@dataclass(frozen=True)
class CloserBox:
    """Its components."""

    box: gr.Column
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
        names = ("box", "step", "picture", "slider", "words")
        buttons = ("previous_step", "next_step", "previous_picture", "next_picture")
        return {f"closer-{name.replace('_', '-')}": getattr(self, name) for name in (*names, *buttons)}


def build() -> CloserBox:
    """Lay it out below the pictures, so that nothing moves when it opens."""
    with gr.Column(visible=False, elem_id="training-closer") as box:
        with gr.Row(elem_classes="closer-head"):
            step = gr.Dropdown([], label="Step", elem_id="closer-step", interactive=True, min_width=96)
            picture = gr.Dropdown(
                [], label="Prompt", elem_id="closer-picture", interactive=True, min_width=160, scale=3
            )
            previous_step = gr.Button("‹ Step", size="sm", min_width=64, elem_id="closer-previous-step")
            next_step = gr.Button("Step ›", size="sm", min_width=64, elem_id="closer-next-step")
            previous_picture = gr.Button("‹ Prompt", size="sm", min_width=76, elem_id="closer-previous-picture")
            next_picture = gr.Button("Prompt ›", size="sm", min_width=76, elem_id="closer-next-picture")
            close = gr.Button("Close", size="sm", min_width=64, elem_id="closer-close")
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
    return CloserBox(box, step, picture, previous_step, next_step, previous_picture, next_picture, close, slider, words)


def render(look: Look | None, view: TrainingView, thumbnails: Thumbnails) -> dict[str, Update]:
    """What the box shows now; it is away where nothing is looked at, or another run is."""
    event = _event_of(look, view)
    if look is None or event is None or view.run is None or view.history is None:
        return {**dict.fromkeys(_names(), gr.update()), "closer-box": gr.update(visible=False)}
    steps = [event.step for event in looked_at_steps(view.history)]
    place, last = steps.index(look.step), len(event.pictures) - 1
    files = _files(view.run, event, look.picture)
    prompts = [(f"{number + 1} · {prompt}", number) for number, prompt in enumerate(_prompts(event))]
    return {
        "closer-box": gr.update(visible=True),
        "closer-step": gr.update(choices=[(f"{step:,}", step) for step in steps], value=look.step),
        "closer-picture": gr.update(choices=prompts, value=look.picture),
        "closer-previous-step": gr.update(interactive=place > 0),
        "closer-next-step": gr.update(interactive=place < len(steps) - 1),
        "closer-previous-picture": gr.update(interactive=look.picture > 0),
        "closer-next-picture": gr.update(interactive=look.picture < last),
        "closer-slider": gr.update(value=files, visible=files is not None),
        "closer-words": _words(view.run, view.history, event, look.picture, thumbnails, shown=files is not None),
    }


def _names() -> list[str]:
    buttons = ("previous-step", "next-step", "previous-picture", "next-picture")
    return [f"closer-{name}" for name in ("box", "step", "picture", "slider", "words", *buttons)]


def _event_of(look: Look | None, view: TrainingView) -> SampleEvent | None:
    """The pictures of the step that is looked at; None where they are of another run, or no longer count."""
    if look is None or view.run is None or view.history is None or view.run.name != look.run:
        return None
    events = [event for event in looked_at_steps(view.history) if event.step == look.step]
    return events[0] if events and 0 <= look.picture < len(events[0].pictures) else None


def _prompts(event: SampleEvent) -> list[str]:
    return [event.prompts[number % len(event.prompts)] for number in range(len(event.pictures))]


def _files(run: RunFolder, event: SampleEvent, picture: int) -> tuple[str, str] | None:
    """The base's picture and the LoRA's; None where one is not valid or gone."""
    told = (event.base[picture] if picture < len(event.base) else None, event.pictures[picture])
    try:
        files = [run.file(name) for name in told if name is not None]
    except FileNotFoundError:
        return None
    return (str(files[0]), str(files[1])) if len(files) == 2 and all(file.is_file() for file in files) else None


def _words(
    run: RunFolder, history: RunHistory, event: SampleEvent, picture: int, thumbnails: Thumbnails, *, shown: bool
) -> str:
    """Captions under both ends, the prompt with its seed, and the training picture that comes nearest."""
    ends = (
        f'<div class="ends"><span>◀ base</span><span>LoRA at step {event.step:,} ▶</span></div>'
        if shown
        else '<p class="bad">One of the two pictures is not valid, or no longer in its folder.</p>'
    )
    prompt = text(_prompts(event)[picture])
    return f'{ends}<p class="closer-prompt">{prompt}{_seed_words(run, event, picture)}</p>' + _nearest_words(
        run, history, event.step, picture, thumbnails
    )


def _seed_words(run: RunFolder, event: SampleEvent, picture: int) -> str:
    """What the picture's own file says that it was made with."""
    file = event.pictures[picture]
    try:
        settings = read_picture_text(run.file(file)).settings if file else None
    except (OSError, PictureFileError):
        settings = None
    if settings is None:
        return ""
    return (
        f' <span class="quiet">seed {settings.seed} · {settings.num_inference_steps:,} steps · guidance '
        f"{settings.guidance_scale:g}</span>"
    )


def _nearest_words(run: RunFolder, history: RunHistory, step: int, picture: int, thumbnails: Thumbnails) -> str:
    """The training picture that comes nearest to this one, and how near."""
    told = history.scores.get(step)
    nearest = told.nearest[picture] if told and picture < len(told.nearest) else None
    if nearest is None:
        return ""
    url = training_picture_url(run, nearest.key, thumbnails)
    image = f'<img src="{text(url)}" alt="{text(nearest.key)}">' if url else ""
    kind = "bad" if nearest.likeness == "as a copy" else "quiet"
    mirrored = ", seen in a mirror" if nearest.mirrored else ""
    return (
        f'<div class="nearest-picture">{image}<p>Nearest training picture: <b>{text(nearest.key)}</b>{mirrored}<br>'
        f'<span class="{kind}">{text(nearest.likeness)}, distance {nearest.distance:.2f} (0 is a copy, 1 are two '
        "training pictures at random)</span></p></div>"
    )


def neighbour(look: Look, view: TrainingView, *, steps: int = 0, pictures: int = 0) -> Look:
    """The look so many steps and pictures further on; the same where there is none."""
    if view.history is None:
        return look
    known = [event.step for event in looked_at_steps(view.history)]
    if look.step not in known:
        return look
    place = min(max(known.index(look.step) + steps, 0), len(known) - 1)
    moved = replace(look, step=known[place], picture=max(look.picture + pictures, 0))
    return moved if _event_of(moved, view) else look


def checked_look(view: TrainingView, step: object, picture: object) -> Look:
    """A look at what a page named.

    Raises:
        RunError: where there is no such picture.
    """
    if view.run is not None and isinstance(step, int) and isinstance(picture, int):
        look = Look(view.run.name, step, picture)
        if _event_of(look, view) is not None:
            return look
    raise RunError(f"There is no picture {picture} of step {step}.")


def wire(box: CloserBox, pictures: gr.HTML, page: TrainingPage, *, then_refresh: Callable[[Any], Any]) -> None:
    """Open it by a press on a picture, go through steps and prompts, close it."""

    def open_it(event: gr.EventData) -> None:
        with toasts():
            page.look = checked_look(page.desk.view, getattr(event, "step", None), getattr(event, "picture", None))

    def moving(**by: int) -> Callable[[], None]:
        def move() -> None:
            if page.look is not None:
                page.look = neighbour(page.look, page.desk.view, **by)

        return move

    def choose_step(step: object) -> None:
        if page.look is not None:
            with toasts():
                page.look = checked_look(page.desk.view, step, page.look.picture)

    def choose_picture(picture: object) -> None:
        if page.look is not None:
            with toasts():
                page.look = checked_look(page.desk.view, page.look.step, picture)

    def close_look() -> None:
        page.look = None

    in_the_page = {"fn": None, "queue": False, "show_progress": "hidden"}
    then_refresh(pictures.click(open_it, **HIDDEN)).then(js=TO_THE_BOX, **in_the_page)
    then_refresh(box.previous_step.click(moving(steps=-1), **AGAIN))
    then_refresh(box.next_step.click(moving(steps=1), **AGAIN))
    then_refresh(box.previous_picture.click(moving(pictures=-1), **AGAIN))
    then_refresh(box.next_picture.click(moving(pictures=1), **AGAIN))
    then_refresh(box.step.input(choose_step, box.step, **HIDDEN))
    then_refresh(box.picture.input(choose_picture, box.picture, **HIDDEN))
    then_refresh(box.close.click(close_look, **HIDDEN)).then(
        inputs=[box.step, box.picture], js=BACK_TO_THE_PICTURE, **in_the_page
    )
