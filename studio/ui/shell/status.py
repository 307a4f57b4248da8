"""The line at the top: what is loaded, on what, how much memory, what runs, and how many jobs wait behind it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import gradio as gr
import psutil
from markupsafe import Markup

from studio.core.errors import EngineError
from studio.core.language import LANGUAGES, N_, _, language, ngettext, number
from studio.core.text import duration, gigabytes, template
from studio.engine.process.client import EngineClient
from studio.engine.process.view import EngineView, Phase
from studio.jobs.queue import JobKind
from studio.jobs.session import JobLine, has_work
from studio.ui.shell.commands import PreflightState
from studio.ui.shell.parts import Update, toasts

_template = template("ui/templates/shell.html")

KIND_NAMES: Mapping[JobKind, str] = {
    "train": N_("training {name}"),
    "batch": N_("batch {name}"),
    "caption": N_("captions of {name}"),
}
KIND_STEPS: Mapping[JobKind, str] = {
    "train": N_("step {step:,} of {num_steps:,}"),
    "batch": N_("image {step:,} of {num_steps:,}"),
    "caption": N_("image {step:,} of {num_steps:,}"),
}
KIND_TABS: Mapping[JobKind, str] = {"train": N_("Training"), "batch": N_("Batch"), "caption": N_("Dataset")}
MeasuredKind = Literal["train", "batch"]
MEASURING: Mapping[MeasuredKind, str] = {
    "train": N_("measuring a training: {step} · {time}"),
    "batch": N_("measuring a batch: {step} · {time}"),
}


def jobs_words(jobs: Sequence[JobLine]) -> Markup:
    """`● training shoes-white 312/3,000 · 1 h 12 min left + 2 waiting`, a link to its tab; empty without work."""
    running = next((line for line in jobs if line.job.state == "running"), None)
    waiting = [line for line in jobs if line.job.state == "queued"]
    first = running or next(iter(waiting), None)
    if first is None:
        return Markup()
    if running is None:
        text = ngettext("{num_jobs:,} job waiting", "{num_jobs:,} jobs waiting", len(waiting), num_jobs=len(waiting))
    else:
        behind = [_("+ {num_waiting:,} waiting", num_waiting=len(waiting))] if waiting else []
        text = " ".join([job_name(running), _progress(running), *behind])
    return _template("activity", kind="busy", tab=job_tab(first), text=text, title=first.message)


def measuring_words(state: PreflightState, kind: MeasuredKind) -> Markup:
    """`● measuring a training: loading the model · 12 s`, a link to its tab; empty where nothing is being measured."""
    if not state.running:
        return Markup()
    text, tab = _(MEASURING[kind], step=state.step_words, time=state.time_words), KIND_TABS[kind]
    return _template("activity", kind="busy", tab=tab, text=text, title=_("A few real steps, to estimate the rest."))


def title_words(jobs: Sequence[JobLine], view: EngineView) -> str:
    """`10% training shoes-white`, for the title of the browser's tab; "" where nothing goes on."""
    running = next((line for line in jobs if line.job.state == "running"), None)
    if running:
        share = f"{100 * running.step // running.num_steps}% " if running.num_steps and running.step else ""
        return share + job_name(running)
    if view.phase not in RUN_NAMES:
        return ""
    step = view.step
    total = step.num_pictures * step.num_steps if step else 0
    share = f"{100 * (step.picture * step.num_steps + step.step) // total}% " if step and total else ""
    return share + _(RUN_NAMES[view.phase])


def header_tools() -> Markup:
    """What lies at the end of the line: the other languages, whether to be notified when work ends, and the keys."""
    return _template("header_tools", languages=[pair for pair in LANGUAGES.items() if pair[0] != language()])


def start_words(jobs: Sequence[JobLine]) -> str:
    """What the button that begins a job says."""
    return _("Add to queue") if has_work(jobs) else _("Start")


def job_name(line: JobLine) -> str:
    """`training shoes-white`."""
    return _(KIND_NAMES[line.job.kind], name=line.short_title)


def job_tab(line: JobLine) -> str:
    """The tab that tells more of it, by its English name."""
    return KIND_TABS[line.job.kind]


def job_step(line: JobLine) -> str:
    """How far it is: `step 312 of 3,000`, `image 5 of 40`."""
    return _(KIND_STEPS[line.job.kind], step=line.step, num_steps=line.num_steps)


def capital(words: str) -> str:
    """The words as the beginning of a sentence."""
    return words[:1].upper() + words[1:]


def _progress(line: JobLine) -> str:
    if line.job.asked:
        return _("is asked to pause") if line.job.asked == "pause" else _("is asked to stop")
    if line.run_state in ("new", "waiting"):
        return _("waits for its turn")
    if line.run_state == "preparing":
        return _("is being prepared")
    steps = f"{number(line.step)}/{number(line.num_steps)}"
    left = line.remaining_seconds
    return steps if left is None else " · ".join((steps, _("{time} left", time=duration(left))))


NEARLY_FULL = 0.9  # of all memory: from here on a Mac swaps, and training slows to a crawl


def model_words(view: EngineView) -> Markup:
    """The model, the device, the precision, and behind ⓘ why it is that precision."""
    return _template("model", model=view.model, facts=view.facts)


def memory_words(view: EngineView) -> Markup:
    """Memory in use on the whole machine, as a meter and in words; that of a GPU of its own beside it."""
    system = psutil.virtual_memory()
    used, total = system.total - system.available, system.total
    full = used / total > NEARLY_FULL
    return _template("memory", used=used, total=total, full=full, accelerator=_accelerator_words(view))


