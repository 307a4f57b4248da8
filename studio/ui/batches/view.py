"""What the Batch tab shows of a batch.

What the Batch tab shows of a batch: state, images of late, what came out, notes, log, past ones. Facts to HTML.

The right side of the Batch tab: which batch, its buttons, and what is told of it.
"""

from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.batches.folder import BatchFolder
from studio.batches.report import VERDICT
from studio.batches.session import BatchProgress, BatchView
from studio.core.files import read_text
from studio.core.language import N_, _, moment, ngettext
from studio.core.text import clock_text, counted, duration, template
from studio.jobs.events import JobHistory
from studio.jobs.folder import RunRequest, RunStatus
from studio.ui.batches import images
from studio.ui.shell import item_actions
from studio.ui.shell.images import small_picture_url
from studio.ui.shell.parts import Part, live_html, paragraph, problem
from studio.ui.training.view import (
    STATE_KINDS,
    STATE_WORDS,
    asked_words,
    log_html,
    memory_html,
    nothing_yet,
    run_bar,
    state_box,
)

_template = template("ui/templates/batches.html")

LARGE_PIXELS = 1600
MAX_NOTES = 8
NOTHING_YET = N_(
    "Press “Fill in an example” on the left, look at what it would make, and press "
    "“Start”: sixty images of shoes in a few minutes, on this machine."
)


def state_html(view: BatchView) -> Markup:
    """The head of a batch: its name, its state, how far it is, how fast, when it is ready, and what it says."""
    if view.problem:
        return problem(view.problem)
    if view.batch is None or view.status is None:
        return nothing_yet(_("No batches yet."), _(NOTHING_YET))
    status = view.status
    sign, word = STATE_WORDS[status.state]
    word = _(word)
    if view.in_line and not view.busy:
        sign, word = STATE_WORDS["waiting"][0], _("In the queue.")
    elif view.asked:
        sign, word = STATE_WORDS["waiting"][0], asked_words(view.asked, "image")
    kind = STATE_KINDS.get(status.state, "") if not view.in_line else ""
    message = status.message or view.titles.get(view.batch.name, view.batch.name)
    bar = _bar(status, view.progress)
    return item_actions.label_html(view.batch.label) + state_box(kind, sign, word, progress_words(view), message, bar)


def progress_words(view: BatchView) -> str:
    """`42 of 60 images · 1 failed · 3 tries not taken · 3.1 a second · 8 s left · ready at 07:12`."""
    status, progress = view.status, view.progress
    if status is None or not status.num_steps:
        return ""
    total = counted(status.num_steps, "image", "images")
    words = [_("{num:,} of {total}", num=progress.num_done, total=total)]
    if num := progress.num_failed:
        words.append(ngettext("{num:,} failed", "{num:,} failed", num, num=num))
    if num := progress.num_rejected:
        words.append(ngettext("{num:,} try not taken", "{num:,} tries not taken", num, num=num))
    if num := progress.num_set_aside:
        words.append(ngettext("{num:,} rejected by you", "{num:,} rejected by you", num, num=num))
    if num := progress.num_to_remake:
        words.append(ngettext("{num:,} to be made again", "{num:,} to be made again", num, num=num))
    if view.busy and progress.pictures_per_second:
        words.append(_pace(progress.pictures_per_second))
    if view.busy and status.remaining_seconds is not None:
        words.append(_("{time} left", time=duration(status.remaining_seconds)))
    if view.ready_at is not None:
        words.append(_("ready at {clock}", clock=clock_text(view.ready_at)))
    return " · ".join(words)


def _pace(pictures_per_second: float) -> str:
    if pictures_per_second >= 1:
        return _("{num:.1f} a second", num=pictures_per_second)
    return _("{time} per image", time=duration(1 / pictures_per_second))


def _bar(status: RunStatus, progress: BatchProgress) -> Markup:
    total = max(1, status.num_steps)
    done, failed = 100 * progress.num_done / total, 100 * progress.num_failed / total
    parts = [("", f"{done:.1f}"), ("failed", f"{failed:.1f}")]
    return run_bar(_("Pictures"), progress.num_done, status.num_steps, parts)


def memory_words_html(view: BatchView) -> Markup:
    """The gauge of a batch that is being made, as that of a training."""
    if view.batch is None or not view.busy:
        return Markup()
    if view.history is None or not view.history.memory:
        return paragraph("quiet", _("Memory use appears here while images are made."))
    return memory_html(view.history)


def sheet_html(view: BatchView) -> Markup:
    """The X/Y grid, large, of a batch that has ended, where one was made."""
    if view.batch is None or view.busy or view.in_line:
        return Markup()
    path = view.batch.grid
    url = small_picture_url(path, pixels=LARGE_PIXELS)
    return _template("sheet", path=path, url=url) if url else Markup()


def report_markdown(view: BatchView) -> str:
    """The report of a batch that has ended; gradio shows it as Markdown, without what could run."""
    if view.batch is None or view.busy or view.in_line or not view.batch.report.is_file():
        return ""
    __, verdict, below_it = read_text(view.batch.report, errors="replace").partition(VERDICT)
    return (verdict + below_it).strip()


