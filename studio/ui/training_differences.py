"""Runs side by side: the settings in which those that are laid over each other differ."""

from collections.abc import Sequence

from studio.core.text import escape
from studio.errors import RunError, SettingsError
from studio.runs.folder import RunFolder
from studio.runs.run_settings import read_run_settings
from studio.training_settings import TrainingSettings
from studio.ui.html import table

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
