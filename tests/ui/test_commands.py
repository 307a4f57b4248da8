"""What the page runs in processes of its own: cancelled by the page that shows it, and gone with the studio."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from studio.core.errors import StudioError
from studio.core.language import PORTUGUESE, speaking
from studio.core.paths import UserData
from studio.ui.batches.preview import forecast_html
from studio.ui.shell.commands import Commands
from studio.ui.shell.status import measuring_words
from studio.ui.training.tab import render_preflight

pytestmark = pytest.mark.process


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children() if "--preflight" in child.cmdline()]


def test_a_measurement_is_cancelled_by_its_number_and_ends_with_its_owner(tmp_path: Path) -> None:
    commands = Commands(UserData(tmp_path))
    runner = commands.preflight
    assert measuring_words(runner.state, "train") == ""
    runner.start("{}", {"rank": 8})
    first = runner.state
    assert first.running
    assert "measuring a training: starting · 0 s" in measuring_words(first, "train")
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


def test_a_measurement_says_what_it_does_as_it_goes_in_the_part_and_in_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, program = tmp_path / "gate", tmp_path / "program"
    wait = f"while [ ! -e {gate} ]; do sleep 0.02; done; rm {gate}"
    lines = (
        "echo '→ Loading the model.' >&2",
        wait,
        "echo '→ Making image 2 of 4.' >&2",
        wait,
        "echo Wrong. >&2; exit 1",
    )
    program.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n", encoding="utf-8")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    commands = Commands(UserData(tmp_path))
    commands.preflight.start("{}")
    for said in ("loading the model", "making image 2 of 4"):
        wait_for(lambda said=said: commands.preflight.state.step_words == said)  # type: ignore[misc]
        state = commands.preflight.state
        assert f"measuring a training: {said} · 0 s" in measuring_words(state, "train")
        words = render_preflight(state)["preflight-words"]
        assert callable(words)
        assert f"Now: {said}." in words()
        assert f"Now: {said}." in forecast_html(state, ())
        gate.touch()
        wait_for(lambda: not gate.exists())
    wait_for(lambda: not commands.preflight.state.running)
    assert commands.preflight.state.problem == "Wrong.", "steps are no part of what went wrong"
    commands.close()


def test_a_command_speaks_the_language_of_the_page_that_began_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho $STUDIO_LANGUAGE\n", encoding="utf-8")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    commands = Commands(UserData(tmp_path))
    with speaking(PORTUGUESE):
        commands.exports.start("export")
    wait_for(lambda: not commands.exports.state.running)
    assert commands.exports.state.last_line == PORTUGUESE
    commands.close()


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)
