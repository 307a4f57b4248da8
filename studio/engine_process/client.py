"""EngineClient: the page's side of the engine process. It starts it, asks, listens, and notices when it is gone."""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import IO, Literal

from studio.engine_process.messages import (
    EVENTS,
    Cancel,
    CheckDevice,
    DeviceChecked,
    Event,
    Failed,
    Load,
    Loaded,
    Loading,
    PictureDone,
    Request,
    Smoke,
    SmokeDone,
    Starting,
    Step,
    Waiting,
    to_line,
)
from studio.errors import EngineError
from studio.paths import UserData
from studio.reports import latest_report
from studio.results import DeviceCheck, EngineFacts, MemorySample, SavedReport
from studio.settings import ModelSettings, SmokeSettings

logger = logging.getLogger(__name__)

LOG_LIMIT_BYTES = 2**20
MAX_DEATHS = 3  # an engine that dies so often without carrying anything out is not started again by itself

Phase = Literal["off", "starting", "waiting", "loading", "ready", "smoke test", "device check", "no model", "gone"]
ACTIVE_PHASES: tuple[Phase, ...] = ("starting", "waiting", "loading", "smoke test", "device check")


@dataclass(frozen=True)
class EngineView:
    """All that the page shows of the engine, at one moment."""

    phase: Phase = "off"
    pid: int | None = None
    model: str = ""
    owner: str = ""
    facts: EngineFacts | None = None
    smoke_settings: SmokeSettings | None = None
    step: Step | None = None
    preview_png: str | None = None
    pictures: tuple[PictureDone, ...] = ()
    report: SavedReport | None = None
    memory: MemorySample | None = None
    device_check: DeviceCheck | None = None
    cancelling: bool = False
    problem: str = ""

    @property
    def active(self) -> bool:
        """True while something happens that the page must follow."""
        return self.phase in ACTIVE_PHASES


