"""The box on the Inference tab while the device is another's: who has it, how long, and what can be done about it.

The jobs that the page's engine waits for are paused or stopped together: else the next one would take the device.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import RunError
from studio.core.language import N_, _, ngettext
from studio.core.paths import UserData
from studio.core.text import counted, duration, template
from studio.engine.process.client import EngineClient
from studio.engine.process.messages import Compare, Generate, Run
from studio.engine.process.view import EngineView
from studio.jobs.queue import JobKind, JobQueue
from studio.jobs.session import JobLine, job_lines
from studio.jobs.worker import ensure_worker
from studio.ui.shell.parts import QUIET, Update, live_html, toasts
from studio.ui.shell.status import capital, job_name, job_step, job_tab


def list_blocking_jobs(jobs: Sequence[JobLine]) -> tuple[JobLine, ...]:
    """The job that runs, then those that wait, in the order in which the queue goes through them."""
    return tuple(line for line in jobs if line.job.state in ("running", "queued"))


class BlockingJobs:
    """Pauses, stops and resumes them, and remembers which ones it paused. Any thread may ask."""

    def __init__(self, user_data: UserData) -> None:
        self._user_data = user_data
        self._queue = JobQueue(user_data)
        self._lock = threading.Lock()
        self._paused: tuple[int, ...] = ()

    def paused(self, jobs: Sequence[JobLine]) -> tuple[JobLine, ...]:
        """Those of the queue that were paused here and have not gone on since, in their order."""
        by_id = {line.job.id: line for line in jobs}
        found = (by_id[number] for number in self._paused if number in by_id)
        # One that waited for the device when it was asked to pause has stopped: it had nothing to save.
        return tuple(line for line in found if line.job.state in ("paused", "stopped"))

    def pause(self, named: Collection[int]) -> None:
        """Pause those of them that are named, and no other one, should the queue have gone on meanwhile.

        Those that wait are paused at once, the one that runs after the current step, when it has saved.

        Raises:
            RunError: where none of these is ahead, or the queue cannot be written.
            OSError: where a run's folder cannot be written.
        """
        with self._lock:
            blocking_jobs = self._blocking_jobs(named)
            for line in reversed(blocking_jobs):  # the last first: no other begins when the one that runs ends
                self._queue.pause(line.job.id)
            self._paused = tuple(line.job.id for line in blocking_jobs)

    def stop(self, named: Collection[int]) -> None:
        """Stop those of them that are named, in the same way.

        Raises:
            RunError: where none of these is ahead, or the queue cannot be written.
            OSError: where a run's folder cannot be written.
        """
        with self._lock:
            for line in reversed(self._blocking_jobs(named)):
                self._queue.stop(line.job.id)

    def resume(self, named: Collection[int]) -> None:
        """Put those of the named ones that were paused here into the line again, in the order that they had.

        Raises:
            RunError: where there is none, or one cannot be resumed.
            OSError: where the worker cannot be started.
        """
        with self._lock:
            paused = [line for line in self.paused(job_lines(self._queue)) if line.job.id in named]
            if not paused:
                raise RunError(
                    _("No job paused here is waiting to be resumed. The Training and Batch tabs list all jobs.")
                )
            for line in paused:
                self._queue.resume(line.job.id)
            self._paused = ()
        ensure_worker(self._user_data)

    def _blocking_jobs(self, named: Collection[int]) -> list[JobLine]:
        blocking_jobs = list_blocking_jobs(job_lines(self._queue))
        if not blocking_jobs:
            raise RunError(_("No job is using the device any more."))
        found = [line for line in blocking_jobs if line.job.id in named]
        if not found:
            raise RunError(_("That job has ended. Another job is using the device now."))
        return found


_template = template("ui/templates/shell.html")


@dataclass(frozen=True)
class DeviceBusyBox:
    """The box: what it says, what it offers, and the question before a stop.

    Attributes:
        jobs, about: the numbers of the jobs that its buttons are about, and those of the question.
    """

    jobs: gr.JSON
    go_on: gr.Button
    pause: gr.Button
    stop: gr.Button
    resume: gr.Button
    cancel: gr.Button
    question: gr.Row
    question_words: gr.HTML
    about: gr.JSON
    really: gr.Button
    keep: gr.Button
    shown: dict[str, gr.components.Component]


def build() -> DeviceBusyBox:
    """Lay the box out; all of it is hidden until there is something to say."""
    with gr.Column(elem_id="taken-box", visible=False) as box:
        jobs = gr.JSON(visible=False)
        live_html("taken-words")
        with gr.Row(elem_classes="taken-offers"):
            go_on = _button(_("Run when the device is free"), "taken-go-on")
            pause = _button(_("Pause the training"), "taken-pause")
            stop = _button(_("Stop the training"), "taken-stop")
            resume = _button(_("Resume the training"), "taken-resume")
            cancel = _button(_("Cancel waiting request"), "taken-cancel")
        # The question belongs to the one browser tab in which it was asked, so a refresh leaves it alone.
        with gr.Column(visible=False) as frame, gr.Row(visible=False, elem_id="taken-question") as question:
            question_words = gr.HTML(elem_id="taken-question-words", padding=False)
            about = gr.JSON(visible=False)
            really = gr.Button(_("Stop"), elem_id="taken-stop-really", size="sm", variant="stop", min_width=96)
            keep = gr.Button(_("Keep it running"), elem_id="taken-stop-not", size="sm", min_width=96)
    shown: dict[str, gr.components.Component] = {
        "taken-box": box,
        "taken-jobs": jobs,
        "taken-go-on": go_on,
        "taken-pause": pause,
        "taken-stop": stop,
        "taken-resume": resume,
        "taken-cancel": cancel,
        "taken-question": frame,
    }
    return DeviceBusyBox(jobs, go_on, pause, stop, resume, cancel, question, question_words, about, really, keep, shown)


def _button(words: str, elem_id: str) -> gr.Button:
    return gr.Button(words, elem_id=elem_id, size="sm", min_width=160, visible=False)


def render(view: EngineView, jobs: Sequence[JobLine], blocking_jobs: BlockingJobs) -> dict[str, Update]:
    """What every shown part of the box should be now."""
    before_us = list_blocking_jobs(jobs) if view.phase == "waiting" else ()
    paused = () if before_us else blocking_jobs.paused(jobs)
    asked = any(line.job.asked for line in before_us)
    keeps = view.keeps_runs or view.kept is not None
    words = [_owner_words(view, before_us), _kept_words(view), _paused_words(paused)]
    can_halt = bool(before_us) and not asked
    return {
        "taken-box": gr.update(visible=any(words)),
        "taken-jobs": gr.update(value=[line.job.id for line in before_us or paused]),
        "taken-words": Markup().join(words),
        "taken-go-on": gr.update(visible=view.phase == "waiting" and not keeps),
        "taken-pause": gr.update(visible=can_halt, value=_offer(PAUSE, before_us)),
        "taken-stop": gr.update(visible=can_halt, value=_offer(STOP, before_us)),
        "taken-resume": gr.update(visible=bool(paused), value=_offer(RESUME, paused)),
        "taken-cancel": gr.update(
            visible=keeps, value=_("Cancel waiting request") if view.kept else _("Cancel waiting requests")
        ),
        "taken-question": gr.update(visible=can_halt),
    }


def _owner_words(view: EngineView, blocking_jobs: Sequence[JobLine]) -> Markup:
    """`Training shoes-white has the device: step 312 of 3,000, 1 h 12 min left.`"""
    if view.phase != "waiting":
        return Markup()
    can_queue = _("You can queue a request behind it.")
    if not blocking_jobs:
        return _paragraph(_("The device is in use by {owner}.", owner=view.owner), can_queue)
    first, *others = blocking_jobs
    name, behind = capital(job_name(first)), _behind_words(others)
    if first.job.asked:
        pauses = first.job.asked == "pause"
        bold = _("{name} was asked to pause:", name=name) if pauses else _("{name} was asked to stop:", name=name)
        return _paragraph(bold, _("it saves after the current step, then the device is free."), behind)
    if first.job.state == "queued":
        return _paragraph(_("{name} is about to start and has the device then.", name=name), behind)
    advice = "" if view.keeps_runs or view.kept else can_queue
    return _paragraph(_("{name} has the device:", name=name), f"{_how_far(first)}.", behind, advice)


def _how_far(line: JobLine) -> str:
    if not line.num_steps or line.run_state in ("new", "waiting", "preparing"):
        return _("it is being prepared")
    left = line.remaining_seconds
    return job_step(line) if left is None else ", ".join((job_step(line), _("{time} left", time=duration(left))))


def _behind_words(others: Sequence[JobLine]) -> str:
    if not others:
        return ""
    return ngettext(
        "Behind it {num_jobs:,} more waits: {names}.",
        "Behind it {num_jobs:,} more wait: {names}.",
        len(others),
        num_jobs=len(others),
        names=_names(others),
    )


def _kept_words(view: EngineView) -> Markup:
    """What waits here, or how something can be made to."""
    if view.kept is not None:
        begins = (
            _("It starts automatically as soon as the device is free, as long as this studio runs.")
            if view.phase == "waiting"
            else _("It starts automatically when the engine is ready, as long as this studio runs.")
        )
        may_close = _("You may close the page meanwhile.")
        return _paragraph(_("Waiting here:"), f"{_run_words(view.kept)}.", begins, may_close)
    if view.keeps_runs:
        return _paragraph(
            _("Queue a request:"),
            _("press “Generate”, “Compare” or “Run the smoke test”. It waits here and starts when the device is free."),
        )
    return Markup()


def _run_words(run: Run) -> str:
    if isinstance(run, Generate):
        return _("{images} to make", images=counted(run.settings.num_images, "image", "images"))
    if isinstance(run, Compare):
        return _("a comparison of {images}", images=counted(run.settings.num_pictures, "image", "images"))
    return _("the smoke test")


def _paused_words(paused: Sequence[JobLine]) -> Markup:
    if not paused:
        return Markup()
    first, *others = paused
    name, step = capital(job_name(first)), job_step(first) if first.num_steps else ""
    bold = _("{name} is paused at {step}.", name=name, step=step) if step else _("{name} is paused.", name=name)
    also = ngettext("So is {names}.", "So are {names}.", len(others), names=_names(others)) if others else ""
    return _paragraph(bold, also, _("Everything is saved; resume it when you are done here."))


_ALL = N_("Pause all {num_jobs:,} jobs"), N_("Stop all {num_jobs:,} jobs"), N_("Resume all {num_jobs:,} jobs")
_ONE: Mapping[JobKind, tuple[str, str, str]] = {
    "train": (N_("Pause the training"), N_("Stop the training"), N_("Resume the training")),
    "batch": (N_("Pause the batch"), N_("Stop the batch"), N_("Resume the batch")),
    "caption": (N_("Pause the captions"), N_("Stop the captions"), N_("Resume the captions")),
}
PAUSE, STOP, RESUME = range(3)


def _offer(action: int, jobs: Sequence[JobLine]) -> str:
    """What a button says: `Pause the training`, `Stop all 3 jobs`; nothing where there is no job."""
    if len(jobs) > 1:
        return _(_ALL[action], num_jobs=len(jobs))
    return _(_ONE[jobs[0].job.kind][action]) if jobs else ""


def _names(jobs: Sequence[JobLine]) -> str:
    return ", ".join(line.short_title for line in jobs)


def _paragraph(bold: str, *sentences: str) -> Markup:
    return _template("status", bold=bold, sentence=" ".join(filter(None, sentences)))


def question_words(blocking_jobs: Sequence[JobLine]) -> Markup:
    """What a stop would end, and that nothing of it is lost."""
    if not blocking_jobs:
        return _paragraph(_("Nothing is left to stop."), _("The device is free in a moment."))
    first, *others = blocking_jobs
    name, step = job_name(first), job_step(first) if first.num_steps else ""
    bold = _("Stop {name} at {step}?", name=name, step=step) if step else _("Stop {name}?", name=name)
    saves = _("It saves first, so nothing is lost: it can be resumed on its tab, {tab}.", tab=_(job_tab(first)))
    behind = _("Jobs behind it would not start either: {names}.", names=_names(others)) if others else ""
    return _paragraph(bold, saves, behind)


def _numbers(sent: object) -> list[int]:
    """The jobs that a page names."""
    return [number for number in sent if isinstance(number, int)] if isinstance(sent, list) else []


def wire(
    box: DeviceBusyBox,
    engine: EngineClient,
    blocking_jobs: BlockingJobs,
    jobs: Callable[[], Sequence[JobLine]],
    *,
    then_refresh: Callable[[Any], None],
) -> None:
    """Connect the buttons, each to the jobs that the page tells of: it may be old."""

    def keep_runs() -> None:
        with toasts():
            engine.keep_runs()

    def pause(named: object) -> Any:  # noqa: ANN401 - gradio's update
        with toasts():
            blocking_jobs.pause(_numbers(named))
        return hide()

    def stop(about: object) -> Any:  # noqa: ANN401 - gradio's update
        with toasts():
            blocking_jobs.stop(_numbers(about))
        return hide()

    def resume(named: object) -> None:
        with toasts():
            blocking_jobs.resume(_numbers(named))

    def ask() -> dict[Any, Any]:
        now = list_blocking_jobs(jobs())
        return {
            box.question: gr.update(visible=True),
            box.question_words: question_words(now),
            box.about: [line.job.id for line in now],
        }

    def hide() -> Any:  # noqa: ANN401 - gradio's update
        return gr.update(visible=False)

    then_refresh(box.go_on.click(keep_runs, **QUIET))
    then_refresh(box.cancel.click(engine.forget_kept, **QUIET))
    then_refresh(box.pause.click(pause, box.jobs, box.question, **QUIET))
    then_refresh(box.resume.click(resume, box.jobs, **QUIET))
    box.stop.click(ask, None, [box.question, box.question_words, box.about], **QUIET)
    then_refresh(box.really.click(stop, box.about, box.question, **QUIET))
    box.keep.click(hide, None, box.question, **QUIET)
