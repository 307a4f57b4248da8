"""Runs side by side: the settings in which those that are laid over each other differ.

What the Training tab shows of a run: state, memory, proposal, effect, notes, log. From facts to HTML, no gradio.
"""

from collections.abc import Mapping, Sequence

from studio.core.errors import RunError, SettingsError
from studio.core.text import duration, escape, gigabytes
from studio.jobs.events import JobHistory, MemoryEvent
from studio.jobs.folder import BUSY_STATES, RunState, RunStatus
from studio.jobs.launcher import end_of_log
from studio.training.begin import read_run_settings
from studio.training.folder import RunFolder
from studio.training.follower import RunHistory
from studio.training.session import TrainingView
from studio.training.settings import TrainingSettings
from studio.ui.shell.parts import table

FIELDS = TrainingSettings.model_fields
NOT_COMPARED = frozenset(("name",))  # it is the end of the run's own name


def differences_html(runs: Sequence[RunFolder]) -> str:
    """A table of what differs, a column a run, the one that is looked at first; empty where none is laid over."""
    if len(runs) < 2:
        return ""
    try:
        settings = [read_run_settings(run) for run in runs]
    except (RunError, SettingsError) as error:
        return f'<p class="note bad">The settings cannot be compared: {escape(error)}</p>'
    rows = [
        (FIELDS[name].title or name, *(value_words(getattr(one, name)) for one in settings))
        for name in differing(settings)
    ]
    if not rows:
        return '<p class="quiet">These runs have the same settings.</p>'
    head = ("Setting", *(run.name for run in runs))
    return f'<div class="differences">{table(head, rows, caption="What differs between these runs")}</div>'


def differing(settings: Sequence[TrainingSettings]) -> list[str]:
    """The names of the settings that are not the same in all, in the form's order."""
    first = settings[0]
    return [
        name
        for name in FIELDS
        if name not in NOT_COMPARED and any(getattr(one, name) != getattr(first, name) for one in settings)
    ]


def value_words(value: object) -> str:
    """A setting's value as a person would say it."""
    if value is None or value == "" or value == ():
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, tuple):
        return " | ".join(map(str, value))
    return str(value)


LOG_LINES = 30
NEARLY_FULL, FULL = 0.75, 0.9
FIRST_STEPS = (
    '<ul class="first-steps"><li>“Preflight” measures a few real steps first: how long it would take, and how much '
    "memory and disk.</li><li>While it runs, this side shows the loss, memory, and every so many steps images of the "
    "same prompts beside the base’s, with scores.</li><li>You can pause, stop and resume it. It goes on when this page "
    "is closed, and nothing is lost when the machine is switched off.</li><li>At the end it says which step is worth "
    "keeping and why, and one button takes that to Inference.</li></ul>"
)
STATE_WORDS: Mapping[RunState, tuple[str, str]] = {
    "new": ("○", "Not started."),
    "waiting": ("◔", "Waiting."),
    "preparing": ("◔", "Preparing."),
    "running": ("●", "Running."),
    "sampling": ("●", "Making images."),
    "paused": ("❚❚", "Paused."),
    "stopped": ("■", "Stopped."),
    "finished": ("✓", "Finished."),
    "failed": ("✗", "Failed."),
}


def state_html(view: TrainingView) -> str:
    """The head of a run: its state in a word, step, speed, time left, and what it says."""
    if view.problem:
        return f'<p class="problem" role="alert">{escape(view.problem)}</p>'
    if view.run is None or view.status is None:
        return (
            '<div class="verdict" role="status"><b>Nothing was trained yet.</b> <span>Choose a dataset on the left '
            "(the demo shoes are there), “Quick try”, and press “Start”: a LoRA in a few minutes, on this "
            f"machine.</span></div>{FIRST_STEPS}"
        )
    status = view.status
    sign, word = STATE_WORDS[status.state]
    place = _place_in_line(view)
    if place:
        sign, word = STATE_WORDS["waiting"][0], f"In the queue, place {place:,}."
    kind = {"finished": "pass", "failed": "fail"}.get(status.state, "")
    return (
        f'<div class="verdict run-state {kind}" role="status"><span aria-hidden="true">{sign}</span> <b>{word}</b> '
        f"<span>{escape(_step_words(status))}</span><br><span>{escape(status.message or view.run.name)}</span></div>"
        + _bar(status)
    )


def _place_in_line(view: TrainingView) -> int:
    """Of the run that is looked at; 0 where it does not wait in the queue."""
    return next((line.job.position for line in view.jobs if line.job.run == view.run and line.job.state == "queued"), 0)


def _step_words(status: RunStatus) -> str:
    words = [f"step {status.step:,} of {status.num_steps:,}"] if status.num_steps else []
    if status.state in BUSY_STATES and status.seconds_per_step is not None:
        words.append(f"{status.seconds_per_step:.2f} s a step")
    if status.state in BUSY_STATES and status.remaining_seconds is not None:
        words.append(f"{duration(status.remaining_seconds)} left")
    return " · ".join(words)


