"""A job's folder is its own, is found by its name, and what it is asked it hears once."""

import tempfile
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.batches.folder import BatchFolder
from studio.core.errors import BatchError, RunError, StudioError
from studio.datasets.library import safe_name
from studio.jobs.folder import REQUESTS, JobFolder, RunStatus, ask, read_status, take_requests, write_status
from studio.training.folder import RunFolder

NOW = datetime(2026, 3, 1, 22, 15, 30)
KINDS = pytest.mark.parametrize(("kind", "error"), [(RunFolder, RunError), (BatchFolder, BatchError)])


def make_run(runs: Path, name: str, kind: type[JobFolder] = RunFolder) -> JobFolder:
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text("{}", encoding="utf-8")
    return kind(folder)


def test_a_new_folder_is_named_by_its_second_and_name(tmp_path: Path) -> None:
    run = RunFolder.new(tmp_path / "runs", "white shoes", now=NOW)
    assert run.name == "20260301-221530-white shoes"
    assert list(run.root.iterdir()) == []


def test_a_folder_is_never_used_again(tmp_path: Path) -> None:
    first = RunFolder.new(tmp_path, "shoes", now=NOW)
    (first.root / "settings.json").write_text("mine", encoding="utf-8")
    names = [RunFolder.new(tmp_path, "shoes", now=NOW).name for _ in range(3)]
    assert names == [f"20260301-221530-shoes-{number}" for number in (2, 3, 4)]
    assert (first.root / "settings.json").read_text(encoding="utf-8") == "mine"
    (tmp_path / "20260301-221530-bag").write_text("a file of this name", encoding="utf-8")
    assert RunFolder.new(tmp_path, "bag", now=NOW).name == "20260301-221530-bag-2"


def test_many_who_begin_in_one_second_get_a_folder_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        runs = [*threads.map(lambda _: RunFolder.new(tmp_path, "shoes", now=NOW).root, range(24))]
    assert len(set(runs)) == 24


@KINDS
def test_one_is_found_by_path_by_name_and_by_the_end_of_its_name(
    kind: type[JobFolder], error: type[StudioError], tmp_path: Path
) -> None:
    run = make_run(tmp_path, "20260301-221530-white shoes")
    make_run(tmp_path, "20260301-221531-bags")
    for name in (str(run.root), run.name, "white shoes"):
        found = kind.find(name, tmp_path)
        assert (type(found), found.root) == (kind, run.root.resolve())


@KINDS
def test_a_name_of_two_is_refused_with_both(kind: type[JobFolder], error: type[StudioError], tmp_path: Path) -> None:
    for second in (30, 31):
        make_run(tmp_path, f"20260301-2215{second}-shoes")
    with pytest.raises(error, match=rf"not one {kind.noun} but 2: 20260301-221531-shoes, 20260301-221530-shoes"):
        kind.find("shoes", tmp_path)


@KINDS
def test_one_that_is_not_there_is_said_with_those_that_are(
    kind: type[JobFolder], error: type[StudioError], tmp_path: Path
) -> None:
    with pytest.raises(error, match=rf"There is no {kind.noun} shoes\. Available: none\."):
        kind.find("shoes", tmp_path / "nowhere")
    make_run(tmp_path, "20260301-221530-bags")
    with pytest.raises(error, match=r"Available: 20260301-221530-bags\..*starts one"):
        kind.find("shoes", tmp_path)


def test_folders_of_one_path_are_the_same_whatever_names_them(tmp_path: Path) -> None:
    assert len({JobFolder(tmp_path), RunFolder(tmp_path), BatchFolder(tmp_path)}) == 1
    assert RunFolder(tmp_path) != RunFolder(tmp_path / "other")


def test_a_folder_without_settings_is_no_run_and_the_newest_come_first(tmp_path: Path) -> None:
    old, new = make_run(tmp_path, "20260301-221530-a"), make_run(tmp_path, "20260302-101010-b")
    (tmp_path / "20260303-000000-begun-and-killed").mkdir()
    assert RunFolder.all_in(tmp_path) == (new, old)


def test_what_is_asked_is_told_once_and_asked_twice_is_asked_once(tmp_path: Path) -> None:
    run = make_run(tmp_path, "run")
    assert take_requests(run) == frozenset()
    for request in ("stop", "sample", "stop"):
        ask(run, request)  # type: ignore[arg-type]
    assert take_requests(run) == {"stop", "sample"}
    assert take_requests(run) == frozenset()
    for request in REQUESTS:
        ask(run, request)
    assert take_requests(run) == set(REQUESTS)


def test_what_is_half_written_is_no_request(tmp_path: Path) -> None:
    run = make_run(tmp_path, "run")
    run.requests.mkdir()
    (run.requests / ".stop.abc.part").write_text("{", encoding="utf-8")
    (run.requests / "dance").write_text("{}", encoding="utf-8")
    assert take_requests(run) == frozenset()


def test_a_status_comes_back_and_a_run_without_one_is_new(tmp_path: Path) -> None:
    run = make_run(tmp_path, "run")
    assert read_status(run) == RunStatus(state="new")
    status = RunStatus(state="running", step=3, num_steps=9, seconds_per_step=0.5, remaining_seconds=3, pid=7)
    write_status(run, status)
    assert read_status(run) == status


@pytest.mark.parametrize("content", ["", "{", '{"state": "dancing"}', '{"state": "new", "mood": "good"}'])
def test_a_damaged_status_is_said_with_what_to_do(content: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, "run")
    run.status.write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match="Resume the run to write it again"):
        read_status(run)


@pytest.mark.parametrize("reported", ["/etc/passwd", "../other/x.png", "samples/../../x.png", "samples\\x.png"])
def test_a_file_that_an_event_names_is_never_outside_of_the_folder(tmp_path: Path, reported: str) -> None:
    with pytest.raises(FileNotFoundError):
        RunFolder(tmp_path).file(reported)
    assert RunFolder(tmp_path).file("samples/x.png") == tmp_path / "samples/x.png"


@pytest.fixture(scope="module")
def jobs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@settings(max_examples=50)
@given(st.text(max_size=12) | st.sampled_from(["café", "cafe\u0301", "靴" * 99, "-a", "a.b", "~", "CON"]))
def test_a_job_of_any_name_is_found_by_its_folders_name_and_by_its_own(jobs_folder: Path, wanted: str) -> None:
    parent = Path(tempfile.mkdtemp(dir=jobs_folder))
    run = RunFolder.new(parent, safe_name(wanted), now=NOW)
    run.settings.write_text("{}", encoding="utf-8")
    assert RunFolder.find(str(run.root), parent) == run
    for name in (run.name, safe_name(wanted)):
        assert RunFolder.find(name, parent) == RunFolder.find(unicodedata.normalize("NFD", name), parent) == run
