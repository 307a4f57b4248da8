"""The queue's rows: order, what the user may do in which state, and other connections meanwhile."""

import multiprocessing
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock

from studio.core.errors import RunError
from studio.core.paths import UserData
from studio.jobs import database
from studio.jobs.database import QueueBusyError
from studio.jobs.folder import RunStatus, ask, pending_requests, read_status, take_requests, write_status
from studio.jobs.queue import Job, JobQueue
from tests.jobs.scripted_jobs import add_job, make_run, new_user_data


@pytest.fixture
def user_data(tmp_path: Path) -> Iterator[UserData]:
    with new_user_data(tmp_path) as user_data:
        yield user_data


@pytest.fixture
def queue(user_data: UserData) -> JobQueue:
    return JobQueue(user_data)


def begin(queue: JobQueue, job: Job) -> Job:
    queue.move(job.id, 1)
    begun = queue.begin(job.id, pid=1, process_start_time=1.5)
    assert begun is not None
    return begun


def titles(queue: JobQueue) -> list[str]:
    return [job.title for job in queue.jobs()]


def test_looking_makes_no_file(user_data: UserData, queue: JobQueue) -> None:
    assert queue.jobs() == ()
    assert not queue.has_work()
    assert not user_data.database.exists()


def test_jobs_stand_in_the_order_in_which_they_were_added_and_moved(user_data: UserData, queue: JobQueue) -> None:
    first, _, third = (add_job(user_data, name) for name in ("one", "two", "three"))
    assert titles(queue) == ["one", "two", "three"]
    assert queue.move(third.id, 1).position == 1
    assert titles(queue) == ["three", "one", "two"]
    assert queue.move(first.id, 99).position == 3, "beyond the end means the end"
    assert queue.move(third.id, 2).position == 2
    assert titles(queue) == ["two", "three", "one"]
    assert [job.position for job in queue.jobs()] == [1, 2, 3]


def test_a_place_below_one_is_refused(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "one")
    with pytest.raises(RunError, match=r"must be 1 or more, got 0\. 1 is the next to start\."):
        queue.move(job.id, 0)


def test_places_close_up_when_a_job_leaves_the_line(user_data: UserData, queue: JobQueue) -> None:
    first, second, third = (add_job(user_data, name) for name in ("one", "two", "three"))
    queue.pause(first.id)
    assert [queue.job(job.id).position for job in (first, second, third)] == [0, 1, 2]
    queue.remove(second.id)
    assert queue.job(third.id).position == 1
    assert queue.resume(first.id).position == 2, "it goes to the end"


def test_a_waiting_job_is_paused_stopped_and_resumed_at_once(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "one")
    assert queue.pause(job.id).state == "paused"
    assert queue.resume(job.id).state == "queued"
    assert queue.stop(job.id).state == "stopped"
    assert not job.run.requests.exists(), "nobody was asked: nobody runs"
    queue.resume(job.id)
    queue.pause(job.id)
    assert queue.stop(job.id).state == "stopped", "a paused one may be stopped"


def test_a_running_job_is_asked_and_stays_running(user_data: UserData, queue: JobQueue) -> None:
    job = begin(queue, add_job(user_data, "one"))
    paused = queue.pause(job.id)
    assert (paused.state, paused.asked) == ("running", "pause")
    stopped = queue.stop(job.id)
    assert (stopped.state, stopped.asked) == ("running", "stop")
    assert take_requests(job.run) == {"stop"}, "the last wish counts"


def test_resuming_gives_all_attempts_back_and_takes_back_what_was_asked(user_data: UserData, queue: JobQueue) -> None:
    job = begin(queue, add_job(user_data, "one"))
    queue.stop(job.id)
    ask(job.run, "sample")
    queue.finish_job(job.id, "failed", "It crashed.")
    assert queue.job(job.id).attempts == 1
    resumed = queue.resume(job.id)
    assert (resumed.state, resumed.attempts, resumed.message, resumed.ended_at) == ("queued", 0, "", None)
    assert take_requests(job.run) == {"sample"}
    assert queue.resume(job.id) == resumed, "twice is once"


