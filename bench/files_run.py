"""`python -m bench.files_run`: through how many files of studio/ one goes to follow two things that users do.

- Generate to PNG: from `make_images`, the model loaded, to the saved image.
- Begin a run to the end of its first step: from `begin_run` to where the function that called the optimizer returns.

A file counts where a function of it (method, lambda, comprehension) was called meanwhile, in any thread of this
process. What is merely imported does not: neither the bodies of modules and classes, nor functions that they call.
Worker processes, which decode the images of a dataset, are not looked into.

Exit code 0 only where both are within their limits.
"""

import inspect
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from studio.core.paths import PACKAGE_FOLDER, UserData, assets_folder
from studio.core.settings import GenerationSettings, ImagesSettings, ModelSettings
from studio.engine.generation import make_images
from studio.engine.pipeline import PipelineManager
from studio.training.begin import begin_run
from studio.training.presets import settings_from
from studio.training.torch.run import train_run

GENERATE_LIMIT, FIRST_STEP_LIMIT = 18, 45
IMPORTING = "<module>"


@dataclass
class FilesRun:
    """The files that are run through, from `counting` on; `last` is the frame with whose return it ends."""

    files: set[str] = field(default_factory=set)
    last: FrameType | None = None
    ended: bool = False
    _known: dict[CodeType, str | None] = field(default_factory=dict)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is run during the `with` block."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _note(self, frame: FrameType, event: str, _argument: object) -> None:
        if self.ended or event not in ("call", "return"):
            return
        if event == "return":
            self.ended = frame is self.last
            return
        code = frame.f_code
        if code not in self._known:
            self._known[code] = file_of(code)
        file = self._known[code]
        if file is not None and file not in self.files and not _is_imported(frame):
            self.files.add(file)

    def end_with_first_step(self, *_: object) -> None:
        """For the optimizer, when it has made its step: the function of the studio that called it is the last."""
        frame = sys._getframe()
        while self.last is None and frame.f_back is not None:
            frame = frame.f_back
            self.last = frame if file_of(frame.f_code) else None


def file_of(code: CodeType) -> str | None:
    """The file of a function of the studio, below studio/; None for other code and bodies of modules and classes."""
    path = Path(code.co_filename)
    if not code.co_flags & inspect.CO_OPTIMIZED or not path.is_relative_to(PACKAGE_FOLDER):
        return None
    return path.relative_to(PACKAGE_FOLDER).as_posix()


def _is_imported(frame: FrameType | None) -> bool:
    """Whether a module of the studio is being imported, and calls this."""
    while frame is not None:
        if frame.f_code.co_name == IMPORTING and Path(frame.f_code.co_filename).is_relative_to(PACKAGE_FOLDER):
            return True
        frame = frame.f_back
    return False


def files_of_generate(manager: PipelineManager, folder: Path) -> frozenset[str]:
    """From Generate to the PNG, with a model that is loaded."""
    generation = GenerationSettings(prompt="black casual shoes", num_inference_steps=8, seed=7)
    run = FilesRun()
    with run.counting():
        make_images(manager, ImagesSettings(generation=generation), outputs=folder)
    return frozenset(run.files)


def files_of_first_step(values: Mapping[str, object], user_data: UserData) -> frozenset[str]:
    """From beginning a run with these settings to the end of its first step."""
    run = FilesRun()
    hook = register_optimizer_step_post_hook(run.end_with_first_step)
    with run.counting():
        train_run(begin_run(settings_from(None, values, ()), user_data), user_data)
    hook.remove()
    return frozenset(run.files)


def main() -> None:
    """Count both with the shipped model on the CPU, and print the files of each."""
    values = {"dataset": str(assets_folder() / "casual-shoes"), "max_train_steps": 1, "num_validation_images": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manager = PipelineManager(torch.device("cpu"), rejected_folder=folder / "rejected")
        manager.load(ModelSettings())
        generate = files_of_generate(manager, folder)
        manager.unload()
        first_step = files_of_first_step({**values, "cpu": True}, UserData(folder))
    counted = (
        ("Generate to PNG", generate, GENERATE_LIMIT),
        ("Begin a run to the end of its first step", first_step, FIRST_STEP_LIMIT),
    )
    for title, files, limit in counted:
        print(f"{title}: {len(files)} files, limit {limit}", *sorted(files), sep="\n  ")
    sys.exit(0 if all(len(files) <= limit for _, files, limit in counted) else 1)


if __name__ == "__main__":
    main()
