"""The queue on the Training tab: what runs and waits, in order, with buttons that move, remove or show a job."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from studio.core.errors import RunError
from studio.core.text import counted, duration, escape
from studio.jobs.listing import JobLine
from studio.jobs.queue import JobState
from studio.ui.shell.parts import QUIET, live_html, toasts
from studio.ui.shell.selection import changed, read_selection
from studio.ui.training.page import TrainingPage

SHOWN_STATES: tuple[JobState, ...] = ("running", "queued", "paused")
STATE_SIGNS = {"running": "●", "queued": "◔", "paused": "❚❚"}

_CLICKS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (button) trigger("click", { act: button.dataset.act, job: Number(button.dataset.job) });
});"""


def build() -> gr.HTML:
    """Lay it out."""
    return live_html("training-queue", js_on_load=_CLICKS)


def queue_html(jobs: Sequence[JobLine], shown: str) -> str:
    """What runs, waits and is paused, in order; `shown` names the run that the page shows."""
    lines = [line for line in jobs if line.job.state in SHOWN_STATES]
    if not lines:
        return '<h3>Queue</h3><p class="quiet">The queue is empty: a run that is started now begins at once.</p>'
    num_waiting = sum(line.job.state == "queued" for line in lines)
    rows = "".join(_row(line, num_waiting, shown) for line in lines)
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Place", "Run", "State", "Step", "Time left"))
    waiting = (
        f"{counted(num_waiting, 'run')} {'waits' if num_waiting == 1 else 'wait'}" if num_waiting else "none waits"
    )
    return (
        f'<h3>Queue <span class="quiet">{waiting}; one runs after the other, page open or not</span></h3>'
        '<div class="table-frame" tabindex="0" role="group" aria-label="Queue"><table class="queue">'
        f'<thead><tr>{head}<th scope="col">Order</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row(line: JobLine, num_waiting: int, shown: str) -> str:
    job = line.job
    current = ' aria-current="true"' if job.run.name == shown else ""
    asked = f", asked to {job.asked}" if job.asked else ""
    cells = (
        escape(job.position or "–"),
        _button(line, "show", job.title, f"Show {job.title}", extra=f' class="queue-run"{current}')
        if job.kind == "train"
        else f'{escape(job.title)} <span class="quiet">on the Batch tab</span>',
        f'<span aria-hidden="true">{STATE_SIGNS[job.state]}</span> {escape(job.state + asked)}',
        f"{line.step:,} of {line.num_steps:,}" if line.num_steps else "",
        escape(duration(line.remaining_seconds)) if line.remaining_seconds is not None else "",
        _order_buttons(line, num_waiting),
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _order_buttons(line: JobLine, num_waiting: int) -> str:
    """A running job has no place that could be changed; it is stopped with the run's own buttons."""
    job = line.job
    if job.state == "running":
        return ""
    waits = job.state == "queued"
    moves = (
        _button(line, "up", "▲", f"Move {job.title} up", disabled=job.position == 1)
        + _button(line, "down", "▼", f"Move {job.title} down", disabled=job.position == num_waiting)
        if waits and num_waiting > 1
        else ""
    )
    return moves + _button(line, "remove", "Remove", f"Remove {job.title} from the queue")


def _button(line: JobLine, act: str, words: str, label: str, *, disabled: bool = False, extra: str = "") -> str:
    job = line.job.id
    kinds = extra or ' class="link-button"'
    off = " disabled" if disabled else ""
    return (
        f'<button type="button" data-act="{act}" data-job="{job}" data-focus="{job} {act}" '
        f'aria-label="{escape(label)}"{kinds}{off}>{escape(words)}</button>'
    )


def wire(queue: gr.HTML, page: TrainingPage, selection: gr.HTML, *, then_refresh: Callable[[Any], Any]) -> None:
    """Connect the rows' buttons, each of which names its job."""

    def act(selection: str, event: gr.EventData) -> Any:  # noqa: ANN401 - gradio's update
        wish, job_id = getattr(event, "act", None), getattr(event, "job", None)
        with toasts():
            if wish == "show":
                return changed(read_selection(selection), run=run_of_job(page, job_id), image=None)
            said = act_on_job(page, wish, job_id)
            if said:
                gr.Info(escape(said))
        return gr.skip()

    # A press counts while the one before is still on its way: one moves a job up by pressing again and again.
    every_press = {"trigger_mode": "multiple", **QUIET}
    then_refresh(queue.click(act, selection, selection, **every_press))


def run_of_job(page: TrainingPage, job_id: object) -> str:
    """The name of a job's run.

    Raises:
        RunError: where there is no such job.
    """
    if not isinstance(job_id, int):
        raise RunError(f"There is no job {job_id} in the queue.")
    return page.session.queue.job(job_id).run.name


def act_on_job(page: TrainingPage, act: object, job_id: object) -> str:
    """Move a job or take it out of the queue; what to tell of it, "" where the row itself shows it.

    Raises:
        RunError: where there is no such button or job, or the job can no longer be moved or removed.
    """
    if not isinstance(job_id, int):
        raise RunError(f"There is no job {job_id} in the queue.")
    if act in ("up", "down"):
        page.session.move_job(job_id, by=-1 if act == "up" else 1)
    elif act == "remove":
        job = page.session.queue.remove(job_id)
        place = "above" if job.kind == "train" else "on the Batch tab"
        return f"{job.title} is out of the queue. Its run is kept: choose it {place} and press “Resume” to put it back."
    else:
        raise RunError(f"A job can be moved up or down, removed or shown, got {act!r}.")
    return ""
