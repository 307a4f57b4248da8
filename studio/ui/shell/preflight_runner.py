"""What is measured before a job, for the page: a process of its own, as it needs torch; its result, or why none."""

import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from markupsafe import Markup

from studio.core.files import write_atomically
from studio.core.paths import UserData
from studio.core.text import template

TRAINING = ("train", "--preflight", "--json", "--settings")
"""The command that measures a training; the file of its settings comes last, and JSON is the last line it prints."""
BATCH = ("batch", "--forecast", "--json")
"""The command that measures a batch, likewise."""
LAST_LINES = 4


@dataclass(frozen=True)
class PreflightState:
    """Where it stands: the JSON that it printed, or what it said last where it failed.

    Attributes:
        form: what the page's form held that it was begun with, by its controls' names.
        number: another one for every measurement; 0 where there is none.
    """

    running: bool = False
    result_json: str = ""
    problem: str = ""
    form: Mapping[str, object] = field(default_factory=dict)
    number: int = 0


def forecast_box(state: PreflightState, html: Markup, *, form: str, labels: Mapping[str, str], button: str) -> Markup:
    """What was measured, with what it was measured for: the page's script says where its form holds something else.

    Args:
        form: the name under which the browser keeps the form.
        labels: what the page calls its controls.
        button: what measures anew.
    """
    if not state.number:
        return html
    made_for = [(name, labels[name], value) for name, value in state.form.items() if name in labels]
    return _template("forecast_box", html=html, form=form, made_for=json.dumps(made_for), button=button)


# Written anew, it is compared with the form again.
COMPARED_ON_LOAD = """const drawn = () => requestAnimationFrame(() => document.dispatchEvent(new Event("studio:form")));
watch("value", drawn);
drawn();"""
_template = template("ui/templates/shell.html")


class PreflightRunner:
    """Runs one such command at a time. Any thread may ask."""

    def __init__(self, user_data: UserData, command: Sequence[str] = TRAINING) -> None:
        self._user_data = user_data
        self._command = command
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._state = PreflightState()
        self._numbers = itertools.count(time.time_ns())  # greater than any studio's before, which open pages remember

    @property
    def state(self) -> PreflightState:
        with self._lock:
            return self._state

    def start(self, settings_json: str, form: Mapping[str, object] | None = None) -> None:
        """Begin one; one that runs is ended first.

        Args:
            form: what the page's form holds.

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
            self._process = process
            self._state = PreflightState(running=True, form=dict(form or {}), number=next(self._numbers))
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
                result = output.strip().splitlines()[-1]
                self._state = replace(self._state, running=False, result_json=result)
            else:
                said = " ".join(line for line in errors.splitlines()[-LAST_LINES:] if line.strip())
                problem = said or f"The measurement ended with code {process.returncode}."
                self._state = replace(self._state, running=False, problem=problem)
