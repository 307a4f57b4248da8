"""One item that cannot be made ends no batch; whatever ends a batch is in its status."""

import errno
import pkgutil
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.batches.folder import BatchFolder
from studio.batches.plan import BatchPlan
from studio.batches.torch.run import run_batch
from studio.core.errors import BatchError, LoraError, ModelError
from studio.core.paths import UserData
from studio.core.settings import GenerationSettings
from studio.engine.pipeline import GeneratedImage, PipelineManager
from studio.jobs.events import NoteEvent, StateEvent
from studio.jobs.folder import RunRequest, ask, read_status
from studio.loras.library import LoraLibrary
from studio.training.events import read_events
from tests.batches.torch.made import begun, lines, rows

Generate = Callable[..., GeneratedImage]


def failing(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, is_bad: Callable[[GenerationSettings], bool]
) -> list[int]:
    """Every `generate()` of settings of the caller's choice raises; returns the seeds it was asked for."""
    generate, asked = PipelineManager.generate, []

    def failing_generate(self: PipelineManager, settings: GenerationSettings, **options: object) -> GeneratedImage:
        asked.append(settings.seed)
        if is_bad(settings):
            raise error
        made: GeneratedImage = generate(self, settings, **options)  # type: ignore[arg-type]
        return made

    monkeypatch.setattr(PipelineManager, "generate", failing_generate)
    return asked


def run(folder: BatchFolder, tmp_path: Path) -> str:
    return run_batch(folder, UserData(tmp_path))


def states(folder: BatchFolder) -> list[str]:
    return [row.state for row in rows(folder)]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("60 steps are too many"), "ValueError: 60 steps are too many"),
        (LoraError("There is no LoRA named x."), "There is no LoRA named x."),
        (MemoryError(), "There is not enough memory"),
        (RuntimeError("MPS backend out of memory"), "There is not enough memory"),
        (TypeError("no such argument"), "TypeError: no such argument"),
        (OSError(5, "Input/output error"), "Input/output error"),
    ],
)
def test_an_error_over_an_item_is_that_items_and_the_batch_goes_on(
    error: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path)
    asked = failing(monkeypatch, error, lambda settings: settings.seed == 9)
    assert run(folder, tmp_path) == "finished"
    assert states(folder) == ["done", "done", "failed", "done", "done", "done"]
    assert words in rows(folder)[2].reason
    assert asked == [7, 8, 9, 10, 11, 12, 9], "tried once more when all others are made"
    assert len(lines(folder)) == 5
    assert words in folder.report.read_text(encoding="utf-8").replace("\\", "")
    assert any(words in event.message for event in read_events(folder.events) if isinstance(event, NoteEvent))
    status = read_status(folder)
    assert status.message == (
        "5 images are made; 1 failed, and the report says why. "
        f"`python -m studio batch {folder.name}` tries 1 of them again."
    )


def test_a_failed_item_is_made_by_a_resume_and_by_the_end_of_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path)
    with monkeypatch.context() as patch:
        failing(patch, ValueError("not yet"), lambda settings: settings.seed == 9)
        run(folder, tmp_path)
    with monkeypatch.context() as patch:
        asked = failing(patch, ValueError(), lambda settings: False)
        assert run(folder, tmp_path) == "finished"
        assert asked == [9]
    assert states(folder) == ["done"] * 6
    assert read_status(folder).message == "6 images are made."


def test_an_item_that_was_rejected_until_no_try_was_left_is_not_tried_again(tmp_path: Path) -> None:
    folder = begun(tmp_path, least_whiteness=1.0, max_retries=0, total=1)
    run(folder, tmp_path)
    before = rows(folder)
    run(folder, tmp_path)
    assert rows(folder) == before
    assert "tries" not in read_status(folder).message


def test_errors_in_a_row_that_no_settings_explain_end_the_batch_and_a_resume_goes_on_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path)
    asked = failing(monkeypatch, RuntimeError("the device is lost"), lambda _: True)
    for first in (7, 10):
        with pytest.raises(RuntimeError, match="the device is lost"):
            run(folder, tmp_path)
        assert asked == [first, first + 1, first + 2]
        status = read_status(folder)
        assert (status.state, status.pid) == ("failed", 0)
        assert "the device is lost" in status.message
        asked.clear()
    assert run(folder, tmp_path) == "finished"
    assert asked == [7, 8, 9, 10, 11, 12]
    assert states(folder) == ["failed"] * 6


def test_any_number_of_impossible_items_in_a_row_end_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begun(tmp_path)
    failing(monkeypatch, ValueError("impossible"), lambda settings: settings.seed < 12)
    assert run(folder, tmp_path) == "finished"
    assert states(folder) == ["failed"] * 5 + ["done"]


def test_an_item_that_only_the_plan_can_refuse_is_that_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = BatchPlan.item
    folder = begun(tmp_path)

    def refusing(self: BatchPlan, index: int) -> object:
        if index == 1:
            raise BatchError("prompts line 1, item 1: no such value")
        return item(self, index)

    monkeypatch.setattr(BatchPlan, "item", refusing)
    assert run(folder, tmp_path) == "finished"
    assert states(folder) == ["done", "failed", "done", "done", "done", "done"]
    assert rows(folder)[1].reason == "prompts line 1, item 1: no such value"


