"""The right side of the Training tab: which run, what it is asked for, and everything that it told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.core.language import N_, _
from studio.jobs.folder import BUSY_STATES, RunRequest
from studio.training.session import TrainingView
from studio.ui.shell.parts import QUIET, Group, Part, live_html, toasts
from studio.ui.shell.selection import Selection, select
from studio.ui.training import end_card as training_end_card
from studio.ui.training import image_viewer as training_image_viewer
from studio.ui.training import images as training_pictures
from studio.ui.training import plot as training_plot
from studio.ui.training import queue as training_queue
from studio.ui.training import results as training_results
from studio.ui.training import run_cards as training_run_cards
from studio.ui.training import saved_steps as training_saved_steps
from studio.ui.training import view as training_view
from studio.ui.training.queue import TrainingPage

REQUEST_WORDS: dict[RunRequest, str] = {
    "sample": N_("Sample now"),
    "save": N_("Save now"),
    "pause": N_("Pause"),
    "stop": N_("Stop"),
}
# Where nothing was trained yet, or a run failed before its first step, these would be empty frames.
BOXES_OF_ANY_RUN = ("log-box",)
PARTS_OF_A_TOLD_RUN = ("plot", "samples")
BOXES_OF_A_TOLD_RUN = ("view", "steps-box", "effect-box")


@dataclass(frozen=True)
class RunPanel:
    """Its components, by what they are for; `shown` has those that a refresh keeps true."""

    run_search: gr.Textbox
    runs: gr.HTML
    buttons: dict[RunRequest, gr.Button]
    resume: gr.Button
    end: gr.HTML
    results: training_results.ResultButtons
    window: gr.Dropdown
    log_scale: gr.Checkbox
    samples: gr.HTML
    steps: gr.HTML
    image_viewer: training_image_viewer.ImageViewer
    saved: training_saved_steps.SavedSteps
    queue: gr.HTML
    shown: dict[str, gr.components.Component]


def build() -> RunPanel:
    """Lay it out, from what one looks for first to what one looks up."""
    shown: dict[str, Any] = {}
    run_search, runs = training_run_cards.build()
    live_html("training-state")
    with gr.Row(elem_classes="run-head") as shown["training-head"]:
        buttons = {
            request: gr.Button(_(words), elem_id=f"training-{request}", size="sm", min_width=72)
            for request, words in REQUEST_WORDS.items()
        }
        resume = gr.Button(_("Resume"), elem_id="training-resume", size="sm", min_width=72)
    end = training_end_card.build()
    with gr.Row(elem_classes="run-view") as shown["training-view"]:
        samples = live_html("training-samples", js_on_load=training_pictures.PICTURE_CLICKS)
        with gr.Column(min_width=280):
            live_html("training-plot")
            with gr.Row(elem_classes="plot-options"):
                window, log_scale = _build_plot_options()
            live_html("training-differences")
    image_viewer = training_image_viewer.build()
    live_html("training-proposal")
    saved = training_saved_steps.build()
    results = training_results.build()
    for name in ("export", "files"):
        live_html(f"training-{name}")
    with gr.Accordion(_("All steps side by side"), open=False, elem_id="training-steps-box") as steps_box:
        steps = live_html("training-steps", js_on_load=training_pictures.PICTURE_CLICKS)
    shown["training-steps-box"] = steps_box
    for name in ("scores", "notes"):
        live_html(f"training-{name}")
    for name, title in (("effect", _("Effect per layer")), ("log", _("Log"))):
        with gr.Accordion(title, open=False) as shown[f"training-{name}-box"]:
            live_html(f"training-{name}")
    queue = training_queue.build()
    shown |= {
        "training-run-search": run_search,
        "training-window": window,
        "training-log-scale": log_scale,
        **{f"training-{request}": button for request, button in buttons.items()},
        "training-resume": resume,
        **results.shown,
        **image_viewer.shown,
    }
    drawn = (window, log_scale, samples, steps)
    return RunPanel(run_search, runs, buttons, resume, end, results, *drawn, image_viewer, saved, queue, shown)


def _build_plot_options() -> tuple[gr.Dropdown, gr.Checkbox]:
    window = gr.Dropdown(
        [(_(name), name) for name in training_plot.WINDOWS],
        value=training_plot.ALL_STEPS,
        label=_("Range"),
        elem_id="plot-window",
        interactive=True,
        min_width=140,
    )
    log_scale = gr.Checkbox(False, label=_("Log scale"), elem_id="plot-log", interactive=True, min_width=96)
    return window, log_scale


def render(page: TrainingPage, view: TrainingView, selection: Selection) -> dict[str, Group]:
    """What makes every shown part of it as it should be now."""
    return {
        N_("The run"): lambda: _run_parts(page, view, selection),
        N_("The image viewer"): lambda: training_image_viewer.render(selection.image, view, page.thumbnails),
        N_("The results"): lambda: training_results.render(view, page.exports.state),
    }


def _run_parts(page: TrainingPage, view: TrainingView, selection: Selection) -> dict[str, Part]:
    history, run, thumbnails = view.history, view.run, page.thumbnails
    options = training_plot.PlotOptions(selection.window, selection.log)
    compared = page.runs_to_compare(selection, view)
    working = view.status is not None and view.status.state in BUSY_STATES
    is_finished = view.status is not None and view.status.state == "finished"
    best = history.proposal.step if history and history.proposal else None

    def plot() -> str:
        named = {view.titles.get(other.name, other.name): page.session.history(other) for other in compared}
        kept = page.plot_of(run.name if run else "", options, tuple(named))
        return kept.html(history, options, named, running=working)

    parts: dict[str, Part] = {
        "run-search": gr.update(value=selection.run_search, visible=len(view.names) > training_run_cards.MAX_CARDS),
        "runs": lambda: training_run_cards.runs_html(page, view, selection),
        "state": lambda: training_view.state_html(view),
        "end": lambda: training_end_card.end_card_html(view, thumbnails),
        "proposal": lambda: "" if is_finished else training_view.proposal_html(history),
        "checkpoints": lambda: training_saved_steps.saved_steps_html(run, history),
        "export": lambda: training_results.export_html(run, page.exports.state),
        "files": lambda: training_view.files_html(run, history),
        "window": gr.update(value=options.window),
        "log-scale": gr.update(value=options.log),
        "plot": plot,
        "differences": lambda: training_view.differences_html(
            [run, *compared] if run and compared else [], view.titles
        ),
        "samples": lambda: training_pictures.scrubber_html(run, history, thumbnails, best=None if working else best),
        "steps": lambda: training_pictures.samples_html(run, history, thumbnails),
        "scores": lambda: training_plot.charts_html(
            history, training_pictures.nearest_of_last(run, history, thumbnails)
        ),
        "notes": lambda: training_view.notes_html(history),
        "effect": lambda: training_view.effect_html(history),
        "log": lambda: training_view.log_html(run.log if run else None),
        "queue": lambda: training_queue.queue_html(view.jobs, run.name if run else ""),
    }
    reports = _tells(view)
    parts |= {name: "" for name in PARTS_OF_A_TOLD_RUN if not reports}
    parts |= {name: gr.update(visible=reports) for name in BOXES_OF_A_TOLD_RUN}
    parts |= {name: gr.update(visible=bool(view.names)) for name in BOXES_OF_ANY_RUN}
    buttons = _button_states(view)
    parts |= {**buttons, "head": gr.update(visible=any(button["visible"] for button in buttons.values()))}
    return {f"training-{name}": part for name, part in parts.items()}


def _tells(view: TrainingView) -> bool:
    """Whether there is something to see of the run, or will be."""
    if view.status is None or view.history is None:
        return False
    return view.status.state in (*BUSY_STATES, "new") or bool(view.history.samples or len(view.history.steps))


def _button_states(view: TrainingView) -> dict[str, dict[str, Any]]:
    """What can be asked of the run now; the other buttons are away."""
    state = view.status.state if view.status else None
    working, waiting = state in ("running", "sampling"), state in BUSY_STATES
    # The run says that it ended a moment before the queue knows; until then there is nothing to resume.
    in_queue = any(
        view.run and line.job.run == view.run and line.job.state in ("queued", "running") for line in view.jobs
    )
    can_resume = state in ("paused", "stopped", "failed", "new") and not in_queue
    can_be_asked = {
        "sample": working,
        "save": working,
        "pause": waiting or in_queue,
        "stop": waiting or in_queue or state == "paused",
        "resume": can_resume,
    }
    return {name: gr.update(visible=can, interactive=can) for name, can in can_be_asked.items()}


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

    training_run_cards.wire(panel.run_search, panel.runs, selection, then_refresh=then_refresh)
    for request, button in panel.buttons.items():
        then_refresh(button.click(asking(request), selection, **QUIET))
    then_refresh(panel.resume.click(resume, selection, **QUIET))
    then_refresh(select(panel.window.input, selection, panel.window, change="window: values[0] ?? now.window"))
    then_refresh(select(panel.log_scale.input, selection, panel.log_scale, change="log: values[0]"))
    images = (panel.samples, panel.steps)
    training_image_viewer.wire(panel.image_viewer, images, page, selection, then_refresh=then_refresh)
    training_queue.wire(panel.queue, page, selection, then_refresh=then_refresh)
