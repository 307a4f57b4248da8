"""Several processes train one run: the same losses as one, one set of files, and a resume with another number."""

import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess

import pytest

from studio.jobs.folder import read_status
from studio.training.events import CheckpointEvent, StepEvent, read_events
from studio.training.folder import RunFolder
from studio.training.torch.checkpoints import CheckpointStore
from tests.faults.conftest import Place, finish

Start = Callable[..., ForkServerProcess]
PLAIN = {"lora_dropout": 0.0, "gradient_accumulation_steps": 4, "max_train_steps": 4, "checkpointing_steps": 2}


def launch(run: RunFolder, place: Place, *, num_processes: int) -> subprocess.CompletedProcess[str]:
    """`accelerate launch … -m studio train RUN`, as the documents say it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Without a GPU accelerate calls it --multi_gpu all the same; with --cpu it would start one process and say nothing.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(num_processes)]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(port), "-m", "studio", "train", str(run.root)]
    command += ["--user-data", str(place.user_data.root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


def losses(run: RunFolder) -> list[float]:
    return [event.loss for event in read_events(run.events) if isinstance(event, StepEvent)]


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_write_once(place: Place, start: Start) -> None:
    one = place.begin(name="one", **PLAIN)
    assert finish(start, one) == 0
    two = place.begin(name="two", **PLAIN)
    done = launch(two, place, num_processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(losses(two)) == 4
    assert all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(losses(one), losses(two), strict=True))
    assert [e.step for e in read_events(two.events) if isinstance(e, CheckpointEvent)] == [2, 4]
    assert (two.root / "two.safetensors").is_file()


@pytest.mark.slow
def test_what_two_processes_began_one_finishes(place: Place, start: Start) -> None:
    one = place.begin(name="one", **PLAIN)
    assert finish(start, one) == 0
    two = place.begin(name="two", **PLAIN)
    done = launch(two, place, num_processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    for step in CheckpointStore(two.checkpoints).steps():
        if step > 2:
            two.checkpoints.joinpath(f"step-{step:06}").rename(two.root / "aside")
    assert finish(start, two) == 0
    assert all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(losses(one), losses(two), strict=True))


@pytest.mark.slow
def test_batches_that_cannot_be_shared_are_refused_with_the_rule(place: Place) -> None:
    run = place.begin(**{**PLAIN, "gradient_accumulation_steps": 3})
    assert launch(run, place, num_processes=2).returncode != 0
    assert "must be a multiple of the number of processes (2)" in read_status(run).message
