"""The worker with real processes: what becomes of jobs, and what a kill of anybody leaves behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from studio.core.errors import RunError
from studio.core.language import speaking
from studio.core.paths import UserData
from studio.jobs import worker as worker_module
from studio.jobs.database import QueueBusyError
from studio.jobs.folder import RunStatus, read_status, write_status
from studio.jobs.launcher import PendingProcess, awake_command, classify_exit, end_of_log, is_alive, kept_awake
from studio.jobs.queue import Job, JobQueue
from studio.jobs.worker import ensure_worker, job_command, work, worker_runs
from tests.jobs.scripted_jobs import (
    FINISHES,
    KILLS_ITSELF,
    LONG,
    add_job,
    job_process,
    new_user_data,
    processes_of,
    reported,
    started,
    wait_until,
    worker_process,
    workers_of,
)

pytestmark = [pytest.mark.process, pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")]


@pytest.fixture
def user_data(tmp_path: Path) -> Iterator[UserData]:
    with new_user_data(tmp_path) as user_data:
        yield user_data


@pytest.fixture
def queue(user_data: UserData) -> JobQueue:
    return JobQueue(user_data)


def work_here(user_data: UserData) -> None:
    work(user_data, command=job_process)


def start_worker(user_data: UserData) -> "subprocess.Popen[bytes]":
    with (user_data.root / "worker-output.txt").open("ab") as output:
        return subprocess.Popen(worker_process(user_data), stdout=output, stderr=output, start_new_session=True)


def tell_to_end(job: Job) -> None:
    (job.run_folder / "end").touch()


def running_pid(user_data: UserData, job: Job) -> int:
    """The process of a job that runs `LONG`, when it is in its loop."""
    wait_until(lambda: reported(job.run) == "running")
    return JobQueue(user_data).job(job.id).pid


def test_jobs_run_one_after_the_other_by_their_place(user_data: UserData, queue: JobQueue) -> None:
    busy = "flag = run.parent / 'busy'; flag.touch(exist_ok=False); time.sleep(0.05); flag.unlink();" + FINISHES
    jobs = [add_job(user_data, name, busy) for name in ("one", "two", "three")]
    queue.move(jobs[2].id, 1)
    work_here(user_data)
    assert [name for name, _ in started(user_data)] == ["three", "one", "two"]
    assert all((job.state, job.message, job.pid) == ("finished", "All steps are done.", 0) for job in queue.jobs())
    assert not queue.has_work()


def test_a_job_has_its_log_its_session_its_folder_and_no_keyboard(user_data: UserData) -> None:
    code = "print(os.getsid(0) == os.getpid(), os.getcwd(), repr(sys.stdin.read()), os.environ['PYTHONUNBUFFERED'], "
    job = add_job(user_data, "one", code + "os.environ['TRANSFORMERS_VERBOSITY']); " + FINISHES)
    work_here(user_data)
    heading, line = job.run.log.read_text().strip().splitlines()
    assert heading.startswith("--- attempt 1 of 3, ")
    assert line == f"True {user_data.root} '' 1 error"


def test_a_job_speaks_the_language_of_whoever_queued_it(user_data: UserData) -> None:
    code = "print(os.environ['STUDIO_LANGUAGE']); " + FINISHES
    with speaking("pt-BR"):
        jobs = [add_job(user_data, "one", code)]
    with speaking("en"):
        jobs.append(add_job(user_data, "two", code))
    work_here(user_data)
    assert [job.run.log.read_text().split()[-1] for job in jobs] == ["pt-BR", "en"]


@pytest.mark.parametrize(("request_", "state"), [("stop", "stopped"), ("pause", "paused")])
def test_a_running_job_that_is_asked_saves_and_ends(
    user_data: UserData, queue: JobQueue, request_: str, state: str
) -> None:
    job, later = add_job(user_data, "one", LONG), add_job(user_data, "two")
    worker = start_worker(user_data)
    running_pid(user_data, job)
    queue.stop(job.id) if request_ == "stop" else queue.pause(job.id)
    assert worker.wait(timeout=15) == 0
    ended = queue.job(job.id)
    assert (ended.state, ended.asked, ended.message) == (state, "", f"{state.capitalize()} after step 3.")
    assert queue.job(later.id).state == "finished"


def test_a_paused_job_goes_on_when_it_is_resumed(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "one", LONG)
    worker = start_worker(user_data)
    running_pid(user_data, job)
    queue.pause(job.id)
    assert worker.wait(timeout=15) == 0
    queue.resume(job.id)
    tell_to_end(job)
    work_here(user_data)
    assert queue.job(job.id).state == "finished"
    assert len(started(user_data)) == 2


def test_a_job_that_kills_itself_has_three_attempts_and_the_next_one_runs(user_data: UserData, queue: JobQueue) -> None:
    bad, good = add_job(user_data, "bad", KILLS_ITSELF), add_job(user_data, "good")
    work_here(user_data)
    assert [name for name, _ in started(user_data)] == ["bad", "bad", "bad", "good"]
    failed = queue.job(bad.id)
    assert (failed.state, failed.attempts) == ("failed", 3)
    assert failed.message == (
        "All 3 attempts ended unexpectedly: its process was killed, probably because memory ran out. Before a retry, "
        "lower the batch size or the resolution, or turn gradient checkpointing on. The end of its log:\nabout to go"
    )
    assert queue.job(good.id).state == "finished"
    assert reported(bad.run) == "failed", "the run does not claim to be running"


def test_a_job_that_recovers_is_finished(user_data: UserData, queue: JobQueue) -> None:
    code = "tried = run / 'tried'\nif not tried.exists():\n    tried.touch(); sys.exit(3)\n" + FINISHES
    job = add_job(user_data, "one", code)
    work_here(user_data)
    assert (queue.job(job.id).state, queue.job(job.id).attempts) == ("finished", 2)


def test_a_sentence_for_the_user_is_kept_and_not_tried_again(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "one", "say('failed', 'The dataset changed. Take the snapshot.'); sys.exit(1)")
    work_here(user_data)
    assert len(started(user_data)) == 1
    assert (queue.job(job.id).state, queue.job(job.id).message) == ("failed", "The dataset changed. Take the snapshot.")


def test_a_traceback_is_no_sentence_and_is_tried_again(user_data: UserData, queue: JobQueue) -> None:
    """Python's own crash has the same exit code."""
    job = add_job(user_data, "one", "say('running'); raise RuntimeError('odd')")
    work_here(user_data)
    assert (queue.job(job.id).state, len(started(user_data))) == ("failed", 3)
    assert "its process ended with code 1. The end of its log:\nTraceback" in queue.job(job.id).message
    assert queue.job(job.id).message.endswith("RuntimeError: odd")


