"""What presets took on this machine is measured, remembered, and never made up."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from studio.core.paths import UserData
from studio.jobs.folder import RunStatus
from studio.training.events import AnyEvent, FinishedEvent
from studio.training.folder import Preflight
from studio.training.presets import PRESETS
from studio.training.session import RunHistory, TrainingView
from studio.training.settings import TrainingSettings
from studio.ui.shell.commands import PreflightState
from studio.ui.training.form import preset_values
from studio.ui.training.presets import preset_choices, preset_of, read_measured, remember
from tests.training.told_runs import GIB, at, make_run, memory_event, step_event

QUICK_TRY = TrainingSettings.model_validate({"dataset": "mine", "seed": 7, **PRESETS["quick-try"].changes})


@pytest.fixture
def user_data(tmp_path: Path) -> UserData:
    return UserData(tmp_path)


def view_of(user_data: UserData, *, settings: TrainingSettings = QUICK_TRY, idle_seconds: float = 0) -> TrainingView:
    """A run of 30 steps of 8 s."""
    ended = 240 + idle_seconds
    events: list[AnyEvent] = [memory_event(0, 1 * GIB), memory_event(ended, 2 * GIB)]
    events += [step_event(step) for step in range(1, 31)]
    events.append(FinishedEvent(at=at(ended), files=(), library_name=""))
    history = RunHistory()
    for event in events:
        history.apply_event(event)
    run = make_run(user_data.runs / "a", [], settings=settings)
    return TrainingView(run=run, status=RunStatus(state="finished"), history=history)


def preflight(seconds: float) -> Preflight:
    values = dict.fromkeys(("step_seconds", "encoding_seconds", "pictures_seconds", "held_out_seconds", "epochs"), 1.0)
    numbers = dict.fromkeys(("num_steps", "batches_per_step", "num_pictures", "disk_bytes", "free_disk_bytes"), 1)
    return Preflight.model_validate(
        {**values, **numbers, "gradient_checkpointing": False, "reason": "", "total_seconds": seconds}
        | {"peak_bytes": 9 * GIB, "limit_bytes": 32 * GIB, "offers": (), "warnings": ()}
    )


def taken(user_data: UserData) -> dict[str, str]:
    return {key: words.split("\n")[1] for words, key in preset_choices(read_measured(user_data))}


def test_settings_are_a_presets_whatever_their_dataset_name_and_seed() -> None:
    assert preset_of(QUICK_TRY) == "quick-try"
    assert preset_of(TrainingSettings(dataset="d")) == "seed"
    assert preset_of(QUICK_TRY.model_copy(update={"train_batch_size": 8})) is None


def test_before_anything_was_measured_no_number_is_shown(user_data: UserData) -> None:
    assert set(taken(user_data).values()) == {"not measured here yet"}


def test_a_run_that_went_through_is_remembered_after_it_is_gone(user_data: UserData) -> None:
    remember(user_data, view_of(user_data), PreflightState(), None)
    remember(user_data, TrainingView(), PreflightState(), None)
    assert taken(user_data)["quick-try"] == "4 min 00 s, 2.2 GB with shoes-demo"
    assert taken(user_data)["style"] == "not measured here yet"


@pytest.mark.parametrize(
    ("changes", "idle_seconds"), [({}, 3600), ({"rank": 64}, 0)], ids=["it was paused", "other settings"]
)
def test_what_was_no_clean_measurement_is_not_remembered(
    user_data: UserData, changes: dict[str, object], idle_seconds: float
) -> None:
    view = view_of(user_data, settings=QUICK_TRY.model_copy(update=changes), idle_seconds=idle_seconds)
    remember(user_data, view, PreflightState(), None)
    assert set(taken(user_data).values()) == {"not measured here yet"}


def test_a_preflight_is_remembered_as_an_estimate_until_a_run_tells(user_data: UserData) -> None:
    form = {"dataset": "d", "name": "lora", "model": "shoes-demo", **preset_values("quick-try")}
    state = PreflightState(form=form, number=1)
    remember(user_data, TrainingView(), state, preflight(600))
    assert taken(user_data)["quick-try"] == "≈ 10 min 00 s, 9.0 GB with shoes-demo"
    first = read_measured(user_data)
    remember(user_data, TrainingView(), state, preflight(600))
    assert read_measured(user_data) == first, "nothing is written where nothing changed"
    remember(user_data, view_of(user_data), state, preflight(600))
    assert taken(user_data)["quick-try"] == "4 min 00 s, 2.2 GB with shoes-demo"
    assert first.preflights["quick-try"].at > datetime.now(UTC) - timedelta(minutes=5)


def test_a_run_whose_settings_are_damaged_is_no_measurement(user_data: UserData) -> None:
    view = view_of(user_data)
    assert view.run is not None
    view.run.settings.write_text("{", encoding="utf-8")
    remember(user_data, view, PreflightState(), None)
    assert set(taken(user_data).values()) == {"not measured here yet"}


def test_a_damaged_file_is_nothing_remembered(user_data: UserData) -> None:
    user_data.cache.mkdir(parents=True, exist_ok=True)
    (user_data.cache / "measured-presets.json").write_text("{", encoding="utf-8")
    assert set(taken(user_data).values()) == {"not measured here yet"}
