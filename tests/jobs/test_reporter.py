"""Whatever ends a job's process, of either kind: its last state says so, and nothing is `running` for ever."""

import errno
from pathlib import Path

import pytest

from studio.batches.folder import BatchFolder
from studio.core.errors import StudioError, error_message
from studio.jobs import reporter as reporter_module
from studio.jobs.events import JOB_EVENTS, StateEvent, read_events
from studio.jobs.folder import JobFolder, RunState, RunStatus, read_status
from studio.jobs.reporter import JobReporter, report_failure
from studio.training.folder import RunFolder

KINDS = pytest.mark.parametrize("kind", [RunFolder, BatchFolder])
ENDINGS: tuple[tuple[BaseException, RunState, str], ...] = (
    (StudioError("The dataset was changed."), "failed", "The dataset was changed."),
    (OSError(errno.ENOSPC, "No space left on device", "x.png"), "failed", "The disk is full: x.png could not be"),
    (MemoryError(), "failed", "There is not enough memory"),
    (KeyError("a bug"), "failed", "This should not have happened: KeyError: 'a bug'"),
    (SystemExit(3), "failed", "SystemExit: 3"),
    (KeyboardInterrupt(), "stopped", "It was interrupted; resume to continue."),
)


@KINDS
@pytest.mark.parametrize("before", ["new", "waiting", "preparing", "running", "sampling"])
@pytest.mark.parametrize(("error", "state", "words"), ENDINGS)
def test_every_ending_is_the_last_state_on_the_disk(
    error: BaseException, state: RunState, words: str, before: RunState, kind: type[JobFolder], tmp_path: Path
) -> None:
    reporter = JobReporter(kind(tmp_path), num_steps=9)
    reporter.state(before, "Work.", step=4)
    report_failure(kind(tmp_path), error, error_message(error))
    status = read_status(kind(tmp_path))
    assert (status.state, status.step, status.pid, status.remaining_seconds) == (state, 4, 0, None)
    assert words in status.message
    last = read_events(kind(tmp_path).events, JOB_EVENTS.validate_json)[-1]
    assert isinstance(last, StateEvent)
    assert (last.state, last.message) == (status.state, status.message)


@KINDS
@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_a_status_that_cannot_be_read_is_replaced(kind: type[JobFolder], content: bytes, tmp_path: Path) -> None:
    kind(tmp_path).status.write_bytes(content)
    report_failure(kind(tmp_path), ValueError("odd"), "It is odd.")
    assert read_status(kind(tmp_path)) == RunStatus(state="failed", message="It is odd.")


def test_on_a_full_disk_the_terminal_has_the_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(folder: JobFolder, status: RunStatus) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder.status))

    monkeypatch.setattr(reporter_module, "write_status", full)
    report_failure(RunFolder(tmp_path), ValueError("odd"), "It is odd.")
    printed = capsys.readouterr().err
    assert "failed: It is odd." in printed
    assert "The status cannot be written: The disk is full" in printed