def test_a_run_that_somebody_else_works_on_keeps_its_status(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "one", "print('This run is in work already.'); sys.exit(1)")
    theirs = RunStatus(state="running", step=7, pid=os.getpid(), message="Step 7.")
    write_status(job.run, theirs)
    work_here(user_data)
    assert queue.job(job.id).state == "failed"
    assert "in work already" in queue.job(job.id).message
    assert read_status(job.run) == theirs


def test_an_ending_that_claims_success_in_the_middle_is_a_failure(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "one", "say('running'); print('bye')")
    work_here(user_data)
    assert len(started(user_data)) == 1
    assert queue.job(job.id).state == "failed"
    assert "Its process ended normally, but its run is running. The end of its log:\nbye" in queue.job(job.id).message


def test_what_a_run_said_before_is_not_taken_for_its_new_ending(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "one", "print('said nothing')")
    write_status(job.run, RunStatus(state="paused", step=5, num_steps=9))
    work_here(user_data)
    assert queue.job(job.id).state == "failed"
    assert read_status(job.run).step == 5, "the rest of its status is kept"


def test_a_run_whose_folder_is_gone_fails_and_the_next_one_runs(user_data: UserData, queue: JobQueue) -> None:
    gone, good = add_job(user_data, "gone"), add_job(user_data, "good")
    gone.run_folder.rename(user_data.root / "elsewhere")
    work_here(user_data)
    assert queue.job(gone.id).state == "failed"
    assert "is gone. Remove the job" in queue.job(gone.id).message
    assert queue.job(good.id).state == "finished"


def test_a_program_that_cannot_be_started_is_said(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "one")
    work(user_data, command=lambda job: ["/no/such/program", str(job.run_folder)])
    failed = queue.job(job.id)
    assert (failed.state, failed.attempts) == ("failed", 3)
    assert "code 127. The end of its log:\n/no/such/program cannot be started" in failed.message


