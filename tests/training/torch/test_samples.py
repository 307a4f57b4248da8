"""What images of a run are made of: captions as plain text, and the prompts of the user, which are checked before."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from studio.core.errors import SettingsError, TrainingError
from studio.core.results import ImageRecord
from studio.images.files import read_picture_text
from studio.images.prompts import escape_prompt
from studio.jobs.events import ProblemEvent
from studio.jobs.folder import read_status
from studio.loras.library import LoraLibrary, shipped_loras
from studio.loras.weights_file import sha256_of
from studio.training.events import FinishedEvent, SampleEvent, StepEvent, read_events
from studio.training.folder import RunFolder
from studio.training.torch import run as run_module
from studio.training.torch.loop import OptimizerSteps
from studio.training.torch.run import train_run
from tests.faults import conftest as faults
from tests.faults.conftest import Place

place = faults.place
COMMANDS = "a shoe <lora:someStyle:0.8> (red:1.3) [v2] {a|b} __colour__\\"
PICTURES = {"num_validation_images": 1, "validation_inference_steps": 2}


def write_captions(dataset: Path, caption: str) -> None:
    for file in dataset.glob("*.txt"):
        file.write_text(caption, encoding="utf-8")


def problems(run: RunFolder) -> list[str]:
    return [event.message for event in read_events(run.events) if isinstance(event, ProblemEvent)]


def samples(run: RunFolder) -> list[SampleEvent]:
    return [event for event in read_events(run.events) if isinstance(event, SampleEvent)]


def record_of(run: RunFolder, pictures: Sequence[str | None]) -> ImageRecord:
    (picture,) = pictures
    assert picture is not None
    record = read_picture_text(run.root / picture).record
    assert record is not None
    return record


def assert_files_are_there(run: RunFolder, place: Place) -> None:
    (finished,) = [event for event in read_events(run.events) if isinstance(event, FinishedEvent)]
    assert finished.files == (f"{run_name(run)}.safetensors", "pytorch_lora_weights.safetensors")
    assert all((run.root / file).is_file() for file in finished.files)
    assert (place.user_data.loras / f"{finished.library_name}.safetensors").is_file()


def run_name(run: RunFolder) -> str:
    return str(json.loads(run.settings.read_bytes())["name"])


@pytest.mark.parametrize("caption", [COMMANDS, "a shoe <lora:lora:0.8>", "<lora:x:9:9>", "(((", "a\\"])
@pytest.mark.parametrize("num_images", [0, 1])
def test_a_run_finishes_whatever_its_captions_hold(caption: str, num_images: int, place: Place) -> None:
    write_captions(place.dataset, caption)
    run = place.begin(**{**PICTURES, "max_train_steps": 2, "num_validation_images": num_images})
    assert train_run(run, place.user_data) == "finished"
    assert problems(run) == []
    assert_files_are_there(run, place)


def test_a_caption_is_shown_as_it_is_and_its_picture_is_of_that_text(place: Place) -> None:
    write_captions(place.dataset, COMMANDS)
    run = place.begin(max_train_steps=2, **PICTURES)
    assert train_run(run, place.user_data) == "finished"
    last = samples(run)[-1]
    assert last.prompts == (COMMANDS,)
    made = record_of(run, last.pictures)
    assert made.settings.prompt == escape_prompt(COMMANDS)
    assert [lora.name for lora in made.loras] == [str((run.root / last.lora).resolve())], "only the run's own"


@pytest.mark.parametrize("num_images", [0, 1])
def test_a_run_that_failed_at_its_end_for_a_caption_finishes_when_it_is_resumed(
    num_images: int, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps are trained and saved, no file is there: as the check of the export left it, with a caption's tag."""
    write_captions(place.dataset, COMMANDS)
    run = place.begin(**{**PICTURES, "max_train_steps": 2, "num_validation_images": num_images})

    def failing(*_: object, **__: object) -> None:
        raise TrainingError("There is no LoRA named someStyle in the library, which has: none.")

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "finish", failing)
        with pytest.raises(TrainingError, match="someStyle"):
            train_run(run, place.user_data)
    assert read_status(run).state == "failed"
    assert json.loads(run.plan.read_bytes())["prompts"] == [COMMANDS] * num_images, "as runs of before have them"
    assert train_run(run, place.user_data) == "finished"
    assert [event.step for event in read_events(run.events) if isinstance(event, StepEvent)] == [1, 2]
    assert_files_are_there(run, place)