def test_a_broken_lora_in_one_row_is_that_rows(tmp_path: Path) -> None:
    prompts = "boots\nboots <lora:broken:1>\nboots <lora:white-ground:0.5>"
    loras = UserData(tmp_path).loras
    loras.mkdir(parents=True)
    whole = LoraLibrary(loras).find("white-ground").read_bytes()
    (loras / "broken.safetensors").write_bytes(whole[: len(whole) // 2])
    folder = begun(tmp_path, prompts=prompts, attributes="")
    assert run(folder, tmp_path) == "finished"
    assert states(folder) == ["done", "failed", "done"]
    assert "broken.safetensors" in rows(folder)[1].reason
    assert "copy or download it again." in rows(folder)[1].reason


def test_one_file_that_the_disk_does_not_write_is_that_items(tmp_path: Path) -> None:
    folder = begun(tmp_path, total=3)
    in_the_way = folder.picture(1, "png")
    in_the_way.mkdir(parents=True)
    assert run(folder, tmp_path) == "finished"
    assert states(folder) == ["done", "failed", "done"]
    assert in_the_way.name in rows(folder)[1].reason
    assert len(lines(folder)) == 2


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_model_that_cannot_be_read_ends_the_batch_and_the_status_names_it(
    part: str, tmp_path: Path, tiny_model: Path
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights = next((model / part).glob("*.safetensors"))
    folder = begun(tmp_path, model=str(model), total=1)
    weights.write_bytes(weights.read_bytes()[:1000])  # after it was begun: what is begun was checked
    with pytest.raises(ModelError):
        run(folder, tmp_path)
    status = read_status(folder)
    assert (status.state, status.pid) == ("failed", 0)
    assert str(model) in status.message
    assert "copy or download it again" in status.message.lower()


def test_a_disk_that_writes_nothing_ends_the_batch_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path)

    def refuse(path: Path, _content: bytes) -> None:
        if path.suffix == ".png":
            raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("studio.batches.torch.run.write_atomically", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        run(folder, tmp_path)
    assert states(folder) == ["failed"] * 3
    assert read_status(folder).state == "failed"
    assert "Input/output error" in read_status(folder).message


@pytest.mark.parametrize(
    ("error", "state", "words"),
    [
        (ZeroDivisionError("of ours"), "failed", "ZeroDivisionError: of ours"),
        (AssertionError("a bug"), "failed", "AssertionError: a bug"),
        (SystemExit(3), "failed", "SystemExit: 3"),
        (BatchError("A sentence."), "failed", "A sentence."),
        (PermissionError(13, "Permission denied", "dataset"), "failed", "dataset is not writable"),
        (KeyboardInterrupt(), "stopped", "It was interrupted; resume to continue."),
    ],
)
def test_whatever_ends_a_batch_is_in_its_status_and_goes_on_up(
    error: BaseException, state: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path, total=1)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("studio.batches.torch.run.write_outputs", fail)
    with pytest.raises(type(error)):
        run(folder, tmp_path)
    status = read_status(folder)
    assert (status.state, status.pid, status.remaining_seconds) == (state, 0, None)
    assert words in status.message
    last = [event for event in read_events(folder.events) if isinstance(event, StateEvent)][-1]
    assert (last.state, last.message) == (state, status.message)


@pytest.mark.parametrize("broken", ["settings", "plan"])
def test_a_batch_that_cannot_even_be_read_says_so(broken: str, tmp_path: Path) -> None:
    folder = begun(tmp_path, total=1)
    file = folder.settings if broken == "settings" else next(folder.plan.iterdir())
    file.write_bytes(b"{")
    with pytest.raises(BatchError):
        run(folder, tmp_path)
    status = read_status(folder)
    assert status.state == "failed"
    assert status.message


@pytest.mark.parametrize(
    "write", ["write_provenance", "write_atomically", "write_outputs", "Ledger.add", "forget_rows"]
)
def test_a_full_disk_at_any_write_is_waited_for_and_nothing_is_lost(
    write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path, total=2)
    if write == "forget_rows":
        run(folder, tmp_path)
        folder.picture(1, "png").unlink()
    monkeypatch.setattr("studio.jobs.reporter.LOOK_FOR_ROOM_SECONDS", 0.01)
    target = f"studio.batches.torch.run.{write}"
    real, tries = pkgutil.resolve_name(target.replace(".run.", ".run:")), []

    def full_twice(*arguments: object, **options: object) -> object:
        tries.append(write)
        if len(tries) <= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments, **options)

    monkeypatch.setattr(target, full_twice)
    assert run(folder, tmp_path) == "finished"
    assert len(tries) >= 3
    assert states(folder) == ["done", "done"]
    assert len(lines(folder)) == 2
    reported = [e.message for e in read_events(folder.events) if isinstance(e, StateEvent)]
    assert sum(message.startswith("The disk is full: ") for message in reported) == 1
    assert sum(message == "There is space again; the batch continues." for message in reported) == 1
    assert read_status(folder).state == "finished"


@pytest.mark.parametrize(("request_", "state"), [("stop", "stopped"), ("pause", "paused")])
def test_a_stop_on_a_full_disk_is_a_stop(
    request_: RunRequest, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path, total=2)
    monkeypatch.setattr("studio.jobs.reporter.LOOK_FOR_ROOM_SECONDS", 0.01)

    def full(*_arguments: object, **_options: object) -> None:
        ask(folder, request_)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("studio.batches.torch.run.write_atomically", full)
        patch.setattr("studio.batches.torch.run.write_outputs", full)
        assert run(folder, tmp_path) == state
    assert (read_status(folder).state, read_status(folder).message) == (
        state,
        "0 of 2 images are made; resume to continue.",
    )
    assert run(folder, tmp_path) == "finished"
