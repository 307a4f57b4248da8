"""`python -m studio jobs`: what the terminal shows, and what it does."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from filelock import FileLock
from typer.testing import CliRunner

from studio.batches.folder import BatchFolder
from studio.cli.jobs import jobs_app, list_jobs, time_left
from studio.cli.options import label_folder
from studio.core.errors import RunError
from studio.core.paths import UserData
from studio.core.records import Label, read_label
from studio.jobs import worker
from studio.jobs.folder import RunStatus, take_requests, write_status
from studio.jobs.queue import JobQueue
from tests.command_line import studio
from tests.jobs.scripted_jobs import add_job, new_user_data, wait_until, workers_of


@pytest.fixture
def user_data(tmp_path: Path) -> Iterator[UserData]:
    with new_user_data(tmp_path) as user_data:
        yield user_data


def run(user_data: UserData, *words: str) -> str:
    """What the command prints, from the whole command line."""
    app = typer.Typer()
    app.add_typer(jobs_app, name="jobs")
    app.command("other")(lambda: None)
    result = CliRunner().invoke(app, ["jobs", *words, "--user-data", str(user_data.root)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def begin(user_data: UserData, job_id: int) -> None:
    assert JobQueue(user_data).begin(job_id, pid=1, process_start_time=1.5) is not None


def test_an_empty_queue_says_so_and_makes_no_file(user_data: UserData) -> None:
    assert run(user_data).startswith("The queue is empty.")
    assert list(user_data.root.iterdir()) == []


def test_the_list_shows_place_state_steps_time_left_and_message(user_data: UserData) -> None:
    shoes, _, failed = (add_job(user_data, name) for name in ("shoes", "a cat", "bags"))
    JobQueue(user_data).move(failed.id, 1)
    begin(user_data, failed.id)
    JobQueue(user_data).finish_job(failed.id, "failed", "All 3 attempts ended. The end of its log:\nTraceback\nError")
    begin(user_data, shoes.id)
    JobQueue(user_data).pause(shoes.id)
    status = RunStatus(state="running", step=1200, num_steps=2000, remaining_seconds=4320, message="Step 1200.")
    write_status(shoes.run, status)
    lines = run(user_data).splitlines()
    assert lines[:4] == [
        "place  job  title  state                    steps           time left   message",
        "–      1    shoes  running, asked to pause  1,200 of 2,000  1 h 12 min  Step 1200.",
        "1      2    a cat  queued",
        "–      3    bags   failed                                               All 3 attempts ended. The end of its "
        "log: `python -m studio jobs log 3` shows it.",
    ]
    assert lines[5].startswith("No worker is processing the queue. `python -m studio jobs work`")


def test_the_list_as_json_has_the_same_and_more(user_data: UserData) -> None:
    job = add_job(user_data, "shoes")
    (line,) = json.loads(run(user_data, "--json"))
    assert (line["job"]["id"], line["job"]["position"], line["job"]["state"]) == (job.id, 1, "queued")
    assert line["job"]["run_folder"] == str(job.run_folder)
    assert (line["step"], line["remaining_seconds"]) == (0, None)


def test_a_damaged_status_costs_no_list(user_data: UserData) -> None:
    job = add_job(user_data, "shoes")
    begin(user_data, job.id)
    job.run.status.write_text("{")
    assert "cannot be read" in run(user_data)


def test_jobs_are_steered_by_their_numbers(user_data: UserData) -> None:
    first, second = add_job(user_data, "one"), add_job(user_data, "two")
    assert run(user_data, "move", "2", "1") == "Job 2 (two) is number 1 in the line.\n"
    assert run(user_data, "pause", "2") == "Job 2 (two) is paused.\n"
    assert run(user_data, "stop", "2") == "Job 2 (two) is stopped.\n"
    assert (
        run(user_data, "remove", "2")
        == f"Job 2 (two) was removed from the queue. Its run is kept in {second.run_folder}.\n"
    )
    begin(user_data, first.id)
    said = "Job 1 (one) was asked to stop. It saves after the current step, then ends.\n"
    assert run(user_data, "stop", "1") == said
    assert take_requests(first.run) == {"stop"}


def test_the_folder_may_be_named_before_the_command(user_data: UserData) -> None:
    add_job(user_data, "one")
    result = CliRunner().invoke(jobs_app, ["--user-data", str(user_data.root), "pause", "1"], catch_exceptions=False)
    assert result.output == "Job 1 (one) is paused.\n"


def test_a_refusal_leaves_the_command_as_an_error_of_the_studio(user_data: UserData) -> None:
    with pytest.raises(RunError, match="There is no job 5 in the queue"):
        CliRunner().invoke(jobs_app, ["stop", "5", "--user-data", str(user_data.root)], catch_exceptions=False)


def test_resuming_puts_it_into_the_line_and_sees_to_a_worker(
    user_data: UserData, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = add_job(user_data, "one")
    JobQueue(user_data).pause(job.id)
    ensured: list[tuple[UserData, bool]] = []
    monkeypatch.setattr(worker, "ensure_worker", lambda *given: ensured.append(given))
    assert run(user_data, "resume", "1", "--cpu") == "Job 1 (one) is number 1 in the line.\n"
    assert ensured == [(user_data, True)]


@pytest.mark.process
def test_work_starts_the_real_worker_once_there_is_work(user_data: UserData) -> None:
    assert run(user_data, "work") == "No jobs are waiting. `python -m studio jobs` lists all.\n"
    job = add_job(user_data, "one")
    job.run_folder.rename(user_data.root / "elsewhere")
    assert run(user_data, "work", "--cpu").startswith("A worker has started on the queue.")
    wait_until(lambda: JobQueue(user_data).job(job.id).state == "failed")
    wait_until(lambda: not workers_of(user_data))


def test_the_log_is_shown_from_its_end(user_data: UserData) -> None:
    job = add_job(user_data, "one")
    with pytest.raises(RunError, match=r"Job 1 \(one\) has no log yet\. It is queued"):
        run(user_data, "log", "1")
    job.run.log.write_text("\n".join(f"line {number}" for number in range(100)))
    assert run(user_data, "log", "1").splitlines()[::39] == ["line 60", "line 99"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (0, "0 s"), (59.4, "59 s"), (720, "12 min"), (4320, "1 h 12 min"), (3599, "1 h 00 min")],
)
def test_time_left_is_said_in_hours_and_minutes(seconds: float | None, words: str) -> None:
    assert time_left(seconds) == words


def test_printing_to_a_pipe_works(user_data: UserData, capsys: pytest.CaptureFixture[str]) -> None:
    add_job(user_data, "one")
    list_jobs(user_data, as_json=True)
    assert json.loads(capsys.readouterr().out)


def test_what_a_command_calls_its_batch_stands_in_the_list_and_a_bad_name_begins_none(tmp_path: Path) -> None:
    user_data = UserData(tmp_path / "user_data")
    prompts = tmp_path / "boots.txt"
    prompts.write_text("red boots\n", encoding="utf-8")
    queued = ("batch", str(prompts), "--queue")
    refused = studio(*queued, "--title", "a\x1bb", user_data=user_data.root)
    assert (refused.returncode, user_data.batches.exists()) == (2, False)
    assert "Name must not hold control characters, such as U+001B" in refused.stderr
    user_data.root.mkdir(exist_ok=True)
    with FileLock(user_data.root / "worker.lock"):  # as if a worker were busy with others: none is started
        done = studio(*queued, "--title", "Red boots", "--note", "for the shop\n", user_data=user_data.root)
    assert done.returncode == 0, done.stderr
    (batch,) = BatchFolder.all_in(user_data.batches)
    assert read_label(batch.label) == Label(name="Red boots", note="for the shop\n")
    assert f"Red boots · {batch.name}" in studio("jobs", user_data=user_data.root).stdout
    label_folder(batch, None, "another", listed_in=user_data.batches)
    assert read_label(batch.label) == Label(name="Red boots", note="another"), "what is not given stays"