class EngineClient:
    """Owns the engine process. All methods may be called from any thread, and return at once."""

    def __init__(self, user_data: UserData, *, model: ModelSettings, cpu_only: bool) -> None:
        self._user_data = user_data
        self._model = model
        self._cpu_only = cpu_only
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths = 0  # since the last request that was carried out
        self._view = EngineView(model=model.model, report=latest_report(user_data.outputs))

    @property
    def view(self) -> EngineView:
        """The state now; a frozen copy."""
        with self._lock:
            return self._view

    def start(self) -> None:
        """Start the engine and load the model, where it is not running yet."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            log = self._open_log()
            # -P and cwd: modules come from where the studio is installed, never from a folder of uploads.
            command = [sys.executable, "-P", "-m", "studio.engine_process.main"]
            command += ["--user-data", str(self._user_data.root)]
            environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error"}
            self._process = subprocess.Popen(
                [*command, "--cpu"] if self._cpu_only else command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=self._user_data.root,
                # Ctrl+C in the terminal reaches the page's process alone, which then ends this one.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
            log.close()
            self._change(phase="starting", pid=self._process.pid, facts=None, cancelling=False)
            listener = threading.Thread(target=self._listen, args=(self._process,), name="engine-events", daemon=True)
            listener.start()
            self._send(Load(settings=self._model))

    def load(self, model: ModelSettings) -> None:
        """Load a model in place of the one before, starting the engine where it is gone.

        Raises:
            EngineError: where the engine is busy.
        """
        with self._lock:
            phase = self._view.phase
            if phase not in ("ready", "no model", "off", "gone"):
                raise EngineError(f"The studio cannot load a model now: {PHASE_WORDS[phase]}")
            self._model = model
            if phase in ("off", "gone"):
                self._change(model=model.model, problem="")
                self.start()
                return
            self._change(phase="loading", model=model.model, facts=None, problem="")
            self._send(Load(settings=model))

    def run_smoke_test(self, settings: SmokeSettings) -> None:
        """Start the smoke test.

        Raises:
            EngineError: where the engine is not ready for it.
        """
        with self._lock:
            self._require_ready("run the smoke test")
            self._change(
                phase="smoke test",
                smoke_settings=settings,
                step=None,
                preview_png=None,
                pictures=(),
                report=None,
                problem="",
                cancelling=False,
            )
            self._send(Smoke(settings=settings))

    def check_device(self) -> None:
        """Start the device check.

        Raises:
            EngineError: where the engine is not ready for it.
        """
        with self._lock:
            self._require_ready("check the device")
            self._change(phase="device check", problem="")
            self._send(CheckDevice())

    def cancel(self) -> None:
        """Ask the running smoke test to stop after its current step."""
        with self._lock:
            if self._view.phase == "smoke test" and not self._view.cancelling:
                self._change(cancelling=True)
                self._send(Cancel())

    def stop(self) -> None:
        """End the engine process and wait for it."""
        with self._lock:
            process, self._process = self._process, None
            self._change(phase="off", pid=None)
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()

    def _open_log(self) -> IO[bytes]:
        """The engine's log, appended to; one older file is kept when it grows beyond 1 MB."""
        log_file = self._user_data.logs / "engine.log"
        log_file.parent.mkdir(parents=True, exist_ok=True)
        if log_file.is_file() and log_file.stat().st_size > LOG_LIMIT_BYTES:
            log_file.replace(log_file.with_suffix(".old.log"))
        return log_file.open("ab")

    def _require_ready(self, purpose: str) -> None:
        view = self._view
        if view.phase != "ready":
            raise EngineError(f"The studio cannot {purpose} now: {PHASE_WORDS[view.phase]}")

    def _send(self, request: Request) -> None:
        process = self._process
        assert process is not None and process.stdin is not None
        try:
            process.stdin.write(to_line(request))
            process.stdin.flush()
        except OSError as error:  # it has just died: its listener tells the user
            logger.info("The engine did not take %s: %s", request.kind, error)

    def _change(self, **changes: object) -> None:
        with self._lock:
            self._view = replace(self._view, **changes)  # type: ignore[arg-type]

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Take in events until the engine's output ends, then say how it ended."""
        assert process.stdout is not None
        for line in process.stdout:
            if not line.endswith(b"\n"):
                break  # killed while it wrote
            with self._lock:
                if process is self._process:
                    self._take_in(EVENTS.validate_json(line))
        process.wait()
        with self._lock:
            if process is not self._process:
                return
            self._process = None
            view = self._view
            problem = _last_words(process.returncode, view.phase)
            self._change(phase="gone", pid=None, facts=None, step=None, preview_png=None, problem=problem)
            self._deaths += 1
            if view.facts is not None and self._deaths < MAX_DEATHS:  # it had started well, so it will again
                self.start()

    def _take_in(self, event: Event) -> None:
        takers: dict[type[Event], Callable[..., None]] = {
            Starting: lambda e: self._change(phase="starting", owner=""),
            Waiting: lambda e: self._change(phase="waiting", owner=e.owner),
            Loading: lambda e: self._change(phase="loading", model=e.model),
            Loaded: lambda e: self._change(
                phase="ready",
                facts=e.facts,
                model=e.facts.model,
                device_check=e.device_check,
                memory=e.facts.load_memory.after,
            ),
            Step: lambda e: self._change(step=e, memory=e.memory, preview_png=e.preview_png or self._preview_for(e)),
            PictureDone: lambda e: self._change(pictures=(*self._view.pictures, e), preview_png=None, step=None),
            SmokeDone: lambda e: self._take_result(report=e.saved),
            DeviceChecked: lambda e: self._take_result(device_check=e.check),
            Failed: self._take_failure,
        }
        takers[type(event)](event)

    def _take_result(self, **changes: object) -> None:
        """A request was carried out."""
        self._deaths = 0
        self._change(phase="ready", step=None, preview_png=None, cancelling=False, **changes)

    def _preview_for(self, step: Step) -> str | None:
        """The preview before, as long as it is of the same picture."""
        before = self._view.step
        return self._view.preview_png if before and before.picture == step.picture else None

    def _take_failure(self, event: Failed) -> None:
        loaded = self._view.facts is not None
        self._change(
            phase="ready" if loaded else "no model",
            problem=event.message,
            step=None,
            preview_png=None,
            cancelling=False,
        )


PHASE_WORDS: dict[Phase, str] = {
    "off": "the engine is not running.",
    "starting": "the engine is starting.",
    "waiting": "another program has the device.",
    "loading": "the model is being loaded.",
    "ready": "it is ready.",
    "smoke test": "the smoke test is running.",
    "device check": "the device check is running.",
    "no model": "no model is loaded.",
    "gone": "the engine is gone; start it again first.",
}

SIGKILL = 9  # by number: Windows has no such name


def _last_words(return_code: int, doing: Phase) -> str:
    """Why the engine process ended, for the user."""
    during = "" if doing == "ready" else f" during the {doing}" if doing in ("smoke test", "device check") else ""
    if return_code == -SIGKILL:
        why = "it was killed, most often by the system because memory ran out. Close other programs before a retry."
    elif return_code < 0:
        why = f"it crashed ({signal.Signals(-return_code).name})."
    else:
        why = f"it ended with code {return_code}."
    return f"The engine stopped{during}: {why} Finished pictures are saved; the log is logs/engine.log."
