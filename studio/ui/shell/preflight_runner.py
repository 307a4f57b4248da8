"""What is measured before a job, for the page: a process of its own, as it needs torch; its result, or why none."""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
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


class PreflightRunner:
    """Runs one such command at a time. Any thread may ask."""

    def __init__(self, user_data: UserData, command: Sequence[str] = TRAINING) -> None:
        self._user_data = user_data
        self._command = command
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._state = PreflightState()

    @property
    def state(self) -> PreflightState:
        with self._lock:
            return self._state

    def start(self, settings_json: str) -> None:
        """Begin one; one that runs is ended first.

        Raises:
            OSError: where it cannot be started.
        """
        self.stop()
        folder = self._user_data.cache / "preflight"
        folder.mkdir(parents=True, exist_ok=True)
        file = Path(tempfile.mkdtemp(dir=folder)) / "settings.json"
        write_atomically(file, settings_json.encode())
        command = [sys.executable, "-P", "-m", "studio", *self._command, str(file)]
        process = subprocess.Popen(
            [*command, "--user-data", str(self._user_data.root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self._user_data.root,
        )
        with self._lock:
            self._process, self._state = process, PreflightState(running=True)
        threading.Thread(target=self._wait, args=(process, file), name="preflight", daemon=True).start()

    def stop(self) -> None:
        """End the one that runs."""
        with self._lock:
            process, self._process = self._process, None
            self._state = PreflightState()
        if process is not None and process.poll() is None:
            process.terminate()
            process.wait()

    def _wait(self, process: subprocess.Popen[str], file: Path) -> None:
        output, errors = process.communicate()
        file.unlink(missing_ok=True)
        file.parent.rmdir()
        with self._lock:
            if process is not self._process:
                return
            self._process = None
            if process.returncode == 0:
                self._state = PreflightState(result_json=output.strip().splitlines()[-1])
            else:
                said = " ".join(line for line in errors.splitlines()[-LAST_LINES:] if line.strip())
                self._state = PreflightState(problem=said or f"The measurement ended with code {process.returncode}.")
