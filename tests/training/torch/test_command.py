"""`python -m studio train`: what it takes, what it refuses and with which sentence, and what it leaves."""

import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from studio.cli.app import app
from studio.core.errors import DatasetError, ModelError, RunError, SettingsError
from studio.jobs import worker
from studio.jobs.folder import read_status, write_status
from studio.jobs.queue import JobQueue
from studio.training.begin import begin_making_fast, duplicate_run, read_run_settings
from studio.training.folder import RunFolder
from studio.training.presets import PRESETS, parse_assignments, settings_from
from studio.training.settings import TrainingSettings
from tests.faults import conftest as faults
from tests.faults.conftest import Place

place = faults.place


def studio(*words: str) -> Result:
    """The whole command line, in this process."""
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


def train(place: Place, *words: str) -> Result:
    return studio("train", *words, "--user-data", str(place.user_data.root))


def begin(place: Place, *words: str) -> tuple[Result, RunFolder]:
    """A short training of the tiny model."""
    small = {**faults.SETTINGS, "max_train_steps": 2, "held_out_steps": 2}
    sets = [word for name, value in small.items() for word in ("--set", f"{name}={value}")]
    result = train(place, "--dataset", str(place.dataset), "--model", str(place.model), *sets, *words)
    return result, RunFolder.all_in(place.user_data.runs)[0]


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("rank=16", "rank", 16),
        (" rank = 16 ", "rank", 16),
        ("learning_rate=3e-4", "learning_rate", 3e-4),
        ("use_dora=true", "use_dora", True),
        ("use_buckets=no", "use_buckets", False),
        ("targets=attention + feed-forward", "targets", "attention + feed-forward"),
        ("snr_gamma=5", "snr_gamma", 5.0),
        ("snr_gamma=none", "snr_gamma", None),
        ("keep_every_steps=none", "keep_every_steps", None),
        ("trigger_word=a=b", "trigger_word", "a=b"),
        ("trigger_word=", "trigger_word", ""),
        ("name=weiße Schuhe (2)", "name", "weiße Schuhe (2)"),
        ("validation_prompts=a shoe, white", "validation_prompts", ("a shoe, white",)),
        ("validation_prompts=a shoe | ein Schuh 中文 | ", "validation_prompts", ("a shoe", "ein Schuh 中文")),
        ("validation_prompts=a|b", "validation_prompts", ("a|b",)),
        ("validation_prompts=", "validation_prompts", ()),
    ],
)
def test_set_gives_a_setting_its_value(assignment: str, name: str, value: object) -> None:
    settings = settings_from(None, {"dataset": "shoes"}, [assignment])
    assert getattr(settings, name) == value
    assert type(getattr(settings, name)) is type(value)


def test_of_two_values_the_later_counts_and_set_wins_over_preset_and_option() -> None:
    settings = settings_from("style", {"dataset": "shoes", "name": "a"}, ["rank=4", "rank=5", "name=b"])
    assert (settings.rank, settings.name, settings.targets) == (5, "b", "attention + feed-forward")


