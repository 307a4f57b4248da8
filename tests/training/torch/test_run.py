"""A run from its folder: what it makes again after a stop or a kill, and what it does not tell twice."""

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from studio.core.errors import SettingsError, StudioError
from studio.core.settings import GenerationSettings, LoraChoice, ModelSettings
from studio.engine.pipeline import PipelineManager
from studio.images.files import read_picture_text
from studio.jobs.events import NoteEvent, ProblemEvent, ResumedEvent, StateEvent
from studio.jobs.folder import ask, read_status
from studio.loras.library import LoraLibrary
from studio.training.events import (
    EffectEvent,
    HeldOutEvent,
    ReferenceEvent,
    SampleEvent,
    ScoreEvent,
    StepEvent,
    read_events,
)
from studio.training.folder import RunFolder
from studio.training.torch import loop as loop_module
from studio.training.torch import run as run_module
from studio.training.torch.checkpoints import CheckpointStore
from studio.training.torch.run import train_run
from studio.training.torch.scores import RunScores
from studio.training.torch.validation import Sampler, _is_made
from tests.faults import conftest as faults
from tests.faults.conftest import Place, finish
from tests.training.torch.parts import save_pictures

place, forks, start = faults.place, faults.forks, faults.start
Start = Callable[..., ForkServerProcess]
PICTURES = {"num_validation_images": 1, "validation_inference_steps": 2}


