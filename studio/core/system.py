"""The machine, its memory and its software, told without loading any of it; how heavy libraries are imported."""

import gc
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from studio import __version__
from studio.core.records import Record


def prepare_threads() -> None:
    """Let waiting threads sleep instead of spin. Call it before torch is imported: OpenMP reads its settings once.

    torch splits each operation over all cores and waits for the slowest. With OpenMP's default the others spin
    meanwhile, and when any other program takes a core, each wait lasts a scheduler's slice: one busy program made
    generation on two cores 50 times slower (10.7 s against 0.3 s for five steps). A user's own setting wins.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import torch and diffusers in the `with` block, without looking for garbage meanwhile.

    They bring half a million objects that stay as long as the process. Python would go through all of them again and
    again: a fifth of the time that importing takes, and up to half a second each time in the midst of later work.
    Where torch is imported already, nothing is changed.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


REPORTED_PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "gradio",
    "numpy",
    "pillow",
)


def operating_system() -> str:
    """`macOS 15.1 arm64`, `Linux 6.1.0 x86_64`."""
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]} {platform.machine()}"
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def versions() -> dict[str, str]:
    """The versions that a report needs, ours and Python's first; `not installed` where a package is missing."""
    found = {"lora-studio": __version__, "python": platform.python_version(), "system": operating_system()}
    for package in REPORTED_PACKAGES:
        try:
            # A module says more than its package: `2.13.0+cu130`, where PyPI's metadata has `2.13.0`.
            found[package] = getattr(sys.modules.get(package), "__version__", None) or version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


class MemorySample(Record):
    """Memory at one moment, in bytes. `accelerator_*` are None on a CPU."""

    process_bytes: int
    system_available_bytes: int
    system_total_bytes: int
    accelerator_allocated_bytes: int | None = None
    accelerator_limit_bytes: int | None = None


class MemoryUse(Record):
    """Memory before and after a piece of work, and the extremes in between (sampled every 50 ms)."""

    before: MemorySample
    after: MemorySample
    peak_process_bytes: int
    least_available_bytes: int
    peak_accelerator_bytes: int | None = None
