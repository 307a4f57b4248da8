"""The right side of the Training tab: which run, what it is asked for, and everything that it told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.jobs.folder import BUSY_STATES, RunRequest
from studio.jobs.session import choices
from studio.training.session import TrainingView
from studio.ui.shell.parts import QUIET, Group, Part, Update, live_html, toasts
from studio.ui.shell.selection import Selection, select
from studio.ui.training import end_card as training_end_card
from studio.ui.training import image_viewer as training_image_viewer
from studio.ui.training import images as training_pictures
from studio.ui.training import plot as training_plot
from studio.ui.training import queue as training_queue
from studio.ui.training import results as training_results
from studio.ui.training import view as training_view
from studio.ui.training.queue import TrainingPage

REQUEST_WORDS: dict[RunRequest, str] = {
    "sample": "Sample now",
    "save": "Save now",
    "pause": "Pause",
    "stop": "Stop",
}
# Where nothing was trained yet, or a run failed before its first step, these would be empty frames.
BOXES_OF_ANY_RUN = ("head", "log-box")
PARTS_OF_A_TOLD_RUN = ("plot", "samples")
BOXES_OF_A_TOLD_RUN = ("view", "steps-box", "effect-box")


@dataclass(frozen=True)
class RunPanel:
    """Its components, by what they are for; `shown` has those that a refresh keeps true."""

    run: gr.Dropdown
    buttons: dict[RunRequest, gr.Button]
    resume: gr.Button
    end: gr.HTML
    results: training_results.ResultButtons
    window: gr.Dropdown
    log_scale: gr.Checkbox
    overlay: gr.Dropdown
    samples: gr.HTML
    steps: gr.HTML
    image_viewer: training_image_viewer.ImageViewer
    queue: gr.HTML
    shown: dict[str, gr.components.Component]


def build() -> RunPanel:
    """Lay it out, from what one looks for first to what one looks up."""
    shown: dict[str, Any] = {}
    with gr.Row(elem_classes="run-head") as shown["training-head"]:
        run = gr.Dropdown([], label="Run", elem_id="training-run", interactive=True, scale=2, min_width=200)
        buttons = {
            request: gr.Button(words, elem_id=f"training-{request}", size="sm", min_width=72)
            for request, words in REQUEST_WORDS.items()
        }
        resume = gr.Button("Resume", elem_id="training-resume", size="sm", min_width=72)
    live_html("training-state")
    end = training_end_card.build()
    live_html("training-proposal")
    with gr.Row(elem_classes="run-view") as shown["training-view"]:
        samples = live_html("training-samples", js_on_load=training_pictures.PICTURE_CLICKS)
        with gr.Column(min_width=280):
            live_html("training-plot")
            with gr.Row(elem_classes="plot-options"):
                window, log_scale, overlay = _build_plot_options()
            live_html("training-differences")
    image_viewer = training_image_viewer.build()
    results = training_results.build()
    for name in ("export", "files"):
        live_html(f"training-{name}")
    with gr.Accordion("All steps side by side", open=False, elem_id="training-steps-box") as steps_box:
        steps = live_html("training-steps", js_on_load=training_pictures.PICTURE_CLICKS)
    shown["training-steps-box"] = steps_box
    for name in ("scores", "notes"):
        live_html(f"training-{name}")
    for name, title in (("effect", "Effect per layer"), ("log", "Log")):
        with gr.Accordion(title, open=False) as shown[f"training-{name}-box"]:
            live_html(f"training-{name}")
    queue = training_queue.build()
    shown |= {
        "training-run": run,
        "training-overlay": overlay,
        "training-window": window,
        "training-log-scale": log_scale,
        **{f"training-{request}": button for request, button in buttons.items()},
        "training-resume": resume,
        **results.shown,
        **image_viewer.shown,
    }
    drawn = (window, log_scale, overlay, samples, steps)
    return RunPanel(run, buttons, resume, end, results, *drawn, image_viewer, queue, shown)


def _build_plot_options() -> tuple[gr.Dropdown, gr.Checkbox, gr.Dropdown]:
    window = gr.Dropdown(
        list(training_plot.WINDOWS),
        value=training_plot.ALL_STEPS,
        label="Range",
        elem_id="plot-window",
        interactive=True,
        min_width=140,
    )
    overlay = gr.Dropdown(
        [],
        multiselect=True,
        max_choices=len(training_plot.OVERLAY_STYLES),
        label="Compare with",
        elem_id="plot-overlay",
        interactive=True,
        min_width=240,
    )
    log_scale = gr.Checkbox(False, label="Log scale", elem_id="plot-log", interactive=True, min_width=96)
    return window, log_scale, overlay


def render(page: TrainingPage, view: TrainingView, selection: Selection) -> dict[str, Group]:
    """What makes every shown part of it as it should be now."""
    return {
        "The run": lambda: _run_parts(page, view, selection),
        "The image viewer": lambda: training_image_viewer.render(selection.image, view, page.thumbnails),
        "The results": lambda: training_results.render(view, page.exports.state),
    }


def _run_parts(page: TrainingPage, view: TrainingView, selection: Selection) -> dict[str, Part]:
    history, run, thumbnails = view.history, view.run, page.thumbnails
    options = training_plot.PlotOptions(selection.window, selection.log)
    compared = page.runs_to_compare(selection, view)
    working = view.status is not None and view.status.state in BUSY_STATES
    is_finished = view.status is not None and view.status.state == "finished"
    shown_names = choices(view.names, view.labels)
    best = history.proposal.step if history and history.proposal else None

    def plot() -> str:
        called = dict(zip(view.names, (words for words, _ in shown_names), strict=True))
        named = {called[other.name]: page.session.history(other) for other in compared}
        kept = page.plot_of(run.name if run else "", options, tuple(named))
        return kept.html(history, options, named, running=working)

    parts: dict[str, Part] = {
        "run": gr.update(choices=shown_names, value=run.name if run else None),
        "state": lambda: training_view.state_html(view),
        "end": lambda: training_end_card.end_card_html(view, thumbnails),
        "proposal": lambda: "" if is_finished else training_view.proposal_html(history),
        "export": lambda: training_results.export_html(run, page.exports.state),
        "files": lambda: training_view.files_html(run, history),
        "window": gr.update(value=options.window),
        "log-scale": gr.update(value=options.log),
        "overlay": gr.update(
            choices=[(words, name) for words, name in shown_names if run is None or name != run.name],
            value=[other.name for other in compared],
        ),
        "plot": plot,
        "differences": lambda: training_view.differences_html([run, *compared] if run and compared else []),
        "samples": lambda: training_pictures.scrubber_html(run, history, thumbnails, best=None if working else best),
        "steps": lambda: training_pictures.samples_html(run, history, thumbnails),
        "scores": lambda: training_plot.charts_html(
            history, training_pictures.nearest_of_last(run, history, thumbnails)
        ),
        "notes": lambda: training_view.notes_html(history),
        "effect": lambda: training_view.effect_html(history),
        "log": lambda: training_view.log_html(run.log if run else None),
        "queue": lambda: training_queue.queue_html(view.jobs, run.name if run else ""),
        **_button_states(view),
    }
    reports = _tells(view)
    parts |= {name: "" for name in PARTS_OF_A_TOLD_RUN if not reports}
    parts |= {name: gr.update(visible=reports) for name in BOXES_OF_A_TOLD_RUN}
    parts |= {name: gr.update(visible=bool(view.names)) for name in BOXES_OF_ANY_RUN}
    return {f"training-{name}": part for name, part in parts.items()}


def _tells(view: TrainingView) -> bool:
    """Whether there is something to see of the run, or will be."""
    if view.status is None or view.history is None:
        return False
    return view.status.state in (*BUSY_STATES, "new") or bool(view.history.samples or len(view.history.steps))


def _button_states(view: TrainingView) -> dict[str, Update]:
    state = view.status.state if view.status else None
    working, waiting = state in ("running", "sampling"), state in BUSY_STATES
    # The run says that it ended a moment before the queue knows; until then there is nothing to resume.
    in_queue = any(
        view.run and line.job.run == view.run and line.job.state in ("queued", "running") for line in view.jobs
    )
    can_resume = state in ("paused", "stopped", "failed", "new") and not in_queue
    return {
        "sample": gr.update(interactive=working),
        "save": gr.update(interactive=working),
        "pause": gr.update(interactive=waiting or in_queue),
        "stop": gr.update(interactive=waiting or in_queue or state == "paused"),
        "resume": gr.update(interactive=can_resume),
    }


def wire(panel: RunPanel, page: TrainingPage, selection: gr.HTML, *, then_refresh: Callable[[Any], Any]) -> None:
    """Connect the choice of a run, its buttons, the plot's options, the images and the queue."""

    def asking(request: RunRequest) -> Callable[[str], None]:
        def act(selection: str) -> None:
            with toasts():
                page.session.ask(page.run_of(selection), request)

        return act

    def resume(selection: str) -> None:
        with toasts():
            page.session.resume(page.run_of(selection))

    chosen = select(panel.run.input, selection, panel.run, change="run: values[0] ?? now.run, image: null")
    then_refresh(chosen)
    for request, button in panel.buttons.items():
        then_refresh(button.click(asking(request), selection, **QUIET))
    then_refresh(panel.resume.click(resume, selection, **QUIET))
    then_refresh(select(panel.window.input, selection, panel.window, change="window: values[0] ?? now.window"))
    then_refresh(select(panel.log_scale.input, selection, panel.log_scale, change="log: values[0]"))
    # Not `input`: Gradio does not tell of it when all are taken away at once.
    then_refresh(select(panel.overlay.change, selection, panel.overlay, change="compared: values[0] ?? []"))
    images = (panel.samples, panel.steps)
    training_image_viewer.wire(panel.image_viewer, images, page, selection, then_refresh=then_refresh)
    training_queue.wire(panel.queue, page, selection, then_refresh=then_refresh)
