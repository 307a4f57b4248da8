"""A full disk costs time alone, whatever the kind of job; a stop ends the waiting."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.batches.folder import BatchFolder
from studio.core.errors import CancelledError
from studio.jobs import reporter as disk_space
from studio.jobs.events import JOB_EVENTS, StateEvent, read_events
from studio.jobs.folder import JobFolder, RunState
from studio.jobs.reporter import JobReporter, retry_until_disk_space
from studio.training.folder import RunFolder

KINDS = pytest.mark.parametrize(("kind", "activity"), [(RunFolder, "training"), (BatchFolder, "batch")])


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(disk_space.time, "sleep", taken.append)
    return taken


def full_for(times: int, number: int = errno.ENOSPC) -> Callable[[], str]:
    """Writes when it was tried so often."""
    left = [number] * times

    def act() -> str:
        if left:
            raise OSError(left.pop(), "cannot be written")
        return "written"

    return act


def states(folder: JobFolder) -> list[tuple[str, str]]:
    events = read_events(folder.events, JOB_EVENTS.validate_json)
    return [(event.state, event.message) for event in events if isinstance(event, StateEvent)]


@KINDS
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("before", ["preparing", "running", "sampling"])
def test_it_waits_says_so_once_and_goes_on_as_before(
    before: RunState, number: int, kind: type[JobFolder], activity: str, tmp_path: Path, naps: list[float]
) -> None:
    reporter = JobReporter(kind(tmp_path), num_steps=9)
    reporter.state(before)
    result = retry_until_disk_space(
        full_for(3, number),
        what="step 7",
        reporter=reporter,
        should_stop=lambda: False,
        stopped=CancelledError("Stopped."),
    )
    assert (result, len(naps)) == ("written", 3)
    assert states(kind(tmp_path)) == [
        (before, ""),
        (
            "waiting",
            f"The disk is full: step 7 cannot be saved. Free some space; the {activity} waits and goes on by itself. "
            "Nothing is lost while it waits.",
        ),
        (before, f"There is space again; the {activity} continues."),
    ]


@KINDS
def test_a_stop_ends_the_waiting(kind: type[JobFolder], activity: str, tmp_path: Path, naps: list[float]) -> None:
    with pytest.raises(CancelledError, match=r"Stopped\."):
        retry_until_disk_space(
            full_for(99),
            what="step 7",
            reporter=JobReporter(kind(tmp_path), num_steps=9),
            should_stop=lambda: len(naps) == 2,
            stopped=CancelledError("Stopped."),
        )


def test_other_errors_are_not_waited_for(tmp_path: Path, naps: list[float]) -> None:
    with pytest.raises(PermissionError):
        retry_until_disk_space(
            full_for(1, errno.EACCES),
            what="step 7",
            reporter=JobReporter(RunFolder(tmp_path), num_steps=9),
            should_stop=lambda: False,
            stopped=CancelledError("Stopped."),
        )
    assert naps == []


def test_a_silent_reporter_waits_too_and_writes_nothing(
    tmp_path: Path, naps: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = JobReporter(BatchFolder(tmp_path), num_steps=9, silent=True)
    reporter.state("running")
    reporter.note("a note")
    reporter.problem("a problem")
    reporter.progress("some way")
    reporter.stepped(1, 2.0, lambda mean: f"{mean}")
    act, stopped = full_for(1), CancelledError("Stopped.")
    retry_until_disk_space(act, what="it", reporter=reporter, should_stop=lambda: False, stopped=stopped)
    assert len(naps) == 1
    assert (list(tmp_path.iterdir()), capsys.readouterr().err) == ([], "")
