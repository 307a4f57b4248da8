"""The engine process: `python -m studio.engine.process.worker`. It owns the device and answers on its output.

Its main thread is the one thread that computes. Another reads requests, so that a cancel is heard in mid-run, and
notices when the page's process is gone: then this one goes too.
"""

import argparse
import base64
import io
import logging
import os
import queue
import sys
import threading
import time
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image

from studio.core.errors import ModelError, RunError, StudioError, error_message, system_error_message
from studio.core.files import write_atomically
from studio.core.language import N_, _, speaking
from studio.core.paths import UserData
from studio.core.results import InvalidPicture, ValidPicture
from studio.core.settings import ModelSettings
from studio.core.system import heavy_imports, prepare_threads
from studio.engine.process.messages import (
    REQUESTS,
    Cancel,
    CheckDevice,
    CheckingDevice,
    CheckLora,
    Compare,
    ComparisonChanged,
    DeviceChecked,
    Downloading,
    Event,
    Failed,
    Generate,
    ImagesChanged,
    Load,
    Loaded,
    Loading,
    LoraChecked,
    MakingRoom,
    PictureDone,
    Request,
    RunNote,
    Smoke,
    SmokeDone,
    Starting,
    Step,
    Waiting,
    to_line,
)
from studio.jobs.device_lock import DeviceLock
from studio.jobs.queue import JobQueue
from studio.jobs.worker import worker_runs
from studio.loras.library import LoraLibrary

if TYPE_CHECKING:
    from studio.engine.progress import RunWatcher

# What reading a model raises: ours, the disk's, torch's.
LOAD_ERRORS = (StudioError, OSError, RuntimeError, MemoryError)
LOOK_FOR_OTHERS_SECONDS = 1.0  # while nothing is asked of this process
LEAVE_SECONDS = 10.0  # a step at 512 × 512 takes up to 8 s on a slow CPU; nobody waits for it any longer


class Mailbox:
    """Requests in the order they came, and the one that does not wait its turn: cancel."""

    def __init__(self, source: RawIOBase) -> None:
        self._source = source
        self._requests: queue.Queue[Request | None] = queue.Queue()
        self._cancel = threading.Event()
        threading.Thread(target=self._read, name="requests", daemon=True).start()

    def next(self, *, timeout: float) -> Request | None:
        """The next request; None when the page's process is gone.

        Raises:
            queue.Empty: where none came in that many seconds.
        """
        return self._requests.get(timeout=timeout)

    def cancelled(self) -> bool:
        return self._cancel.is_set()

    def _read(self) -> None:
        try:
            for line in self._source:
                self._sort_in(REQUESTS.validate_json(line))
        finally:  # whatever ended it: without requests this process has no purpose
            self._cancel.set()
            self._requests.put(None)
            time.sleep(LEAVE_SECONDS)
            os._exit(0)

    def _sort_in(self, request: Request) -> None:
        if isinstance(request, Cancel):
            self._cancel.set()
        else:
            self._cancel.clear()  # here and not in next(): a cancel that came right after a request is for it
            self._requests.put(request)