def _bar(status: RunStatus) -> str:
    share = 100 * status.step / status.num_steps if status.num_steps else 0
    return (
        '<div class="run-bar" role="progressbar" aria-label="Steps" aria-valuemin="0" '
        f'aria-valuemax="{status.num_steps}" aria-valuenow="{status.step}">'
        f'<span style="width:{share:.1f}%"></span></div>'
    )


def memory_html(history: JobHistory | None, *, working: bool = True) -> str:
    """The gauge: what is in use of what there is, in words and colour, and a line of how it was.

    Args:
        working: False for a run that does nothing now: its last reading is of then.
    """
    if history is None or not history.memory:
        return '<p class="quiet">Memory is shown here while a training runs.</p>'
    last = history.memory[-1]
    used, limit, peak, what = _memory_in_use(last)
    share = used / limit
    when = "Memory" if working else "Last memory"
    kind, word = ("full", "nearly full") if share > FULL else ("high", "high") if share > NEARLY_FULL else ("", "fine")
    return (
        f'<div class="gauge {kind}"><div class="gauge-words"><b>{when}</b> {escape(gigabytes(used))} of '
        f"{escape(gigabytes(limit))} {what}, {word} · process {escape(gigabytes(last.process_bytes))}, peak "
        f'{escape(gigabytes(peak))}</div><div class="meter" role="meter" aria-label="Memory in use" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{100 * share:.0f}"><span style="width:{100 * share:.1f}%"></span></div>'
        f"{_memory_line(history.memory, limit)}</div>"
    )


def _memory_in_use(event: MemoryEvent) -> tuple[int, int, int, str]:
    """(in use, limit, peak, of what): the accelerator's where there is one, else the system's."""
    if event.accelerator_bytes is not None and event.accelerator_limit_bytes:
        peak = event.peak_accelerator_bytes or event.accelerator_bytes
        return event.accelerator_bytes, event.accelerator_limit_bytes, peak, "of the GPU"
    used = event.system_total_bytes - event.system_available_bytes
    return used, event.system_total_bytes, event.peak_process_bytes, "of this machine"


def _memory_line(memory: Sequence[MemoryEvent], limit: int) -> str:
    """A small line of the last readings."""
    shown = memory[:: max(1, len(memory) // 200)]
    shares = [min(1.0, _memory_in_use(event)[0] / limit) for event in shown]
    if len(shares) < 2:
        return ""
    points = " ".join(f"{200 * i / (len(shares) - 1):.1f},{30 - 28 * share:.1f}" for i, share in enumerate(shares))
    return (
        '<svg class="memory-line" viewBox="0 0 200 32" preserveAspectRatio="none" aria-hidden="true">'
        f'<polyline points="{points}"/></svg>'
    )


def proposal_html(history: RunHistory | None) -> str:
    """Which step is proposed, and why."""
    if history is None or history.proposal is None:
        return ""
    reported = history.proposal
    sure = "" if reported.sure else " Little speaks for it yet."
    why = reported.sentence.removeprefix(f"Step {reported.step:,}: ")
    return (
        f'<div class="verdict proposal" role="status"><b>Step {reported.step:,} is proposed:</b> '
        f"<span>{escape(why + sure)}</span></div>"
    )


def files_html(run: RunFolder | None, history: RunHistory | None) -> str:
    """Where everything of a run lies, and under which name the library has its LoRA."""
    if run is None:
        return ""
    parts = [f'Folder: <code class="path">{escape(run.root)}</code>']
    if history is not None and history.finished is not None and history.finished.library_name:
        parts.append(f"In the library as <b>{escape(history.finished.library_name)}</b>")
    return f'<p class="quiet run-files">{" · ".join(parts)}</p>'


def effect_html(history: RunHistory | None) -> str:
    """How much each group of layers changes."""
    if history is None or not history.effects:
        return '<p class="quiet">How much each group of layers changes is shown every 50 steps.</p>'
    last = history.effects[-1]
    most = max(last.groups.values()) or 1.0
    rows = "".join(
        f'<tr><th scope="row">{escape(group)}</th><td>{100 * value:.3g} %</td><td class="effect-bar"><span '
        f'style="width:{100 * value / most:.0f}%"></span></td></tr>'
        for group, value in sorted(last.groups.items(), key=lambda item: -item[1])
    )
    return (
        '<div class="table-frame"><table><caption>Change of the weights, ‖ΔW‖ / ‖W‖, at step '
        f"{last.step:,}</caption><tbody>{rows}</tbody></table></div>"
    )


def notes_html(history: JobHistory | None) -> str:
    """Problems first, then what was decided."""
    if history is None:
        return ""
    problems = "".join(f'<p class="note bad">step {p.step:,}: {escape(p.message)}</p>' for p in history.problems[-6:])
    notes = "".join(f'<p class="note">{escape(note.message)}</p>' for note in history.notes[-8:])
    return problems + notes


def log_html(run: RunFolder | None) -> str:
    """The end of the run's log."""
    if run is None or not run.log.is_file():
        return '<p class="quiet">There is no log yet.</p>'
    return f'<pre class="log" tabindex="0">{escape(end_of_log(run.log, num_lines=LOG_LINES))}</pre>'