@pytest.mark.parametrize("last_word", [signal.SIGKILL, signal.SIGTERM])
def test_a_new_worker_waits_for_the_job_of_one_that_was_ended(
    user_data: UserData, queue: JobQueue, last_word: signal.Signals
) -> None:
    job, later = add_job(user_data, "one", LONG), add_job(user_data, "two")
    first = start_worker(user_data)
    pid = running_pid(user_data, job)
    first.send_signal(last_word)
    first.wait()
    assert psutil.pid_exists(pid), "the job runs on"
    assert not worker_runs(user_data)
    second = start_worker(user_data)
    wait_until(lambda: worker_runs(user_data))
    time.sleep(0.6)  # longer than it takes to look
    assert started(user_data) == [("one", pid)], "no second process"
    assert queue.job(job.id).pid == pid
    tell_to_end(job)
    assert second.wait(timeout=15) == 0
    assert [name for name, _ in started(user_data)] == ["one", "two"]
    assert [queue.job(each.id).state for each in (job, later)] == ["finished", "finished"]
    assert queue.job(job.id).attempts == 1


def test_a_job_that_died_with_its_worker_is_tried_again(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "one", LONG)
    first = start_worker(user_data)
    pid = running_pid(user_data, job)
    first.kill()
    first.wait()
    psutil.Process(pid).kill()
    tell_to_end(job)
    work_here(user_data)
    assert (queue.job(job.id).state, queue.job(job.id).attempts) == ("finished", 2)


def test_a_job_that_ended_while_nobody_watched_is_as_its_run_says(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "one", LONG)
    first = start_worker(user_data)
    running_pid(user_data, job)
    first.kill()
    first.wait()
    tell_to_end(job)
    wait_until(lambda: reported(job.run) == "finished")
    work_here(user_data)
    assert (queue.job(job.id).state, len(started(user_data))) == ("finished", 1)