def files_html(batch: BatchFolder | None, history: JobHistory | None) -> Markup:
    """Where everything of a batch lies, and what was said of it besides its state."""
    if batch is None:
        return Markup()
    return _template("files", folder=batch.root, notes=history.notes[-MAX_NOTES:] if history else ())


def past_html(view: BatchView) -> Markup:
    """Past batches as a table; a name is a button that shows that batch."""
    if not view.past:
        return paragraph("quiet", _("Your batches appear here, with their state and report."))
    rows = []
    for past in view.past:
        sign, word = STATE_WORDS[past.status.state]
        begun_at = moment(past.begun_at) if past.begun_at else "–"
        rows.append((past, begun_at, sign, _(word).rstrip(".").lower()))
    chosen = view.batch.name if view.batch else ""
    return _template("past", batches=rows, chosen=chosen, num_older=len(view.names) - len(view.past))


REQUEST_WORDS: dict[RunRequest, str] = {"pause": N_("Pause"), "stop": N_("Stop")}
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
    train: gr.Button
    images: tuple[gr.HTML, ...]
    folder: gr.Button
    rename: gr.Button
    label: item_actions.LabelBox
    delete: gr.Button
    trash: item_actions.TrashBox
    past: gr.HTML
    shown: dict[str, gr.components.Component]


def build() -> BatchPanel:
    """Lay it out."""
    with gr.Row(elem_classes="run-head"):
        batch = gr.Dropdown([], label=_("Batch"), elem_id="batch-run", interactive=True, scale=2, min_width=240)
        buttons = {
            request: gr.Button(_(words), elem_id=f"batch-{request}", size="sm", min_width=72)
            for request, words in REQUEST_WORDS.items()
        }
        resume = gr.Button(_("Resume"), elem_id="batch-resume", size="sm", min_width=72)
    with gr.Row(elem_classes="run-results"):
        as_dataset = gr.Button(_("Open as dataset"), elem_id="batch-as-dataset", size="sm", min_width=120)
        train = gr.Button(_("Train on it"), elem_id="batch-train", size="sm", min_width=96)
        duplicate = gr.Button(_("Copy to form"), elem_id="batch-duplicate", size="sm", min_width=104)
        folder = gr.Button(_("Open the folder"), elem_id="batch-folder", size="sm", min_width=112)
        rename = gr.Button(_("Rename…"), elem_id="batch-rename", size="sm", min_width=84)
        delete = gr.Button(_("Delete…"), elem_id="batch-delete", size="sm", min_width=84)
    label = item_actions.build_label("batch")
    trash = item_actions.build("batch")
    for name in ("state", "memory"):
        live_html(f"batch-{name}")
    reviewed = images.build()
    for name in ("sheet", "files"):
        live_html(f"batch-{name}")
    report = gr.Markdown(elem_id="batch-report", container=False)
    with gr.Accordion(_("Log"), open=False):
        live_html("batch-log")
    past = live_html("batch-past", js_on_load=_CLICKS)
    shown: dict[str, gr.components.Component] = {
        "batch-run": batch,
        "batch-report": report,
        **{f"batch-{request}": button for request, button in buttons.items()},
        "batch-resume": resume,
        "batch-duplicate": duplicate,
        "batch-as-dataset": as_dataset,
        "batch-train": train,
        "batch-folder": folder,
        "batch-rename": rename,
        "batch-delete": delete,
    }
    results = duplicate, as_dataset, train, reviewed, folder
    return BatchPanel(batch, buttons, resume, *results, rename, label, delete, trash, past, shown)


def render(view: BatchView) -> dict[str, Part]:
    """What every shown part of the panel should be now; its images are apart."""
    batch, state = view.batch, view.status.state if view.status else None
    has_images = gr.update(interactive=view.progress.num_done > 0 and not view.busy)
    can_ask: Any = gr.update(interactive=view.busy or view.in_line)
    choices = [(view.titles.get(name, name), name) for name in view.names]
    can_resume = state in ("paused", "stopped", "failed", "new") and not view.in_line
    return {
        "batch-run": gr.update(choices=choices, value=batch.name if batch else None),
        "batch-state": lambda: state_html(view),
        "batch-memory": lambda: memory_words_html(view),
        "batch-files": lambda: files_html(batch, view.history),
        "batch-sheet": lambda: sheet_html(view),
        "batch-report": lambda: report_markdown(view),
        "batch-log": lambda: log_html(batch.log if batch else None),
        "batch-past": lambda: past_html(view),
        "batch-pause": can_ask,
        "batch-stop": gr.update(interactive=view.busy or view.in_line or state == "paused"),
        "batch-resume": gr.update(interactive=can_resume),
        "batch-duplicate": gr.update(interactive=batch is not None),
        "batch-as-dataset": has_images,
        "batch-train": has_images,
        "batch-folder": gr.update(interactive=batch is not None),
        "batch-rename": gr.update(interactive=batch is not None),
        "batch-delete": gr.update(interactive=batch is not None and not view.busy and not view.in_line),
    }