@pytest.mark.parametrize(
    ("state", "act", "sentence"),
    [
        ("running", JobQueue.resume, r"is running, so it cannot be resumed\. Pause or stop it first, or wait"),
        ("running", JobQueue.remove, r"is running, so it cannot be removed\. Pause or stop it first, or wait"),
        ("running", lambda queue, job_id: queue.move(job_id, 1), r"is running, so it has no position in the queue"),
        ("finished", JobQueue.resume, r"is finished, so it cannot be resumed\. Its results are in its run's folder"),
        ("finished", JobQueue.stop, r"is finished already, so it cannot be stopped"),
        ("stopped", JobQueue.stop, r"is stopped already, so it cannot be stopped\. .*jobs resume 1"),
        ("paused", JobQueue.pause, r"is paused already, so it cannot be paused\. .*jobs resume 1"),
        ("failed", JobQueue.pause, r"is failed already, so it cannot be paused\. .*jobs resume 1"),
    ],
)
def test_refusals_say_what_is_wrong_and_what_to_do(
    user_data: UserData, queue: JobQueue, state: str, act: Callable[[JobQueue, int], Job], sentence: str
) -> None:
    job = begin(queue, add_job(user_data, "one"))
    if state != "running":
        queue.finish_job(job.id, state, "")  # type: ignore[arg-type]
    before = queue.job(job.id)
    with pytest.raises(RunError, match=rf"Job 1 \(one\) {sentence}"):
        act(queue, job.id)
    assert queue.job(job.id) == before


def test_a_job_that_is_not_there_is_said_so(queue: JobQueue) -> None:
    with pytest.raises(RunError, match=r"There is no job 7 in the queue\. `python -m studio jobs` lists them\."):
        queue.pause(7)


def test_a_run_has_one_job_until_it_is_finished(user_data: UserData, queue: JobQueue) -> None:
    job = begin(queue, add_job(user_data, "one"))
    with pytest.raises(RunError, match="in the queue already as job 1, which is running"):
        queue.add("train", job.run_folder, "again")
    queue.finish_job(job.id, "failed", "")
    with pytest.raises(RunError, match=r"as job 1, which is failed.*jobs resume 1"):
        queue.add("train", job.run_folder, "again")
    queue.resume(job.id)
    begin(queue, job)
    queue.stop(job.id)
    queue.finish_job(job.id, "finished", "It had finished before it heard.")
    assert queue.add("train", job.run_folder, "again").state == "queued"
    assert not take_requests(job.run), "what the first was asked is not for the second"


def test_a_run_without_a_folder_is_refused(user_data: UserData, queue: JobQueue) -> None:
    with pytest.raises(RunError, match=r"folder .*nowhere is not there"):
        queue.add("train", user_data.runs / "nowhere", "nowhere")
    job = add_job(user_data, "one")
    queue.stop(job.id)
    shutil.rmtree(job.run_folder)
    with pytest.raises(RunError, match=r"is not there\. Remove job 1 from the queue"):
        queue.resume(job.id)
    queue.remove(job.id)
    assert queue.jobs() == ()


def test_only_the_first_in_the_line_begins(user_data: UserData, queue: JobQueue) -> None:
    first, second = add_job(user_data, "one"), add_job(user_data, "two")
    assert queue.begin(second.id, pid=1, process_start_time=1.5) is None
    queue.pause(first.id)
    assert queue.begin(first.id, pid=1, process_start_time=1.5) is None
    begun = begin(queue, second)
    assert (begun.state, begun.pid, begun.process_start_time, begun.attempts) == ("running", 1, 1.5, 1)
    assert begun.started_at is not None


def test_a_job_that_is_tried_again_is_the_next(user_data: UserData, queue: JobQueue) -> None:
    first, second = add_job(user_data, "one"), add_job(user_data, "two")
    begin(queue, first)
    queue.finish_job(first.id, "queued", "Attempt 1 ended.")
    assert titles(queue) == ["one", "two"]
    assert queue.job(second.id).position == 2


def test_what_the_user_did_with_a_waiting_job_is_not_overwritten(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "one")
    queue.pause(job.id)
    queue.finish_job(job.id, "failed", "It cannot be started.")
    assert queue.job(job.id).state == "paused"


def test_others_read_while_somebody_writes(user_data: UserData, queue: JobQueue) -> None:
    add_job(user_data, "one")
    writer = sqlite3.connect(user_data.database, isolation_level=None)
    writer.execute("begin immediate")
    writer.execute("update jobs set title = 'half done'")
    assert titles(queue) == ["one"], "the state before, and no waiting"
    writer.execute("commit")
    assert titles(queue) == ["half done"]
    assert writer.execute("pragma journal_mode").fetchone() == ("wal",)
    writer.close()


def test_a_queue_of_a_newer_studio_is_not_touched(user_data: UserData, queue: JobQueue) -> None:
    add_job(user_data, "one")
    connection = sqlite3.connect(user_data.database)
    connection.execute("pragma user_version = 2")
    connection.close()
    with pytest.raises(RunError, match=r"newer studio \(version 2 of its layout, this studio knows 1\)\. Update"):
        queue.jobs()


def test_a_damaged_database_is_a_sentence(user_data: UserData, queue: JobQueue) -> None:
    user_data.database.write_bytes(b"not a database" * 100)
    with pytest.raises(RunError, match=r"is damaged: file is not a database\. Stop the studio, and move"):
        queue.jobs()


