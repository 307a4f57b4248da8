"""A job's folder: its places, its state, and what it is asked while it works. No torch: the page reads it.

Whether a job is to end: SIGTERM and SIGINT, what its folder was asked, and what its peers say. The work in hand
is ended well, and the process then ends with 0.
"""

import json
import os
import signal
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from types import FrameType
from typing import ClassVar, Literal, Self

from pydantic import ValidationError

from studio.core.errors import RunError, StudioError
from studio.core.files import read_file, write_atomically
from studio.core.language import N_, _
from studio.core.paths import typed_path
from studio.core.records import Label, Record, write_label

RunState = Literal["new", "waiting", "preparing", "running", "sampling", "paused", "stopped", "finished", "failed"]
BUSY_STATES: tuple[RunState, ...] = ("waiting", "preparing", "running", "sampling")
RunRequest = Literal["stop", "pause", "save", "sample"]
SETTINGS = "settings.json"
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


@dataclass(frozen=True, eq=False)
class JobFolder:
    """The places of a job's folder, whatever its kind. Naming one does not make it; two of one path are the same.
    Each kind has its own class, with its own paths, and its words in English:

    Attributes:
        noun: what such a folder holds.
        activity: what its process does.
        begin_command: what starts one.
        error: raised where one cannot be found.
    """

    noun: ClassVar[str] = N_("job")
    activity: ClassVar[str] = N_("job")
    begin_command: ClassVar[str] = "python -m studio jobs"
    error: ClassVar[type[StudioError]] = RunError

    root: Path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobFolder) and self.root == other.root

    def __hash__(self) -> int:
        return hash(self.root)

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def settings(self) -> Path:
        """Written last when a job is begun: a folder without it is none."""
        return self.root / SETTINGS

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
    def label(self) -> Path:
        """What a person calls it; the folder keeps its own name, by which everything finds it."""
        return self.root / "label.json"

    @property
    def requests(self) -> Path:
        return self.root / "requests"

    @property
    def language(self) -> Path:
        """The tag of the language of whoever queued it: its process speaks that."""
        return self.root / "language"

    def file(self, reported: str) -> Path:
        """The file that an event names by its path below this folder.

        Raises:
            FileNotFoundError: where the name leads out of the folder.
        """
        path = PurePosixPath(reported)
        if path.is_absolute() or ".." in path.parts or "\\" in reported:
            raise FileNotFoundError(reported)
        return self.root / path

    @classmethod
    def new(cls, parent: Path, name: str, *, now: datetime) -> Self:
        """Make a folder `yyyymmdd-hhmmss-name`, with a number where that is taken.

        Raises:
            OSError: where it cannot be made.
        """
        parent.mkdir(parents=True, exist_ok=True)
        stem, number = f"{now:%Y%m%d-%H%M%S}-{name}", 1
        while True:
            folder = parent / (stem if number == 1 else f"{stem}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return cls(folder)

    @classmethod
    def all_in(cls, parent: Path, *, known: Mapping[str, Self] | None = None) -> tuple[Self, ...]:
        """Every one, newest first; those that are known by their names are not looked into again."""
        known = known or {}
        try:
            names = sorted(os.listdir(parent), reverse=True)  # noqa: PTH208 - thousands, at each look of a page
        except OSError:
            return ()
        found = (known.get(name) or cls(parent / name) for name in names)
        return tuple(folder for folder in found if folder.name in known or folder.settings.is_file())

    @classmethod
    def find(cls, name: str, parent: Path) -> Self:
        """One by its path, by its name below `parent`, or by the end of its name where only one ends so.

        Raises:
            RunError, BatchError: by the kind, where there is none, or more than one.
        """
        path = typed_path(name)
        if (path / SETTINGS).is_file():
            return cls(path.resolve())
        known, wanted = cls.all_in(parent), unicodedata.normalize("NFC", name)  # a Mac types and keeps NFD
        names = {one: unicodedata.normalize("NFC", one.name) for one in known}
        found = [one for one in known if names[one] == wanted]
        found = found or [one for one in known if names[one].endswith(f"-{wanted}")]
        if len(found) == 1:
            return found[0]
        if found:
            several = _(
                "{name} is not one {noun} but {num}: {found}.",
                name=name,
                noun=_(cls.noun),
                num=len(found),
                found=", ".join(one.name for one in found),
            )
            raise cls.error(several)
        missing = _(
            "There is no {noun} {name}. Available: {available}. `{command}` starts one.",
            noun=_(cls.noun),
            name=name,
            available=", ".join(one.name for one in known[:8]) or _("none"),
            command=cls.begin_command,
        )
        raise cls.error(missing)


def read_status(folder: JobFolder) -> RunStatus:
    """Where a run stands; `new` where it never began.

    Raises:
        RunError: where its status cannot be read.
    """
    try:
        return RunStatus.model_validate_json(read_file(folder.status))
    except FileNotFoundError:
        return RunStatus(state="new")
    except (OSError, ValidationError) as error:
        why = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        said = N_("{file} cannot be read{why}. Resume the {noun} to write it again.")
        raise RunError(_(said, file=folder.status, why=why, noun=_(folder.noun))) from error


def status_or(state: RunState, folder: JobFolder) -> RunStatus:
    """Where a job stands; this state, with the reason, where its status cannot be read."""
    try:
        return read_status(folder)
    except RunError as error:
        return RunStatus(state=state, message=str(error))


def write_status(folder: JobFolder, status: RunStatus) -> None:
    """Replace the status.

    Raises:
        OSError: where it cannot be written; the old one is untouched.
    """
    write_atomically(folder.status, status.model_dump_json().encode() + b"\n")


def write_halt(folder: JobFolder, state: Literal["paused", "stopped"]) -> None:
    """Say of a job on which no process works that it was paused or stopped; one that is finished stays so.

    Raises:
        OSError: where it cannot be written.
    """
    status = status_or("new", folder)
    if status.state != "finished" and folder.root.is_dir():
        message = _("It was {state} while nothing worked on it; resume to continue.", state=_(state))
        write_status(folder, status.model_copy(update={"state": state, "pid": 0, "message": message}))


def set_label(folder: JobFolder, label: Label, *, listed_in: Path) -> None:
    """Name a folder, and note on it; its job may be running.

    Args:
        listed_in: where pages look for such folders: it is touched, so that they look for labels again.

    Raises:
        OSError: where it cannot be written; the old one is untouched.
    """
    write_label(folder.label, label)
    if folder.root.parent == listed_in:
        os.utime(listed_in, ns=(time.time_ns(), time.time_ns()))


def ask(folder: JobFolder, request: RunRequest) -> None:
    """Ask a run for something; it acts after the current step. Asked twice is asked once.

    Raises:
        OSError: where it cannot be written.
    """
    what = {"asked_by": os.getpid(), "asked_at": datetime.now().astimezone().isoformat()}
    write_atomically(folder.requests / request, json.dumps(what).encode())


def take_requests(folder: JobFolder) -> frozenset[RunRequest]:
    """What was asked since the last call; each is told once."""
    taken = pending_requests(folder)
    for request in taken:
        (folder.requests / request).unlink(missing_ok=True)
    return taken


def forget_old_requests(folder: JobFolder) -> None:
    """Forget what was asked of an earlier process. What was asked since this one began, as it was loading, stays."""
    import psutil  # here: the command line starts without it

    began_at = psutil.Process().create_time()
    for request in pending_requests(folder):
        try:
            what = json.loads(read_file(folder.requests / request))
            asked_at = datetime.fromisoformat(what["asked_at"]).timestamp()
        except (OSError, ValueError, KeyError, TypeError):  # not written by `ask`
            asked_at = 0.0
        if asked_at < began_at:
            (folder.requests / request).unlink(missing_ok=True)


def pending_requests(folder: JobFolder) -> frozenset[RunRequest]:
    """What was asked and is not taken yet; it stays to be taken."""
    try:
        names = set(os.listdir(folder.requests))  # noqa: PTH208 - once a step: no objects are made of an empty folder
    except FileNotFoundError:
        return frozenset()
    return frozenset(request for request in REQUESTS if request in names)


class StopSignal:
    """Whether this process was told to stop: the step in work is done, all is saved, and the process ends with 0."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def __call__(self) -> bool:
        return self._asked.is_set()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """During the `with` block; only a main thread can listen."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()


@dataclass(frozen=True)
class StopRequests:
    """What asks a job to end. A request stays in the folder, so it may be asked about as often as one likes.

    Attributes:
        signal: whether this process was told to stop.
        hears_folder: whether this process listens to its folder: of a launch the first one does, and tells the others.
        halted: whether another process of the launch asked all to end.
    """

    folder: JobFolder
    signal: Callable[[], bool]
    hears_folder: bool = True
    halted: Callable[[], bool] = lambda: False

    def should_stop(self) -> bool:
        """Whether to end now, to stop or to pause."""
        return self.signal() or bool(self._requests()) or self.halted()

    @property
    def outcome(self) -> Literal["stopped", "paused"]:
        """As what the job then ends."""
        paused = self._requests() == {"pause"} and not self.signal() and not self.halted()
        return "paused" if paused else "stopped"

    def _requests(self) -> frozenset[str]:
        return pending_requests(self.folder) & {"stop", "pause"} if self.hears_folder else frozenset()
