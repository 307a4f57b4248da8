"""The words in which people read of jobs: what one is called, its state, and why it is refused something.

States and requests are their own words: `_(job.state)` says one.
"""

import json
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from studio.core.errors import RunError
from studio.core.files import read_file
from studio.core.language import N_, _, moment
from studio.core.records import Label, label_or_none
from studio.core.text import when_text
from studio.jobs.folder import JobFolder

if TYPE_CHECKING:
    from studio.jobs.queue import Job

STATE_WORDS = (
    N_("new"),
    N_("queued"),
    N_("waiting"),
    N_("preparing"),
    N_("running"),
    N_("sampling"),
    N_("paused"),
    N_("stopped"),
    N_("finished"),
    N_("failed"),
)
_NAME = re.compile(r"(\d{8}-\d{6})-(.+)", re.DOTALL)
UNNAMED = ("lora", "batch")
"""The names that settings have where nobody gave one."""
_MAYBE_UNNAMED = re.compile(rf"(?:{'|'.join(UNNAMED)})(?:-\d+)?")
MAX_SUBJECT = 40  # characters of a prompt
MAX_SETTINGS_BYTES = 1_000_000  # a larger file has prompts that no title is made of
KEPT_SUBJECTS = 10_000
REQUEST_WORDS = (N_("pause"), N_("stop"), N_("save"), N_("sample"))


def begun_at(folder: JobFolder) -> datetime | None:
    """When it was begun, which is how the name of its folder begins; None where that has another name."""
    found = _NAME.fullmatch(folder.name)
    try:
        return datetime.strptime(found[1], "%Y%m%d-%H%M%S") if found else None
    except ValueError:
        return None


def short_title(folder: JobFolder, label: Label | None = None) -> str:
    """What people call it; where nobody gave it a name, what it is made of: `casual-shoes`, `red shoes on a…`.

    Args:
        label: of that folder; it is read where None.
    """
    known = label_or_none(folder.label) if label is None else label
    if known.name:
        return known.name
    found = _NAME.fullmatch(folder.name)
    name = found[2] if found else folder.name
    return (_subject(folder) if _MAYBE_UNNAMED.fullmatch(name) else "") or name


def titles(folders: Sequence[JobFolder], labels: Mapping[str, Label], now: datetime | None = None) -> dict[str, str]:
    """What a list calls each, by their folders' names: `casual-shoes · today 17:38`. No two are called the same.

    Args:
        labels: by the folders' names, of those that have one.
        now: for tests, the moment that times are told from.
    """
    told_at, none = now or datetime.now(), Label()
    begun = {folder.name: begun_at(folder) for folder in folders}
    short = {folder.name: short_title(folder, labels.get(folder.name, none)) for folder in folders}
    titled = {name: _over(short[name], when_text(when, told_at) if when else "") for name, when in begun.items()}
    for seconds in (False, True):
        for name in _called_alike(titled):
            if when := begun[name]:
                titled[name] = _over(short[name], moment(when, seconds=seconds))
    return titled | {name: _over(short[name], name) for name in _called_alike(titled)}


def title(folder: JobFolder) -> str:
    """What a sentence about one calls it: `casual-shoes · today 17:38`."""
    return titles([folder], {folder.name: label_or_none(folder.label)})[folder.name]


def _over(short: str, rest: str) -> str:
    return f"{short} · {rest}" if rest else short


def _called_alike(titled: Mapping[str, str]) -> list[str]:
    counts = Counter(titled.values())
    return [name for name, called in titled.items() if counts[called] > 1]


@lru_cache(maxsize=KEPT_SUBJECTS)
def _subject(folder: JobFolder) -> str:
    """Of one that nobody named: its dataset, its file of prompts or its first prompt; "" where that is not known."""
    try:
        settings = json.loads(read_file(folder.settings, max_bytes=MAX_SETTINGS_BYTES))
    except (OSError, ValueError):
        return ""  # whoever opens it says so
    if not isinstance(settings, dict) or settings.get("name") not in UNNAMED:
        return ""
    prompts = (line.strip() for line in str(settings.get("prompts") or "").splitlines())
    prompt = next((line for line in prompts if line and not line.startswith("#")), "")
    source = str(settings.get("dataset") or settings.get("prompt_file") or "")
    if prompt or not source:
        words = textwrap.shorten(prompt, MAX_SUBJECT, placeholder="…")
        return words if words != "…" else f"{prompt[: MAX_SUBJECT - 1]}…"
    return re.split(r"[/\\:]", source.rstrip("/\\"))[-1]


def refusal(message: str, job: "Job", **values: str) -> RunError:
    """Why something cannot be done with a job, and what can.

    Args:
        message: names `{job}`, `{state}` and `{advice}`, and what else is given.
    """
    return RunError(_(message, job=job, state=_(job.state), advice=advice(job), **values))


def advice(job: "Job") -> str:
    """What to do about a job that is in the way."""
    if job.state == "running":
        wait = _("Pause or stop it first, or wait.")
        if job.asked:
            wait = _("It was asked to {asked}: wait until it has.", asked=_(job.asked))
        return " ".join((wait, _("`python -m studio jobs` shows where it stands.")))
    if job.state == "queued":
        return _("`python -m studio jobs move {id} 1` makes it the next.", id=job.id)
    if job.state == "finished":
        return _("Its results are in its run's folder.")
    return _("`python -m studio jobs resume {id}` puts it back into the queue.", id=job.id)