# Prompts of the user


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a shoe <lora:nowhere:1>", r"'a shoe <lora:nowhere:1>' cannot be used\. There is no LoRA named nowhere"),
        ("a shoe <lora:lora:9>", "must be a number between -4 and 4"),
        ("a shoe <lora::1>", "names no LoRA"),
    ],
)
def test_a_prompt_that_cannot_be_followed_is_refused_before_there_is_a_run(
    prompt: str, words: str, place: Place
) -> None:
    with pytest.raises(SettingsError, match=f"validation_prompts: .*{words}"):
        place.begin(validation_prompts=("a shoe", prompt), num_validation_images=2)
    assert not place.user_data.runs.exists()


def test_a_prompts_lora_that_does_not_fit_the_model_is_refused_before_the_first_step(place: Place) -> None:
    name = next(shipped_loras().glob("*.safetensors")).stem
    run = place.begin(validation_prompts=(f"a shoe <lora:{name}:1>",), **PICTURES)
    with pytest.raises(TrainingError, match=rf"validation_prompts: 'a shoe <lora:{name}:1>' cannot be used\."):
        train_run(run, place.user_data)
    assert [event for event in read_events(run.events) if isinstance(event, StepEvent)] == []
    assert f"<lora:{name}:1>" in read_status(run).message


@pytest.mark.parametrize("train_text_encoder", [False, True])
def test_tags_and_weights_act_in_prompts_of_the_user(train_text_encoder: bool, place: Place) -> None:
    """One whose LoRA changes the text encoder as well, which the second run itself does not train."""
    style = place.begin(name="style", max_train_steps=2, train_text_encoder=train_text_encoder)
    assert train_run(style, place.user_data) == "finished"
    prompt = "(red:1.4) boots <lora:style:0.5>"
    run = place.begin(max_train_steps=2, validation_prompts=(prompt,), **PICTURES)
    assert train_run(run, place.user_data) == "finished"
    assert problems(run) == []
    last = samples(run)[-1]
    assert last.prompts == (prompt,)
    base, made = record_of(run, last.base), record_of(run, last.pictures)
    assert base.settings.prompt == made.settings.prompt == prompt
    assert [(lora.name, lora.strength) for lora in base.loras] == [("style", 0.5)]
    assert [lora.name for lora in made.loras][1:] == ["style"]


def test_a_prompts_lora_that_is_renamed_meanwhile_goes_on_acting(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Mac's way of writing é, and a name of the library that is taken by another LoRA at once."""
    for name in ("caf\u00e9", "other"):
        assert train_run(place.begin(name=name, max_train_steps=1), place.user_data) == "finished"
    library, take = LoraLibrary(place.user_data.loras), OptimizerSteps.take
    run = place.begin(max_train_steps=3, validation_prompts=("boots <lora:cafe\u0301:0.5>",), **PICTURES)

    def renaming(steps: OptimizerSteps) -> StepEvent:
        if steps.state.position.step == 1:
            library.rename("caf\u00e9", "tea")
            library.rename("other", "caf\u00e9")
        return take(steps)

    sha256 = sha256_of(place.user_data.loras / "caf\u00e9.safetensors")
    monkeypatch.setattr(OptimizerSteps, "take", renaming)
    assert train_run(run, place.user_data) == "finished"
    assert problems(run) == []
    made = record_of(run, samples(run)[-1].pictures)
    assert sha256 in [lora.sha256 for lora in made.loras]


def test_a_prompts_lora_that_was_deleted_since_keeps_no_run_from_its_end(place: Place) -> None:
    assert train_run(place.begin(name="style", max_train_steps=1), place.user_data) == "finished"
    run = place.begin(max_train_steps=1, validation_prompts=("boots <lora:style:1>",), **PICTURES)
    assert train_run(run, place.user_data) == "finished"
    (place.user_data.loras / "style.safetensors").unlink()
    shutil.rmtree(run.checkpoints)
    shutil.rmtree(run.samples)
    run.events.unlink()
    assert train_run(run, place.user_data) == "finished"
    assert_files_are_there(run, place)
    assert [event.pictures for event in samples(run)] == [(None,), (None,)]
    assert "'boots <lora:style:1>' of step 1 cannot be made. There is no LoRA named style" in " ".join(problems(run))
