"""One process has the device; the next one is told which, and gets it when that one is gone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from studio.core.paths import UserData
from studio.jobs.device_lock import DeviceLock, device_asked_for

pytestmark = pytest.mark.process

HOLD = """
import sys; from pathlib import Path; from studio.core.paths import UserData
from studio.jobs.device_lock import DeviceLock, device_asked_for
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


def test_who_will_want_the_device_is_heard_before_and_withdraws_in_any_case(tmp_path: Path) -> None:
    user_data = UserData(tmp_path)
    look = (
        "import sys; from pathlib import Path; from studio.jobs.device_lock import DeviceLock\n"
        "print(DeviceLock(Path(sys.argv[1])).waited_for_by())"
    )

    def heard_by_others() -> str:
        command = [sys.executable, "-c", look, str(user_data.device_lock)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with pytest.raises(RuntimeError), device_asked_for(user_data, "training shoes"):
        assert heard_by_others() == f"training shoes (process {os.getpid()})"
        raise RuntimeError
    assert heard_by_others() == "None"