class EngineProcess:
    """Carries requests out, one after the other, and tells what happens."""

    def __init__(
        self, user_data: UserData, *, cpu_only: bool, mailbox: Mailbox, output: BinaryIO, lock: DeviceLock
    ) -> None:
        # Imported here: the page hears of the start before the four seconds that torch and diffusers take.
        with heavy_imports():
            from studio.engine.device import pick_device
            from studio.engine.pipeline import PipelineManager

        self._user_data = user_data
        self._mailbox = mailbox
        self._output = output
        self._lock = lock
        self._model: ModelSettings | None = None  # the last one that was loaded
        self._manager = PipelineManager(
            pick_device(cpu_only=cpu_only),
            rejected_folder=user_data.rejected,
            library=LoraLibrary(user_data.loras),
            device_checks=user_data.device_checks,
        )

    def run(self) -> None:
        """Answer requests until the page's process is gone, or another process waits for the device."""
        while True:
            try:
                request = self._mailbox.next(timeout=LOOK_FOR_OTHERS_SECONDS)
            except queue.Empty:
                if other := self._lock.waited_for_by():
                    self._report(MakingRoom(owner=str(other)))
                    return
                continue
            if request is None:
                return
            with speaking(request.language):
                self._answer(request)

    def _answer(self, request: Request) -> None:
        try:
            self._carry_out(request)
        except StudioError as error:
            self._report(Failed(message=str(error), facts=self._manager.facts))
        except Exception as error:  # the one boundary of this process: told, logged, and it lives on
            logging.exception("A request failed")
            self._report(Failed(message=system_error_message(error), facts=self._manager.facts))

    def _carry_out(self, request: Request) -> None:
        if isinstance(request, Load):
            self._load(request)
        elif isinstance(request, Smoke):
            self._smoke(request)
        elif isinstance(request, Generate):
            self._generate(request)
        elif isinstance(request, Compare):
            self._compare(request)
        elif isinstance(request, CheckLora):
            self._check_lora(request)
        elif isinstance(request, CheckDevice):
            self._check_device()

    def _load(self, request: Load) -> None:
        from studio.engine.hub_download import DownloadProgress, DownloadWatcher
        from studio.engine.model_choices import remember_model

        def on_progress(progress: DownloadProgress) -> None:
            self._report(
                Downloading(
                    file=progress.file,
                    done_bytes=progress.done_bytes,
                    total_bytes=progress.total_bytes,
                    elapsed_seconds=progress.elapsed_seconds,
                )
            )

        self._report(Loading(model=request.settings.model))
        try:
            facts = self._manager.load(
                request.settings,
                progress=DownloadWatcher(on_progress, self._mailbox.cancelled),
                on_check=lambda part: self._report(CheckingDevice(part=part)),
            )
        except LOAD_ERRORS as error:
            if self._manager.facts is not None or self._model is None:
                raise
            self._report(Loading(model=self._model.model))
            raise ModelError(f"{error_message(error)} {self._load_again(self._model)}") from error
        self._model = request.settings
        remember_model(self._user_data, request.settings.model)
        self._report(Loaded(facts=facts, tokenizer_file=self._keep_tokenizer()))

    def _load_again(self, model: ModelSettings) -> str:
        """Load the model that was loaded before one that could not be; whether that worked, in a sentence."""
        try:
            self._manager.load(model)
        except LOAD_ERRORS as error:
            return _(
                "{model}, which was loaded before, cannot be loaded again either: {reason}",
                model=model.model,
                reason=error_message(error),
            )
        return _("{model}, which was loaded before, is loaded again.", model=model.model)

    def _keep_tokenizer(self) -> Path:
        file = self._user_data.cache / "tokenizer.json"
        write_atomically(file, self._manager.components.tokenizer.backend_tokenizer.to_str().encode())
        return file

    def _smoke(self, request: Smoke) -> None:
        from studio.engine.generation import SmokeWatcher, run_smoke_test
        from studio.engine.speeds import measure_and_keep, num_images_of_speeds

        def on_picture(picture: int, record: ValidPicture | InvalidPicture, folder: Path) -> None:
            self._report(PictureDone(picture=picture, record=record, folder=folder))

        place, num = self._user_data, len(request.settings.prompts)
        run = self._run_watcher(num_pictures=num + (num_images_of_speeds(place, num) if request.speeds else 0))
        watcher = SmokeWatcher(run.on_step, on_picture, run.cancelled)
        saved = run_smoke_test(self._manager, request.settings, outputs=place.outputs, watcher=watcher)
        if request.speeds and not saved.report.cancelled:
            measure_and_keep(self._manager, place, request.settings.generations(), watcher=run, num_before=num)
        self._report(SmokeDone(saved=saved))

    def _generate(self, request: Generate) -> None:
        from studio.engine.generation import make_images

        settings = request.settings
        report = make_images(
            self._manager,
            settings,
            outputs=self._user_data.outputs,
            watcher=self._run_watcher(num_pictures=settings.num_images),
            on_image=lambda report: self._report(ImagesChanged(report=report)),
        )
        if report.cancelled:
            self._report(ImagesChanged(report=report))

    def _compare(self, request: Compare) -> None:
        from studio.engine.generation import run_comparison

        settings = request.settings
        run_comparison(
            self._manager,
            settings,
            outputs=self._user_data.outputs,
            watcher=self._run_watcher(num_pictures=settings.num_pictures),
            on_change=lambda saved: self._report(ComparisonChanged(saved=saved)),
        )

    def _check_lora(self, request: CheckLora) -> None:
        try:
            lora = self._manager.loras.read(request.name)
        except StudioError as error:
            self._report(LoraChecked(name=request.name, problem=str(error)))
        else:
            self._report(LoraChecked(name=request.name, changes=lora.changes, notes=lora.notes))

    def _run_watcher(self, *, num_pictures: int) -> "RunWatcher":
        from studio.engine.memory import read_memory
        from studio.engine.progress import RunWatcher, StepProgress

        def on_step(picture: int, progress: StepProgress) -> None:
            self._report(
                Step(
                    picture=picture,
                    num_pictures=num_pictures,
                    step=progress.step,
                    num_steps=progress.num_steps,
                    elapsed_seconds=progress.elapsed_seconds,
                    memory=read_memory(self._manager.device),
                    preview_png=None if progress.preview is None else _base64_png(Image.fromarray(progress.preview)),
                )
            )

        return RunWatcher(on_step, self._mailbox.cancelled, lambda note: self._report(RunNote(message=note)))

    def _check_device(self) -> None:
        check = self._manager.check_device(lambda part: self._report(CheckingDevice(part=part)))
        self._report(DeviceChecked(check=check))

    def _report(self, event: Event) -> None:
        _report(self._output, event)