def _accelerator_words(view: EngineView) -> str:
    """A GPU's memory as the engine last told it; empty on a CPU, and once the engine is gone."""
    memory = view.memory
    if view.facts is None or memory is None or memory.accelerator_allocated_bytes is None:
        return ""
    used, limit = memory.accelerator_allocated_bytes / 2**30, memory.accelerator_limit_bytes
    return _("{used:.1f} of {total}", used=used, total=gigabytes(limit)) if limit else number(used, ".1f")


def activity_words(view: EngineView, *, owner_is_told: bool = False) -> Markup:
    """What the engine does, as a link to its tab; in words for people who do not see the dot.

    `owner_is_told`: the job that has the device stands beside it already.
    """
    waiting = _("engine waits") if owner_is_told else _("waiting for the device: {owner} has it", owner=view.owner)
    loading = _("loading {model}", model=view.model)
    words = {
        "off": _("engine off"),
        "starting": _("engine is starting (about 10 s)"),
        "waiting": waiting,
        "loading": ": ".join(filter(None, (loading, download_words(view)))),
        "ready": _("ready"),
        "device check": _("checking the device"),
        "no model": _("no model loaded"),
        "gone": _("engine stopped"),
    }.get(view.phase) or progress_words(view)
    kind = "busy" if view.active else "idle" if view.phase == "ready" else "wrong"
    return _template("engine_activity", kind=kind, text=words, mode=MODES.get(view.phase))


def cancel_button(view: EngineView, phase: Phase) -> Update:
    """The button that cancels what runs in that phase; where it was pressed and nothing stopped, it ends the engine."""
    runs = view.phase == phase
    update: Update = gr.update(
        value=_("Stop now (restarts the engine)") if runs and view.ignores_cancel else _("Cancel"),
        interactive=runs and (not view.cancelling or view.ignores_cancel),
    )
    return update


def cancelling(engine: EngineClient, phase: Phase) -> Callable[..., None]:
    """What a Cancel button does: it ends what its own mode began, and nothing else.

    Where it is given the number of a run, it ends that run alone: the next one of a queue begins by itself.
    """

    def cancel(of: str = "") -> None:
        with toasts():
            view = engine.view
            if view.phase != phase or (of and of != str(view.run_number)):
                raise EngineError(_("Nothing was cancelled: what this button was about is over already."))
            engine.cancel()

    return cancel


MODES: dict[Phase, str] = {"smoke test": "Smoke test", "generating": "Generate", "comparing": "Compare"}
"""Of the tabs of the modes the English names."""
RUN_NAMES: dict[Phase, str] = {
    "smoke test": N_("smoke test"),
    "generating": N_("generating"),
    "comparing": N_("comparing"),
}


def progress_words(view: EngineView) -> str:
    """`smoke test: image 2 of 3, step 12 of 25, 4.1 s left`."""
    return f"{_(RUN_NAMES[view.phase])}: {_run_step(view)}"


def _run_step(view: EngineView) -> str:
    step = view.step
    if view.cancelling:
        return _("stopping after this step")
    if step is None:
        return _("starting the next image") if view.finished_pictures else _("starting the first image")
    words = _(
        "image {picture} of {num_pictures}, step {step} of {num_steps}",
        picture=step.picture + 1,
        num_pictures=step.num_pictures,
        step=step.step,
        num_steps=step.num_steps,
    )
    return ", ".join((words, _("{time} left", time=duration(seconds_left(view))))) if step.step > 1 else words


def seconds_left(view: EngineView) -> float:
    """A forecast from the running image's own pace: its steps, and those of the images after it."""
    step = view.step
    if step is None:
        return 0.0
    steps_left = step.num_steps - step.step + (step.num_pictures - 1 - step.picture) * step.num_steps
    return steps_left * step.elapsed_seconds / step.step


def download_words(view: EngineView) -> str:
    """`1.2 GB of 4.3 GB, 3 min 05 s left` while a model is downloaded; else empty."""
    download = view.download
    if download is None or download.total_bytes == 0:
        return ""
    if view.cancelling:
        return _("stopping")
    share = download.done_bytes / download.total_bytes
    words = _("{done} of {total}", done=gigabytes(download.done_bytes), total=gigabytes(download.total_bytes))
    left = download.elapsed_seconds * (1 - share) / share if share > 0.01 else None
    return words if left is None else ", ".join((words, _("{time} left", time=duration(left))))


def phase_words(view: EngineView) -> tuple[str, str]:
    """What the engine is doing: a bold word, and a sentence."""
    if view.phase in RUN_NAMES:
        return _("Running."), f"{capital(_run_step(view))}. {view.run_note}".strip()
    if view.download:
        what = ": ".join(filter(None, (view.model, download_words(view))))
        return _("Downloading."), " ".join((f"{what}.", _("What has arrived is kept if you cancel.")))
    if view.device_part:
        return _("Checking."), _("The device is being compared with the CPU, once: {part}.", part=view.device_part)
    return {
        "off": (_("Not running."), _("Press “Start the engine”.")),
        "starting": (_("Starting."), _("The engine loads PyTorch in the background; this takes about ten seconds.")),
        "waiting": (
            _("Waiting."),
            _("The device is in use by {owner}. This page continues as soon as it is free.", owner=view.owner),
        ),
        "loading": (_("Loading."), _("{model} is loading, and its precision is being checked.", model=view.model)),
        "ready": (_("Ready."), _("Press “Run the smoke test”: three images, each checked, in a few seconds.")),
        "device check": (_("Checking."), _("The device is being compared with the CPU.")),
        "no model": (_("No model."), _("Press the model at the top and choose one.")),
        "gone": (_("Stopped."), _("Press “Start the engine”.")),
    }[view.phase]
