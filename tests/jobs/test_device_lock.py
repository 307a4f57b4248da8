"""One process has the device; the next one is told which, and gets it when that one is gone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from studio.jobs.device_lock import DeviceLock

pytestmark = pytest.mark.process

HOLD = """
import sys; from pathlib import Path; from studio.jobs.device_lock import DeviceLock
lock = DeviceLock(Path(sys.argv[1])); print(lock.acquire("a training run"), flush=True); sys.stdin.read()
"""


def test_the_device_has_one_owner_and_the_next_one_is_told_who(tmp_path: Path) -> None:
    path = tmp_path / "new" / "device.lock"
    path.parent.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    lock = DeviceLock(path)
    assert not lock.acquire("the page")
    assert str(lock.owner()) == f"a training run (process {holder.pid})"
    holder.kill()
    holder.wait()
    assert lock.acquire("the page"), "a killed owner lets go"
    assert lock.owner().pid == os.getpid()
    lock.release()


def test_the_lock_makes_the_folder_that_it_needs(tmp_path: Path) -> None:
    lock = DeviceLock(tmp_path / "not there yet" / "device.lock")
    assert lock.acquire("the page")
    lock.release()


def test_a_damaged_owner_file_is_no_obstacle(tmp_path: Path) -> None:
    lock = DeviceLock(tmp_path / "device.lock")
    (tmp_path / "device.json").write_text("{")
    assert str(lock.owner()) == "another program (process 0)"
