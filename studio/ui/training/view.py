"""What the Training tab shows of a run, and how its settings differ from others'.

Runs side by side: the settings in which those that are laid over each other differ.

What the Training tab shows of a run: state, memory, proposal, effect, notes, log. From facts to HTML, no gradio.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Literal, get_origin

from markupsafe import Markup

from studio.core.errors import RunError, SettingsError
from studio.core.language import N_, _, number
from studio.core.text import duration, template, weekday_and_time
from studio.jobs.events import JobHistory, MemoryEvent
from studio.jobs.folder import BUSY_STATES, RunRequest, RunState, RunStatus
from studio.jobs.launcher import end_of_log
from studio.training.begin import read_run_settings
from studio.training.events import ProposalEvent
from studio.training.folder import RunFolder
from studio.training.session import RunHistory, TrainingView
from studio.training.settings import TrainingSettings
from studio.ui.shell.item_actions import label_html
from studio.ui.shell.parts import paragraph, problem, table
from studio.ui.training.plot import capitalized

_template = template("ui/templates/training.html")

FIELDS = TrainingSettings.model_fields
NOT_COMPARED = frozenset(("name",))  # it is the end of the run's own name


def differences_html(runs: Sequence[RunFolder], titles: Mapping[str, str]) -> Markup:
    """A table of what differs, a column a run, the one that is looked at first; empty where none is laid over."""
    if len(runs) < 2:
        return Markup()
    try:
        settings = [read_run_settings(run) for run in runs]
    except (RunError, SettingsError) as error:
        return paragraph("note bad", _("The settings cannot be compared: {error}", error=error))
    rows = [
        (_(FIELDS[name].title or name), *(_setting_words(one, name) for one in settings))
        for name in differing(settings)
    ]
    if not rows:
        return paragraph("quiet", _("These runs have the same settings."))
    head = (_("Setting"), *(titles.get(run.name, run.name) for run in runs))
    return _template("differences", table=table(head, rows, caption=_("Differences between these runs")))


def differing(settings: Sequence[TrainingSettings]) -> list[str]:
    """The names of the settings that are not the same in all, in the form's order."""
    first = settings[0]
    return [
        name
        for name in FIELDS
        if name not in NOT_COMPARED and any(getattr(one, name) != getattr(first, name) for one in settings)
    ]


def _setting_words(settings: TrainingSettings, name: str) -> str:
    """A setting's value; a choice as the form's list calls it."""
    value = getattr(settings, name)
    return _(value) if get_origin(FIELDS[name].annotation) is Literal else value_words(value)


def value_words(value: object) -> str:
    """A setting's value as a person would say it."""
    if value is None or value == "" or value == ():
        return "–"
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, int):
        return number(value)
    if isinstance(value, float):
        return number(value, ",.6g")
    if isinstance(value, tuple):
        return " | ".join(map(str, value))
    return str(value)


LOG_LINES = 30
NEARLY_FULL, FULL = 0.75, 0.9
Unit = Literal["step", "image"]
"""What a job does one after another."""
NOTHING_YET = N_(
    "Drop images on the left, or choose the demo shoes, and press “Start”: with the built-in model, a LoRA in a few "
    "minutes, on this machine."
)
FIRST_STEPS = (
    N_("“Simple” chooses the settings for you. “All settings” has each of them, and measures time and memory first."),
    N_(
        "While it runs, this side shows loss, memory and, at regular steps, images of the "
        "same prompts beside the base’s, with scores."
    ),
    N_(
        "You can pause, stop and resume it. It goes on when this page is closed, and nothing "
        "is lost when the machine is switched off."
    ),
    N_("At the end it says which step is worth keeping and why, and one button takes that to Inference."),
)
STATE_WORDS: Mapping[RunState, tuple[str, str]] = {
    "new": ("○", N_("Not started.")),
    "waiting": ("◔", N_("Waiting.")),
    "preparing": ("◔", N_("Preparing.")),
    "running": ("●", N_("Running.")),
    "sampling": ("●", N_("Making images.")),
    "paused": ("❚❚", N_("Paused.")),
    "stopped": ("■", N_("Stopped.")),
    "finished": ("✓", N_("Finished.")),
    "failed": ("✗", N_("Failed.")),
}
ASKED_WORDS: Mapping[RunRequest, str] = {
    "save": N_("saving"),
    "sample": N_("making images"),
    "pause": N_("pausing"),
    "stop": N_("stopping"),
}
AFTER_WORDS: Mapping[Unit, str] = {
    "step": N_("{doing} after this step."),
    "image": N_("{doing} after this image."),
}
GROUP_WORDS = (
    N_("self-attention"),
    N_("cross-attention"),
    N_("feed-forward"),
    N_("convolutions"),
    N_("text encoder"),
    N_("down"),
    N_("middle"),
    N_("up"),
    N_("ends"),
)
"""What names of groups of layers are made of, as `cross-attention, up`."""
STATE_KINDS: Mapping[RunState, str] = {"finished": "pass", "failed": "fail"}


