"""What the command line does with the engine in its own process."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.core.errors import EngineError
from studio.core.files import write_atomically
from studio.core.paths import UserData
from studio.core.results import FailedImage, ImagesReport
from studio.core.settings import CompareSettings, ImagesSettings, ModelSettings, SmokeSettings
from studio.core.text import gigabytes
from studio.engine.device import pick_device
from studio.engine.generation import make_images, run_comparison
from studio.engine.hub_download import DownloadProgress, DownloadWatcher
from studio.engine.pipeline import PipelineManager
from studio.engine.progress import RunWatcher, StepProgress
from studio.engine.smoke import SmokeWatcher, run_smoke_test
from studio.images.comparison import SavedComparison
from studio.images.grids import comparison_grid
from studio.images.smoke_report import MARKDOWN_NAME, to_markdown
from studio.jobs.device_lock import DeviceLock
from studio.loras.library import LoraLibrary


def run_smoke(
    model: ModelSettings, settings: SmokeSettings, *, user_data: UserData, cpu_only: bool, as_json: bool
) -> bool:
    """Run the smoke test, print its report, and say whether it passed.

    Raises:
        EngineError: where another process has the device.
        ModelError: where the model cannot be loaded.
    """
    with loaded_manager("smoke", model, user_data=user_data, cpu_only=cpu_only) as manager:
        watcher = SmokeWatcher(on_step=_step_printer(len(settings.prompts)))
        saved = run_smoke_test(manager, settings, outputs=user_data.outputs, watcher=watcher)
    print(file=sys.stderr)
    print(saved.report.model_dump_json(indent=2) if as_json else to_markdown(saved.report))
    print(f"Saved in {saved.folder / MARKDOWN_NAME}", file=sys.stderr)
    return saved.report.passed


def run_generate(
    model: ModelSettings, settings: ImagesSettings, *, user_data: UserData, cpu_only: bool, as_json: bool
) -> bool:
    """Make images, print where they are, and say whether all are valid.

    Raises:
        EngineError, ModelError, LoraError: where they cannot be made.
    """
    with loaded_manager("generate", model, user_data=user_data, cpu_only=cpu_only) as manager:
        watcher = RunWatcher(_step_printer(settings.num_images), on_note=_print_note)
        report = make_images(manager, settings, outputs=user_data.outputs, watcher=watcher)
    print(file=sys.stderr)
    print(report.model_dump_json(indent=2) if as_json else _image_lines(report))
    return not any(isinstance(image, FailedImage) for image in report.images)


def run_compare(
    model: ModelSettings, settings: CompareSettings, *, user_data: UserData, cpu_only: bool, as_json: bool
) -> bool:
    """Compare two sides, print what was found, and say whether every image is valid.

    Raises:
        EngineError, ModelError, LoraError: where it cannot be done.
    """
    with loaded_manager("compare", model, user_data=user_data, cpu_only=cpu_only) as manager:
        watcher = RunWatcher(_step_printer(settings.num_pictures), on_note=_print_note)
        saved = run_comparison(manager, settings, outputs=user_data.outputs, watcher=watcher)
    grid = saved.folder / "grid.png"
    write_atomically(grid, comparison_grid(saved))
    print(file=sys.stderr)
    print(saved.model_dump_json(indent=2) if as_json else _comparison_lines(saved, grid))
    return all(pair.difference is not None for pair in saved.report.pairs)


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
        raise EngineError(f"The device is in use by {lock.owner()}. Stop it first, or give another --user-data.")
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


def _image_lines(report: ImagesReport) -> str:
    return "\n".join(
        f"not valid (seed {image.settings.seed}): {image.error}" if isinstance(image, FailedImage) else str(image.path)
        for image in report.images
    )


def _comparison_lines(saved: SavedComparison, grid: Path) -> str:
    pairs = [
        f"- {pair.left.settings.prompt} · seed {pair.left.settings.seed}: "
        + (pair.difference.words if pair.difference else "no valid pair")
        for pair in saved.report.pairs
    ]
    strip = [
        f"- strength {picture.strength:g}: {picture.difference.pixels:.3g} of 255"
        for picture in saved.report.strip
        if picture.difference
    ]
    return "\n".join([saved.report.sentence, *pairs, *strip, f"Images and report: {saved.folder}", f"Grid: {grid}"])


def _step_printer(num_pictures: int) -> Callable[[int, StepProgress], None]:
    """Prints a line that overwrites itself, on the error stream: the result alone goes to the output."""

    def print_step(picture: int, progress: StepProgress) -> None:
        words = f"picture {picture + 1} of {num_pictures}, step {progress.step} of {progress.num_steps} "
        print(f"\r{words}", end="", file=sys.stderr)

    return print_step


def _print_note(note: str) -> None:
    print(note, file=sys.stderr)


def _print_check(part: str) -> None:
    print(f"\r{f'checking the device: {part}':<78}", end="", file=sys.stderr)


def _print_download(progress: DownloadProgress) -> None:
    words = f"{gigabytes(progress.done_bytes)} of {gigabytes(progress.total_bytes)}, {progress.file}"
    print(f"\r{words:<78}", end="", file=sys.stderr)
