"""What comes out of a run is there whatever its checks find, and what they find is told."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from studio.core.errors import InvalidImageError
from studio.engine.lora_file import LayerWeights, LoraWeights
from studio.jobs.events import NoteEvent, ProblemEvent
from studio.jobs.folder import read_status
from studio.training.events import FinishedEvent, read_events
from studio.training.folder import RunFolder
from studio.training.torch import finish as finish_module
from studio.training.torch.checkpoints import TrainingState
from studio.training.torch.run import train_run
from tests.faults import conftest as faults
from tests.faults.conftest import Place

place = faults.place
PICTURES = {"num_validation_images": 1, "validation_inference_steps": 2}


def reported(run: RunFolder, kind: type[NoteEvent | ProblemEvent]) -> str:
    return " ".join(event.message for event in read_events(run.events) if isinstance(event, kind))


def scaled(weights: LoraWeights, factor: float) -> LoraWeights:
    def larger(layers: Mapping[str, LayerWeights]) -> dict[str, LayerWeights]:
        return {path: replace(layer, up=layer.up * factor) for path, layer in layers.items()}

    return LoraWeights(larger(weights.unet), larger(weights.text_encoder))


def assert_finished_with(words: str, run: RunFolder, place: Place) -> FinishedEvent:
    """The files are in the run and in the library; status, events and report say what was found."""
    finished = [event for event in read_events(run.events) if isinstance(event, FinishedEvent)][-1]
    assert finished.files == ("lora.safetensors", "pytorch_lora_weights.safetensors")
    assert all((run.root / file).is_file() for file in finished.files)
    assert (place.user_data.loras / f"{finished.library_name}.safetensors").is_file()
    assert words in " ".join(finished.problems)
    assert words in reported(run, ProblemEvent)
    status = read_status(run)
    assert status.state == "finished"
    assert words in status.message
    assert f"python -m studio train {run.name} writes and checks the files again" in status.message
    assert words in (run.root / "report.md").read_text(encoding="utf-8").replace("\\_", "_")
    return finished


def assert_finishes_without_a_problem(run: RunFolder, place: Place) -> FinishedEvent:
    assert train_run(run, place.user_data) == "finished"
    finished = [event for event in read_events(run.events) if isinstance(event, FinishedEvent)][-1]
    assert finished.problems == ()
    assert read_status(run).message == "The LoRA lora is finished."
    ours = load_file(run.root / "lora.safetensors")
    theirs = load_file(place.user_data.loras / f"{finished.library_name}.safetensors")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    return finished


def test_what_other_programs_make_of_the_file_is_said_at_the_beginning_and_at_the_end(place: Place) -> None:
    run = place.begin(max_train_steps=1, use_dora=True)
    assert_finishes_without_a_problem(run, place)
    for words in ("DoRA is computed otherwise by A1111", "sd-scripts' own LoRA reader drops conv_in and conv_out"):
        assert reported(run, NoteEvent).count(words) == 2
        assert words in (run.root / "report.md").read_text(encoding="utf-8").replace("\\_", "_")


def test_a_file_that_acts_otherwise_than_the_trained_layers_is_there_and_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = place.begin(max_train_steps=2)
    weights = TrainingState.weights
    with monkeypatch.context() as patched:
        patched.setattr(TrainingState, "weights", lambda state: scaled(weights(state), 3))
        assert train_run(run, place.user_data) == "finished"
    assert_finished_with("An image with lora.safetensors differs from one with the trained layers by", run, place)
    assert_finishes_without_a_problem(run, place)


def test_a_file_that_is_read_back_as_another_is_there_and_told_and_a_right_one_takes_its_place(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = place.begin(max_train_steps=2, save_dtype="float32")
    write = finish_module.write_kohya

    def damaging(path: Path, *rest: object, **options: object) -> None:
        write(path, *rest, **options)  # type: ignore[arg-type]
        content = bytearray(path.read_bytes())
        content[-1] ^= 0x40  # the exponent of the last number
        path.write_bytes(content)

    with monkeypatch.context() as patched:
        patched.setattr(finish_module, "write_kohya", damaging)
        assert train_run(run, place.user_data) == "finished"
    first = assert_finished_with("lora.safetensors", run, place)
    assert "what was trained" in first.problems[0]
    assert_finishes_without_a_problem(run, place)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InvalidImageError(check="decoded", finding="It holds NaN.", advice="Train on."), "It holds NaN."),
        (RuntimeError("MPS backend out of memory"), "There is not enough memory"),
        (OSError(5, "Input/output error"), "The system refused"),
    ],
)
def test_a_check_that_cannot_be_made_leaves_the_files_and_says_so(
    error: Exception, words: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = place.begin(max_train_steps=2)

    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(finish_module, "_picture_problem", failing)
    assert train_run(run, place.user_data) == "finished"
    sentence = "It could not be checked whether the files match the trained layers."
    finished = assert_finished_with(sentence, run, place)
    assert words in finished.problems[0]


def test_weights_that_float16_cannot_hold_are_stored_in_float32(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run = place.begin(max_train_steps=2, **PICTURES)
    weights = TrainingState.weights
    monkeypatch.setattr(TrainingState, "weights", lambda state: scaled(weights(state), 1e8))
    assert train_run(run, place.user_data) == "finished"
    assert "The files are stored in float32. In float16: lora.safetensors does not hold what" in reported(
        run, NoteEvent
    )
    stored = load_file(run.root / "lora.safetensors")
    assert max(float(tensor.abs().max()) for tensor in stored.values()) > 65504


def test_a_damaged_validation_picture_costs_the_thumbnail_and_nothing_else(place: Place) -> None:
    run = place.begin(max_train_steps=2, **PICTURES)
    assert train_run(run, place.user_data) == "finished"
    for picture in run.samples.rglob("*.png"):
        picture.write_bytes(picture.read_bytes()[:200])
    assert_finishes_without_a_problem(run, place)
    assert "The file has no thumbnail" in reported(run, NoteEvent)


def test_what_the_library_cannot_take_is_in_the_runs_folder_and_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is cut off right after it was written: neither the check nor the library can read it."""
    run = place.begin(max_train_steps=2)
    write = finish_module.write_kohya

    def cutting(path: Path, *rest: object, **options: object) -> None:
        write(path, *rest, **options)  # type: ignore[arg-type]
        path.write_bytes(path.read_bytes()[:-100])

    with monkeypatch.context() as patched:
        patched.setattr(finish_module, "write_kohya", cutting)
        assert train_run(run, place.user_data) == "finished"
    finished = [event for event in read_events(run.events) if isinstance(event, FinishedEvent)][-1]
    assert finished.library_name == ""
    assert "lora.safetensors is not in the library." in read_status(run).message
    assert "It is not in the library." in (run.root / "report.md").read_text(encoding="utf-8")
    assert finished.files == ("lora.safetensors", "pytorch_lora_weights.safetensors")
    assert_finishes_without_a_problem(run, place)