def state_html(view: TrainingView, now: datetime | None = None) -> Markup:
    """The head of a run: its name, its state in a word, step, speed, time left, when it is ready, memory; what it says.

    Args:
        now: for tests, the moment from which the time left counts.
    """
    if view.problem:
        return problem(view.problem)
    if view.run is None or view.status is None:
        return nothing_yet(_("No runs yet."), _(NOTHING_YET), [_(step) for step in FIRST_STEPS])
    status = view.status
    sign, word = STATE_WORDS[status.state][0], _(STATE_WORDS[status.state][1])
    place = _place_in_line(view)
    if place:
        sign, word = STATE_WORDS["waiting"][0], _("In the queue, position {place:,}.", place=place)
    elif view.asked:
        sign, word = STATE_WORDS["waiting"][0], asked_words(view.asked, "step")
    share = 100 * status.step / status.num_steps if status.num_steps else 0
    bar = run_bar(_("Steps"), status.step, status.num_steps, [("", f"{share:.1f}")])
    working = status.state in BUSY_STATES
    kind, message = STATE_KINDS.get(status.state, ""), status.message
    comparison = view.history.comparison if status.state == "finished" and view.history is not None else None
    if comparison is not None and comparison.worse:  # green says that nothing got worse
        kind = ""
    head = _template(
        "run_head",
        kind=kind,
        sign=sign,
        word=word,
        facts=_facts(status, now or datetime.now()) if working else _facts(status, None),
        memory=memory_html(view.history) if working else "",
        said=message if status.state == "finished" else "",
        message="" if status.state == "finished" else message,
        bar=bar,
    )
    return label_html(view.run.label) + head


def asked_words(asked: Collection[RunRequest], unit: Unit) -> str:
    """What a job will do as soon as the step or the image in hand is done."""
    words = [_(words) for request, words in ASKED_WORDS.items() if request in asked]
    doing = reduce(lambda first, second: _("{first} and {second}", first=first, second=second), words)
    return _(AFTER_WORDS[unit], doing=capitalized(doing))


def nothing_yet(bold: str, text: str, first_steps: Sequence[str] = ()) -> Markup:
    """What stands where no run is, with what to do first."""
    return _template("nothing_yet", bold=bold, text=text, first_steps=first_steps)


def state_box(kind: str, sign: str, word: str, steps: str, message: str, bar: Markup) -> Markup:
    """A state, how far it is, what is said of it, and a bar below."""
    return _template("state", kind=kind, sign=sign, word=word, steps=steps, message=message, bar=bar)


def run_bar(label: str, value: int, maximum: int, parts: Sequence[tuple[str, str]]) -> Markup:
    """How far a run is; its parts by their class, with their widths in percent."""
    return _template("run_bar", label=label, value=value, maximum=maximum, parts=parts)


def _place_in_line(view: TrainingView) -> int:
    """Of the run that is looked at; 0 where it does not wait in the queue."""
    return next((line.job.position for line in view.jobs if line.job.run == view.run and line.job.state == "queued"), 0)


def _facts(status: RunStatus, now: datetime | None) -> list[str]:
    """How far it is; while it works (`now` is known) its speed, the time left, and when it is ready."""
    facts = (
        [_("step {step:,} of {num_steps:,}", step=status.step, num_steps=status.num_steps)] if status.num_steps else []
    )
    if now is not None and status.seconds_per_step:
        facts.append(speed_text(status.seconds_per_step))
    if now is not None and status.remaining_seconds is not None:
        facts += [_("{time} left", time=duration(status.remaining_seconds)), ready_text(now, status.remaining_seconds)]
    return facts


def speed_text(seconds_per_step: float) -> str:
    """`3.2 steps/s`; of slow ones `7.9 s/step`."""
    return (
        _("{steps:.1f} steps/s", steps=1 / seconds_per_step)
        if seconds_per_step < 1
        else _("{seconds:.1f} s/step", seconds=seconds_per_step)
    )


