"""What each preset took on this machine: measured by a run that went through, or by a preflight, and remembered."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from studio.core.errors import RunError, SettingsError
from studio.core.files import read_file, write_atomically
from studio.core.language import _
from studio.core.paths import UserData
from studio.core.records import Record
from studio.core.settings import parse_settings
from studio.core.text import duration, gigabytes
from studio.training.begin import read_run_settings
from studio.training.folder import Preflight, RunFolder
from studio.training.presets import PRESETS
from studio.training.session import RunHistory, TrainingView
from studio.training.settings import TrainingSettings
from studio.ui.forms import read_settings
from studio.ui.shell.commands import PreflightState

FREE = frozenset(
    ("dataset", "name", "model", "cpu", "trigger_word", "seed", "validation_prompts", "validation_seed", "save_dtype")
)
"""Settings that may differ from the preset's: they are not a preset's, or change neither time nor memory."""
MAX_IDLE = 1.5
"""Of the time that its steps and images took: a run that took longer was paused, or waited for something."""


class Measured(Record):
    """What a training with a preset's settings took.

    Attributes:
        seconds: all of it; of a preflight what it would be.
        peak_bytes: the most memory in use.
        at: when a run ended, or a preflight was first read.
    """

    seconds: float
    peak_bytes: int
    model: str
    at: datetime


class MeasuredPresets(Record):
    """By the names of presets.

    Attributes:
        image_seconds: by the names of models, what an image took in training last: its share of a step.
    """

    runs: Mapping[str, Measured] = {}
    preflights: Mapping[str, Measured] = {}
    image_seconds: Mapping[str, float] = {}


def image_seconds(measured: MeasuredPresets, model: str) -> float | None:
    """What an image takes in training here with a model; None where that is not known."""
    return measured.image_seconds.get(Path(model).name)


def preset_of(settings: TrainingSettings) -> str | None:
    """The preset that these settings are, but for what is free; None where they are none."""
    values = {name: value for name, value in settings if name not in FREE}
    for key, preset in PRESETS.items():
        own = dict(TrainingSettings.model_validate({"dataset": "d", **preset.changes}))
        if all(own[name] == value for name, value in values.items()):
            return key
    return None


def measured_file(user_data: UserData) -> Path:
    """Where it is remembered."""
    return user_data.cache / "measured-presets.json"


def read_measured(user_data: UserData) -> MeasuredPresets:
    """What is remembered; nothing where the file is gone or damaged."""
    try:
        return MeasuredPresets.model_validate_json(read_file(measured_file(user_data)))
    except (OSError, ValidationError):
        return MeasuredPresets()


def remember(user_data: UserData, view: TrainingView, preflight: PreflightState, found: Preflight | None) -> None:
    """Add what the shown run took, and what the last preflight found, where they are of a preset.

    Raises:
        OSError: where it cannot be written.
    """
    known = read_measured(user_data)
    runs, preflights = dict(known.runs), dict(known.preflights)
    for key, measured in _of_run(view).items():
        if key not in runs or runs[key].at < measured.at:
            runs[key] = measured
    for key, measured in _of_preflight(preflight, found).items():
        if key not in preflights or preflights[key] != measured.model_copy(update={"at": preflights[key].at}):
            preflights[key] = measured
    paces = {**known.image_seconds, **_pace_of_run(view), **_pace_of_preflight(preflight, found)}
    now = MeasuredPresets(runs=runs, preflights=preflights, image_seconds=paces)
    if now != known:
        user_data.cache.mkdir(parents=True, exist_ok=True)
        write_atomically(measured_file(user_data), now.model_dump_json(indent=1).encode())


def _pace_of_run(view: TrainingView) -> dict[str, float]:
    """Of a finished run of any preset."""
    if view.run is None or view.history is None or view.history.finished is None or not view.history.steps.seconds:
        return {}
    settings = _settings_of(view.run)
    if settings is None or settings.makes_speed_lora:  # whose steps are others
        return {}
    images = settings.train_batch_size * settings.gradient_accumulation_steps
    return {Path(settings.model).name: median(view.history.steps.seconds) / images}


def _pace_of_preflight(state: PreflightState, found: Preflight | None) -> dict[str, float]:
    settings = _settings_in(state)
    if found is None or settings is None or settings.makes_speed_lora:
        return {}
    images = settings.train_batch_size * found.batches_per_step
    return {Path(settings.model).name: found.step_seconds / images}


def _of_run(view: TrainingView) -> dict[str, Measured]:
    """Of a run that is finished, was not interrupted, and had a preset's settings."""
    history = view.history
    if view.run is None or history is None or history.finished is None or len(history.memory) < 2:
        return {}
    seconds = (history.memory[-1].at - history.memory[0].at).total_seconds()
    worked = sum(history.steps.seconds) + sum(event.seconds for event in history.samples)
    if not 0 < seconds <= MAX_IDLE * worked:
        return {}
    settings = _settings_of(view.run)
    key = preset_of(settings) if settings is not None else None
    return {key: _measured(history, seconds, settings.model)} if settings is not None and key is not None else {}


def _settings_of(run: RunFolder) -> TrainingSettings | None:
    try:
        return read_run_settings(run)
    except (RunError, SettingsError):  # damaged, or of another version
        return None


def _settings_in(state: PreflightState) -> TrainingSettings | None:
    try:
        return parse_settings(TrainingSettings, read_settings(TrainingSettings, state.form))
    except SettingsError:  # of a form of before this version
        return None


def _measured(history: RunHistory, seconds: float, model: str) -> Measured:
    peaks = [event.peak_accelerator_bytes or event.peak_process_bytes for event in history.memory]
    assert history.finished is not None
    return Measured(seconds=seconds, peak_bytes=max(peaks), model=Path(model).name, at=history.finished.at)


def _of_preflight(state: PreflightState, found: Preflight | None) -> dict[str, Measured]:
    settings = _settings_in(state)
    if found is None or settings is None:
        return {}
    key = preset_of(settings)
    measured = Measured(
        seconds=found.total_seconds, peak_bytes=found.peak_bytes, model=Path(settings.model).name, at=datetime.now(UTC)
    )
    return {key: measured} if key is not None else {}


def preset_choices(measured: MeasuredPresets) -> list[tuple[str, str]]:
    """(title and what it took here, name) of each preset: what a run took goes before what a preflight found."""
    return [(f"{_(preset.title)}\n{_taken(measured, key)}", key) for key, preset in PRESETS.items()]


def _taken(measured: MeasuredPresets, key: str) -> str:
    run, preflight = measured.runs.get(key), measured.preflights.get(key)
    if run is not None and (preflight is None or preflight.at <= run.at or preflight.model == run.model):
        return _(
            "{time}, {size} with {model}", time=duration(run.seconds), size=gigabytes(run.peak_bytes), model=run.model
        )
    if preflight is not None:
        return _(
            "≈ {time}, {size} with {model}",
            time=duration(preflight.seconds),
            size=gigabytes(preflight.peak_bytes),
            model=preflight.model,
        )
    return _("not measured here yet")
