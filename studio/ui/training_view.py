"""What the Training tab shows of a run: state, memory, pictures by step, effect, notes, log, queue. Facts to HTML."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image

from studio.jobs.command import JobLine
from studio.jobs.process import end_of_log
from studio.jobs.training_desk import TrainingView
from studio.reports import gigabytes
from studio.runs.events import MemoryEvent, SampleEvent
from studio.runs.folder import BUSY_STATES, RunFolder, RunState, RunStatus
from studio.runs.follower import RunHistory
from studio.scoring.summary import ScoreSummary, Spread
from studio.ui.html import table, text
from studio.words import counted, duration

MOST_COLUMNS = 6
THUMBNAIL_PIXELS = 192
LOG_LINES = 30
NEARLY_FULL, FULL = 0.75, 0.9
STATE_WORDS: Mapping[RunState, tuple[str, str]] = {
    "new": ("○", "Not started."),
    "waiting": ("◔", "Waiting."),
    "preparing": ("◔", "Preparing."),
    "running": ("●", "Running."),
    "sampling": ("●", "Making pictures."),
    "paused": ("❚❚", "Paused."),
    "stopped": ("■", "Stopped."),
    "finished": ("✓", "Finished."),
    "failed": ("✗", "Failed."),
}


def state_html(view: TrainingView) -> str:
    """The head of a run: its state in a word, step, speed, time left, and what it says."""
    if view.problem:
        return f'<p class="problem" role="alert">{text(view.problem)}</p>'
    if view.run is None or view.status is None:
        return (
            '<div class="verdict" role="status"><b>Nothing was trained yet.</b> <span>Choose a dataset on the left '
            "(the demo shoes are there), “Quick try”, and press “Start”: a LoRA in a few minutes, on this "
            "machine.</span></div>"
        )
    status = view.status
    sign, word = STATE_WORDS[status.state]
    kind = {"finished": "pass", "failed": "fail"}.get(status.state, "")
    return (
        f'<div class="verdict run-state {kind}" role="status"><span aria-hidden="true">{sign}</span> <b>{word}</b> '
        f"<span>{text(_step_words(status))}</span><br><span>{text(status.message or view.run.name)}</span></div>"
        + _bar(status)
    )


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


def memory_html(history: RunHistory | None) -> str:
    """The gauge: what is in use of what there is, in words and colour, and a line of how it was."""
    if history is None or not history.memory:
        return '<p class="quiet">Memory is shown here while a training runs.</p>'
    last = history.memory[-1]
    used, limit, peak, what = _memory_in_use(last)
    share = used / limit
    kind, word = ("full", "nearly full") if share > FULL else ("high", "high") if share > NEARLY_FULL else ("", "fine")
    return (
        f'<div class="gauge {kind}"><div class="gauge-words"><b>Memory</b> {text(gigabytes(used))} of '
        f"{text(gigabytes(limit))} {what}, {word} · process {text(gigabytes(last.process_bytes))}, peak "
        f'{text(gigabytes(peak))}</div><div class="meter" role="meter" aria-label="Memory in use" aria-valuemin="0" '
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
    told = history.proposal
    sure = "" if told.sure else " Little speaks for it yet."
    return (
        f'<div class="verdict proposal" role="status"><b>Step {told.step:,} is proposed.</b> '
        f"<span>{text(told.sentence + sure)}</span></div>"
    )


def files_html(run: RunFolder | None, history: RunHistory | None) -> str:
    """Where everything of a run lies, and what came out."""
    if run is None:
        return ""
    parts = [f"Folder: <code>{text(run.root)}</code>"]
    report = run.root / "report.html"
    if report.is_file():
        parts.append(f"Report: <code>{text(report)}</code>")
    if history is not None and history.finished is not None:
        parts.append(f"In the library as <b>{text(history.finished.library_name)}</b>: choose it under Inference")
    return f'<p class="quiet run-files">{" · ".join(parts)}</p>'


def samples_html(run: RunFolder | None, history: RunHistory | None) -> str:
    """Validation pictures: a row a prompt, the base's first, then a column a step; scores below."""
    if run is None or history is None or not history.samples:
        return '<p class="quiet">Pictures of the same prompts and seeds appear here step by step, beside the base.</p>'
    # At step 0 the LoRA is the base.
    trained = [event for event in history.samples if event.step > 0]
    shown = _spread(trained, MOST_COLUMNS)
    head = "".join(f'<th scope="col">step {event.step:,}</th>' for event in shown)
    last = history.samples[-1]
    rows = "".join(_prompt_row(run.root, last, shown, index) for index in range(len(last.base)))
    left_out = len(trained) - len(shown)
    note = f'<p class="quiet">{counted(left_out, "step")} in between not shown.</p>' if left_out else ""
    return (
        '<div class="table-frame samples-frame" tabindex="0" role="group" aria-label="Validation pictures"><table '
        f'class="samples"><caption>Pictures by step</caption><thead><tr><th scope="col">prompt</th>'
        f'<th scope="col">base</th>{head}</tr></thead>'
        f"<tbody>{rows}{_score_rows(shown, history)}</tbody></table></div>{note}"
    )


