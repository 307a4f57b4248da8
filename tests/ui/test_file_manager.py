"""Opening a folder: only for whoever sits at this machine, only where there is a screen."""

import os
import sys
import threading
import time
import webbrowser
from pathlib import Path

import pytest

from studio.ui.shell import server
from studio.ui.shell.parts import is_same_machine, open_folder, opening_command
from studio.ui.shell.server import find_window_program


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "localhost", "127.0.0.5"])
def test_this_machine_is_known_by_its_address(client: str) -> None:
    assert is_same_machine(client, {})


@pytest.mark.parametrize("client", ["192.168.0.7", "10.0.0.1", "::ffff:10.0.0.1", "evil.example", "", None])
def test_others_are_not(client: str | None) -> None:
    assert not is_same_machine(client, {})


def test_what_was_handed_on_may_come_from_anywhere() -> None:
    assert not is_same_machine("127.0.0.1", {"x-forwarded-for": "127.0.0.1"})


def test_each_system_has_its_program_and_one_without_a_screen_has_none(tmp_path: Path) -> None:
    assert opening_command("darwin", {}) == ["open"]
    assert opening_command("win32", {}) == ["explorer"]
    assert opening_command("linux", {"PATH": str(tmp_path)}) is None
    program = tmp_path / "xdg-open"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    assert opening_command("linux", {"PATH": str(tmp_path)}) is None, "no screen"
    assert opening_command("linux", {"PATH": str(tmp_path), "DISPLAY": ":0"}) == [str(program)]


@pytest.mark.skipif(sys.platform == "win32", reason="the program of this test is a shell script")
def test_the_folder_is_given_to_the_program_as_one_argument(tmp_path: Path) -> None:
    program, seen = tmp_path / "xdg-open", tmp_path / "seen.txt"
    program.write_text(f'#!/bin/sh\nprintf "%s" "$1" > "{seen}.part"; mv "{seen}.part" "{seen}"\n', encoding="utf-8")
    program.chmod(0o755)
    folder = tmp_path / "a run; touch harm"
    folder.mkdir()
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "DISPLAY": ":0"}
    assert open_folder(folder, platform="linux", environment=environment)
    end = time.monotonic() + 10
    while not seen.is_file():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert seen.read_text(encoding="utf-8") == str(folder)
    assert not open_folder(folder, platform="linux", environment={})
    with pytest.raises(FileNotFoundError):
        open_folder(tmp_path / "gone", platform="linux", environment=environment)


def test_a_window_of_its_own_is_opened_by_a_browser_that_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_window_program("linux", {"PATH": str(tmp_path)}) is None
    for name in ("firefox", "chromium", "google-chrome"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\n", encoding="utf-8")
        program.chmod(0o755)
        wanted = None if name == "firefox" else str(program)
        assert find_window_program("linux", {"PATH": str(tmp_path)}) == wanted
    edge = tmp_path / "Microsoft" / "Edge" / "Application" / "msedge.exe"
    edge.parent.mkdir(parents=True)
    assert find_window_program("win32", {"PROGRAMFILES": str(tmp_path)}) is None
    edge.write_bytes(b"")
    assert find_window_program("win32", {"PROGRAMFILES": str(tmp_path)}) == str(edge)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    chromium = tmp_path / "Applications" / "Chromium.app" / "Contents" / "MacOS" / "Chromium"
    chromium.parent.mkdir(parents=True)
    chromium.write_bytes(b"")
    assert find_window_program("darwin", {}) == str(chromium)


@pytest.mark.skipif(os.name == "nt", reason="the program is a script")
@pytest.mark.parametrize(("ends", "opened"), [(1, ["http://127.0.0.1:7860"]), (0, [])])
def test_where_the_browser_opens_no_window_the_page_opens_as_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: int, opened: list[str]
) -> None:
    program = tmp_path / "chromium"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nexit {ends}\n', encoding="utf-8")
    program.chmod(0o755)
    found: list[str] = []
    monkeypatch.setattr(server, "find_window_program", lambda *_: str(program))
    monkeypatch.setattr(webbrowser, "open", found.append)
    before = set(threading.enumerate())
    server.open_page("http://127.0.0.1:7860", window=True)
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
    assert (tmp_path / "asked").read_text(encoding="utf-8") == "--app=http://127.0.0.1:7860\n"
    assert found == opened