def _base64_png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _report(output: BinaryIO, event: Event) -> None:
    output.write(to_line(event))
    output.flush()


def _take_device(lock: DeviceLock, user_data: UserData, output: BinaryIO) -> None:
    """Wait until no other process has the device or waits for it, and the queue is empty; say which one has it."""
    reported = ""
    while True:
        other = lock.waited_for_by()
        if other is None and not _queue_goes_on(user_data) and lock.acquire(N_("LoRA Studio's page")):
            break
        owner = str(other or lock.owner())
        if owner != reported:
            _report(output, Waiting(owner=owner))
            reported = owner
        time.sleep(0.5)
    _report(output, Starting())


def _queue_goes_on(user_data: UserData) -> bool:
    """Whether a job runs or is about to: between two jobs the device is free for a moment."""
    try:
        return user_data.database.is_file() and worker_runs(user_data) and JobQueue(user_data).has_work()
    except RunError as error:  # a damaged queue is for the one who looks at it, and must not stop the page
        logging.warning("The queue cannot be read: %s", error)
        return False


def main() -> None:
    """Serve requests from standard input; what libraries print goes to the log, not among the events."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--user-data", type=Path, required=True)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    prepare_threads()
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    user_data = UserData(options.user_data)
    # Unbuffered: a thread that waits inside a buffered reader makes the interpreter abort when it ends.
    mailbox = Mailbox(open(sys.stdin.fileno(), "rb", buffering=0, closefd=False))  # noqa: SIM115 - open till the end
    lock = DeviceLock(user_data.device_lock)
    _take_device(lock, user_data, output)
    EngineProcess(user_data, cpu_only=options.cpu, mailbox=mailbox, output=output, lock=lock).run()
    lock.release()  # named and let go of here: a lock that nobody refers to any longer is freed at once


if __name__ == "__main__":
    main()
