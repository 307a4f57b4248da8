"""The command line says what it did, and its exit code is true."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.results import SmokeReport


def studio(*arguments: str, user_data: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "studio", *arguments, "--user-data", str(user_data)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=180,
        check=False,
    )


def test_smoke_prints_json_and_succeeds_when_all_images_are_valid(tmp_path: Path) -> None:
    done = studio("smoke", "--json", "--steps", "6", "--precision", "float16", user_data=tmp_path)
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
    assert "# Smoke test: FAIL: 3 of 3 pictures are not valid." in done.stdout
    assert "blue 100 %" in done.stdout
    assert not list(tmp_path.glob("outputs/*/smoke-*/*.png"))
    assert len(list((tmp_path / "rejected").glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("smoke", "--model", "/nowhere"), "There is no model folder /nowhere."),
        (("smoke", "--steps", "0"), "num_inference_steps must be between 1 and 150, got 0."),
        (("ui", "--listen"), "listen opens the studio to other machines, so it needs auth_file, got none."),
        (("ui", "--port", "0"), "port must be between 1 and 65535, got 0."),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = studio(*arguments, user_data=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_smoke_says_who_has_the_device(tmp_path: Path) -> None:
    from studio.jobs.device_lock import DeviceLock

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
