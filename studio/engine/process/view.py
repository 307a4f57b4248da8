"""The page's view of the engine process, and starting that process.

What the page's process knows of the engine, and how it says it.

Starting the engine process, and the log that it writes to.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from studio.core.errors import EngineError
from studio.core.language import N_, _
from studio.core.paths import UserData
from studio.core.results import DeviceCheck, EngineFacts, ImagesReport, MadeImage, SavedReport
from studio.core.settings import SmokeSettings
from studio.core.system import MemorySample
from studio.core.text import duration, gigabytes
from studio.engine.model_files import read_shape
from studio.engine.process.messages import (
    CheckingDevice,
    Compare,
    Downloading,
    Event,
    Generate,
    Loading,
    LoraChecked,
    PictureDone,
    Run,
    RunNote,
    Smoke,
    Starting,
    Step,
    Waiting,
)
from studio.engine.process.run_queue import RunQueue
from studio.images.comparison import SavedComparison

Phase = Literal[
    "off",
    "starting",
    "waiting",
    "loading",
    "ready",
    "smoke test",
    "generating",
    "comparing",
    "device check",
    "no model",
    "gone",
]
RUNNING_PHASES: tuple[Phase, ...] = ("smoke test", "generating", "comparing")
CANCELLABLE_PHASES: tuple[Phase, ...] = (*RUNNING_PHASES, "loading")
CANCEL_PATIENCE_SECONDS = 5.0
# Of the page's view where the process ended.
NOTHING_RUNS: Mapping[str, object] = {
    "keeps_runs": False,
    "facts": None,
    "step": None,
    "preview_png": None,
    "loras_in_check": frozenset(),
}
ACTIVE_PHASES: tuple[Phase, ...] = ("starting", "waiting", "loading", "device check", *RUNNING_PHASES)


@dataclass(frozen=True)
class EngineView:
    """All that the page shows of the engine, at one moment.

    Attributes:
        cancel_asked_at: when what runs was asked to stop, as `time.monotonic` counts; None where it was not.
        run_note: what the user should know of the run that is going on.
        device_part: what of the device is being checked; empty where nothing is.
        keeps_runs: whether the next run that is asked for is kept until the device is free.
        kept: the run that is; it begins by itself.
        queue: what begins by itself, one after the other, when what runs is over.
        run_number: of the run that began last: another for each.
    """

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
    images: ImagesReport | None = None
    comparison: SavedComparison | None = None
    download: Downloading | None = None
    loras_in_check: frozenset[str] = frozenset()
    lora_checks: Mapping[str, LoraChecked] = field(default_factory=dict)
    tokenizer_file: Path | None = None
    memory: MemorySample | None = None
    device_check: DeviceCheck | None = None
    device_part: str = ""
    run_note: str = ""
    cancel_asked_at: float | None = None
    keeps_runs: bool = False
    kept: Run | None = None
    queue: RunQueue = field(default_factory=RunQueue)
    run_number: int = 0
    problem: str = ""

    @property
    def active(self) -> bool:
        """True while something happens that the page must follow."""
        return self.phase in ACTIVE_PHASES or bool(self.loras_in_check)

    @property
    def cancelling(self) -> bool:
        """Whether what runs was asked to stop, and has not yet."""
        return self.cancel_asked_at is not None

    @property
    def ignores_cancel(self) -> bool:
        """Whether it was asked so long ago that only ending the process helps."""
        return self.cancel_asked_at is not None and time.monotonic() - self.cancel_asked_at > CANCEL_PATIENCE_SECONDS

    @property
    def takes_runs(self) -> bool:
        """Whether a run may be asked for: it begins at once, or is kept until the device is free."""
        return self.phase == "ready" or (self.keeps_runs and self.kept is None)

    @property
    def takes_images(self) -> bool:
        """The same for images, which also wait behind what runs."""
        return self.takes_runs or (self.phase in RUNNING_PHASES and not self.queue.is_full)

    def require_ready(self, purpose: str) -> None:
        """Make sure that the engine can do something at once.

        Args:
            purpose: what is asked of it, as in `RUN_PURPOSES`.

        Raises:
            EngineError: where it cannot.
        """
        if self.kept is not None:
            refusal = _(
                "The studio cannot {purpose} now: it waits for the device, to {kept}. Cancel that first.",
                purpose=_(purpose),
                kept=_(RUN_PURPOSES[type(self.kept)]),
            )
            raise EngineError(refusal)
        if self.phase != "ready":
            why = _(PHASE_WORDS[self.phase])
            raise EngineError(_("The studio cannot {purpose} now: {why}", purpose=_(purpose), why=why))

    def preview_with(self, step: Step) -> str | None:
        """The preview to show after a step: its own, else the one before as long as it is of the same image."""
        same_image = self.step is not None and self.step.picture == step.picture
        return step.preview_png or (self.preview_png if same_image else None)

    @property
    def finished_pictures(self) -> int:
        """How many images of the running task are done."""
        comparison = self.comparison.report if self.comparison else None
        return {
            "smoke test": len(self.pictures),
            "generating": len(self.images.images) if self.images else 0,
            "comparing": comparison.num_finished if comparison else 0,
        }.get(self.phase, 0)


def changes_of(event: Event, view: EngineView) -> dict[str, object]:
    """What changes with an event that only tells how far something is."""
    match event:
        case Starting():
            return {"phase": "starting", "owner": ""}
        case Waiting():
            return {"phase": "waiting", "owner": event.owner}
        case Loading():
            return {"phase": "loading", "model": event.model}
        case Downloading():
            return {"download": event}
        case Step():
            return {"step": event, "memory": event.memory, "preview_png": view.preview_with(event)}
        case RunNote():
            return {"run_note": event.message}
        case PictureDone():
            return {"pictures": (*view.pictures, event), "preview_png": None, "step": None}
        case CheckingDevice():
            return {"device_part": event.part}
        case LoraChecked():
            checks = {**view.lora_checks, event.name: event}
            return {"lora_checks": checks, "loras_in_check": view.loras_in_check - {event.name}}
    raise AssertionError(event)


LARGE = 4  # times the area of the model's own size: from here on a size says what it takes


def size_note(view: EngineView, model: str, *, width: int, height: int, num_steps: int = 0) -> str:
    """What an image takes that has four times the area of the model's own size, or more; "" of a smaller one.

    Its time is that of the last image of the same model here, by steps and pixels: attention, which grows faster, and
    a slower pace in short memory come on top.

    Args:
        model: as in `ModelSettings.model`.
        num_steps: of the image; 0 in a training, whose steps only a preflight can tell.

    Raises:
        ModelError: where the model's configuration cannot be read.
    """
    shape = read_shape(model)
    ratio = width * height / (shape.width * shape.height)
    if ratio < LARGE:
        return ""
    own, size = f"{shape.width} × {shape.height}", f"{width} × {height}"
    size = _("{size} is {ratio:.3g} times the area of the model's own {own}", size=size, ratio=ratio, own=own)
    if not num_steps:
        return _(
            "{size}: each training image takes at least {ratio:.3g} times the time and memory of "
            "one of that size (an estimate). “Preflight” measures them.",
            size=size,
            ratio=ratio,
        )
    memory = gigabytes(shape.image_bytes(width=width, height=height))
    pace = _seconds_per_pixel_step(view, model)
    if pace is None:
        return _(
            "{size}: an image takes at least {ratio:.3g} times as long, and about {memory} of memory beside "
            "the model (an estimate).",
            size=size,
            ratio=ratio,
            memory=memory,
        )
    seconds = pace * num_steps * width * height
    return _(
        "{size}: an image takes at least {time}, by the pace of the last one here, and about {memory} of "
        "memory beside the model.",
        size=size,
        time=duration(seconds),
        memory=memory,
    )


def _seconds_per_pixel_step(view: EngineView, model: str) -> float | None:
    """Of the last image of that model that is still known, with its decoding; None where there is none."""
    names = {model, Path(model).name, Path(model).stem}
    if view.facts is not None and view.facts.model_folder == model:
        names.add(view.facts.model)
    made = [i.record for i in (view.images.images if view.images else ()) if isinstance(i, MadeImage)]
    for record in reversed(made):
        if record.model in names:
            timings = record.timings
            return timings.total_seconds / (len(timings.step_seconds) * record.width * record.height)
    report = view.report.report if view.report else None
    if report is None or report.engine.model not in names or not report.valid_pictures:
        return None
    picture = report.valid_pictures[-1]
    height, width, __ = picture.shape
    return picture.timings.total_seconds / (len(picture.timings.step_seconds) * width * height)


PHASE_WORDS: dict[Phase, str] = {
    "off": N_("the engine is not running."),
    "starting": N_("the engine is starting."),
    "waiting": N_("another program is using the device."),
    "loading": N_("the model is being loaded."),
    "ready": N_("it is ready."),
    "smoke test": N_("the smoke test is running."),
    "generating": N_("images are being made."),
    "comparing": N_("a comparison is running."),
    "device check": N_("the device check is running."),
    "no model": N_("no model is loaded."),
    "gone": N_("the engine is gone; start it again first."),
}

RUN_PURPOSES: dict[type[Run], str] = {Smoke: N_("run the smoke test"), Generate: N_("generate"), Compare: N_("compare")}
RUN_PHASES: dict[type[Run], Phase] = {Smoke: "smoke test", Generate: "generating", Compare: "comparing"}


def nothing_yet(run: Run) -> dict[str, object]:
    """What the page shows of a run that has just begun."""
    if isinstance(run, Smoke):
        return {"smoke_settings": run.settings, "pictures": (), "report": None}
    if isinstance(run, Generate):
        return {"images": ImagesReport(settings=run.settings)}
    return {"comparison": None}


_STOPPED: dict[Phase, str] = {
    "smoke test": N_("The engine stopped during the smoke test"),
    "device check": N_("The engine stopped during the device check"),
    "generating": N_("The engine stopped while making images"),
    "comparing": N_("The engine stopped during the comparison"),
}
SIGKILL = 9  # by number: Windows has no such name


def last_words(return_code: int, doing: Phase) -> str:
    """Why the engine process ended, for the user."""
    stopped = _(_STOPPED[doing]) if doing in _STOPPED else _("The engine stopped")
    if return_code == -SIGKILL:
        why = _(
            "it was killed, most likely by the system because memory ran out. Close other programs before you retry."
        )
    elif return_code < 0:
        why = _("it crashed ({signal}).", signal=signal.Signals(-return_code).name)
    else:
        why = _("it ended with code {code}.", code=return_code)
    return _("{stopped}: {why} Finished images are saved; the log is logs/engine.log.", stopped=stopped, why=why)


LOG_LIMIT_BYTES = 2**20


def start_engine_process(user_data: UserData, *, cpu_only: bool) -> "subprocess.Popen[bytes]":
    """The process, with pipes to ask it and to hear it.

    Raises:
        OSError: where it cannot be started, or its log cannot be opened.
    """
    # -P and cwd: modules come from where the studio is installed, never from a folder of uploads.
    command = [sys.executable, "-P", "-m", "studio.engine.process.worker", "--user-data", str(user_data.root)]
    with _open_log(user_data) as log:
        return subprocess.Popen(
            [*command, "--cpu"] if cpu_only else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "TRANSFORMERS_VERBOSITY": "error"},
            cwd=user_data.root,
            # Ctrl+C in the terminal reaches the page's process alone, which then ends this one.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )


def _open_log(user_data: UserData) -> IO[bytes]:
    """The engine's log, appended to; one older file is kept when it grows beyond 1 MB."""
    log_file = user_data.logs / "engine.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    if log_file.is_file() and log_file.stat().st_size > LOG_LIMIT_BYTES:
        log_file.replace(log_file.with_suffix(".old.log"))
    return log_file.open("ab")
