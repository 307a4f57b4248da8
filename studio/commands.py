"""What the command line does with the engine in its own process."""

import sys

from studio.engine.device import pick_device
from studio.engine.pipeline import PipelineManager, StepProgress
from studio.engine.smoke import SmokeWatcher, run_smoke_test
from studio.errors import EngineError
from studio.jobs.device_lock import DeviceLock
from studio.paths import UserData
from studio.reports import MARKDOWN_NAME, to_markdown
from studio.settings import ModelSettings, SmokeSettings


def run_smoke(
    model: ModelSettings, settings: SmokeSettings, *, user_data: UserData, cpu_only: bool, as_json: bool
) -> bool:
    """Run the smoke test, print its report, and say whether it passed.

    Raises:
        EngineError: where another process has the device.
        ModelError: where the model cannot be loaded.
    """
    lock = DeviceLock(user_data.device_lock)
    if not lock.acquire("python -m studio smoke"):
        raise EngineError(f"The device is in use by {lock.owner()}. Stop it first, or give another --user-data.")
    manager = PipelineManager(pick_device(cpu_only=cpu_only), rejected_folder=user_data.rejected)
    manager.load(model)
    watcher = SmokeWatcher(on_step=_print_step)
    saved = run_smoke_test(manager, settings, outputs=user_data.outputs, watcher=watcher)
    print(file=sys.stderr)
    print(saved.report.model_dump_json(indent=2) if as_json else to_markdown(saved.report))
    print(f"Saved in {saved.folder / MARKDOWN_NAME}", file=sys.stderr)
    return saved.report.passed


def _print_step(picture: int, progress: StepProgress) -> None:
    """A line that overwrites itself, on the error stream: the result alone goes to the output."""
    print(f"\rpicture {picture + 1} of 3, step {progress.step} of {progress.num_steps} ", end="", file=sys.stderr)
