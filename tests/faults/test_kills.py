"""A run killed at any moments, and resumed, ends equal to the bit to one that was not; and the harness can tell."""

import hashlib
import json
import os
import random
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch

from studio.jobs.folder import ask, read_status
from studio.training.events import StepEvent, read_events
from studio.training.folder import RunFolder
from tests.faults.conftest import SETTINGS, Place, final_state, finish

# 100 and more by hand: STUDIO_KILLS=100 python launch.py test tests/faults/test_kills.py
NUM_KILLS = int(os.environ.get("STUDIO_KILLS", "12"))
LAST = int(str(SETTINGS["max_train_steps"]))
Start = Callable[[RunFolder], ForkServerProcess]


def reported(run: RunFolder) -> list[tuple[int, float, float]]:
    return [(e.step, e.loss, e.learning_rate) for e in read_events(run.events) if isinstance(e, StepEvent)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "changes",
    [pytest.param({}, marks=pytest.mark.sample), {"use_ema": True, "optimizer": "Prodigy", "learning_rate": 1.0}],
)
def test_killed_at_random_moments_it_ends_equal_to_the_bit(
    changes: dict[str, object], place: Place, start: Start
) -> None:
    whole = place.begin(name="whole", **changes)
    started = time.monotonic()
    assert finish(start, whole) == 0
    usual_seconds = time.monotonic() - started
    rng = random.Random(5)
    kills = 0
    while kills < NUM_KILLS:
        run = place.begin(name="killed", **changes)
        while kills < NUM_KILLS and read_status(run).state != "finished":
            process = start(run)
            process.join(rng.uniform(0, 0.7) * usual_seconds)
            if process.exitcode is None:
                process.kill()
                process.join()
                kills += 1
            else:
                assert process.exitcode == 0
        if read_status(run).state != "finished":
            assert finish(start, run) == 0
        assert final_state(run, LAST) == final_state(whole, LAST)
        assert reported(run) == reported(whole)
        assert (run.root / "killed.safetensors").stat().st_size > 0


def stopped_in_the_middle(place: Place, start: Start) -> RunFolder:
    """A run that was asked to stop, and did so before its last step."""
    run = place.begin(name="stopped", max_train_steps=LAST)
    process = start(run)
    while not reported(run):
        time.sleep(0.005)
    ask(run, "stop")
    process.join(60)
    assert process.exitcode == 0
    status = read_status(run)
    assert status.state == "stopped"
    assert 0 < status.step < LAST
    return run


def rewrite(checkpoint: Path, name: str, content: bytes) -> None:
    """Change one file of a checkpoint so that its manifest still holds."""
    (checkpoint / name).write_bytes(content)
    manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "num_bytes": len(content)}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def without_optimizer(checkpoint: Path) -> None:
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    state["state"] = {}
    save(state, checkpoint, "optimizer.pt")


def without_schedule(checkpoint: Path) -> None:
    state = torch.load(checkpoint / "schedule.pt", weights_only=True)
    state.update(last_epoch=0, _step_count=1)
    save(state, checkpoint, "schedule.pt")


def without_random_state(checkpoint: Path) -> None:
    state = torch.load(checkpoint / "random.pt", weights_only=True)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        save({"states": torch.stack([torch.get_rng_state() for _ in state["states"]])}, checkpoint, "random.pt")


def without_order(checkpoint: Path) -> None:
    position = json.loads((checkpoint / "position.json").read_text(encoding="utf-8"))
    position["batches_done"] = 0
    rewrite(checkpoint, "position.json", json.dumps(position).encode())


def save(state: dict[str, object], checkpoint: Path, name: str) -> None:
    file = checkpoint / f".{name}"
    torch.save(state, file)
    rewrite(checkpoint, name, file.read_bytes())
    file.unlink()


LEFT_OUT = (without_optimizer, without_schedule, without_random_state, without_order)


def test_a_stop_is_resumed_to_the_bit(place: Place, start: Start) -> None:
    whole = place.begin(name="whole")
    assert finish(start, whole) == 0
    run = stopped_in_the_middle(place, start)
    assert finish(start, run) == 0
    assert final_state(run, LAST) == final_state(whole, LAST)


@pytest.mark.parametrize("leave_out", LEFT_OUT)
def test_the_harness_sees_when_a_part_of_the_state_is_left_out(
    leave_out: Callable[[Path], None], place: Place, start: Start
) -> None:
    whole = place.begin(name="whole")
    assert finish(start, whole) == 0
    run = stopped_in_the_middle(place, start)
    leave_out(sorted(run.checkpoints.glob("step-*"))[-1])
    assert finish(start, run) == 0
    assert final_state(run, LAST)["weights"] != final_state(whole, LAST)["weights"]