def _spread(samples: Sequence[SampleEvent], most: int) -> list[SampleEvent]:
    """The first, the last, and some evenly in between."""
    if len(samples) <= most:
        return list(samples)
    return [samples[round(i * (len(samples) - 1) / (most - 1))] for i in range(most)]


def _prompt_row(root: Path, last: SampleEvent, shown: Sequence[SampleEvent], index: int) -> str:
    prompt = last.prompts[index % len(last.prompts)]
    base = _picture(root, last.base[index], f"base: {prompt}")
    cells = "".join(f"<td>{_sample(root, event, index)}</td>" for event in shown)
    return f'<tr><th scope="row" class="prompt">{text(prompt)}</th><td>{base}</td>{cells}</tr>'


def _sample(root: Path, event: SampleEvent, index: int) -> str:
    """The LoRA's picture of a prompt at a step; a resumed run may have had fewer prompts then."""
    if index >= len(event.pictures):
        return ""
    return _picture(root, event.pictures[index], f"step {event.step}: {event.prompts[index]}")


def _picture(root: Path, file: str | None, alt: str) -> str:
    if file is None:
        return '<span class="bad">not valid</span>'
    path = root / file
    if not path.is_file():
        return '<span class="quiet">gone</span>'
    url = thumbnail_url(path, path.stat().st_mtime_ns)
    return (
        f'<button class="zoom sample" type="button" aria-label="Enlarge {text(alt)}">'
        f'<img src="{url}" alt="{text(alt)}" loading="lazy"></button>'
    )


@lru_cache(maxsize=512)
def thumbnail_url(path: Path, _modified_ns: int) -> str:
    """A picture that we made ourselves, small enough to be sent with the page."""
    with Image.open(path, formats=["PNG"]) as image:
        small = image.convert("RGB")
        small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _score_rows(shown: Sequence[SampleEvent], history: RunHistory) -> str:
    """One row a score; beside its name what the dataset's own pictures have, which is what there is to be reached."""
    if not history.scores:
        return ""
    base = next(iter(history.scores.values())).base
    rows = []
    for title, read in SCORE_READERS.items():
        cells = [read(history.scores[e.step].scores) if e.step in history.scores else "" for e in shown]
        reached = f" (dataset {read(history.reference.scores)})" if history.reference else ""
        cells_html = "".join(f"<td>{text(cell)}</td>" for cell in (read(base), *cells))
        rows.append(f'<tr class="score"><th scope="row">{text(title + reached)}</th>{cells_html}</tr>')
    return "".join(rows)


def _spread_words(spread: Spread | None, form: str = ".2f") -> str:
    return "–" if spread is None else f"{spread.mean:{form}}"


SCORE_READERS: Mapping[str, Callable[[ScoreSummary], str]] = {
    "white border": lambda s: _spread_words(s.whiteness),
    "off centre": lambda s: _spread_words(s.offset),
    "colour ΔE": lambda s: _spread_words(s.colour_difference, ".0f"),
    "sharpness": lambda s: _spread_words(s.sharpness),
    "nearest training picture": lambda s: _spread_words(s.nearest),
}


def effect_html(history: RunHistory | None) -> str:
    """How much each group of layers changes."""
    if history is None or not history.effects:
        return '<p class="quiet">How much each group of layers changes is shown every 50 steps.</p>'
    last = history.effects[-1]
    most = max(last.groups.values()) or 1.0
    rows = "".join(
        f'<tr><th scope="row">{text(group)}</th><td>{100 * value:.3g} %</td><td class="effect-bar"><span '
        f'style="width:{100 * value / most:.0f}%"></span></td></tr>'
        for group, value in sorted(last.groups.items(), key=lambda item: -item[1])
    )
    return (
        '<div class="table-frame"><table><caption>Change of the weights, ‖ΔW‖ / ‖W‖, at step '
        f"{last.step:,}</caption><tbody>{rows}</tbody></table></div>"
    )


def notes_html(history: RunHistory | None) -> str:
    """Problems first, then what was decided."""
    if history is None:
        return ""
    problems = "".join(f'<p class="note bad">step {p.step:,}: {text(p.message)}</p>' for p in history.problems[-6:])
    notes = "".join(f'<p class="note">{text(note.message)}</p>' for note in history.notes[-8:])
    return problems + notes


def log_html(run: RunFolder | None) -> str:
    """The end of the run's log."""
    if run is None or not run.log.is_file():
        return '<p class="quiet">There is no log yet.</p>'
    return f'<pre class="log" tabindex="0">{text(end_of_log(run.log, num_lines=LOG_LINES))}</pre>'


def queue_html(jobs: Sequence[JobLine]) -> str:
    """What waits and runs, in order."""
    waiting = [line for line in jobs if line.job.state in ("queued", "running", "paused")]
    if not waiting:
        return '<p class="quiet">The queue is empty.</p>'
    rows = [
        (
            str(line.job.position or "–"),
            line.job.title,
            line.job.state,
            f"{line.step:,} of {line.num_steps:,}" if line.num_steps else "",
            duration(line.remaining_seconds) if line.remaining_seconds is not None else "",
        )
        for line in waiting
    ]
    return table(("Place", "Run", "State", "Step", "Time left"), rows, caption="Queue")
