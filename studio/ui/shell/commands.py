"""Commands that need torch, run for the page in a process of their own: a preflight, an export; what came of them."""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from markupsafe import Markup

from studio.core.errors import StudioError
from studio.core.files import write_atomically
from studio.core.language import LANGUAGE_NAME, _, in_this_language, language
from studio.core.paths import UserData
from studio.core.text import STEP_SIGN, duration, template

TRAINING = ("train", "--preflight", "--json", "--settings")
"""The command that measures a training; the file of its settings comes last, and JSON is the last line it prints."""
BATCH = ("batch", "--forecast", "--json")
"""The command that measures a batch, likewise."""
LAST_LINES = 4


@dataclass(frozen=True)
class PreflightState:
    """Where it stands: the JSON that it printed, or what it said last where it failed.

    Attributes:
        started_at: as `time.monotonic` counts.
        step: what it does now, in a sentence; "" before it has said so.
        form: what the page's form held that it was begun with, by its controls' names.
        number: another one for every measurement; 0 where there is none.
    """

    running: bool = False
    started_at: float = 0.0
    step: str = ""
    result_json: str = ""
    problem: str = ""
    form: Mapping[str, object] = field(default_factory=dict)
    number: int = 0

    @property
    def time_words(self) -> str:
        """How long it has been running: `12 s`."""
        seconds = int(time.monotonic() - self.started_at)
        return f"{seconds} s" if seconds < 60 else duration(seconds)

    @property
    def step_words(self) -> str:
        """What it does now, within a line: `loading the model`."""
        words = self.step.partition(". ")[0].rstrip(".") or _("starting")
        return words[0].lower() + words[1:]


def forecast_box(state: PreflightState, html: Markup, *, form: str, labels: Mapping[str, str], button: str) -> Markup:
    """What was measured, with what it was measured for: the page's script says where its form holds something else.

    Args:
        form: the name under which the browser keeps the form.
        labels: what the page calls its controls.
        button: what measures anew, as the page calls it.
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


@dataclass(frozen=True)
class CommandState:
    """Where a command stands.

    Attributes:
        about: what it was started for.
        started_at: as `time.monotonic` counts.
        step: what it does now, as it told last.
        last_line: that it printed; empty before it ended well.
        problem: what it said last where it failed.
    """

    about: str = ""
    running: bool = False
    started_at: float = 0.0
    step: str = ""
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
            env={**os.environ, LANGUAGE_NAME: language()},
            cwd=self._user_data.root,
        )
        with self._lock:
            self._process, self._state = process, CommandState(about, running=True, started_at=time.monotonic())
        threading.Thread(
            target=in_this_language(self._wait), args=(process, ended), name=arguments[0], daemon=True
        ).start()

    def stop(self) -> None:
        """End the one that runs."""
        with self._lock:
            process, self._process = self._process, None
            self._state = CommandState()
        if process is not None and process.poll() is None:
            process.terminate()
            process.wait()

    def _wait(self, process: subprocess.Popen[str], ended: Callable[[], None]) -> None:
        errors: deque[str] = deque(maxlen=LAST_LINES)
        follower = threading.Thread(target=self._follow, args=(process, errors), daemon=True)
        follower.start()
        with process:
            assert process.stdout is not None
            output = process.stdout.read()
            follower.join()
        ended()
        with self._lock:
            if process is not self._process:
                return
            self._process, about = None, self._state.about
            if process.returncode == 0:
                self._state = CommandState(about, last_line=output.strip().splitlines()[-1])
            else:
                said = " ".join(errors)
                self._state = CommandState(
                    about, problem=said or _("It ended with code {code}.", code=process.returncode)
                )

    def _follow(self, process: subprocess.Popen[str], errors: deque[str]) -> None:
        """Take what it says on stderr as it comes: what it does now, and what is wrong."""
        assert process.stderr is not None
        for line in map(str.strip, process.stderr):
            step = line.removeprefix(STEP_SIGN)
            if step == line:
                errors.extend([line] if line else [])
                continue
            with self._lock:
                if process is self._process:
                    self._state = replace(self._state, step=step)


class PreflightRunner:
    """Measures what a job would take, one at a time. Any thread may ask."""

    def __init__(self, user_data: UserData, command: Sequence[str] = TRAINING) -> None:
        self._folder = user_data.cache / "preflight"
        self._command = command
        self._runner = CommandRunner(user_data)
        self._begun = PreflightState()
        self._numbers = itertools.count(time.time_ns())  # greater than any studio's before, which open pages remember

    @property
    def state(self) -> PreflightState:
        now = self._runner.state
        return replace(
            self._begun,
            running=now.running,
            started_at=now.started_at,
            step=now.step,
            result_json=now.last_line,
            problem=now.problem,
        )

    def start(self, settings_json: str, form: Mapping[str, object] | None = None) -> None:
        """Begin one; one that runs is ended first.

        Args:
            form: what the page's form holds.

        Raises:
            OSError: where it cannot be started.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        file = Path(tempfile.mkdtemp(dir=self._folder)) / "settings.json"
        write_atomically(file, settings_json.encode())

        def clean_up() -> None:
            file.unlink(missing_ok=True)
            file.parent.rmdir()

        self._begun = PreflightState(form=dict(form or {}), number=next(self._numbers))
        self._runner.start(*self._command, str(file), ended=clean_up)

    def cancel(self, number: int) -> None:
        """End the measurement of that number.

        Raises:
            StudioError: where it has ended, or another one was begun.
        """
        state = self.state
        if not state.running or state.number != number:
            raise StudioError(_("Nothing was cancelled: that measurement has ended already."))
        self.stop()

    def stop(self) -> None:
        """End the one that runs."""
        self._runner.stop()
        self._begun = PreflightState()


class Commands:
    """All that the page runs in processes of its own. Whoever makes it closes it: nothing outlives the studio."""

    def __init__(self, user_data: UserData) -> None:
        self.preflight = PreflightRunner(user_data)
        self.forecast = PreflightRunner(user_data, BATCH)
        self.exports = CommandRunner(user_data)

    def close(self) -> None:
        """End what runs."""
        for runner in (self.preflight, self.forecast, self.exports):
            runner.stop()
