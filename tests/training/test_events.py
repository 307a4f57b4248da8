"""What a run told is read as it was, whatever cut it off, filled the disk, or made it go back."""

import errno
import json
import math
import threading
from io import TextIOWrapper
from pathlib import Path

import pytest
from pydantic import ValidationError

from studio.core.language import _, for_later, said, speaking
from studio.jobs.events import EventWriter, MemoryEvent, NoteEvent, ProblemEvent, ResumedEvent, StateEvent
from studio.training.events import (
    EVENTS,
    CheckpointEvent,
    FinishedEvent,
    HeldOutEvent,
    SampleEvent,
    StepEvent,
    read_events,
)


def step(number: int, loss: float = 0.1) -> StepEvent:
    return StepEvent(step=number, loss=loss, learning_rate=1e-4, grad_norm=1.0, seconds=0.5)


def memory() -> MemoryEvent:
    return MemoryEvent(process_bytes=1, peak_process_bytes=2, system_available_bytes=3, system_total_bytes=4)


def steps(path: Path) -> list[int]:
    return [event.step for event in read_events(path) if isinstance(event, StepEvent)]


def test_events_come_back_as_they_were_told_one_json_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reported = [
        StateEvent(state="running", message="line\nbreak, “quotes” and 中文"),
        step(1),
        HeldOutEvent(step=1, held_out_loss=None, trained_loss=0.2),
        SampleEvent(step=1, prompts=("a",), base=(None,), pictures=("samples/a.png",), lora="l", seconds=1.0),
        memory(),
        FinishedEvent(files=("a.safetensors",), library_name="a"),
    ]
    writer = EventWriter(path)
    for event in reported:
        writer.report(event)
    assert read_events(path) == reported
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["kind"] for line in lines] == [event.kind for event in reported]


def test_after_a_resume_what_was_told_of_later_steps_no_longer_counts(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    for number in range(1, 6):
        writer.report(step(number, loss=1))
        writer.report(HeldOutEvent(step=number, held_out_loss=1, trained_loss=1))
    writer.report(CheckpointEvent(step=5, folder="checkpoints/step-000005", num_bytes=1, seconds=0))
    writer.report(ProblemEvent(step=5, message="the checkpoint of step 5 is damaged"))
    writer.report(NoteEvent(message="a note"))
    writer.report(ResumedEvent(step=3))
    writer.report(step(4, loss=2))
    events = read_events(path)
    assert [(e.step, e.loss) for e in events if isinstance(e, StepEvent)] == [(1, 1), (2, 1), (3, 1), (4, 2)]
    assert [e.step for e in events if isinstance(e, HeldOutEvent)] == [1, 2, 3]
    assert not any(isinstance(e, CheckpointEvent) for e in events)
    assert [e.message for e in events if isinstance(e, ProblemEvent | NoteEvent)] == [
        "the checkpoint of step 5 is damaged",
        "a note",
    ]


def test_a_run_may_be_resumed_any_number_of_times(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    for resumed_at in (0, 2, 1, 2):
        writer.report(ResumedEvent(step=resumed_at))
        for number in range(resumed_at + 1, resumed_at + 4):
            writer.report(step(number))
    assert steps(path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("length", [1, 7, 40])
def test_a_last_line_that_a_kill_cut_off_is_passed_over_and_the_next_stands_alone(length: int, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventWriter(path).report(step(1))
    with path.open("a", encoding="utf-8") as file:
        file.write(step(2).model_dump_json()[:length])
    assert steps(path) == [1]
    EventWriter(path).report(step(3))
    assert steps(path) == [1, 3]


def test_bytes_that_are_no_text_and_kinds_of_a_later_studio_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventWriter(path).report(step(1))
    with path.open("ab") as file:
        file.write(b"\xff\xfe\x00\n[]\n17\n" + b'{"kind": "not yet invented", "step": 9}\n\n')
    EventWriter(path).report(step(2))
    assert steps(path) == [1, 2]


def test_what_is_not_finite_is_told_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    writer.report(step(1).model_copy(update={"grad_norm": math.inf}))
    writer.report(HeldOutEvent(step=1, held_out_loss=math.nan, trained_loss=math.nan))
    first, second = read_events(path)
    assert isinstance(first, StepEvent)
    assert first.grad_norm == math.inf
    assert isinstance(second, HeldOutEvent)
    assert second.held_out_loss is not None
    assert math.isnan(second.held_out_loss)
    assert math.isnan(second.trained_loss)


def test_no_file_is_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "events.jsonl") == []


class FullDisk:
    """`Path.open` for appending, on a disk with so many characters left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, room: int) -> None:
        self.room: int | None = room
        opened = Path.open

        def open_full(path: Path, mode: str = "r", **options: str) -> object:
            file = opened(path, mode, **options)  # type: ignore[call-overload]
            if mode == "a" and self.room is not None:
                return _FullFile(file, self.room)
            return file

        monkeypatch.setattr(Path, "open", open_full)


class _FullFile:
    def __init__(self, file: TextIOWrapper, room: int) -> None:
        self._file, self._room = file, room

    def __enter__(self) -> "_FullFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, text: str) -> None:
        self._file.write(text[: self._room])
        self._file.flush()
        raise OSError(errno.ENOSPC, "No space left on device")


# Nothing, a part of the first line, a whole line and a part, the most of it.
@pytest.mark.parametrize("room", [0, 10, 200, 400])
def test_on_a_full_disk_lines_wait_and_each_is_told_once(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    writer.report(step(1))
    disk = FullDisk(monkeypatch, room=room)
    for number in range(2, 6):
        writer.report(step(number))
    assert steps(path) == [1]
    disk.room = None
    writer.report(step(6))
    assert steps(path) == [1, 2, 3, 4, 5, 6]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 6


def test_after_a_cut_line_a_full_disk_loses_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"kind": "st', encoding="utf-8")
    writer = EventWriter(path)
    disk = FullDisk(monkeypatch, room=30)
    writer.report(step(1))
    disk.room = None
    writer.report(step(2))
    assert steps(path) == [1, 2]


def test_lines_of_two_threads_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = EventWriter(path)
    threads = [threading.Thread(target=lambda: [writer.report(memory()) for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_events(path)) == 400


def test_an_event_without_its_numbers_is_refused() -> None:
    with pytest.raises(ValidationError):
        EVENTS.validate_python({"kind": "step", "step": 1})


def test_a_note_is_said_in_the_language_of_whoever_reads_it_and_one_of_before_as_it_was(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "events.jsonl")
    with for_later():
        note = _("The LoRA is in the library as {name}: choose it on the Inference tab.", name="shoes")
    writer.report(NoteEvent(message=note))
    writer.report(NoteEvent(message="as before"))
    kept, plain = (event.message for event in read_events(tmp_path / "events.jsonl") if isinstance(event, NoteEvent))
    with speaking("pt-BR"):
        assert said(kept).startswith("A LoRA está na biblioteca como shoes")
    assert (kept, plain) == (note, "as before")