def wait_until(seen: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def reported(run: RunFolder, kind: type[StepEvent | HeldOutEvent | SampleEvent | ScoreEvent]) -> list[int]:
    return [event.step for event in read_events(run.events) if isinstance(event, kind)]


def problems(run: RunFolder) -> str:
    return " ".join(event.message for event in read_events(run.events) if isinstance(event, ProblemEvent))


def test_a_kill_before_the_first_checkpoint_leaves_each_step_told_once(place: Place, start: Start) -> None:
    run = place.begin(max_train_steps=40, checkpointing_steps=100, held_out_steps=20, **PICTURES)
    process = start(run)
    wait_until(lambda: len(reported(run, StepEvent)) > 3)
    process.kill()
    process.join()
    assert CheckpointStore(run.checkpoints).steps() == []
    assert finish(start, run) == 0
    assert reported(run, StepEvent) == [*range(1, 41)]
    assert reported(run, HeldOutEvent) == [0, 20, 40]
    assert reported(run, SampleEvent) == [0, 40]
    assert [e.step for e in read_events(run.events) if isinstance(e, ResumedEvent)] == [0]


def test_the_first_step_does_not_wait_for_the_pictures_of_the_base(place: Place) -> None:
    run = place.begin(max_train_steps=2, **PICTURES)
    assert train_run(run, place.user_data) == "finished"
    order = [
        (type(event), event.step) for event in read_events(run.events) if isinstance(event, StepEvent | SampleEvent)
    ]
    assert order == [(StepEvent, 1), (SampleEvent, 0), (StepEvent, 2), (SampleEvent, 2)]
    base, last = (event for event in read_events(run.events) if isinstance(event, SampleEvent))
    assert base.pictures == base.base == last.base
    assert not base.lora


@pytest.mark.parametrize(("how", "state"), [("signal", "stopped"), ("pause", "paused")])
def test_a_run_that_was_stopped_at_the_pictures_of_the_base_measures_nothing_twice(
    how: str, state: str, place: Place, start: Start
) -> None:
    run = place.begin(max_train_steps=2, held_out_steps=1, validation_inference_steps=150, num_validation_images=4)
    process = start(run)
    wait_until(lambda: reported(run, StepEvent) == [1])
    assert process.pid is not None
    if how == "signal":
        os.kill(process.pid, signal.SIGINT)
    else:
        ask(run, "pause")
    process.join(60)
    status = read_status(run)
    assert (process.exitcode, status.state, status.step) == (0, state, 1)
    assert reported(run, SampleEvent) == []
    text = run.settings.read_text(encoding="utf-8")
    run.settings.write_text(
        text.replace('"validation_inference_steps": 150', '"validation_inference_steps": 2'), "utf-8"
    )
    assert finish(start, run) == 0
    assert reported(run, HeldOutEvent) == [0, 1, 2]
    assert reported(run, SampleEvent) == [0, 2]


def test_a_stop_while_the_last_pictures_are_made_is_a_stop_and_they_are_made_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = place.begin(max_train_steps=2, **PICTURES)
    sample = Sampler.sample

    def stopped_at_the_last(sampler: Sampler, step: int, *rest: Any) -> SampleEvent:  # noqa: ANN401 - passed on
        assert step == 2
        os.kill(os.getpid(), signal.SIGINT)
        return sample(sampler, step, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Sampler, "sample", stopped_at_the_last)
        assert train_run(run, place.user_data) == "stopped"
    assert (read_status(run).state, read_status(run).step) == ("stopped", 2)
    assert not (run.root / "lora.safetensors").exists()
    assert train_run(run, place.user_data) == "finished"
    assert reported(run, SampleEvent) == [0, 2]
    assert reported(run, StepEvent) == [1, 2]
    assert (run.root / "lora.safetensors").is_file()


def test_a_stop_while_pictures_are_scored_is_a_stop_and_they_are_scored_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = place.begin(max_train_steps=2, **PICTURES)
    look = RunScores.look_at_training_pictures

    def stopped(scores: RunScores) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        look(scores)

    with monkeypatch.context() as patched:
        patched.setattr(RunScores, "look_at_training_pictures", stopped)
        assert train_run(run, place.user_data) == "stopped"
    assert (reported(run, StepEvent), reported(run, SampleEvent), reported(run, ScoreEvent)) == ([1], [0], [])
    assert train_run(run, place.user_data) == "finished"
    assert (reported(run, StepEvent), reported(run, SampleEvent), reported(run, ScoreEvent)) == ([1, 2], [0, 2], [0, 2])
    assert sum(isinstance(event, ReferenceEvent) for event in read_events(run.events)) == 1
    states = [event for event in read_events(run.events) if isinstance(event, StateEvent)]
    at = [event.message for event in states].index("Scoring images that were made before.")
    assert (states[at].state, states[at + 1].state, states[at + 1].message) == ("sampling", "running", "")


def test_a_finished_run_that_is_resumed_trains_nothing_and_gives_the_library_nothing_new(
    place: Place, start: Start
) -> None:
    run = place.begin(max_train_steps=2, **PICTURES)
    assert finish(start, run) == 0
    weights = load_file(run.root / "lora.safetensors")
    assert finish(start, run) == 0
    assert read_status(run).state == "finished"
    assert reported(run, StepEvent) == [1, 2]
    said = [event.message for event in read_events(run.events) if isinstance(event, StateEvent)]
    assert said.count("Resuming from step 2.") == 1
    again = load_file(run.root / "lora.safetensors")
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    assert [path.name for path in place.user_data.loras.iterdir()] == ["lora.safetensors"]


def test_a_twin_of_a_run_is_in_the_library_too(place: Place, start: Start) -> None:
    """The same settings give the same weights; it is another run all the same."""
    for _ in range(2):
        assert finish(start, place.begin(max_train_steps=2)) == 0
    assert sorted(path.name for path in place.user_data.loras.iterdir()) == ["lora 2.safetensors", "lora.safetensors"]


def test_pictures_that_were_deleted_do_not_keep_a_run_from_its_end(place: Place, start: Start) -> None:
    run = place.begin(max_train_steps=2, **PICTURES)
    assert finish(start, run) == 0
    for picture in run.samples.rglob("*.png"):
        picture.unlink()
    assert finish(start, run) == 0
    assert read_status(run).state == "finished"


def test_a_cache_that_was_deleted_between_stop_and_resume_is_made_again(place: Place, start: Start) -> None:
    whole, run = place.begin(name="whole", **PICTURES), place.begin(name="run", max_train_steps=8, **PICTURES)
    assert finish(start, whole) == 0
    process = start(run)
    wait_until(lambda: len(reported(run, StepEvent)) > 1)
    ask(run, "stop")
    process.join(60)
    shutil.rmtree(place.user_data.cache)
    assert finish(start, run) == 0
    assert faults.final_state(run, 8) == faults.final_state(whole, 8)


def test_means_and_all_go_on_to_the_bit_after_a_stop(place: Place, start: Start) -> None:
    changes = {
        "use_ema": True,
        "optimizer": "Prodigy",
        "learning_rate": 1.0,
        "train_text_encoder": True,
        "crop": "random",
        "horizontal_flip": True,
        "scale_jitter_percent": 20,
        "brightness_jitter_percent": 20,
    }
    whole, run = place.begin(name="whole", **changes), place.begin(name="stopped", **changes)
    assert finish(start, whole) == 0
    process = start(run)
    wait_until(lambda: len(reported(run, StepEvent)) > 1)
    ask(run, "stop")
    process.join(60)
    assert finish(start, run) == 0
    assert faults.final_state(run, 8) == faults.final_state(whole, 8)
    files = [r.checkpoints / "step-000008" / "ema.safetensors" for r in (run, whole)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_lora_without_effect_is_told_in_a_run_of_any_length(place: Place) -> None:
    run = place.begin(max_train_steps=1, learning_rate=1e-9, lr_warmup_steps=0)
    assert train_run(run, place.user_data) == "finished"
    assert [e.step for e in read_events(run.events) if isinstance(e, EffectEvent)] == [1]
    assert "no effect yet at step 1" in problems(run)


def test_a_run_that_began_with_diffusers_warm_up_goes_on_with_it(place: Place) -> None:
    """Its plan tells nothing of the warm-up; to the bit it would end elsewhere with ours."""

    def rates() -> list[float]:
        assert train_run(run, place.user_data) == "finished"
        return [event.learning_rate for event in read_events(run.events) if isinstance(event, StepEvent)]

    run = place.begin(max_train_steps=3, lr_scheduler="linear", lr_warmup_steps=2)
    assert rates() == pytest.approx([0.5e-2, 1e-2, 1e-2])
    plan = json.loads(run.plan.read_bytes())
    del plan["warmup_from_zero"]
    run.plan.write_text(json.dumps(plan), encoding="utf-8")
    shutil.rmtree(run.checkpoints)
    run.events.unlink()
    assert rates() == pytest.approx([0, 0.5e-2, 1e-2])


def test_steps_and_held_out_losses_of_a_run_are_of_the_kind_that_was_chosen(place: Place) -> None:
    """With a large constant c, smooth_l1 is l2 divided by c: of the same noise, before anything is learned."""
    constant, losses = {"huber_c": 100.0, "huber_schedule": "constant"}, []
    for kind in ("l2", "smooth_l1"):
        run = place.begin(max_train_steps=1, held_out_steps=1, loss_type=kind, **constant)
        assert train_run(run, place.user_data) == "finished"
        events = read_events(run.events)
        step = next(event.loss for event in events if isinstance(event, StepEvent))
        losses.append((step, next(event.trained_loss for event in events if isinstance(event, HeldOutEvent))))
    (step, trained), (smooth_step, smooth_trained) = losses
    assert smooth_step == pytest.approx(step / 100, rel=1e-2)
    assert smooth_trained == pytest.approx(trained / 100, rel=1e-2)


def test_a_lora_with_effect_is_not_complained_of(place: Place) -> None:
    run = place.begin(max_train_steps=3, lr_warmup_steps=0, lr_scheduler="constant")
    assert train_run(run, place.user_data) == "finished"
    assert problems(run) == ""
    effect = next(e for e in read_events(run.events) if isinstance(e, EffectEvent))
    assert max(effect.groups.values()) > loop_module.NO_EFFECT


def test_asked_for_pictures_that_it_does_not_make_it_says_so(place: Place, start: Start) -> None:
    run = place.begin(max_train_steps=500)
    start(run)
    wait_until(lambda: len(reported(run, StepEvent)) > 1)
    ask(run, "sample")
    wait_until(lambda: "No images are made" in problems(run))


def test_without_captions_it_says_why_there_are_no_pictures(place: Place) -> None:
    for caption in place.dataset.glob("*.txt"):
        caption.unlink()
    run = place.begin(max_train_steps=1, **PICTURES)
    assert train_run(run, place.user_data) == "finished"
    notes = " ".join(event.message for event in read_events(run.events) if isinstance(event, NoteEvent))
    assert "No validation images are made: no image has a caption." in notes
    assert reported(run, SampleEvent) == []


def test_more_regularisation_pictures_than_are_used_are_told(place: Place, tmp_path: Path) -> None:
    prior = save_pictures(tmp_path / "prior", [(80, 80)] * 12, first_seed=100)
    run = place.begin(max_train_steps=1, prior_dataset=str(prior))
    assert train_run(run, place.user_data) == "finished"
    notes = json.loads(run.plan.read_bytes())["notes"]
    assert (
        "8 regularisation images are mixed in, each with its weight. 4 more are not used: one is shown for each of "
        "ours."
    ) in notes


def test_the_finished_file_acts_as_the_last_pictures_show(place: Place) -> None:
    """The image of the last step, made once more with the library's file."""
    run = place.begin(max_train_steps=4, **PICTURES)
    assert train_run(run, place.user_data) == "finished"
    picture = next((run.samples / "step-000004").glob("*.png"))
    library = LoraLibrary(place.user_data.loras)
    manager = PipelineManager(torch.device("cpu"), rejected_folder=place.user_data.rejected, library=library)
    manager.load(ModelSettings(model=str(place.model)))
    settings = read_picture_text(picture).settings.model_copy(update={"loras": (LoraChoice(name="lora"),)})
    made = manager.generate(settings).picture
    assert np.array_equal(np.asarray(Image.open(picture)), made)


def test_pictures_that_were_damaged_unscored_do_not_keep_a_run_from_its_end(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = place.begin(max_train_steps=2, **PICTURES)
    with monkeypatch.context() as patch:
        patch.setattr(RunScores, "score", _killed)
        with pytest.raises(KeyboardInterrupt):
            train_run(run, place.user_data)
    assert read_status(run).state == "stopped"
    for picture in run.samples.rglob("*.png"):
        content = bytearray(picture.read_bytes())
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
        picture.write_bytes(content)
    assert train_run(run, place.user_data) == "finished"


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_base_picture_that_was_damaged_is_made_again(place: Place, tmp_path: Path) -> None:
    run = place.begin(max_train_steps=1, **PICTURES)
    assert train_run(run, place.user_data) == "finished"
    base = next(run.samples.rglob("base/*.png"))
    settings, before = read_picture_text(base).settings, base.read_bytes()
    assert _is_made(base, settings)
    damaged = bytearray(before)
    damaged[before.index(b"IDAT") + 40] ^= 1
    base.write_bytes(damaged)
    assert read_picture_text(base).settings == settings, "its text is whole"
    assert not _is_made(base, settings)


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), ValueError("too many steps")])
def test_validation_pictures_that_cannot_be_made_are_told_and_the_training_goes_on(
    error: Exception, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = PipelineManager.generate

    def failing(self: PipelineManager, settings: GenerationSettings, **options: object) -> object:
        if settings.num_inference_steps == PICTURES["validation_inference_steps"]:
            raise error
        return generate(self, settings, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(PipelineManager, "generate", failing)
    run = place.begin(max_train_steps=1, **PICTURES)
    assert train_run(run, place.user_data) == "finished"
    assert "of step 1 cannot be made" in problems(run)


@pytest.mark.parametrize(
    ("error", "state", "words"),
    [
        (KeyError("of ours"), "failed", "KeyError: 'of ours'"),
        (ValueError("a bug"), "failed", "ValueError: a bug"),
        (SystemExit(3), "failed", "SystemExit: 3"),
        (KeyboardInterrupt(), "stopped", "It was interrupted; resume to continue."),
    ],
)
def test_whatever_ends_a_training_is_in_its_status_and_goes_on_up(
    error: BaseException, state: str, words: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("studio.training.torch.run.prepare", fail)
    run = place.begin()
    with pytest.raises(type(error)):
        train_run(run, place.user_data)
    status = read_status(run)
    assert (status.state, status.pid) == (state, 0)
    assert words in status.message
    last = [event for event in read_events(run.events) if isinstance(event, StateEvent)][-1]
    assert (last.state, last.message) == (state, status.message)
    assert (run.root / "report.html").is_file()


def test_a_run_that_finished_has_finished_though_its_report_cannot_be_written(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(run: RunFolder) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(run.root / "report.html"))

    monkeypatch.setattr("studio.training.torch.run.write_report", full)
    run = place.begin(max_train_steps=1)
    assert train_run(run, place.user_data) == "finished"
    assert read_status(run).state == "finished"
    assert "The report cannot be written: The disk is full" in capsys.readouterr().err


def test_a_full_disk_at_the_end_is_waited_for_and_the_files_are_written_then(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []
    write: Callable[..., object] = run_module.finish

    def full_twice(*arguments: object, **options: object) -> object:
        tries.append("finish")
        if len(tries) <= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments, **options)

    monkeypatch.setattr("studio.jobs.reporter.LOOK_FOR_ROOM_SECONDS", 0.01)
    monkeypatch.setattr("studio.training.torch.run.finish", full_twice)
    run = place.begin(max_train_steps=1)
    assert train_run(run, place.user_data) == "finished"
    assert read_status(run).state == "finished"
    reported = [event.message for event in read_events(run.events) if isinstance(event, StateEvent)]
    assert sum(message.startswith("The disk is full: step 1 cannot be saved.") for message in reported) == 1
    assert (run.root / "lora.safetensors").is_file()


def test_a_run_whose_settings_cannot_be_read_says_so(place: Place) -> None:
    run = place.begin()
    run.settings.write_bytes(b"{")
    with pytest.raises(StudioError):
        train_run(run, place.user_data)
    assert read_status(run).state == "failed"
    assert read_status(run).message


def test_validation_steps_that_the_models_scheduler_refuses_are_said_before_the_first_step(place: Place) -> None:
    config = place.model / "scheduler" / "scheduler_config.json"
    model = Path(shutil.copytree(place.model, place.user_data.root / "model"))
    lcm = {**json.loads(config.read_text(encoding="utf-8")), "_class_name": "LCMScheduler"}
    (model / "scheduler" / config.name).write_text(json.dumps(lcm), encoding="utf-8")
    index = model / "model_index.json"
    index.write_text(index.read_text(encoding="utf-8").replace("DDIMScheduler", "LCMScheduler"), encoding="utf-8")
    run = place.begin(model=str(model), num_validation_images=1, validation_inference_steps=51)
    with pytest.raises(SettingsError, match="num_inference_steps cannot be 51 with the scheduler model's own"):
        train_run(run, place.user_data)
    assert reported(run, StepEvent) == []
