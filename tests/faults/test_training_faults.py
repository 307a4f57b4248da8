"""What a training survives: bad checkpoints, full disks, NaN, edited datasets, a device in use, SIGTERM."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.optim import Optimizer

from studio.core.errors import RunError, TrainingError
from studio.core.paths import UserData
from studio.core.settings import ModelSettings
from studio.engine.lora_layers import read_lora
from studio.engine.pipeline import PipelineManager
from studio.jobs.device_lock import DeviceLock
from studio.jobs.events import MemoryEvent, ProblemEvent
from studio.jobs.folder import ask, read_status
from studio.training.events import FinishedEvent, HeldOutEvent, SampleEvent, StepEvent, read_events
from studio.training.folder import RunFolder
from studio.training.settings import TrainingSettings
from studio.training.torch import assembly
from studio.training.torch.adapters import Adapters
from studio.training.torch.caches import LatentCache
from studio.training.torch.checkpoints import CheckpointStore
from studio.training.torch.data import TrainingItem
from studio.training.torch.optimizers import make_optimizer
from studio.training.torch.run import train_run
from studio.training.variants import Variant
from tests.faults.conftest import SETTINGS, Place, final_state, finish

Start = Callable[..., ForkServerProcess]
LAST = int(str(SETTINGS["max_train_steps"]))


def wait_until(seen: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def problems(run: RunFolder) -> str:
    return " ".join(event.message for event in read_events(run.events) if isinstance(event, ProblemEvent))


def steps(run: RunFolder) -> list[int]:
    return [event.step for event in read_events(run.events) if isinstance(event, StepEvent)]


def test_a_run_tells_all_that_a_page_shows_and_its_file_is_a_lora(place: Place, start: Start) -> None:
    run = place.begin(num_validation_images=1, validation_steps=4, validation_inference_steps=3)
    assert finish(start, run) == 0
    events = read_events(run.events)
    assert steps(run) == [*range(1, LAST + 1)]
    assert [e.step for e in events if isinstance(e, HeldOutEvent)] == [0, 4, 8]
    samples = [e for e in events if isinstance(e, SampleEvent)]
    assert [e.step for e in samples] == [0, 4, 8]
    assert samples[0].pictures == samples[0].base
    assert samples[1].pictures != samples[1].base
    for picture in (*samples[1].base, *samples[1].pictures, *samples[2].pictures):
        assert picture is not None
        assert Image.open(run.root / picture).size == (64, 64)
    assert any(isinstance(e, MemoryEvent) and e.peak_process_bytes > 50e6 for e in events)
    finished = next(e for e in events if isinstance(e, FinishedEvent))
    manager = PipelineManager(torch.device("cpu"), rejected_folder=place.user_data.rejected)
    manager.load(ModelSettings(model=str(place.model)))
    for name in finished.files:
        lora = read_lora(name, run.root / name, manager.components)
        assert "changes nothing" not in " ".join(lora.notes)
    assert (place.user_data.loras / f"{finished.library_name}.safetensors").is_file()
    assert (run.root / "report.html").stat().st_size > 2000
    assert (run.root / "report.md").is_file()
    assert any(run.tensorboard.iterdir())


def test_sigterm_finishes_the_step_saves_and_ends_with_0(place: Place, start: Start) -> None:
    run = place.begin(max_train_steps=500, checkpointing_steps=400)
    process = start(run)
    wait_until(lambda: len(steps(run)) > 1)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == 0
    status = read_status(run)
    assert status.state == "stopped"
    assert CheckpointStore(run.checkpoints).steps() == [status.step]
    assert steps(run)[-1] == status.step


def test_a_pause_and_a_request_for_a_checkpoint_are_heard(place: Place, start: Start) -> None:
    run = place.begin(max_train_steps=500, checkpointing_steps=400)
    process = start(run)
    wait_until(lambda: len(steps(run)) > 1)
    ask(run, "save")
    wait_until(lambda: len(CheckpointStore(run.checkpoints).steps()) == 1)
    ask(run, "pause")
    process.join(30)
    assert (process.exitcode, read_status(run).state) == (0, "paused")


def test_pictures_are_made_when_they_are_asked_for(place: Place, start: Start) -> None:
    run = place.begin(max_train_steps=500, num_validation_images=1, validation_steps=400, validation_inference_steps=2)
    start(run)
    wait_until(lambda: len(steps(run)) > 1)
    ask(run, "sample")
    wait_until(lambda: sum(isinstance(e, SampleEvent) for e in read_events(run.events)) == 2)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def zero(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["lora.safetensors", "optimizer.pt", "manifest.json"])
@pytest.mark.parametrize("damage", [cut, zero, flip, Path.unlink])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_taken(
    damage: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    for step in (1, 2):
        store.save(step, {"lora.safetensors": b"weights" * 20, "optimizer.pt": bytes([step]) * 99})
    damage(store.place(2) / name)
    if damage is flip and name == "manifest.json":  # a flip may leave a manifest that reads the same
        (store.place(2) / name).write_bytes(b"{")
    reported: list[str] = []
    newest = store.newest(report=reported.append)
    assert newest is not None
    assert newest.step == 1
    assert newest.files["optimizer.pt"] == b"\1" * 99
    assert "damaged" in reported[0]
    assert (tmp_path / "checkpoints" / "damaged-step-000002").is_dir()
    assert store.steps() == [1]


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(place: Place, start: Start) -> None:
    whole = place.begin(name="whole")
    assert finish(start, whole) == 0
    run = place.begin(name="damaged")
    process = start(run)
    wait_until(lambda: len(CheckpointStore(run.checkpoints).steps()) >= 3)
    process.kill()
    process.join()
    newest = CheckpointStore(run.checkpoints).steps()[-1]
    flip(run.checkpoints / f"step-{newest:06}" / "optimizer.pt")
    assert finish(start, run) == 0
    assert f"checkpoint of step {newest} is damaged" in problems(run)
    assert final_state(run, LAST) == final_state(whole, LAST)


def test_when_no_checkpoint_is_whole_it_does_not_begin_again_in_silence(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    zero(store.save(1, {"a": b"b"}) / "a")
    with pytest.raises(TrainingError, match="None of the 1 checkpoints"):
        store.newest(report=lambda _: None)


def test_checkpoints_are_kept_as_the_settings_say(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in range(1, 11):
        store.save(step, {"a": b"b"})
        if step == 3:  # as “Save now” does
            store.keep(step)
        store.prune(keep_last=2, keep_every=4)
    assert store.steps() == [3, 4, 8, 9, 10]
    assert store.newest(report=pytest.fail).step == 10


def test_on_a_full_disk_it_waits_says_so_and_goes_on_with_nothing_lost(
    small_disk: Path, place: Place, start: Start
) -> None:
    whole = place.begin(name="whole", max_train_steps=20)
    assert finish(start, whole) == 0
    run = place.begin(name="full", max_train_steps=20)
    moved = RunFolder(Path(shutil.move(run.root, small_disk / "run")))
    process = start(moved)
    wait_until(lambda: len(CheckpointStore(moved.checkpoints).steps()) >= 1)
    filling = small_disk / "filling"
    with contextlib.suppress(OSError), filling.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    wait_until(lambda: CheckpointStore(moved.checkpoints).steps()[-1:] != [20] and no_steps_for(moved, 1.5))
    assert process.exitcode is None
    filling.unlink()
    process.join(60)
    assert process.exitcode == 0
    assert any("The disk is full" in str(getattr(event, "message", "")) for event in read_events(moved.events))
    assert final_state(moved, 20) == final_state(whole, 20)
    assert steps(moved) == [*range(1, 21)]


def no_steps_for(run: RunFolder, seconds: float) -> bool:
    before = CheckpointStore(run.checkpoints).steps()
    time.sleep(seconds)
    return CheckpointStore(run.checkpoints).steps() == before


def test_nan_in_latents_stops_the_run_names_step_timestep_and_picture_and_trains_nothing(
    place: Place, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = place.begin(max_train_steps=50)
    process = start(run)
    wait_until(lambda: len(steps(run)) > 2)
    ask(run, "stop")
    process.join(30)
    stopped = read_status(run).step
    before = final_state(run, stopped)
    read = LatentCache.moments

    def poisoned(cache: LatentCache, item: TrainingItem, variant: Variant) -> torch.Tensor:
        moments = read(cache, item, variant)
        return moments * torch.nan if item.key == "3.png" else moments

    monkeypatch.setattr(LatentCache, "moments", poisoned)
    with pytest.raises(TrainingError, match=r"The loss of step \d+ is not finite"):
        train_run(run, place.user_data)
    status = read_status(run)
    assert status.state == "failed"
    assert "3.png (timestep " in status.message
    reached = CheckpointStore(run.checkpoints).steps()[-1]
    assert f"step {reached + 1} is not finite" in status.message
    assert np.isfinite(np.concatenate([np.ravel(w) for w in weights_of(run, reached)])).all()
    if reached == stopped:
        assert final_state(run, stopped) == before


def weights_of(run: RunFolder, step: int) -> list[object]:
    weights = final_state(run, step)["weights"]
    assert isinstance(weights, dict)
    return list(weights.values())


def test_nan_in_a_gradient_stops_before_it_is_learned(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def poisoned(adapters: Adapters, settings: TrainingSettings) -> Optimizer:
        optimizer = make_optimizer(adapters, settings)
        calls = {"number": 0}

        def hook(gradient: torch.Tensor) -> torch.Tensor:
            calls["number"] += 1
            return gradient * torch.nan if calls["number"] == 5 else gradient  # in step 3: two batches a step

        adapters.parameters()[0].register_hook(hook)
        return optimizer

    monkeypatch.setattr(assembly, "make_optimizer", poisoned)
    run = place.begin()
    with pytest.raises(TrainingError, match="The gradient of step 3 is not finite"):
        train_run(run, place.user_data)
    assert read_status(run).state == "failed"
    newest = CheckpointStore(run.checkpoints).newest(report=lambda _: None)
    assert newest is not None
    assert newest.step == 2


def test_a_dataset_that_was_edited_is_noticed_before_a_resume(place: Place, start: Start) -> None:
    run = place.begin(max_train_steps=200)
    process = start(run)
    wait_until(lambda: len(steps(run)) > 1)
    ask(run, "stop")
    process.join(30)
    stopped = read_status(run).step
    Image.new("RGB", (72, 64), "white").save(place.dataset / "3.png")
    assert finish(start, run) == 1
    message = read_status(run).message
    assert "3.png is another file" in message
    assert "--use-snapshot" in message
    assert CheckpointStore(run.checkpoints).steps()[-1] == stopped


def test_with_the_snapshot_it_goes_on_as_if_nothing_had_been_edited(place: Place, start: Start) -> None:
    whole = place.begin(name="whole")
    assert finish(start, whole) == 0
    run = place.begin(name="edited")
    process = start(run)
    wait_until(lambda: len(steps(run)) > 1)
    ask(run, "stop")
    process.join(30)
    Image.new("RGB", (72, 64), "white").save(place.dataset / "3.png")
    process = start(run, use_snapshot=True)
    process.join(60)
    assert process.exitcode == 0
    assert final_state(run, LAST) == final_state(whole, LAST)


@pytest.mark.parametrize("images_too", [False, True])
def test_with_the_snapshot_it_goes_on_from_the_cache_where_masks_vanished(
    place: Place, start: Start, tmp_path: Path, images_too: bool
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(10):
        Image.linear_gradient("L").resize((72, 64 + 8 * (number % 2))).save(masks / f"{number}_mask.png")
    masked: dict[str, object] = {"mask_folder": str(masks), "unmasked_weight": 0.0}
    whole = place.begin(name="whole", **masked)
    assert finish(start, whole) == 0
    run = place.begin(name="killed", **masked)
    process = start(run)
    wait_until(lambda: len(steps(run)) > 1)
    process.kill()
    process.join(30)
    shutil.rmtree(masks)
    if images_too:
        shutil.rmtree(place.dataset)
    assert finish(start, run) == 1
    message = read_status(run).message
    assert "The mask of 0.png can no longer be read" in message
    assert "--use-snapshot" in message
    process = start(run, use_snapshot=True)
    process.join(60)
    assert process.exitcode == 0
    assert final_state(run, LAST) == final_state(whole, LAST)


def test_other_settings_are_refused_with_the_difference_and_watching_ones_are_not(place: Place, start: Start) -> None:
    run = place.begin(max_train_steps=200)
    process = start(run)
    wait_until(lambda: len(steps(run)) > 1)
    ask(run, "stop")
    process.join(30)
    text = run.settings.read_text(encoding="utf-8")
    run.settings.write_text(text.replace('"learning_rate": 0.01', '"learning_rate": 0.02'), encoding="utf-8")
    assert finish(start, run) == 1
    assert "learning_rate was 0.01, is 0.02" in read_status(run).message
    changed = text.replace('"held_out_steps": 4', '"held_out_steps": 50')
    assert changed != text
    run.settings.write_text(changed, encoding="utf-8")
    process = start(run)
    stopped = steps(run)[-1]
    wait_until(lambda: steps(run)[-1] > stopped)


def test_a_device_in_use_is_waited_for_and_its_owner_named(place: Place, start: Start) -> None:
    lock = DeviceLock(place.user_data.device_lock)
    assert lock.acquire("another program's work")
    run = place.begin()
    process = start(run)
    wait_until(lambda: read_status(run).state == "waiting")
    assert "another program's work" in read_status(run).message
    lock.release()
    process.join(60)
    assert (process.exitcode, read_status(run).state) == (0, "finished")


def test_a_run_is_trained_by_one_process_at_a_time(place: Place, start: Start) -> None:
    run = place.begin(max_train_steps=500)
    start(run)
    wait_until(lambda: len(steps(run)) > 1)
    with pytest.raises(RunError, match="is already being trained"):
        train_run(run, place.user_data)


def test_a_stopped_clock_costs_nothing(place: Place, start: Start) -> None:
    """A machine that sleeps: SIGSTOP, then SIGCONT."""
    run = place.begin(max_train_steps=30)
    process = start(run)
    wait_until(lambda: len(steps(run)) > 1)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    assert (process.exitcode, read_status(run).state) == (0, "finished")


def test_a_model_that_was_exchanged_is_refused(place: Place, start: Start) -> None:
    own = place.user_data.root / "model"
    shutil.copytree(place.model, own)
    run = place.begin(model=str(own), max_train_steps=200)
    process = start(run)
    wait_until(lambda: len(steps(run)) > 1)
    ask(run, "stop")
    process.join(30)
    file = own / "unet" / "diffusion_pytorch_model.safetensors"
    flip(file)
    assert finish(start, run) == 1
    assert "another one than when the run began" in read_status(run).message


def test_running_out_of_memory_is_said_with_what_to_lower(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(adapters: Adapters, settings: TrainingSettings) -> Optimizer:
        torch.empty(2**60)
        raise AssertionError("so much memory there is not")

    monkeypatch.setattr(assembly, "make_optimizer", greedy)
    run = place.begin()
    with pytest.raises(RuntimeError):
        train_run(run, place.user_data)
    message = read_status(run).message
    assert "not enough memory" in message
    assert "gradient_checkpointing" in message
    assert isinstance(place.user_data, UserData)
