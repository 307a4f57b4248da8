"""The jobs ahead of the page's engine, paused, stopped and resumed together, in a real queue."""

from pathlib import Path

import pytest

from studio.core.errors import RunError
from studio.core.paths import UserData
from studio.jobs.folder import take_requests
from studio.jobs.queue import JobQueue
from studio.ui.shell import device_busy_box as ahead_module
from studio.ui.shell.device_busy_box import BlockingJobs, list_blocking_jobs
from tests.jobs.lines import lines_of, queued_run, running_run


@pytest.fixture
def user_data(tmp_path: Path) -> UserData:
    return UserData(tmp_path)


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[UserData]:
    """Whose worker was to be started: the jobs of these tests are none that one could run."""
    calls: list[UserData] = []
    monkeypatch.setattr(ahead_module, "ensure_worker", calls.append)
    return calls


def names(user_data: UserData) -> list[str]:
    return [line.job.short_title for line in list_blocking_jobs(lines_of(user_data))]


def numbers(user_data: UserData) -> list[int]:
    return [line.job.id for line in list_blocking_jobs(lines_of(user_data))]


def test_pausing_asks_the_one_that_runs_and_takes_the_others_out_of_the_line(user_data: UserData) -> None:
    first = running_run(user_data, "first")
    queued_run(user_data, "second")
    assert names(user_data) == ["first", "second"]
    BlockingJobs(user_data).pause(numbers(user_data))
    queue = JobQueue(user_data)
    assert queue.job(first).asked == "pause"
    assert take_requests(queue.job(first).run) == {"pause"}
    assert names(user_data) == ["first"]


def test_those_that_were_paused_here_are_resumed_in_their_order(user_data: UserData, started: list[UserData]) -> None:
    blocking_jobs, queue = BlockingJobs(user_data), JobQueue(user_data)
    other = queued_run(user_data, "other")
    queue.pause(other)
    first = running_run(user_data, "first")
    queued_run(user_data, "second")
    named = numbers(user_data)
    blocking_jobs.pause(named)
    queue.finish_job(first, "paused", "It was saved at step 313.")
    assert [line.job.short_title for line in blocking_jobs.paused(lines_of(user_data))] == ["first", "second"]
    with pytest.raises(RunError, match="No job paused here"):
        blocking_jobs.resume([other])
    blocking_jobs.resume(named)
    assert names(user_data) == ["first", "second"]
    assert started == [user_data]
    assert queue.job(other).state == "paused", "somebody paused that one elsewhere"
    assert blocking_jobs.paused(lines_of(user_data)) == ()
    with pytest.raises(RunError, match="No job paused here"):
        blocking_jobs.resume(named)


def test_what_somebody_resumed_meanwhile_is_no_longer_offered(user_data: UserData) -> None:
    blocking_jobs = BlockingJobs(user_data)
    number = queued_run(user_data, "first")
    blocking_jobs.pause([number])
    JobQueue(user_data).resume(number)
    assert blocking_jobs.paused(lines_of(user_data)) == ()


def test_only_what_was_named_is_paused(user_data: UserData) -> None:
    first = running_run(user_data, "first")
    second = queued_run(user_data, "second")
    blocking_jobs = BlockingJobs(user_data)
    blocking_jobs.pause([second])
    assert JobQueue(user_data).job(first).asked == ""
    assert names(user_data) == ["first"]
    with pytest.raises(RunError, match="That job has ended"):
        blocking_jobs.pause([second])


def test_only_what_was_named_is_stopped(user_data: UserData) -> None:
    first = running_run(user_data, "first")
    queued_run(user_data, "second")
    blocking_jobs = BlockingJobs(user_data)
    blocking_jobs.stop([first])
    assert JobQueue(user_data).job(first).asked == "stop"
    assert names(user_data) == ["first", "second"]
    with pytest.raises(RunError, match="That job has ended"):
        blocking_jobs.stop([99])


def test_where_none_is_ahead_it_says_so(user_data: UserData) -> None:
    with pytest.raises(RunError, match="No job is using the device any more"):
        BlockingJobs(user_data).pause([1])
