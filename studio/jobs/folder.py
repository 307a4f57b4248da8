"""A run's folder: its places, its state, and what it is asked while it works. No torch: the page reads it."""

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import ValidationError

from studio.core.errors import RunError
from studio.core.files import write_atomically
from studio.core.paths import typed_path
from studio.core.results import Record

RunState = Literal["new", "waiting", "preparing", "running", "sampling", "paused", "stopped", "finished", "failed"]
BUSY_STATES: tuple[RunState, ...] = ("waiting", "preparing", "running", "sampling")
RunRequest = Literal["stop", "pause", "save", "sample"]
REQUESTS: tuple[RunRequest, ...] = ("stop", "pause", "save", "sample")


class RunStatus(Record):
    """Where a run stands; small, and replaced whole.

    Attributes:
        state: `waiting` is for the device or for room on the disk; `message` says for what.
        step: optimizer steps that are done.
        num_steps: how many there will be.
        seconds_per_step: of late; None before the first.
        remaining_seconds: forecast; None where unknown.
        pid: of the process that works on it, 0 where none does.
        message: the last thing to say, in a sentence; the error of a failed run.
    """

    state: RunState
    step: int = 0
    num_steps: int = 0
    seconds_per_step: float | None = None
    remaining_seconds: float | None = None
    pid: int = 0
    message: str = ""


@dataclass(frozen=True)
class RunFolder:
    """The places of a run. Naming one does not make it."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def settings(self) -> Path:
        return self.root / "settings.json"

    @property
    def dataset(self) -> Path:
        return self.root / "dataset.jsonl"

    @property
    def prior_dataset(self) -> Path:
        return self.root / "prior-dataset.jsonl"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def log(self) -> Path:
        return self.root / "run.log"

    @property
    def lock(self) -> Path:
        return self.root / "run.lock"

    @property
    def requests(self) -> Path:
        return self.root / "requests"

    @property
    def samples(self) -> Path:
        return self.root / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    def file(self, reported: str) -> Path:
        """The file that an event names by its path below this folder.

        Raises:
            FileNotFoundError: where the name leads out of the folder.
        """
        path = PurePosixPath(reported)
        if path.is_absolute() or ".." in path.parts or "\\" in reported:
            raise FileNotFoundError(reported)
        return self.root / path


def new_run_folder(runs: Path, name: str, *, now: datetime) -> RunFolder:
    """Make a folder `yyyymmdd-hhmmss-name`, with a number where that is taken.

    Raises:
        OSError: where it cannot be made.
    """
    runs.mkdir(parents=True, exist_ok=True)
    stem, number = f"{now:%Y%m%d-%H%M%S}-{name}", 1
    while True:
        folder = runs / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return RunFolder(folder)


def find_run(name: str, runs: Path) -> RunFolder:
    """A run by its path, by its name below `runs`, or by the end of its name where only one ends so.

    Raises:
        RunError: where there is none, or more than one.
    """
    path = typed_path(name)
    if (path / "settings.json").is_file():
        return RunFolder(path.resolve())
    known = list_runs(runs)
    found = [run for run in known if run.name == name] or [run for run in known if run.name.endswith(f"-{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise RunError(f"{name} is not one run but {len(found)}: {', '.join(run.name for run in found)}.")
    names = ", ".join(run.name for run in known[:8]) or "none"
    raise RunError(f"There is no run {name}. There are: {names}. `python -m studio train --dataset …` begins one.")


def list_runs(runs: Path) -> tuple[RunFolder, ...]:
    """Every run, newest first."""
    if not runs.is_dir():
        return ()
    found = [RunFolder(path) for path in runs.iterdir() if (path / "settings.json").is_file()]
    return tuple(sorted(found, key=lambda run: run.name, reverse=True))


def read_status(run: RunFolder) -> RunStatus:
    """Where a run stands; `new` where it never began.

    Raises:
        RunError: where its status cannot be read.
    """
    try:
        return RunStatus.model_validate_json(run.status.read_bytes())
    except FileNotFoundError:
        return RunStatus(state="new")
    except (OSError, ValidationError) as error:
        raise RunError(
            f"{run.status} cannot be read ({type(error).__name__}). Resume the run to have it anew."
        ) from error


def write_status(run: RunFolder, status: RunStatus) -> None:
    """Replace the status.

    Raises:
        OSError: where it cannot be written; the old one is untouched.
    """
    write_atomically(run.status, status.model_dump_json().encode() + b"\n")


def ask(run: RunFolder, request: RunRequest) -> None:
    """Ask a run for something; it acts after the step in work. Asked twice is asked once.

    Raises:
        OSError: where it cannot be written.
    """
    what = {"asked_by": os.getpid(), "asked_at": datetime.now().astimezone().isoformat()}
    write_atomically(run.requests / request, json.dumps(what).encode())


def take_requests(run: RunFolder) -> frozenset[RunRequest]:
    """What was asked since the last call; each is told once."""
    taken = pending_requests(run)
    for request in taken:
        (run.requests / request).unlink(missing_ok=True)
    return taken


def pending_requests(run: RunFolder) -> frozenset[RunRequest]:
    """What was asked and is not taken yet; it stays to be taken."""
    try:
        names = set(os.listdir(run.requests))  # noqa: PTH208 - once a step: no objects are made of an empty folder
    except FileNotFoundError:
        return frozenset()
    return frozenset(request for request in REQUESTS if request in names)
