"""What the page runs in processes of its own: cancelled by the page that shows it, and gone with the studio."""

from pathlib import Path

import psutil
import pytest

from studio.core.errors import StudioError
from studio.core.paths import UserData
from studio.ui.shell.commands import Commands
from studio.ui.shell.status import measuring_words

pytestmark = pytest.mark.process


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children() if "--preflight" in child.cmdline()]


def test_a_measurement_is_cancelled_by_its_number_and_ends_with_its_owner(tmp_path: Path) -> None:
    commands = Commands(UserData(tmp_path))
    runner = commands.preflight
    assert measuring_words("a training", runner.state, "Training") == ""
    runner.start("{}", {"rank": 8})
    first = runner.state
    assert first.running
    assert "measuring a training · 0 s" in measuring_words("a training", first, "Training")
    assert len(children()) == 1
    runner.start("{}", {"rank": 16})
    assert len(children()) == 1, "one at a time"
    with pytest.raises(StudioError, match="that measurement has ended already"):
        runner.cancel(first.number)
    assert runner.state.running
    runner.cancel(runner.state.number)
    assert not runner.state.running
    assert children() == []
    with pytest.raises(StudioError, match="that measurement has ended already"):
        runner.cancel(first.number)
    runner.start("{}")
    commands.close()
    assert children() == []
