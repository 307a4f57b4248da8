"""EngineClient: the page's side of the engine process. It starts it, asks, listens, and notices when it is gone."""

import logging
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from studio.core.errors import EngineError
from studio.core.language import N_, _, for_later
from studio.core.paths import UserData
from studio.core.settings import CompareSettings, ImagesSettings, ModelSettings, SmokeSettings
from studio.engine.process.messages import (
    EVENTS,
    Cancel,
    CheckDevice,
    CheckLora,
    Compare,
    ComparisonChanged,
    DeviceChecked,
    Event,
    Failed,
    Generate,
    ImagesChanged,
    Load,
    Loaded,
    MakingRoom,
    Request,
    Run,
    Smoke,
    SmokeDone,
    to_line,
)
from studio.engine.process.view import (
    CANCELLABLE_PHASES,
    NOTHING_RUNS,
    PHASE_WORDS,
    RUN_PHASES,
    RUN_PURPOSES,
    RUNNING_PHASES,
    EngineView,
    changes_of,
    last_words,
    nothing_yet,
    start_engine_process,
)
from studio.images.comparison import latest_comparison
from studio.images.smoke_report import latest_report

logger = logging.getLogger(__name__)

MAX_DEATHS = 3  # an engine that dies so often without carrying anything out is not started again by itself
STOPPED_NOW = N_("The engine did not answer, so it was stopped and is starting again. Finished images are saved.")


