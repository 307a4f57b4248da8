"""Following a run's events: each look reads on, resumes take back, half lines wait."""

from pathlib import Path
from typing import get_args

from studio.jobs.events import MAX_MEMORY_EVENTS, MemoryEvent, NoteEvent, ProblemEvent, ResumedEvent, StepBoundEvent
from studio.training.events import (
    AnyEvent,
    CheckpointEvent,
    EffectEvent,
    HeldOutEvent,
    ProposalEvent,
    SampleEvent,
    StepEvent,
    read_events,
)
from studio.training.session import RunHistory, follow_run
from tests.ui.told_scores import score_event


def step(number: int) -> StepEvent:
    return StepEvent(step=number, loss=0.1 * number, learning_rate=1e-4, grad_norm=0.5, seconds=0.2)


def append(path: Path, *events: AnyEvent) -> None:
    with path.open("a", encoding="utf-8") as file:
        for event in events:
            file.write(f"{event.model_dump_json()}\n")


def test_each_look_adds_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = follow_run(path)
    assert len(follower.look().steps) == 0
    append(path, step(1))
    assert list(follower.look().steps.step) == [1]
    append(path, step(2), ProblemEvent(step=2, message="too hot"))
    history = follower.look()
    assert list(history.steps.loss) == [0.1, 0.2]
    assert [problem.message for problem in history.problems] == ["too hot"]


def test_half_a_line_waits_for_its_end_and_a_cut_one_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = follow_run(path)
    line = step(1).model_dump_json()
    path.write_text(line[:30], encoding="utf-8")
    assert len(follower.look().steps) == 0
    path.write_text(line + "\n" + line[:20] + "\n", encoding="utf-8")
    append(path, step(2))
    assert list(follower.look().steps.step) == [1, 2]


def test_a_resume_takes_back_later_steps_and_losses(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = follow_run(path)
    append(path, *map(step, range(1, 6)), HeldOutEvent(step=5, held_out_loss=1.0, trained_loss=1.0))
    assert len(follower.look().held_out) == 1
    append(path, ResumedEvent(step=3), step(4))
    history = follower.look()
    assert list(history.steps.step) == [1, 2, 3, 4]
    assert history.held_out == []


def everything_at(number: int) -> list[AnyEvent]:
    """One event of each kind that is about a step."""
    return [
        step(number),
        HeldOutEvent(step=number, held_out_loss=1.0, trained_loss=1.0),
        SampleEvent(step=number, prompts=(), base=(), pictures=(), lora="", seconds=1.0),
        score_event(number, 0.2),
        CheckpointEvent(step=number, folder="", num_bytes=1, seconds=1.0),
        EffectEvent(step=number, groups={}),
        ProposalEvent(step=number, sentence="", sure=True, lora=""),
        ProblemEvent(step=number, message="too hot"),
    ]


def kept_in(history: RunHistory) -> list[tuple[str, int]]:
    lists = (history.held_out, history.samples, history.checkpoints, history.effects, history.problems)
    found = [(event.kind, event.step) for events in lists for event in events]
    found += [("step", int(number)) for number in history.steps.step] + [("score", number) for number in history.scores]
    return sorted([*found, *([("proposal", history.proposal.step)] if history.proposal else [])])


def test_page_and_report_agree_on_what_a_resume_takes_back(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append(path, *everything_at(3), *everything_at(4), NoteEvent(message="a note"), ResumedEvent(step=3))
    read = sorted((e.kind, e.step) for e in read_events(path) if hasattr(e, "step") and not isinstance(e, ResumedEvent))
    assert [kind for kind, number in read if number == 3] == sorted(event.kind for event in everything_at(3))
    assert [kind for kind, number in read if number == 4] == ["problem"], "what was wrong stays said"
    of_the_page = kept_in(follow_run(path).look())
    assert [one for one in read if one[0] != "proposal"] == of_the_page, "the page keeps one proposal: the last, gone"


def test_every_kind_of_event_with_a_step_is_taken_back_but_a_problem() -> None:
    for kind in get_args(AnyEvent):
        if "step" in kind.model_fields:
            assert issubclass(kind, StepBoundEvent) == (kind is not ProblemEvent), kind


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
    memory = follow_run(path).look().memory
    assert len(memory) <= 2 * MAX_MEMORY_EVENTS
    assert (memory[0].process_bytes, memory[-1].process_bytes) == (0, number - 1)


def test_a_file_that_was_begun_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = follow_run(path)
    append(path, step(1), step(2))
    follower.look()
    path.write_text(step(7).model_dump_json() + "\n", encoding="utf-8")
    assert list(follower.look().steps.step) == [7]


def test_a_resume_takes_back_the_scores_of_later_steps(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append(path, score_event(10, 0.2), score_event(20, 0.3), ResumedEvent(step=15))
    assert list(follow_run(path).look().scores) == [10]


def test_scores_of_before_the_nearest_was_told_are_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    old = score_event(10, 0.2).model_dump_json(exclude={"nearest"})
    path.write_text(old + "\n", encoding="utf-8")
    assert follow_run(path).look().scores[10].nearest == ()
