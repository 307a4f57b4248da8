"""Following a run's events: each look reads on, resumes take back, half lines wait."""

from pathlib import Path

from studio.jobs.events import MemoryEvent, ProblemEvent, ResumedEvent
from studio.training.events import AnyEvent, HeldOutEvent, StepEvent
from studio.training.follower import MAX_MEMORY_EVENTS, RunFollower
from tests.ui.told_scores import score_event


def step(number: int) -> StepEvent:
    return StepEvent(step=number, loss=0.1 * number, learning_rate=1e-4, grad_norm=0.5, seconds=0.2)


def append(path: Path, *events: AnyEvent) -> None:
    with path.open("a", encoding="utf-8") as file:
        for event in events:
            file.write(f"{event.model_dump_json()}\n")


def test_each_look_adds_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = RunFollower(path)
    assert len(follower.look().steps) == 0
    append(path, step(1))
    assert list(follower.look().steps.step) == [1]
    append(path, step(2), ProblemEvent(step=2, message="too hot"))
    history = follower.look()
    assert list(history.steps.loss) == [0.1, 0.2]
    assert [problem.message for problem in history.problems] == ["too hot"]


def test_half_a_line_waits_for_its_end_and_a_cut_one_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = RunFollower(path)
    line = step(1).model_dump_json()
    path.write_text(line[:30], encoding="utf-8")
    assert len(follower.look().steps) == 0
    path.write_text(line + "\n" + line[:20] + "\n", encoding="utf-8")
    append(path, step(2))
    assert list(follower.look().steps.step) == [1, 2]


def test_a_resume_takes_back_later_steps_and_losses(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = RunFollower(path)
    append(path, *map(step, range(1, 6)), HeldOutEvent(step=5, held_out_loss=1.0, trained_loss=1.0))
    assert len(follower.look().held_out) == 1
    append(path, ResumedEvent(step=3), step(4))
    history = follower.look()
    assert list(history.steps.step) == [1, 2, 3, 4]
    assert history.held_out == []


def test_of_hours_of_memory_readings_a_few_hundred_are_kept_with_the_last(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    number = 3 * MAX_MEMORY_EVENTS
    append(
        path,
        *(
            MemoryEvent(process_bytes=i, peak_process_bytes=i, system_available_bytes=1, system_total_bytes=2)
            for i in range(number)
        ),
    )
    memory = RunFollower(path).look().memory
    assert len(memory) <= 2 * MAX_MEMORY_EVENTS
    assert (memory[0].process_bytes, memory[-1].process_bytes) == (0, number - 1)


def test_a_file_that_was_begun_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = RunFollower(path)
    append(path, step(1), step(2))
    follower.look()
    path.write_text(step(7).model_dump_json() + "\n", encoding="utf-8")
    assert list(follower.look().steps.step) == [7]


def test_a_resume_takes_back_the_scores_of_later_steps(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append(path, score_event(10, 0.2), score_event(20, 0.3), ResumedEvent(step=15))
    assert list(RunFollower(path).look().scores) == [10]


def test_scores_of_before_the_nearest_was_told_are_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    old = score_event(10, 0.2).model_dump_json(exclude={"nearest"})
    path.write_text(old + "\n", encoding="utf-8")
    assert RunFollower(path).look().scores[10].nearest == ()
