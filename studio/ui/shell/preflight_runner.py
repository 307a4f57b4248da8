"""Commands that need torch, run for the page in a process of their own: a preflight, an export; what came of them."""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.core.files import write_atomically
from studio.core.paths import UserData

TRAINING = ("train", "--preflight", "--json", "--settings")
"""The command that measures a training; the file of its settings comes last, and JSON is the last line it prints."""
BATCH = ("batch", "--forecast", "--json")
"""The command that measures a batch, likewise."""
LAST_LINES = 4


@dataclass(frozen=True)
class PreflightState:
    """Where it stands: the JSON that it printed, or what it said last where it failed."""

    running: bool = False
    result_json: str = ""
    problem: str = ""


@dataclass(frozen=True)
class CommandState:
    """Where a command stands.

    Attributes:
        about: what it was started for.
        last_line: that it printed; empty before it ended well.
        problem: what it said last where it failed.
    """

    about: str = ""
    running: bool = False
    last_line: str = ""
    problem: str = ""


class CommandRunner:
    """Runs one command of `python -m studio` at a time. Any thread may ask."""

    def __init__(self, user_data: UserData) -> None:
        self._user_data = user_data
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._state = CommandState()

    @property
    def state(self) -> CommandState:
        with self._lock:
            return self._state

    def start(self, *arguments: str, about: str = "", ended: Callable[[], None] = lambda: None) -> None:
        """Begin one; one that runs is ended first. `ended` is called in a thread when its process is gone.

        Raises:
            OSError: where it cannot be started.
        """
        self.stop()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "studio", *arguments, "--user-data", str(self._user_data.root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self._user_data.root,
        )
        with self._lock:
            self._process, self._state = process, CommandState(about, running=True)
        threading.Thread(target=self._wait, args=(process, ended), name=arguments[0], daemon=True).start()

    def stop(self) -> None:
        """End the one that runs."""
        with self._lock:
            process, self._process = self._process, None
            self._state = CommandState()
        if process is not None and process.poll() is None:
            process.terminate()
            process.wait()

    def _wait(self, process: subprocess.Popen[str], ended: Callable[[], None]) -> None:
        output, errors = process.communicate()
        ended()
        with self._lock:
            if process is not self._process:
                return
            self._process, about = None, self._state.about
            if process.returncode == 0:
                self._state = CommandState(about, last_line=output.strip().splitlines()[-1])
            else:
                said = " ".join(line for line in errors.splitlines()[-LAST_LINES:] if line.strip())
                self._state = CommandState(about, problem=said or f"It ended with code {process.returncode}.")


class PreflightRunner:
    """Measures what a job would take, one at a time. Any thread may ask."""

    def __init__(self, user_data: UserData, command: Sequence[str] = TRAINING) -> None:
        self._folder = user_data.cache / "preflight"
        self._command = command
        self._runner = CommandRunner(user_data)

    @property
    def state(self) -> PreflightState:
        now = self._runner.state
        return PreflightState(now.running, now.last_line, now.problem)

    def start(self, settings_json: str) -> None:
        """Begin one; one that runs is ended first.

        Raises:
            OSError: where it cannot be started.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        file = Path(tempfile.mkdtemp(dir=self._folder)) / "settings.json"
        write_atomically(file, settings_json.encode())

        def clean_up() -> None:
            file.unlink(missing_ok=True)
            file.parent.rmdir()

        self._runner.start(*self._command, str(file), ended=clean_up)