def test_a_worker_that_is_killed_before_the_queue_knows_the_process_starts_nothing(user_data: UserData) -> None:
    """The gate: the process that nobody noted ends by itself, and never becomes the job."""
    job = add_job(user_data, "one")
    hold = (
        "import os, sys; from pathlib import Path; from studio.jobs.launcher import PendingProcess\n"
        "folder, log, *command = sys.argv[1:]\n"
        "print(PendingProcess(command, cwd=Path(folder), log=Path(log), attempt='1').pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    arguments = [str(user_data.root), str(job.run.log), *job_process(job)]
    printed = subprocess.run([sys.executable, "-c", hold, *arguments], stdout=subprocess.PIPE, check=False).stdout
    assert int(printed) > 0
    wait_until(lambda: not processes_of(user_data))
    assert started(user_data) == []


def test_a_process_that_is_called_off_never_begins(user_data: UserData) -> None:
    job = add_job(user_data, "one")
    held = PendingProcess(job_process(job), cwd=user_data.root, log=job.run.log, attempt="1")
    held.abort()
    assert held.wait() == 0
    assert started(user_data) == []


def test_a_job_that_is_paused_as_it_is_started_does_not_begin(user_data: UserData, queue: JobQueue) -> None:
    add_job(user_data, "one")
    add_job(user_data, "two")

    def command_and_pause(job: Job) -> list[str]:
        if job.title == "one":
            queue.pause(job.id)
        return job_process(job)

    work(user_data, command=command_and_pause)
    assert [(job.title, job.state, job.attempts) for job in queue.jobs()] == [
        ("two", "finished", 1),
        ("one", "paused", 0),
    ]
    assert [name for name, _ in started(user_data)] == ["two"]


def test_another_process_with_the_same_number_is_not_the_job(user_data: UserData, queue: JobQueue) -> None:
    add_job(user_data, "one", FINISHES)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        begun = queue.begin(1, pid=stranger.pid, process_start_time=psutil.Process(stranger.pid).create_time() - 3600)
        assert begun is not None
        assert not is_alive(begun)
        work_here(user_data)
        assert (queue.job(1).state, queue.job(1).attempts) == ("finished", 2)
        assert stranger.poll() is None, "and it is left alone"
    finally:
        stranger.kill()
        stranger.wait()


def test_a_moved_clock_does_not_hide_a_job(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "one", LONG)
    held = PendingProcess(job_process(job), cwd=user_data.root, log=job.run.log, attempt="1")
    held.release()
    wait_until(lambda: reported(job.run) == "running")
    begun = queue.begin(job.id, pid=held.pid, process_start_time=held.start_time - 3600)
    assert begun is not None
    assert is_alive(begun), "its start time moved with the clock, its command line did not"
    tell_to_end(job)
    held.wait()
    assert not is_alive(begun)


def test_a_job_that_nobody_took_note_of_is_not_alive(user_data: UserData, queue: JobQueue) -> None:
    add_job(user_data, "one")
    zombie = subprocess.Popen([sys.executable, "-c", "", str(user_data.root)])
    start_time = psutil.Process(zombie.pid).create_time()
    wait_until(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)
    begun = queue.begin(1, pid=zombie.pid, process_start_time=start_time)
    assert begun is not None
    assert not is_alive(begun)
    zombie.wait()


def test_two_that_ensure_a_worker_at_once_have_one(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "one", LONG)
    gate = threading.Barrier(4)

    def ensure() -> None:
        gate.wait()
        ensure_worker(user_data, worker_command=worker_process(user_data))

    threads = [threading.Thread(target=ensure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running_pid(user_data, job)
    wait_until(lambda: len(workers_of(user_data)) == 1)
    assert not ensure_worker(user_data, worker_command=worker_process(user_data)), "one runs"
    tell_to_end(job)
    wait_until(lambda: not workers_of(user_data))
    assert [name for name, _ in started(user_data)] == ["one"]
    assert queue.job(job.id).state == "finished"


def test_no_worker_is_started_where_nothing_waits(user_data: UserData, queue: JobQueue) -> None:
    assert not ensure_worker(user_data, worker_command=worker_process(user_data))
    queue.pause(add_job(user_data, "one").id)
    assert not ensure_worker(user_data, worker_command=worker_process(user_data))
    assert workers_of(user_data) == []


def test_a_job_that_is_added_as_the_worker_ends_is_not_left(
    user_data: UserData, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who adds it sees the lock taken and starts no worker: the worker looks again once the lock is free."""
    add_job(user_data, "one")
    work_through = worker_module.Worker.work_through

    def work_and_then_one_is_added(self: worker_module.Worker) -> None:
        work_through(self)
        if len(queue.jobs()) == 1:
            add_job(user_data, "two")
            assert not ensure_worker(user_data, worker_command=worker_process(user_data))

    monkeypatch.setattr(worker_module.Worker, "work_through", work_and_then_one_is_added)
    work_here(user_data)
    assert [job.state for job in queue.jobs()] == ["finished", "finished"]


def test_looking_whether_a_worker_runs_does_not_turn_one_away(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "one")
    look = FileLock(user_data.root / "worker.lock", thread_local=False)
    look.acquire()
    timer = threading.Timer(0.3, look.release)
    timer.start()
    work_here(user_data)
    timer.join()
    assert queue.job(job.id).state == "finished"


def test_the_page_may_be_killed_while_its_job_runs(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "one", LONG)
    page = (
        "import sys, time; from pathlib import Path; from studio.jobs.worker import ensure_worker\n"
        "from studio.core.paths import UserData\n"
        "ensure_worker(UserData(Path(sys.argv[1])), worker_command=sys.argv[2:]); time.sleep(60)"
    )
    command = [sys.executable, "-c", page, str(user_data.root), *worker_process(user_data)]
    process = subprocess.Popen(command, start_new_session=True)
    pid = running_pid(user_data, job)
    os.killpg(process.pid, signal.SIGKILL)  # it and all that is of its session, as a closed terminal does
    process.wait()
    time.sleep(0.1)
    assert psutil.pid_exists(pid)
    assert worker_runs(user_data)
    tell_to_end(job)
    wait_until(lambda: queue.job(job.id).state == "finished")


def test_a_full_disk_does_not_cost_a_job_its_ending(
    user_data: UserData, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = add_job(user_data, "one", FINISHES)
    monkeypatch.setattr(worker_module, "_DATABASE_RETRY_SECONDS", 0.01)
    finish_job, tries = JobQueue.finish_job, []

    def settle_later(self: JobQueue, job_id: int, state: str, message: str) -> None:
        tries.append(state)
        if len(tries) < 3:
            raise QueueBusyError("The queue of jobs cannot be used now: database or disk is full.")
        finish_job(self, job_id, state, message)  # type: ignore[arg-type]

    monkeypatch.setattr(JobQueue, "finish_job", settle_later)
    work_here(user_data)
    assert (queue.job(job.id).state, len(tries), len(started(user_data))) == ("finished", 3, 1)


@pytest.mark.parametrize(("error", "tries"), [(QueueBusyError, 4), (RunError, 1)])
def test_no_error_of_the_queue_is_tried_for_ever_and_nothing_is_started_meanwhile(
    error: type[RunError], tries: int, user_data: UserData, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = add_job(user_data, "one", FINISHES)
    monkeypatch.setattr(worker_module, "_DATABASE_RETRY_SECONDS", 1.0)
    monkeypatch.setattr(worker_module, "_MAX_RETRY_SECONDS", 3.0)
    clock = Clock()
    monkeypatch.setattr(worker_module, "time", clock)
    tried = []

    def failing(self: JobQueue, job_id: int, **_: object) -> None:
        tried.append(job_id)
        raise error("The queue of jobs cannot be used now.")

    with monkeypatch.context() as patch:
        patch.setattr(JobQueue, "begin", failing)
        with pytest.raises(error, match="cannot be used now"):
            work_here(user_data)
    assert len(tried) == tries
    assert not worker_runs(user_data), "the lock is free for the next worker"
    assert (queue.job(job.id).state, started(user_data)) == ("queued", [])
    work_here(user_data)
    assert queue.job(job.id).state == "finished"


def test_the_real_worker_runs_as_a_module_and_ends(user_data: UserData, queue: JobQueue) -> None:
    job = add_job(user_data, "gone")
    job.run_folder.rename(user_data.root / "elsewhere")
    assert ensure_worker(user_data, cpu_only=True)
    wait_until(lambda: queue.job(job.id).state == "failed")
    wait_until(lambda: not workers_of(user_data))


def test_the_real_command_line_trains_in_the_folder_of_the_run(user_data: UserData) -> None:
    job = add_job(user_data, "one")
    expected = ["-P", "-m", "studio", "train", str(job.run_folder), "--job", "--user-data", str(user_data.root)]
    assert job_command(job, user_data) == [sys.executable, *expected]
    assert job_command(job, user_data, cpu_only=True) == [sys.executable, *expected, "--cpu"]


class Clock:
    """A clock that only naps move."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True)
class Case:
    """An accident, and what must be said of it."""

    exit_code: int | None
    asked: str
    attempts: int
    log_end: str
    state: str
    words: str


ACCIDENTS = (
    Case(-9, "", 1, "", "queued", "Attempt 1 of 3 ended unexpectedly: its process was killed, probably because memory"),
    Case(137, "", 2, "", "queued", "probably because memory ran out"),
    Case(-11, "", 3, "", "failed", "its process crashed (SIGSEGV)"),
    Case(-77, "", 3, "", "failed", "its process crashed (signal 77)"),
    Case(
        2,
        "",
        3,
        "RuntimeError: MPS backend out of memory",
        "failed",
        "its log shows that memory ran out. Before a retry",
    ),
    Case(2, "", 3, "oh", "failed", "its process ended with code 2. The end of its log:\noh"),
    Case(None, "", 1, "", "queued", "its process was killed, or the machine went down"),
    Case(-9, "stop", 1, "", "stopped", "It had been asked to stop"),
    Case(None, "pause", 1, "", "paused", "It had been asked to pause"),
)


@pytest.mark.parametrize("case", ACCIDENTS, ids=lambda case: f"{case.exit_code} {case.asked}")
def test_accidents_are_told_and_tried_again_unless_the_user_wanted_an_end(user_data: UserData, case: Case) -> None:
    job = add_job(user_data, "one").model_copy(update={"asked": case.asked, "attempts": case.attempts})
    ending = classify_exit(job, exit_code=case.exit_code, status=RunStatus(state="running"), log_end=case.log_end)
    assert ending.state == case.state
    assert case.words in ending.message


def test_the_log_of_the_last_attempt_is_told_from_those_before(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_bytes(b"\n--- attempt 1 of 3, now\nout of memory\n\n--- attempt 2 of 3, now\n 1%\r 2%\r\n\xff bad\n")
    assert end_of_log(log, num_lines=9, of_last_attempt=True) == " 1%\n 2%\n\N{REPLACEMENT CHARACTER} bad"
    assert end_of_log(log, num_lines=1) == "\N{REPLACEMENT CHARACTER} bad"
    assert end_of_log(tmp_path / "none", num_lines=9) == ""


def test_a_mac_is_kept_awake_for_as_long_as_the_process_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert awake_command(42, platform="darwin") == ("caffeinate", "-is", "-w", "42")
    assert awake_command(42, platform="linux") == awake_command(42, platform="win32") == ()
    stand_in = tmp_path / "caffeinate"
    stand_in.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\nexec sleep 60\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with kept_awake(42, platform="darwin"):
        wait_until((tmp_path / "called").exists)
        keepers = [child for child in psutil.Process().children() if child.cmdline()[-2:] == ["sleep", "60"]]
        wait_until(lambda: (tmp_path / "called").read_text() == "-is -w 42\n")
    assert not psutil.wait_procs(keepers, timeout=5)[1]


def test_a_mac_without_caffeinate_works_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with kept_awake(os.getpid(), platform="darwin"):
        pass