class EngineClient:
    """Owns the engine process. All methods may be called from any thread, and return at once."""

    def __init__(self, user_data: UserData, *, model: ModelSettings, cpu_only: bool) -> None:
        self._user_data = user_data
        self._model = model  # the last one that was loaded; at first the one that will be
        self._requested = model
        self._cpu_only = cpu_only
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths = 0  # since the last request that was carried out
        self._makes_room = False  # the engine said that it ends for another process
        self._begun: Run | None = None  # the run that was sent last
        self._view = EngineView(model=model.model, report=latest_report(user_data.outputs))
        self._change(comparison=latest_comparison(user_data.outputs))

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
            self._process = start_engine_process(self._user_data, cpu_only=self._cpu_only)
            self._change(
                phase="starting", pid=self._process.pid, facts=None, cancel_asked_at=None, download=None, lora_checks={}
            )
            threading.Thread(target=self._hear, args=(self._process,), name="engine-events", daemon=True).start()
            self._send(Load(settings=self._model))

    def load(self, model: ModelSettings) -> None:
        """Load a model in place of the one before, starting the engine where it is gone.

        Raises:
            EngineError: where the engine is busy.
        """
        with self._lock:
            phase = self._view.phase
            if phase not in ("ready", "no model", "off", "gone"):
                raise EngineError(_("The studio cannot load a model now: {why}", why=_(PHASE_WORDS[phase])))
            self._requested = model
            if phase in ("off", "gone"):
                self._model = model
                self._change(model=model.model, problem="")
                self.start()
                return
            self._change(phase="loading", model=model.model, problem="", download=None, cancel_asked_at=None)
            self._send(Load(settings=model))

    def run_smoke_test(self, settings: SmokeSettings, *, speeds: bool = False) -> None:
        """Start the smoke test, with the speeds measured after it or not, or keep it as `keep_runs` says.

        Raises:
            EngineError: where the engine is not ready for it.
        """
        self._begin_or_keep(Smoke(settings=settings, speeds=speeds))

    def generate(self, settings: ImagesSettings) -> None:
        """Start making images, or queue that behind what is being made, or keep it as `keep_runs` says.

        Raises:
            EngineError: where the engine is not ready for it, or the queue is full.
        """
        self._begin_or_keep(Generate(settings=settings))

    def unqueue(self, number: int | None) -> None:
        """Take a request out of the queue, or all where None is named; what runs goes on.

        Raises:
            EngineError: where that request is no longer there.
        """
        with self._lock:
            self._change(queue=self._view.queue.emptied() if number is None else self._view.queue.without(number))

    def compare(self, settings: CompareSettings) -> None:
        """Start a comparison, or keep it as `keep_runs` says.

        Raises:
            EngineError: where the engine is not ready for it.
        """
        self._begin_or_keep(Compare(settings=settings))

    def keep_runs(self) -> None:
        """While another process has the device: keep the next run that is asked for, and begin it when it is free.

        Raises:
            EngineError: where the engine does not wait for the device.
        """
        with self._lock:
            if (phase := self._view.phase) != "waiting":
                raise EngineError(_("Nothing has to wait for the device now: {why}", why=_(PHASE_WORDS[phase])))
            self._change(keeps_runs=True)

    def forget_kept(self) -> None:
        """Keep no run, and forget the one that is kept."""
        self._change(keeps_runs=False, kept=None)

    def check_lora(self, name: str) -> None:
        """Have a LoRA checked against the loaded model, where the engine is free; else it is when it is used."""
        with self._lock:
            if self._view.phase == "ready":
                self._change(loras_in_check=self._view.loras_in_check | {name})
                self._send(CheckLora(name=name))

    def check_device(self) -> None:
        """Start the device check.

        Raises:
            EngineError: where the engine is not ready for it.
        """
        with self._lock:
            self._view.require_ready(N_("check the device"))
            self._change(phase="device check", problem="")
            self._send(CheckDevice())

    def cancel(self) -> None:
        """Ask what runs to stop: images after their current step, a download at once.

        Asked again where it did not within some seconds, the process is ended, and a new one started.
        """
        with self._lock:
            view = self._view
            if view.phase in CANCELLABLE_PHASES and not view.cancelling:
                self._change(cancel_asked_at=time.monotonic())
                self._send(Cancel())
            elif view.phase in CANCELLABLE_PHASES and view.ignores_cancel:
                self.stop()
                self._change(**NOTHING_RUNS, problem=_(STOPPED_NOW))
                self.start()

    def stop(self) -> None:
        """End the engine process and wait for it."""
        with self._lock:
            process, self._process = self._process, None
            self._change(phase="off", pid=None)
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()

    def _begin_or_keep(self, run: Run) -> None:
        with self._lock:
            if self._view.phase == "ready":
                self._begin(run)
            elif self._view.takes_runs:
                self._change(kept=run)
            elif isinstance(run, Generate) and self._view.phase in RUNNING_PHASES:
                self._change(queue=self._view.queue.added(run))
            else:
                self._view.require_ready(RUN_PURPOSES[type(run)])

    def _begin_next(self) -> None:
        """Begin what is kept, else the first in the queue; what went wrong before it stays to be read."""
        view = self._view
        if view.kept is not None:
            self._begin(view.kept)
        elif view.queue.waiting:
            first = view.queue.waiting[0]
            self._change(queue=view.queue.without(first.number))
            self._begin(first.run, problem=view.problem)

    def _begin(self, run: Run, *, problem: str = "") -> None:
        self._begun = run
        self._change(
            phase=RUN_PHASES[type(run)],
            run_number=self._view.run_number + 1,
            step=None,
            preview_png=None,
            problem=problem,
            run_note="",
            cancel_asked_at=None,
            keeps_runs=False,
            kept=None,
            **nothing_yet(run),
        )
        self._send(run)

    def _send(self, request: Request) -> None:
        process = self._process
        assert process is not None and process.stdin is not None
        try:
            process.stdin.write(to_line(request))
            process.stdin.flush()
        except OSError as error:  # it has just died: its listener tells the user
            logger.info("The engine refused %s: %s", request.kind, error)

    def _change(self, **changes: object) -> None:
        with self._lock:
            self._view = replace(self._view, **changes)  # type: ignore[arg-type]

    def _hear(self, process: subprocess.Popen[bytes]) -> None:
        with for_later():  # every page says what was heard in its own language
            self._listen(process)

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
            if self._makes_room:  # a new engine waits until the device is free again
                self._makes_room = False
                self._change(step=None, preview_png=None, loras_in_check=frozenset())
                self.start()
                self._change(phase="waiting", owner=view.owner)  # so it will say itself in a moment
                return
            problem = last_words(process.returncode, view.phase)
            self._change(phase="gone", pid=None, **NOTHING_RUNS, problem=problem)
            self._deaths += 1
            if view.facts is not None and self._deaths < MAX_DEATHS:  # it had started well, so it will again
                self.start()
            else:
                self._change(problem=view.queue.with_losses(problem), queue=view.queue.emptied())

    def _take_in(self, event: Event) -> None:
        takers: dict[type[Event], Callable[..., None]] = {
            Loaded: self._take_model,
            SmokeDone: lambda e: self._take_result(report=e.saved),
            ImagesChanged: lambda e: self._take_part(e.report.finished, images=e.report),
            ComparisonChanged: lambda e: self._take_part(e.saved.report.finished, comparison=e.saved),
            DeviceChecked: lambda e: self._take_result(device_check=e.check, device_part=""),
            MakingRoom: self._take_leave,
            Failed: self._take_failure,
        }
        if take := takers.get(type(event)):
            take(event)
        else:
            self._change(**changes_of(event, self._view))

    def _take_model(self, event: Loaded) -> None:
        self._model = self._requested
        self._change(
            phase="ready",
            facts=event.facts,
            model=event.facts.model,
            device_check=event.facts.device_check,
            device_part="",
            tokenizer_file=event.tokenizer_file,
            memory=event.facts.load_memory.after,
            lora_checks={},
            download=None,
            cancel_asked_at=None,
            keeps_runs=False,
        )
        self._begin_next()

    def _take_leave(self, event: MakingRoom) -> None:
        self._makes_room = True
        if self._view.phase in RUNNING_PHASES:  # asked for in the moment in which the engine left: it was not heard
            self._change(kept=None if self._view.cancelling else self._begun)
        self._change(phase="waiting", owner=event.owner)

    def _take_part(self, finished: bool, **changes: object) -> None:
        """An image of a run is done; with the last one the run is."""
        if finished:
            self._take_result(**changes)
        else:
            self._change(step=None, preview_png=None, **changes)

    def _take_result(self, **changes: object) -> None:
        """A request was carried out."""
        self._deaths = 0
        self._change(phase="ready", step=None, preview_png=None, cancel_asked_at=None, **changes)
        self._begin_next()

    def _take_failure(self, event: Failed) -> None:
        self._change(
            phase="ready" if event.facts else "no model",
            facts=event.facts,
            model=event.facts.model if event.facts else self._view.model,
            problem=event.message if event.facts else self._view.queue.with_losses(event.message),
            queue=self._view.queue if event.facts else self._view.queue.emptied(),
            device_part="",
            step=None,
            preview_png=None,
            download=None,
            cancel_asked_at=None,
            keeps_runs=False,
        )
        if event.facts:
            self._begin_next()