def test_who_comes_while_the_file_is_made_waits(user_data: UserData, queue: JobQueue) -> None:
    """SQLite itself says "database is locked" at once, where a file that somebody writes is changed to WAL."""
    run = make_run(user_data, "one")
    being_made = threading.Event()

    def make() -> None:
        with FileLock(f"{user_data.database}.lock"), closing(sqlite3.connect(user_data.database)) as maker:
            maker.execute("begin immediate")
            being_made.set()
            time.sleep(0.2)

    maker_thread = threading.Thread(target=make)
    maker_thread.start()
    being_made.wait()
    assert queue.add("train", run.root, "one").position == 1
    maker_thread.join()


def _add_some(root: Path, name: str) -> None:
    for number in range(5):
        JobQueue(UserData(root)).add("train", root / "runs" / f"{name}{number}", name)


@pytest.mark.process
def test_several_processes_may_be_the_first_to_add(user_data: UserData, queue: JobQueue) -> None:
    names = ("a", "b", "c", "d")
    for name in names:
        for number in range(5):
            make_run(user_data, f"{name}{number}")
    context = multiprocessing.get_context("spawn")
    adders = [context.Process(target=_add_some, args=(user_data.root, name)) for name in names]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join()
    assert [adder.exitcode for adder in adders] == [0, 0, 0, 0]
    assert [job.position for job in queue.jobs()] == list(range(1, 21))


def test_a_queue_that_others_hold_and_a_full_disk_pass_and_a_damaged_file_does_not(
    user_data: UserData, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.01)
    add_job(user_data, "one")
    with database.changing(user_data.database), pytest.raises(QueueBusyError, match="locked"):
        queue.pause(1)
    with pytest.raises(QueueBusyError, match="full"), database.changing(user_data.database) as connection:
        pages = connection.execute("pragma page_count").fetchone()[0]
        connection.execute(f"pragma max_page_count = {pages}")
        connection.execute("update jobs set message = ?", ("x" * 1_000_000,))
    for file in user_data.root.glob(f"{user_data.database.name}*"):
        file.write_bytes(b"no database" * 1000)
    with pytest.raises(RunError, match="not a database") as caught:
        queue.jobs()
    assert not isinstance(caught.value, QueueBusyError)


def test_a_look_at_the_last_jobs_has_all_that_is_to_do_and_the_last_that_ended(
    user_data: UserData, queue: JobQueue
) -> None:
    done, failed, waits, paused = (add_job(user_data, name) for name in ("done", "failed", "waits", "paused"))
    queue.finish_job(done.id, "finished", "")
    queue.finish_job(failed.id, "failed", "")
    queue.pause(paused.id)
    assert [job.title for job in queue.jobs(num_ended=1)] == ["waits", "paused", "failed"]
    assert [job.title for job in queue.jobs(num_ended=0)] == ["waits", "paused"]
    assert sorted(titles(queue)) == ["done", "failed", "paused", "waits"]
    found = queue.job_of(waits.run_folder)
    assert found is not None
    assert found.id == waits.id
    assert queue.job_of(user_data.runs / "none") is None


@pytest.mark.parametrize("first", ["queued", "paused"])
def test_a_job_that_is_stopped_as_nothing_works_on_it_says_so_in_its_run(
    user_data: UserData, queue: JobQueue, first: str
) -> None:
    job = add_job(user_data, "one")
    write_status(job.run, RunStatus(state="new", num_steps=9))
    if first == "paused":
        queue.pause(job.id)
        assert read_status(job.run).state == "paused"
    queue.stop(job.id)
    assert read_status(job.run).state == "stopped"
    assert read_status(job.run).num_steps == 9
    assert pending_requests(job.run) == frozenset()


@pytest.mark.parametrize(("column", "value"), [("kind", "nonsense"), ("created_at", "when"), ("attempts", "many")])
def test_a_damaged_row_is_a_failed_job_and_holds_up_no_other(
    column: str, value: str, user_data: UserData, queue: JobQueue
) -> None:
    first, second = (add_job(user_data, name) for name in ("first", "second"))
    with closing(sqlite3.connect(user_data.database)) as connection, connection:
        connection.execute(f"update jobs set {column} = ? where id = ?", (value, first.id))
    damaged = queue.job(first.id)
    assert (damaged.state, damaged.title) == ("failed", first.title)
    assert f"jobs remove {first.id}" in damaged.message
    waiting = queue.next_job()
    assert waiting is not None
    assert waiting.id == second.id
    assert queue.begin(second.id, pid=1, process_start_time=1.0) is not None
    queue.remove(first.id)
    assert [job.id for job in queue.jobs()] == [second.id]
