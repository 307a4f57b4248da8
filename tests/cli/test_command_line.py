"""The command line says what it did, and its exit code is true."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.cli.options import lora_choices
from studio.core.paths import assets_folder
from studio.core.results import ImagesReport, MadeImage, SmokeReport
from studio.core.settings import LoraChoice, parse_settings
from studio.images.comparison import SavedComparison
from studio.images.files import read_picture_text
from studio.jobs.device_lock import DeviceLock
from tests.command_line import studio


def studio_process(*arguments: str, user_data: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, where the libraries print too."""
    return subprocess.run(
        [sys.executable, "-m", "studio", *arguments, "--user-data", str(user_data)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=180,
        check=False,
    )


@pytest.mark.process
def test_smoke_prints_json_and_succeeds_when_all_images_are_valid(tmp_path: Path) -> None:
    done = studio_process("smoke", "--json", "--steps", "6", "--precision", "float16", user_data=tmp_path)
    assert done.returncode == 0, done.stderr
    report = SmokeReport.model_validate_json(done.stdout)
    assert report.passed
    assert report.engine.precision.raised
    assert len(list(tmp_path.glob("outputs/*/smoke-*/*.png"))) == 3


def test_smoke_fails_when_an_image_is_not_valid(tmp_path: Path, model_copy: Path) -> None:
    weights = model_copy / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["decoder.conv_out.bias"][2] = torch.nan
    save_file(tensors, weights, metadata={"format": "pt"})
    done = studio("smoke", "--steps", "4", "--model", str(model_copy), user_data=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "# Smoke test: FAIL: 3 of 3 images are not valid." in done.stdout
    assert "blue 100%" in done.stdout
    assert not list(tmp_path.glob("outputs/*/smoke-*/*.png"))
    assert len(list((tmp_path / "rejected").glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("smoke", "--model", "/nowhere"), "There is no model folder or file /nowhere."),
        (("smoke", "--steps", "0"), "Steps (num_inference_steps) must be between 1 and 150, got 0."),
        (("ui", "--listen"), "listen opens the studio to other machines, so it needs auth_file, got none."),
        (("generate", "shoes", "--scheduler", "Eulr"), "Scheduler must be"),
        (("generate", "shoes", "--lora", "white-ground:9"), "LoRAs 1, Strength"),
        (("generate", "shoes", "--width", "100"), "Width must be a multiple of 8 between 64 and 2048, got 100."),
        (("generate", "shoes", "--lora", "nosuch"), "There is no LoRA named nosuch in the library"),
        (("generate", "(shoes:1.2) <lora:white-ground:x>"), "<lora:white-ground:x>"),
        (("compare", "shoes", "--right", "nosuch"), "There is no LoRA named nosuch in the library"),
        (("ui", "--port", "0"), "Port must be between 1 and 65535, got 0."),
        (("batch", "prompts.json"), "There is no file prompts.json."),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = studio(*arguments, user_data=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_a_mistake_is_one_sentence_in_a_process_of_its_own_too(tmp_path: Path) -> None:
    done = studio_process("generate", "shoes", "--lora", "nosuch", user_data=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("There is no LoRA named nosuch in the library")


def test_smoke_says_who_has_the_device(tmp_path: Path) -> None:
    lock = DeviceLock(tmp_path / "device.lock")
    assert lock.acquire("a training run")
    done = studio("smoke", user_data=tmp_path)
    lock.release()
    assert done.returncode == 2
    assert "The device is in use by a training run" in done.stderr


def test_the_report_of_the_command_line_is_the_one_on_disk(tmp_path: Path) -> None:
    done = studio("smoke", "--json", "--steps", "4", user_data=tmp_path)
    (saved,) = tmp_path.glob("outputs/*/smoke-*/report.json")
    assert json.loads(saved.read_text()) == json.loads(done.stdout)


def test_generate_makes_checked_pictures_that_carry_their_settings(tmp_path: Path) -> None:
    options = ("--steps", "6", "--lora", "white-ground:0.9", "--images", "2", "--seed", "5", "--scheduler", "Euler")
    done = studio("generate", "red sneakers", *options, "--json", user_data=tmp_path)
    assert done.returncode == 0, done.stderr
    report = ImagesReport.model_validate_json(done.stdout)
    files = [image.path for image in report.images if isinstance(image, MadeImage)]
    taken = [read_picture_text(file).settings for file in files]
    assert [settings.seed for settings in taken] == [5, 6]
    assert taken[0].loras == (LoraChoice(name="white-ground", strength=0.9),)
    assert taken[0].scheduler == "Euler"
    assert sorted(files) == sorted(tmp_path.glob("outputs/*/*.png"))


def test_compare_says_how_far_two_sides_are_apart(tmp_path: Path) -> None:
    done = studio("compare", "shoes", "boots", "--steps", "4", "--right", "white-ground", "--json", user_data=tmp_path)
    assert done.returncode == 0, done.stderr
    saved = SavedComparison.model_validate_json(done.stdout)
    assert len(saved.report.pairs) == 2
    assert "white-ground changes" in saved.report.sentence
    assert (saved.folder / "grid.png").is_file()


def test_compare_takes_a_file_that_is_not_in_the_library(tmp_path: Path) -> None:
    file = tmp_path / "step 100.safetensors"
    shutil.copyfile(assets_folder() / "loras" / "white-ground.safetensors", file)
    done = studio("compare", "shoes", "--steps", "4", "--right", f"{file}:0.5", user_data=tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert "pixels noticeably" in done.stdout


@pytest.mark.process
def test_generate_prints_the_pictures_files_alone_on_its_output(tmp_path: Path) -> None:
    done = studio_process("generate", "boots", "--steps", "3", user_data=tmp_path)
    assert [Path(line).is_file() for line in done.stdout.splitlines()] == [True]


def test_generate_fails_when_a_picture_is_not_valid(tmp_path: Path, model_copy: Path) -> None:
    weights = model_copy / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["decoder.conv_out.bias"][2] = torch.nan
    save_file(tensors, weights, metadata={"format": "pt"})
    done = studio("generate", "boots", "--steps", "3", "--model", str(model_copy), user_data=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "not valid (seed 42): The decoded check failed" in done.stdout


def test_generate_puts_its_images_into_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    out, data = tmp_path / "new" / "boots", tmp_path / "data"
    out.mkdir(parents=True)
    (out / "mine.png").write_bytes(b"not to be touched")
    for _ in range(2):
        done = studio("generate", "boots", "--steps", "3", "--out", str(out), user_data=data)
        assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == out
    names = sorted(path.name for path in out.iterdir())
    assert len(names) == 3
    assert [name for name in names if not name.endswith("-seed42.png")] == ["mine.png"]
    assert (out / "mine.png").read_bytes() == b"not to be touched"
    assert not (data / "outputs").exists()


def test_compare_fills_the_folder_that_was_asked_for_and_takes_no_other(tmp_path: Path) -> None:
    out, data = tmp_path / "new" / "boots", tmp_path / "data"
    words = ("compare", "boots", "--right", "white-ground", "--steps", "3", "--out", str(out))
    done = studio(*words, user_data=data)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["01.png", "02.png", "comparison.json", "grid.png"]
    assert not (data / "outputs").exists()
    again = studio(*words, user_data=data)
    assert again.returncode == 2
    assert f"--out must be a new or an empty folder, got {out}." in again.stderr


def test_options_that_a_speed_sets_are_refused_beside_it_before_a_model_is_loaded(tmp_path: Path) -> None:
    words = ("generate", "boots", "--model", "/nowhere", "--speed", "fast")
    refused = studio(*words, "--steps", "4", "--scheduler", "Euler", user_data=tmp_path)
    assert refused.returncode == 2
    assert all(words in refused.stderr for words in ("--speed sets ", "--scheduler", "--steps", " itself: leave them"))
    unknown = studio("generate", "boots", "--model", "/nowhere", "--speed", "lora:nowhere", user_data=tmp_path)
    assert unknown.returncode == 2
    assert "nowhere" in unknown.stderr


@pytest.mark.parametrize("command", ["generate", "compare"])
def test_a_folder_that_cannot_be_written_is_said_before_a_model_is_loaded(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    out = tmp_path / "file" / "boots"
    done = studio(command, "boots", "--model", "/nowhere", "--out", str(out), user_data=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"--out must be a folder that can be written, got {out} (Not a directory). Choose another."
    )


@pytest.mark.parametrize(
    ("option", "name", "strength"),
    [
        ("white-ground", "white-ground", 1.0),
        ("white-ground:0.8", "white-ground", 0.8),
        ("a:b", "a:b", 1.0),
        (":0.5", ":0.5", 1.0),
        ("/loras/a:b.safetensors", "/loras/a:b.safetensors", 1.0),
        ("/loras/a:b.safetensors:-1", "/loras/a:b.safetensors", -1.0),
        ("a.safetensors", f"{Path.cwd()}/a.safetensors", 1.0),
        ("a.SAFETENSORS:0.5", f"{Path.cwd()}/a.SAFETENSORS", 0.5),
    ],
)
def test_a_lora_is_named_with_its_strength(option: str, name: str, strength: float) -> None:
    (choice,) = lora_choices([option])
    assert parse_settings(LoraChoice, choice) == LoraChoice(name=name, strength=strength)
