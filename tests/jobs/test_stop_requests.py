"""What asks a job to end: a signal, its folder, its peers; and as what it then ends."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest

from studio.jobs.folder import REQUESTS, JobFolder, RunRequest, StopRequests, ask, forget_old_requests, take_requests


@pytest.mark.parametrize(
    ("asked", "signalled", "halted", "ends", "outcome"),
    [
        ((), False, False, False, "stopped"),
        (("save", "sample"), False, False, False, "stopped"),
        (("stop",), False, False, True, "stopped"),
        (("pause",), False, False, True, "paused"),
        (("pause", "stop"), False, False, True, "stopped"),
        (("pause",), True, False, True, "stopped"),
        (("pause",), False, True, True, "stopped"),
        ((), True, False, True, "stopped"),
        ((), False, True, True, "stopped"),
    ],
)
def test_whether_it_ends_and_as_what(
    asked: tuple[RunRequest, ...], signalled: bool, halted: bool, ends: bool, outcome: str, tmp_path: Path
) -> None:
    folder = JobFolder(tmp_path)
    for request in asked:
        ask(folder, request)
    requests = StopRequests(folder, lambda: signalled, halted=lambda: halted)
    assert [requests.should_stop() for _ in range(2)] == [ends, ends], "it may be asked again and again"
    assert requests.outcome == outcome
    assert take_requests(folder) == set(asked), "a request that is no stop is left for who acts on it"


def test_a_peer_that_does_not_listen_to_the_folder_leaves_it_to_the_first(tmp_path: Path) -> None:
    ask(JobFolder(tmp_path), "stop")
    assert not StopRequests(JobFolder(tmp_path), lambda: False, hears_folder=False).should_stop()


def test_a_process_forgets_what_an_earlier_one_was_asked_and_hears_what_it_was_asked_while_it_loaded(
    tmp_path: Path,
) -> None:
    folder = JobFolder(tmp_path)
    for request in REQUESTS:
        ask(folder, request)
    began_at = datetime.fromtimestamp(psutil.Process().create_time()).astimezone()
    earlier = {"asked_by": 1, "asked_at": (began_at - timedelta(seconds=1)).isoformat()}
    (folder.requests / "stop").write_text(json.dumps(earlier))
    for request, damaged in (("save", "{"), ("sample", '{"asked_at": 5}')):
        (folder.requests / request).write_text(damaged)
    forget_old_requests(folder)
    assert take_requests(folder) == {"pause"}