@pytest.mark.parametrize("assignment", ["rank", "=16", "rnk=16", "", "Rank=16", "--rank=16"])
def test_what_is_no_assignment_is_refused_with_the_names_there_are(assignment: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_assignments([assignment])
    assert str(refused.value).startswith(f"--set takes name=value, got {assignment!r}.")
    assert "`--list-settings` lists all names." in str(refused.value)
    if "rnk" in assignment or "Rank" in assignment:
        assert "Did you mean rank?" in str(refused.value)


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("rank=0", "Rank must be between 1 and 320, got '0'."),
        ("rank=abc", "Rank must be a whole number, got 'abc'."),
        ("rank=none", "Rank must be a whole number, got nothing."),
        ("rank=1.5", "Rank must be a whole number, got '1.5'."),
        ("learning_rate=0", "Learning rate must be above 0 and at most 10, got '0'."),
        ("max_train_steps=0", "Steps (max_train_steps) must be at least 1, got '0'."),
        ("resolution=100", "Resolution must be a multiple of 8 between 64 and 2048, got '100'."),
        ("held_out_percent=51", "Held out (held_out_percent) must be between 0 and 50, got '51'."),
        ("name=../up", "Name must have 1 to 80 characters: letters, digits, spaces and"),
        ("use_dora=maybe", "DoRA (use_dora) must be true or false, got 'maybe'."),
        ("optimizer=SGD", "Optimizer must be 'AdamW' or 'Prodigy', got 'SGD'."),
        ("targets=all", "Layers (targets) must be 'attention'"),
    ],
)
def test_a_value_that_breaks_its_rule_is_refused_with_rule_and_value(assignment: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings_from(None, {"dataset": "shoes"}, [assignment])
    assert str(refused.value).startswith(sentence)


def test_all_broken_rules_are_told_at_once() -> None:
    with pytest.raises(SettingsError, match=r"Rank must be .*Batch [(]train_batch_size[)] must be"):
        settings_from(None, {"dataset": "shoes"}, ["rank=0", "train_batch_size=0"])


def test_an_unknown_preset_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        SettingsError, match=r"preset must be one of seed, quick-try, style, product-photos, speed, got 'fast'"
    ):
        settings_from("fast", {"dataset": "shoes"}, [])


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_training(preset: str) -> None:
    settings = settings_from(preset, {"dataset": "shoes"}, [])
    assert {name: getattr(settings, name) for name in PRESETS[preset].changes} == PRESETS[preset].changes
    assert PRESETS[preset].title
    assert PRESETS[preset].purpose.endswith(".")


def test_list_settings_names_every_setting_and_preset_and_does_nothing(place: Place) -> None:
    text = train(place, "--list-settings").output
    for name, field in TrainingSettings.model_fields.items():
        assert f"\n{name} = " in f"\n{text}", name
        assert str(field.description) in text, name
    assert "dataset = (required)" in text
    assert "rank = 8" in text
    for name in PRESETS:
        assert f"--preset {name}: " in text
    assert not place.user_data.root.exists()


def test_without_a_dataset_or_a_run_it_says_what_to_give(place: Place) -> None:
    with pytest.raises(SettingsError, match=r"Give --dataset .* to start a run, or a run to resume"):
        train(place)


def test_an_unknown_run_is_refused_with_those_there_are(place: Place) -> None:
    run = place.begin(name="shoes")
    with pytest.raises(RunError, match=rf"There is no run boots\. Available: {run.name}\."):
        train(place, "boots")


def test_a_dataset_or_a_preset_that_is_not_there_leaves_no_folder(place: Place) -> None:
    with pytest.raises(DatasetError, match="There is no dataset and no folder /nowhere"):
        train(place, "--dataset", "/nowhere")
    with pytest.raises(SettingsError, match="preset must be"):
        train(place, "--dataset", str(place.dataset), "--preset", "x")
    assert not place.user_data.runs.exists()


@pytest.mark.parametrize(
    "change",
    [("--set", "rank=3"), ("--preset", "style"), ("--name", "b"), ("--model", "m"), ("--dataset", "d"), ("--cpu",)],
)
def test_a_run_keeps_its_settings(change: tuple[str, ...], place: Place) -> None:
    run = place.begin()
    with pytest.raises(SettingsError, match=rf"{run.name} cannot be changed\. Duplicate it: .*jobs duplicate"):
        train(place, run.name, *change)
    assert read_status(run).state == "new"


@pytest.mark.parametrize("name", ["pytorch_lora_weights", "PyTorch_LoRA_weights"])
def test_a_lora_cannot_have_the_name_of_diffusers_file(name: str, place: Place) -> None:
    with pytest.raises(SettingsError, match="Name must not be pytorch_lora_weights"):
        place.begin(name=name)
    assert not place.user_data.runs.exists()


