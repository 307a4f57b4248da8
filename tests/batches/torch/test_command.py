"""`python -m studio batch`: what it takes, what it tells, what it refuses and with which sentence."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from studio.batches.folder import BatchFolder, read_batch_settings
from studio.batches.forecast import pace_of_like
from studio.cli.app import app
from studio.core.errors import BatchError, SettingsError
from studio.core.paths import UserData
from studio.jobs import worker
from studio.jobs.folder import read_status
from studio.jobs.queue import JobQueue
from tests.batches.torch.made import begun, made, rows

SMALL = ("--steps", "2", "--set", "width=64", "--set", "height=64", "--cpu")


def batch(user_data: Path, *words: str) -> Result:
    """The whole command line, in this process."""
    return CliRunner().invoke(app, ["batch", *words, "--user-data", str(user_data)], catch_exceptions=False)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "boots.txt"
    file.write_text("red boots\nbrown boots --d 5\n", encoding="utf-8")
    return file


def only(user_data: Path) -> BatchFolder:
    (folder,) = BatchFolder.all_in(UserData(user_data).batches)
    return folder


def test_a_file_of_prompts_becomes_a_dataset(prompts: Path, tmp_path: Path) -> None:
    result = batch(tmp_path / "data", str(prompts), *SMALL, "--seed", "9", "--lora", "white-ground:0.4")
    assert result.exit_code == 0
    folder = only(tmp_path / "data")
    assert folder.name.endswith("-boots")
    assert f"Report: {folder.report}" in result.stderr
    assert [row.seed for row in rows(folder)] == [9, 5]
    shared = read_batch_settings(folder).generation
    assert [(lora.name, lora.strength) for lora in shared.loras] == [("white-ground", 0.4)]


def test_a_speed_is_of_all_images(prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "ensure_worker", lambda place: None)
    result = batch(tmp_path / "data", str(prompts), "--speed", "fast", "--set", "guidance_scale=3", "--cpu", "--queue")
    assert result.exit_code == 0
    shared = read_batch_settings(only(tmp_path / "data")).generation
    assert (shared.scheduler, shared.num_inference_steps, shared.guidance_scale) == ("DPM++ 2M", 8, 3.0)
    with pytest.raises(SettingsError, match=r"--speed sets --set scheduler, --steps itself"):
        batch(tmp_path / "data", str(prompts), "--speed", "fast", "--steps", "4", "--set", "scheduler=DDIM")


def test_it_goes_into_the_folder_that_was_asked_for_and_goes_on_there(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert batch(tmp_path / "data", str(prompts), *SMALL, "--out", str(out)).exit_code == 0
    BatchFolder(out).picture(1, "png").unlink()
    assert batch(tmp_path / "data", str(out)).exit_code == 0
    assert BatchFolder(out).picture(1, "png").is_file()
    with pytest.raises(BatchError, match="must be a new or an empty folder"):
        batch(tmp_path / "data", str(prompts), *SMALL, "--out", str(out))


def test_another_batch_begins_from_the_settings_of_one(tmp_path: Path) -> None:
    first = made(tmp_path, total=1)
    result = batch(tmp_path / "data", str(first.settings), "--set", "images_per_prompt=2", "--total", "3")
    assert result.exit_code == 0
    settings = read_batch_settings(only(tmp_path / "data"))
    assert (settings.total, settings.images_per_prompt, settings.name) == (3, 2, "shoes")
    assert settings.generation == read_batch_settings(first).generation


def test_a_batch_that_was_begun_cannot_be_changed(tmp_path: Path) -> None:
    folder = made(tmp_path, total=1)
    with pytest.raises(SettingsError, match="A batch keeps its settings"):
        batch(tmp_path, folder.name, "--total", "5")


def test_time_is_in_proportion_to_the_passes_of_the_unet(tmp_path: Path) -> None:
    folder = made(tmp_path, total=1)
    settings = read_batch_settings(folder)

    def seconds(**changes: object) -> float:
        generation = settings.generation.model_copy(update=changes)
        pace = pace_of_like(settings.model_copy(update={"generation": generation}), [folder])
        assert pace is not None
        return pace.seconds_per_picture

    guided = seconds()
    assert seconds(guidance_scale=1.0) == pytest.approx(guided / 2)
    assert seconds(guidance_end=0.5) == pytest.approx(guided * 3 / 4)
    assert seconds(num_inference_steps=4) == pytest.approx(guided * 2)


def test_show_tells_and_makes_nothing(prompts: Path, tmp_path: Path) -> None:
    result = batch(tmp_path / "data", str(prompts), "--set", "attributes=type: boots, sneakers", "--show")
    assert "4 images. Time and disk space are not measured yet." in result.stdout
    assert "type: boots 2, sneakers 2" in result.stdout
    assert not (tmp_path / "data").exists()


def test_show_refuses_a_line_that_does_not_fit_the_shared_settings(tmp_path: Path) -> None:
    file = tmp_path / "boots.txt"
    file.write_text("red boots\nblue shoe --s 60\n", encoding="utf-8")
    with pytest.raises(
        BatchError, match=r"boots\.txt line 2: Steps [(]num_inference_steps[)] must be at most 50 .* LCM, got 60"
    ):
        batch(tmp_path / "data", str(file), "--set", "scheduler=LCM", "--steps", "8", "--show")


def test_a_forecast_is_measured_on_real_pictures_and_keeps_none(prompts: Path, tmp_path: Path) -> None:
    result = batch(tmp_path / "data", str(prompts), *SMALL, "--forecast", "--json", "--total", "500")
    facts = json.loads(result.stdout.splitlines()[-1])
    assert facts["num_items"] == 500
    assert 0 < facts["seconds_per_picture"] < 60
    assert 1_000 < facts["bytes_per_picture"] < 100_000
    steps = ["Starting PyTorch.", "Loading the model.", *(f"Making image {i} of 4." for i in range(1, 5))]
    assert [line for line in result.stderr.splitlines() if line[0] == "→"] == [f"→ {step}" for step in steps]
    assert not list((tmp_path / "data").rglob("*.png"))


def test_queued_it_is_a_job_of_its_own_kind(prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[UserData] = []
    monkeypatch.setattr(worker, "ensure_worker", lambda place: started.append(place))
    result = batch(tmp_path / "data", str(prompts), *SMALL, "--queue")
    place = UserData(tmp_path / "data")
    assert started == [place]
    (job,) = JobQueue(place).jobs()
    assert (job.kind, job.run_folder) == ("batch", only(tmp_path / "data").root)
    assert f"Queued as job {job.id}" in result.stdout
    command = worker.job_command(job, place)
    assert command[3:6] == ["studio", "batch", str(job.run_folder)]


@pytest.mark.process
def test_the_queue_carries_a_batch_out(prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "ensure_worker", lambda place: None)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[3])]))
    batch(tmp_path / "data", str(prompts), *SMALL, "--queue")
    place = UserData(tmp_path / "data")
    worker.work(place, command=lambda job: worker.job_command(job, place))
    (job,) = JobQueue(place).jobs()
    assert job.state == "finished", job.message
    assert read_status(job.run).message == "2 images are made."


def test_a_job_whose_settings_cannot_be_read_ends_with_1_and_its_status_says_why(tmp_path: Path) -> None:
    folder = begun(tmp_path, total=1)
    folder.settings.write_bytes(b"{")
    result = batch(tmp_path, str(folder.root), "--job")
    assert result.exit_code == 1
    assert read_status(folder).state == "failed"
    assert read_status(folder).message in result.stderr


@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        (("nothing.txt",), BatchError, "There is no file nothing.txt"),
        (("nothing",), BatchError, "There is no batch nothing"),
        (("FILE", "--set", "colour=red"), SettingsError, "--set takes name=value, got 'colour=red'"),
        (("FILE", "--lora", "white-ground:9"), SettingsError, "Strength must be between -4 and 4, got '9'"),
        (("FILE", "--set", "grid_x=colour"), BatchError, "grid_x must be a column of the plan"),
        (("FILE", "--steps", "0"), SettingsError, "num_inference_steps"),
        (
            ("FILE", "--steps", "60", "--set", "scheduler=LCM"),
            SettingsError,
            "^Steps [(]num_inference_steps[)] must be at most 50",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    words: tuple[str, ...], error: type[Exception], sentence: str, prompts: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=sentence):
        batch(tmp_path / "data", *(str(prompts) if word == "FILE" else word for word in words))
    assert not (tmp_path / "data").exists()


def test_every_setting_is_told_with_its_help(tmp_path: Path) -> None:
    reported = batch(tmp_path, "any", "--list-settings").stdout
    assert "least_whiteness = None" in reported
    assert "Fraction of the image's border" in reported
