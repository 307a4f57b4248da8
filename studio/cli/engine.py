"""The engine in a command's own process: the device, the model on it, and how far it is. Imports torch."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from studio.core.errors import EngineError
from studio.core.language import _
from studio.core.paths import UserData
from studio.core.settings import ModelSettings
from studio.core.text import gigabytes
from studio.engine.device import pick_device
from studio.engine.hub_download import DownloadProgress, DownloadWatcher
from studio.engine.pipeline import PipelineManager
from studio.engine.progress import RunWatcher, StepProgress
from studio.jobs.device_lock import DeviceLock
from studio.loras.library import LoraLibrary


@contextmanager
def loaded_manager(
    command: str, model: ModelSettings, *, user_data: UserData, cpu_only: bool
) -> Iterator[PipelineManager]:
    """The device for this process, and the model on it.

    Raises:
        EngineError: where another process has the device.
        ModelError: where the model cannot be loaded.
    """
    lock = DeviceLock(user_data.device_lock)
    if not lock.acquire(f"python -m studio {command}"):
        raise EngineError(
            _("The device is in use by {owner}. Stop it first, or give another --user-data.", owner=lock.owner())
        )
    try:
        manager = PipelineManager(
            pick_device(cpu_only=cpu_only),
            rejected_folder=user_data.rejected,
            library=LoraLibrary(user_data.loras),
            device_checks=user_data.device_checks,
        )
        manager.load(model, progress=DownloadWatcher(_print_download, lambda: False), on_check=_print_check)
        yield manager
    finally:
        lock.release()


def printing_watcher(num_images: int) -> RunWatcher:
    """Prints each step and each note on the error stream: the result alone goes to the output."""
    return RunWatcher(step_printer(num_images), on_note=lambda note: print(note, file=sys.stderr))


def step_printer(num_images: int) -> Callable[[int, StepProgress], None]:
    """Prints a line that overwrites itself, on the error stream."""

    def print_step(index: int, progress: StepProgress) -> None:
        text = _(
            "image {index} of {num_images}, step {step} of {num_steps}",
            index=index + 1,
            num_images=num_images,
            step=progress.step,
            num_steps=progress.num_steps,
        )
        print(f"\r{text} ", end="", file=sys.stderr)

    return print_step


def _print_check(part: str) -> None:
    text = _("checking the device: {part}", part=_(part))
    print(f"\r{text:<78}", end="", file=sys.stderr)


def _print_download(progress: DownloadProgress) -> None:
    text = _(
        "{done} of {total}, {file}",
        done=gigabytes(progress.done_bytes),
        total=gigabytes(progress.total_bytes),
        file=progress.file,
    )
    print(f"\r{text:<78}", end="", file=sys.stderr)