def test_a_name_that_no_file_could_have_is_refused_before_anything_is_trained(place: Place) -> None:
    with pytest.raises(SettingsError, match=r"Name must be at most 180 bytes .* with 183\."):
        place.begin(name="漢" * 61)
    run = place.begin(name="漢" * 60, max_train_steps=1, lr_warmup_steps=0)
    result = train(place, run.name)
    assert result.exit_code == 0
    assert (run.root / f"{'漢' * 60}.safetensors").is_file()


def test_a_run_begins_ends_with_its_report_and_its_name_may_have_spaces(place: Place) -> None:
    result, run = begin(place, "--name", "weiße Schuhe (2)")
    assert result.exit_code == 0
    assert f"Run: {run.root}" in result.stderr
    assert result.stderr.rstrip().endswith(f"Report: {run.root / 'report.html'}")
    assert read_status(run).state == "finished"
    assert (run.root / "weiße Schuhe (2).safetensors").is_file()
    assert (place.user_data.loras / "weiße Schuhe (2).safetensors").is_file()


def test_a_run_is_resumed_by_the_end_of_its_name(place: Place) -> None:
    run = place.begin(name="red boots", max_train_steps=1)
    assert train(place, "red boots").exit_code == 0
    assert read_status(run).state == "finished"
    assert RunFolder.all_in(place.user_data.runs) == (run,)


def test_a_broken_picture_is_told_by_name_and_the_rest_is_trained_on(place: Place) -> None:
    picture = place.dataset / "3.png"
    picture.write_bytes(picture.read_bytes()[:-20])
    result, run = begin(place)
    assert result.exit_code == 0
    assert "3.png is left out: The file is cut short" in result.stderr
    plan = json.loads(run.plan.read_bytes())
    assert plan["num_pictures"] + plan["num_held_out"] == 9
    assert '"key":"3.png"' not in run.dataset.read_text(encoding="utf-8")


def test_a_preflight_begins_no_run(place: Place) -> None:
    words = ("--set", "resolution=64", "--set", "rank=2", "--set", "num_validation_images=0", "--set", "cpu=true")
    result = train(place, "--dataset", str(place.dataset), "--model", str(place.model), *words, "--preflight")
    assert result.stdout.startswith("3,000 steps ≈ ")
    assert "→ Checking the dataset.\n→ Loading the model.\n" in result.stderr
    assert not place.user_data.runs.exists()


def test_a_preflight_of_a_run_trains_nothing_of_it(place: Place) -> None:
    run = place.begin(max_train_steps=7)
    before = sorted(path.name for path in run.root.iterdir())
    result = train(place, run.name, "--preflight")
    assert result.stdout.startswith("7 steps ≈ ")
    assert sorted(path.name for path in run.root.iterdir()) == before
    assert read_status(run).state == "new"


def test_a_preflight_of_making_a_run_fast_begins_no_run_and_a_speed_loras_run_is_refused(place: Place) -> None:
    style = place.begin(name="style", max_train_steps=1)
    assert train(place, style.name).exit_code == 0
    before = sorted(place.user_data.runs.iterdir())
    small = ("--set", "num_teacher_images=2", "--set", "num_validation_images=0", "--set", "max_train_steps=7")
    result = train(place, "--make-fast", style.name, *small, "--set", "lr_warmup_steps=0", "--preflight")
    assert result.stdout.startswith("7 steps ≈ ")
    assert sorted(place.user_data.runs.iterdir()) == before
    fast = begin_making_fast(style, "style", place.user_data, ["num_teacher_images=2", "max_train_steps=1"])
    assert train(place, fast.name).exit_code == 0
    with pytest.raises(SettingsError, match=r"is a Speed LoRA already\. Make the LoRA fast that it was made for\."):
        train(place, "--make-fast", fast.name)
    for option in (("--preset", "style"), ("--dataset", "x"), ("--name", "x")):
        with pytest.raises(SettingsError, match="--make-fast takes the settings of its run; only --set can change"):
            train(place, "--make-fast", style.name, *option)


