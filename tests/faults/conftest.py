"""A small dataset, and runs of the tiny model on it in processes of their own that may be killed.

The processes are forked from a server that has imported everything: a trial then takes well under a second.
"""

import json
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from studio.core.paths import UserData
from studio.training.begin import begin_run
from studio.training.folder import RunFolder
from studio.training.presets import settings_from
from studio.training.torch.run import train_run

# Every part of a checkpoint matters to these: dropout draws, momentum, a rate that changes each step, an order.
SETTINGS = {
    "resolution": 64,
    "rank": 2,
    "lora_alpha": 4.0,
    "lora_dropout": 0.2,
    "targets": "attention + feed-forward + convolutions",
    "learning_rate": 1e-2,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 2,
    "max_train_steps": 8,
    "train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "caption_dropout": 0.3,
    "noise_offset": 0.1,
    "num_validation_images": 0,
    "held_out_percent": 20,
    "held_out_steps": 4,
    "checkpointing_steps": 1,
    "cpu": True,
}


@dataclass(frozen=True)
class Place:
    """Where the runs of a test are, and what they are made of."""

    user_data: UserData
    dataset: Path
    model: Path

    def begin(self, **changes: object) -> RunFolder:
        """A new run, not started."""
        values = {**SETTINGS, "dataset": str(self.dataset), "model": str(self.model), **changes}
        if changes.get("max_train_steps") == 1:
            values["lr_warmup_steps"] = changes.get("lr_warmup_steps", 1)
        return begin_run(settings_from(None, values, ()), self.user_data)


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path) -> Place:
    """Ten small images with captions, and a user_data of this test's own."""
    dataset = tmp_path / "shapes"
    dataset.mkdir()
    for number in range(10):
        picture = Image.new("RGB", (72, 64 + 8 * (number % 2)), (20 * number, 80, 255 - 20 * number))
        ImageDraw.Draw(picture).ellipse((10 + number, 10, 40 + number, 50), fill=(200, 20 * number, 40))
        picture.save(dataset / f"{number}.png")
        (dataset / f"{number}.txt").write_text(f"red boots, number {number}", encoding="utf-8")
    return Place(UserData(tmp_path / "user_data"), dataset, tiny_model)


@pytest.fixture(scope="session")
def forks() -> Iterator[ForkServerContext]:
    """Processes that begin with torch, diffusers and the studio imported."""
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "TRANSFORMERS_VERBOSITY")}
    os.environ.update({"OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"})
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["studio.training.torch.run", "studio.batches.torch.run"])
    yield context
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture
def start(forks: ForkServerContext, place: Place) -> Iterator[Callable[[RunFolder], ForkServerProcess]]:
    """Starts a run's training in a process of its own; what is left of them is ended after the test."""
    started: list[ForkServerProcess] = []

    def start(run: RunFolder, *, use_snapshot: bool = False) -> ForkServerProcess:
        process = forks.Process(target=train_run, args=(run, place.user_data), kwargs={"use_snapshot": use_snapshot})
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def finish(start: Callable[[RunFolder], ForkServerProcess], run: RunFolder) -> int:
    """Train to the end of the process; its exit code."""
    process = start(run)
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def final_state(run: RunFolder, step: int) -> dict[str, object]:
    """All of the state that must be equal to the bit: weights, momentum, schedule, random state, position."""
    folder = run.checkpoints / f"step-{step:06}"
    weights = load_file(folder / "lora.safetensors")
    state: dict[str, object] = {"weights": {name: tensor.tolist() for name, tensor in weights.items()}}
    optimizer = torch.load(folder / "optimizer.pt", weights_only=True)
    state["optimizer"] = [
        (number, name, value.tolist() if isinstance(value, torch.Tensor) else value)
        for number, values in optimizer["state"].items()
        for name, value in values.items()
    ]
    state["schedule"] = torch.load(folder / "schedule.pt", weights_only=True)
    state["random"] = torch.load(folder / "random.pt", weights_only=True)["states"].tolist()
    position = json.loads((folder / "position.json").read_text(encoding="utf-8"))
    state["position"] = (position["step"], position["batches_done"])
    return state


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of three megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)
