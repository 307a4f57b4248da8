"""The right side of the Batch tab: which batch, its buttons, and what is told of it."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.batches.session import BatchView
from studio.jobs.folder import RunRequest
from studio.ui.batches import view as batch_view
from studio.ui.shell.parts import Update, live_html
from studio.ui.training.view import log_html

REQUEST_WORDS: dict[RunRequest, str] = {"pause": "Pause", "stop": "Stop"}
# Gradio's HTML takes clicks of its own; the name of the pressed batch goes with ours.
_CLICKS = """element.addEventListener("click", (event) => {
  const name = event.target.closest("button.past-batch")?.dataset.name;
  if (name) trigger("click", { name });
});"""


@dataclass(frozen=True)
class BatchPanel:
    """Its components."""

    batch: gr.Dropdown
    buttons: dict[RunRequest, gr.Button]
    resume: gr.Button
    duplicate: gr.Button
    as_dataset: gr.Button
    folder: gr.Button
    past: gr.HTML
    shown: dict[str, gr.components.Component]


def build() -> BatchPanel:
    """Lay it out."""
    with gr.Row(elem_classes="run-head"):
        batch = gr.Dropdown([], label="Batch", elem_id="batch-run", interactive=True, scale=2, min_width=240)
        buttons = {
            request: gr.Button(words, elem_id=f"batch-{request}", size="sm", min_width=72)
            for request, words in REQUEST_WORDS.items()
        }
        resume = gr.Button("Resume", elem_id="batch-resume", size="sm", min_width=72)
    with gr.Row(elem_classes="run-results"):
        duplicate = gr.Button("Copy to form", elem_id="batch-duplicate", size="sm", min_width=104)
        as_dataset = gr.Button("Open as dataset", elem_id="batch-as-dataset", size="sm", min_width=120)
        folder = gr.Button("Open the folder", elem_id="batch-folder", size="sm", min_width=112)
    for name in ("state", "memory", "latest", "files", "sheet"):
        live_html(f"batch-{name}")
    report = gr.Markdown(elem_id="batch-report", container=False)
    with gr.Accordion("Log", open=False):
        live_html("batch-log")
    past = live_html("batch-past", js_on_load=_CLICKS)
    shown: dict[str, gr.components.Component] = {
        "batch-run": batch,
        "batch-report": report,
        **{f"batch-{request}": button for request, button in buttons.items()},
        "batch-resume": resume,
        "batch-duplicate": duplicate,
        "batch-as-dataset": as_dataset,
        "batch-folder": folder,
    }
    return BatchPanel(batch, buttons, resume, duplicate, as_dataset, folder, past, shown)


def render(view: BatchView) -> dict[str, Update]:
    """What every shown part of the panel should be now."""
    batch, state = view.batch, view.status.state if view.status else None
    can_ask: Any = gr.update(interactive=view.busy or view.in_line)
    can_resume = state in ("paused", "stopped", "failed", "new") and not view.in_line
    return {
        "batch-run": gr.update(choices=list(view.names), value=batch.name if batch else None),
        "batch-state": batch_view.state_html(view),
        "batch-memory": batch_view.memory_words_html(view),
        "batch-latest": batch_view.latest_html(view.latest, more_to_come=view.busy or view.in_line) if batch else "",
        "batch-files": batch_view.files_html(batch, view.history),
        "batch-sheet": batch_view.sheet_html(view),
        "batch-report": batch_view.report_markdown(view),
        "batch-log": log_html(batch.log if batch else None),
        "batch-past": batch_view.past_html(view),
        "batch-pause": can_ask,
        "batch-stop": can_ask,
        "batch-resume": gr.update(interactive=can_resume),
        "batch-duplicate": gr.update(interactive=batch is not None),
        "batch-as-dataset": gr.update(interactive=view.progress.num_done > 0 and not view.busy),
        "batch-folder": gr.update(interactive=batch is not None),
    }