def test_a_run_has_whole_paths_so_that_it_can_be_resumed_from_anywhere(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(place.dataset.parent)
    shutil.copytree(place.dataset, "prior")
    run = place.begin(dataset="shapes", model=os.path.relpath(place.model), prior_dataset="prior", max_train_steps=1)
    settings = read_run_settings(run)
    assert (settings.dataset, settings.model) == (str(place.dataset.resolve()), str(place.model.resolve()))
    assert settings.mask_folder == ""
    monkeypatch.chdir("/")
    assert train(place, run.name).exit_code == 0
    (tmp_path / "shoes-demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_run_settings(place.begin(model="shoes-demo")).model == "shoes-demo"  # the shipped one, not the folder


def test_regularisation_pictures_that_are_the_dataset_under_another_name_are_refused(place: Place) -> None:
    (place.dataset.parent / "again").symlink_to(place.dataset)
    with pytest.raises(SettingsError, match=r"[(]prior_dataset[)] must be other images than the dataset"):
        place.begin(prior_dataset=str(place.dataset.parent / "again"))


def test_a_duplicate_has_the_settings_but_for_what_is_changed(place: Place) -> None:
    run = place.begin(name="first", snr_gamma=5, validation_prompts=("a", "b"), num_validation_images=2)
    other = duplicate_run(run, place.user_data, ["rank=3", "name=second", "snr_gamma=none"])
    before, after = read_run_settings(run).model_dump(), read_run_settings(other).model_dump()
    changed = {name: after[name] for name in after if after[name] != before[name]}
    assert changed == {"rank": 3, "name": "second", "snr_gamma": None}
    assert other.name.endswith("-second")
    assert read_status(other).state == "new"
    with pytest.raises(SettingsError, match="Rank must be between"):
        duplicate_run(run, place.user_data, ["rank=0"])
    assert len(RunFolder.all_in(place.user_data.runs)) == 2


def test_a_duplicate_of_a_finished_run_is_trained_on_the_pictures_of_now(place: Place) -> None:
    run = place.begin(name="first")
    write_status(run, read_status(run).model_copy(update={"state": "finished", "step": 8}))
    (place.dataset / "3.png").unlink()
    other = duplicate_run(run, place.user_data, [])
    assert '"key":"3.png"' in run.dataset.read_text(encoding="utf-8")
    assert '"key":"3.png"' not in other.dataset.read_text(encoding="utf-8")
    assert other.root != run.root


def test_the_command_queues_the_duplicate(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "ensure_worker", lambda user_data: None)
    run = place.begin(name="first")
    words = ("jobs", "duplicate", "first", "--set", "name=second", "--user-data", str(place.user_data.root))
    result = studio(*words)
    other = RunFolder.find("second", place.user_data.runs)
    assert f"Queued as job 1: {other.root}." in result.stdout
    assert [job.run.root for job in JobQueue(place.user_data).jobs()] == [other.root]
    assert read_run_settings(other).rank == read_run_settings(run).rank


def test_a_training_is_queued_and_not_begun(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "ensure_worker", lambda user_data: None)
    result, run = begin(place, "--queue")
    assert "Queued as job 1" in result.stdout
    assert read_status(run).state == "new"
    with pytest.raises(SettingsError, match="--use-snapshot cannot be queued"):
        train(place, run.name, "--queue", "--use-snapshot")


def test_a_job_that_fails_ends_with_1_and_says_why(place: Place) -> None:
    with pytest.raises(ModelError, match="There is no model folder or file /nowhere"):
        place.begin(model="/nowhere")
    run = place.begin()
    run.settings.write_text(run.settings.read_text().replace(str(place.model), "/nowhere"))
    result = train(place, str(run.root), "--job", "--cpu")
    assert result.exit_code == 1
    assert "There is no model folder or file /nowhere" in result.stderr
    assert read_status(run).state == "failed"
