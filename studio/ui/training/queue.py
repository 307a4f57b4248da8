"""What the Training tab of every page is made from; what one page has chosen to show of it is its `Selection`.

The queue on the Training tab: what runs and waits, in order, with buttons that move, remove or show a job.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import RunError
from studio.core.language import N_, _, ngettext
from studio.core.records import Label
from studio.core.text import template
from studio.datasets.session import DatasetSession
from studio.jobs.queue import Job, JobKind, JobState
from studio.jobs.session import JobLine
from studio.jobs.words import titles
from studio.training.folder import RunFolder
from studio.training.session import TrainingSession, TrainingView
from studio.ui.shell.commands import CommandRunner, PreflightRunner
from studio.ui.shell.parts import QUIET, live_html, toast, toasts
from studio.ui.shell.selection import Selection, changed, read_selection
from studio.ui.training.images import Thumbnails
from studio.ui.training.plot import OVERLAY_STYLES, PlotCache, PlotOptions

KEPT_PLOTS = 8

PlotOf = Callable[[str, PlotOptions, tuple[str, ...]], PlotCache]


def _kept_plots() -> PlotOf:
    """Pages that show different plots do not draw each other's anew."""
    return lru_cache(KEPT_PLOTS)(lambda run, options, compared: PlotCache())


@dataclass(frozen=True)
class TrainingPage:
    """The runs, the preflight and the export of a run's LoRA.

    Attributes:
        plot_of: the plot of a run, so drawn, with those of other runs over it, as it was drawn last.
    """

    session: TrainingSession
    datasets: DatasetSession
    preflight: PreflightRunner
    exports: CommandRunner
    cpu_only: bool = False
    plot_of: PlotOf = field(default_factory=_kept_plots)

    @property
    def thumbnails(self) -> Thumbnails:
        return Thumbnails(self.session.thumbnails, self.datasets.thumbnails)

    def run_of(self, selection: str) -> RunFolder:
        """The run that a page shows, which a press on it is about.

        Raises:
            RunError: where there is none, or it is gone.
        """
        return self.session.named(read_selection(selection).run)

    def runs_to_compare(self, selection: Selection, view: TrainingView) -> list[RunFolder]:
        """The runs to be drawn over the one that is shown, but those that are gone or that one itself."""
        shown = view.run.name if view.run else ""
        names = [name for name in selection.compared if name in view.names and name != shown]
        return [RunFolder(self.session.user_data.runs / name) for name in names[: len(OVERLAY_STYLES)]]


_template = template("ui/templates/training.html")

SHOWN_STATES: Mapping[JobState, tuple[str, str]] = {
    "running": ("●", N_("running")),
    "queued": ("◔", N_("queued")),
    "paused": ("❚❚", N_("paused")),
}

_CLICKS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (button) trigger("click", { act: button.dataset.act, job: Number(button.dataset.job) });
});"""


def build() -> gr.HTML:
    """Lay it out."""
    return live_html("training-queue", js_on_load=_CLICKS)


def queue_html(jobs: Sequence[JobLine], shown: str) -> Markup:
    """What runs, waits and is paused, in order; `shown` names the run that the page shows."""
    lines = [line for line in jobs if line.job.state in SHOWN_STATES]
    if not lines:
        return _template("empty_queue")
    num_waiting = sum(line.job.state == "queued" for line in lines)
    waiting = (
        ngettext("{n:,} run waits", "{n:,} runs wait", num_waiting, n=num_waiting) if num_waiting else _("none waiting")
    )
    called = titles([line.job.run for line in lines], {line.job.run.name: Label(name=line.name) for line in lines})
    rows = [
        (
            line,
            called[line.job.run.name],
            SHOWN_STATES[line.job.state][0],
            _state_words(line.job),
            *_moves(line, num_waiting),
        )
        for line in lines
    ]
    return _template("queue", rows=rows, waiting=waiting, shown=shown)


def _state_words(job: Job) -> str:
    """Its state, and what it was asked for and has not done yet."""
    state = _(SHOWN_STATES[job.state][1])
    if not job.asked:
        return state
    asked = _("asked to pause") if job.asked == "pause" else _("asked to stop")
    return f"{state}, {asked}"


def _moves(line: JobLine, num_waiting: int) -> tuple[bool, bool] | tuple[None, None]:
    """Whether it can go up, and down; None where there is no order to change."""
    if line.job.state != "queued" or num_waiting < 2:
        return None, None
    return line.job.position != 1, line.job.position != num_waiting


def wire(queue: gr.HTML, page: TrainingPage, selection: gr.HTML, *, then_refresh: Callable[[Any], Any]) -> None:
    """Connect the rows' buttons, each of which names its job."""

    def act(selection: str, event: gr.EventData) -> Any:  # noqa: ANN401 - gradio's update
        wish, job_id = getattr(event, "act", None), getattr(event, "job", None)
        with toasts():
            if wish == "show":
                return changed(read_selection(selection), run=run_of_job(page, job_id), image=None)
            said = act_on_job(page, wish, job_id)
            if said:
                toast(said)
        return gr.skip()

    # A press counts while the one before is still on its way: one moves a job up by pressing again and again.
    every_press = {"trigger_mode": "multiple", **QUIET}
    then_refresh(queue.click(act, selection, selection, **every_press))


_PUT_BACK: Mapping[JobKind, str] = {
    "train": N_("Its run is kept: choose it above and press “Resume” to put it back."),
    "batch": N_("Its run is kept: choose it on the Batch tab and press “Resume” to put it back."),
    "caption": N_("It is kept: press “Resume” on the Dataset tab to put it back."),
}


def run_of_job(page: TrainingPage, job_id: object) -> str:
    """The name of a job's run.

    Raises:
        RunError: where there is no such job.
    """
    if not isinstance(job_id, int):
        raise RunError(_("There is no job {job_id} in the queue.", job_id=job_id))
    return page.session.queue.job(job_id).run.name


def act_on_job(page: TrainingPage, act: object, job_id: object) -> str:
    """Move a job or take it out of the queue; what to tell of it, "" where the row itself shows it.

    Raises:
        RunError: where there is no such button or job, or the job can no longer be moved or removed.
    """
    if not isinstance(job_id, int):
        raise RunError(_("There is no job {job_id} in the queue.", job_id=job_id))
    if act in ("up", "down"):
        page.session.move_job(job_id, by=-1 if act == "up" else 1)
    elif act == "remove":
        job = page.session.queue.remove(job_id)
        left = _("{title} left the queue.", title=job.short_title)
        return f"{left} {_(_PUT_BACK[job.kind])}"
    else:
        raise RunError(_("A job can be moved up or down, removed or shown, got {act!r}.", act=act))
    return ""
