"""The queue in the line at the top: which job has its turn, how far it is, and how many wait behind it."""

from collections.abc import Mapping, Sequence

from studio.core.text import counted, duration, escape
from studio.jobs.command import JobLine

KIND_WORDS: Mapping[str, str] = {"train": "training"}  # a kind that is not here is called by its own name
KIND_UNITS: Mapping[str, str] = {"batch": "picture"}
KIND_TABS: Mapping[str, str] = {"train": "Training", "batch": "Batch"}


def jobs_words(jobs: Sequence[JobLine]) -> str:
    """`● training shoes-white 312/3,000 · 1 h 12 min left + 2 waiting`, a link to its tab; empty without work."""
    running = next((line for line in jobs if line.job.state == "running"), None)
    waiting = [line for line in jobs if line.job.state == "queued"]
    if running is None and not waiting:
        return ""
    words = "" if running is None else f"{job_name(running)} {_progress(running)}"
    behind = f" + {len(waiting)} waiting" if waiting else ""
    first = running or waiting[0]
    tab = job_tab(first)
    return (
        f'<a class="item activity busy" href="#{tab.lower()}" data-tab="{tab}" title="{escape(first.message)}">'
        f'<span class="dot" aria-hidden="true"></span>'
        f"{escape(words + behind if words else counted(len(waiting), 'job') + ' waiting')}</a>"
    )


def job_name(line: JobLine) -> str:
    """`training shoes-white`."""
    return f"{KIND_WORDS.get(line.job.kind, line.job.kind)} {line.job.short_title}"


def job_tab(line: JobLine) -> str:
    """The tab that tells more of it."""
    return KIND_TABS.get(line.job.kind, "Training")


def job_unit(line: JobLine) -> str:
    """What it counts: `step`, `picture`."""
    return KIND_UNITS.get(line.job.kind, "step")


def _progress(line: JobLine) -> str:
    if line.job.asked:
        return f"is asked to {line.job.asked}"
    if line.run_state in ("new", "waiting"):
        return "waits for its turn"
    if line.run_state == "preparing":
        return "is being prepared"
    left = f" · {duration(line.remaining_seconds)} left" if line.remaining_seconds is not None else ""
    return f"{line.step:,}/{line.num_steps:,}{left}"
