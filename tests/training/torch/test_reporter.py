"""What a run says while it works: its status is cheap and true, its last word is always written."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from studio.jobs import reporter as jobs_reporter
from studio.jobs.events import ProblemEvent, StateEvent
from studio.jobs.folder import JobFolder, RunState, RunStatus, read_status, write_status
from studio.jobs.reporter import SPEED_STEPS
from studio.training.events import HeldOutEvent, StepEvent, read_events
from studio.training.folder import RunFolder
from studio.training.torch.reporter import BetweenSteps, Reporter


class Board:
    """Notes what it is given; it fails once its disk is full."""

    def __init__(self) -> None:
        self.reported: list[tuple[int, dict[str, float]]] = []
        self.pictures: list[str] = []
        self.closed = self.full = False

    def scalars(self, step: int, values: dict[str, float]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.reported.append((step, values))

    def picture(self, step: int, name: str, picture_HWC: np.ndarray) -> None:
        self.pictures.append(f"{step} {name} {picture_HWC.shape}")

    def close(self) -> None:
        self.closed = True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(jobs_reporter, "time", clock)
    return clock


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every time that the status is written."""
    written: list[Path] = []

    def write(folder: JobFolder, status: RunStatus) -> None:
        written.append(folder.status)
        write_status(folder, status)

    monkeypatch.setattr(jobs_reporter, "write_status", write)
    return written


@pytest.fixture
def reporter(tmp_path: Path) -> Reporter:
    return Reporter(RunFolder(tmp_path), BetweenSteps(100, {"pictures": 40, "held-out losses": 50}))


def step(number: int, *, seconds: float = 2.0) -> StepEvent:
    return StepEvent(step=number, loss=0.5, learning_rate=1e-4, grad_norm=1.0, seconds=seconds)


def test_the_status_is_written_twice_a_second_at_most_whatever_the_number_of_steps(
    reporter: Reporter, clock: Clock, writes: list[Path]
) -> None:
    for number in range(1, 101):
        clock.now += 0.125
        reporter.report(step(number))
    assert len(writes) == 25
    assert read_status(reporter.folder).step >= 95


@pytest.mark.parametrize("state", ["finished", "failed", "stopped", "paused"])
def test_the_last_word_is_always_written_and_no_process_works_then(
    state: RunState, reporter: Reporter, clock: Clock
) -> None:
    reporter.state("running", step=6)
    reporter.report(step(7))
    reporter.state(state, "That is all.")
    status = read_status(reporter.folder)
    assert (status.state, status.step, status.message, status.pid) == (state, 7, "That is all.", 0)
    assert [e.state for e in read_events(reporter.folder.events) if isinstance(e, StateEvent)] == ["running", state]


@pytest.mark.parametrize("state", ["waiting", "preparing", "running", "sampling"])
def test_while_it_works_the_status_names_the_process(state: RunState, reporter: Reporter) -> None:
    reporter.state(state)
    assert read_status(reporter.folder).pid == os.getpid()


def test_what_is_left_follows_the_last_steps_and_what_comes_between(reporter: Reporter, clock: Clock) -> None:
    assert read_status(reporter.folder).remaining_seconds is None
    for number in range(1, 31):
        reporter.report(step(number, seconds=50.0 if number <= 30 - SPEED_STEPS else 2.0))
    reporter.between_steps.took("pictures", 30.0)  # due at 40, 80 and 100
    reporter.state("running")
    status = read_status(reporter.folder)
    assert status.seconds_per_step == pytest.approx(2.0)
    assert status.remaining_seconds == pytest.approx(70 * 2.0 + 3 * 30.0)


@pytest.mark.parametrize(("at", "times"), [(0, 3), (1, 3), (39, 3), (40, 2), (99, 1), (100, 0)])
def test_what_comes_between_steps_is_counted_as_often_as_it_is_due(at: int, times: int) -> None:
    between = BetweenSteps(100, {"pictures": 40, "held-out losses": 50})
    assert between.seconds_left(at) == 0
    between.took("pictures", 7.0)
    between.took("pictures", 3.0)  # the last time counts
    assert between.seconds_left(at) == times * 3.0


def test_what_is_due_at_the_last_step_anyway_is_not_counted_twice() -> None:
    between = BetweenSteps(100, {"held-out losses": 50})
    between.took("held-out losses", 1.0)
    assert [between.seconds_left(step) for step in (0, 50, 99, 100)] == [2.0, 1.0, 1.0, 0.0]


def test_progress_of_the_preparation_is_in_the_status_alone(
    reporter: Reporter, clock: Clock, writes: list[Path]
) -> None:
    for number in range(1, 201):
        clock.now += 0.01
        reporter.progress(f"Encoding images: {number} of 200.")
    assert len(writes) <= 6
    assert "Encoding images" in read_status(reporter.folder).message
    assert read_events(reporter.folder.events) == []


def test_a_problem_has_the_step_at_which_it_was_seen(reporter: Reporter, capsys: pytest.CaptureFixture[str]) -> None:
    reporter.report(step(12))
    reporter.problem("The image is not valid.")
    problem = read_events(reporter.folder.events)[-1]
    assert isinstance(problem, ProblemEvent)
    assert (problem.step, problem.message) == (12, "The image is not valid.")
    assert "The image is not valid." in capsys.readouterr().err


def test_boards_are_told_the_numbers_and_a_board_that_fails_ends_nothing(reporter: Reporter) -> None:
    board = Board()
    reporter.boards = (board,)
    reporter.report(step(1))
    reporter.report(HeldOutEvent(step=1, held_out_loss=None, trained_loss=0.25))
    reporter.picture(1, "lora/0", np.zeros((8, 8, 3), np.uint8))
    assert board.reported == [
        (1, {"loss": 0.5, "learning rate": 1e-4, "gradient norm": 1.0}),
        (1, {"loss/trained": 0.25}),
    ]
    assert board.pictures == ["1 lora/0 (8, 8, 3)"]
    board.full = True
    reporter.report(step(2))
    reporter.report(step(3))
    problems = [event.message for event in read_events(reporter.folder.events) if isinstance(event, ProblemEvent)]
    assert len(problems) == 1
    assert "TensorBoard's files can no longer be written" in problems[0]
    assert [e.step for e in read_events(reporter.folder.events) if isinstance(e, StepEvent)] == [1, 2, 3]


def test_boards_are_closed_at_the_end(reporter: Reporter) -> None:
    board = Board()
    reporter.boards = (board,)
    reporter.close()
    assert board.closed


def test_a_status_that_cannot_be_written_is_said_and_ends_nothing(
    reporter: Reporter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(folder: JobFolder, status: RunStatus) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jobs_reporter, "write_status", full)
    reporter.state("running")
    assert "The status cannot be written" in capsys.readouterr().err
    assert [e.state for e in read_events(reporter.folder.events) if isinstance(e, StateEvent)] == ["running"]


def test_the_terminal_tells_step_loss_speed_and_what_is_left(
    reporter: Reporter, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter.report(step(40))
    assert "step 40 of 100  loss 0.5000  2.00 s/step  2 min 00 s left" in capsys.readouterr().err