def ready_text(now: datetime, remaining_seconds: float) -> str:
    """`ready at 19:12`; on another day `ready Sunday 07:30`."""
    ready = now + timedelta(seconds=remaining_seconds)
    if ready.date() == now.date():
        return _("ready at {time}", time=ready.strftime("%H:%M"))
    return _("ready {weekday_and_time}", weekday_and_time=weekday_and_time(ready))


def memory_html(history: JobHistory | None, *, working: bool = True) -> Markup:
    """The gauge: what is in use of what there is, in words and colour, and a line of how it was; empty until known.

    Args:
        working: False for a run that does nothing now: its last reading is of then.
    """
    if history is None or not history.memory:
        return Markup()
    last = history.memory[-1]
    used, limit, peak, is_gpu = _memory_in_use(last)
    share = used / limit
    kind, word = (
        ("full", _("nearly full")) if share > FULL else ("high", _("high")) if share > NEARLY_FULL else ("", _("fine"))
    )
    now, before = (_("GPU memory"), _("Last GPU memory")) if is_gpu else (_("Memory"), _("Last memory"))
    return _template(
        "memory",
        what=now if working else before,
        kind=kind,
        word=word,
        used=used,
        limit=limit,
        process=last.process_bytes,
        peak=peak,
        points=_memory_points(history.memory, limit),
    )


def _memory_in_use(event: MemoryEvent) -> tuple[int, int, int, bool]:
    """(in use, limit, peak, whether it is a GPU's): the accelerator's where there is one, else the system's."""
    if event.accelerator_bytes is not None and event.accelerator_limit_bytes:
        peak = event.peak_accelerator_bytes or event.accelerator_bytes
        return event.accelerator_bytes, event.accelerator_limit_bytes, peak, True
    used = event.system_total_bytes - event.system_available_bytes
    return used, event.system_total_bytes, event.peak_process_bytes, False


def _memory_points(memory: Sequence[MemoryEvent], limit: int) -> str:
    """A small line of the last readings, as SVG's points."""
    shown = memory[:: max(1, len(memory) // 200)]
    shares = [min(1.0, _memory_in_use(event)[0] / limit) for event in shown]
    if len(shares) < 2:
        return ""
    return " ".join(f"{200 * i / (len(shares) - 1):.1f},{30 - 28 * share:.1f}" for i, share in enumerate(shares))


def proposal_html(history: RunHistory | None) -> Markup:
    """Which step is proposed, and why."""
    if history is None or history.proposal is None:
        return Markup()
    return _template("proposal", step=history.proposal.step, why=reasons(history.proposal))


def reasons(proposal: ProposalEvent) -> str:
    """Why a step is proposed, without its number, with which a sentence begins in whatever language it was told."""
    step, _colon, rest = proposal.sentence.partition(": ")
    names_it = "".join(filter(str.isdecimal, step)) == str(proposal.step)
    why = rest if names_it else proposal.sentence
    return why if proposal.sure else " ".join((why, _("The evidence is thin so far.")))


def files_html(run: RunFolder | None, history: RunHistory | None) -> Markup:
    """Where everything of a run lies, and under which name the library has its LoRA."""
    if run is None:
        return Markup()
    name = history.finished.library_name if history is not None and history.finished is not None else ""
    return _template("files", folder=run.root, library_name=name)


def effect_html(history: RunHistory | None) -> Markup:
    """How much each group of layers changes."""
    if history is None or not history.effects:
        return paragraph("quiet", _("The effect on each group of layers appears here every 50 steps."))
    last = history.effects[-1]
    groups = [
        (", ".join(_(word) for word in name.split(", ")), value)
        for name, value in sorted(last.groups.items(), key=lambda item: -item[1])
    ]
    return _template("effect", step=last.step, groups=groups, most=max(last.groups.values()) or 1.0)


def notes_html(history: JobHistory | None) -> Markup:
    """Problems first, then what was decided."""
    if history is None:
        return Markup()
    return _template("notes", problems=history.problems[-6:], notes=history.notes[-8:])


def log_html(log: Path | None) -> Markup:
    """The end of a job's log."""
    if log is None or not log.is_file():
        return paragraph("quiet", _("No log yet."))
    return _template("log", text=end_of_log(log, num_lines=LOG_LINES))
