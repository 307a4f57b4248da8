"""The machine and its software; how the CPU's threads wait.

How the CPU's threads wait for each other. Call it before torch is imported: OpenMP reads its settings once.

The machine and its software, told without loading any of it.
"""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from studio import __version__
from studio.core.language import _


def prepare_threads() -> None:
    """Let waiting threads sleep instead of spin.

    torch splits each operation over all cores and waits for the slowest. With OpenMP's default the others spin
    meanwhile, and when any other program takes a core, each wait lasts a scheduler's slice: one busy program made
    generation on two cores 50 times slower (10.7 s against 0.3 s for five steps). A user's own setting wins.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


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
        return _("macOS {mac_ver} {machine}", mac_ver=platform.mac_ver()[0], machine=platform.machine())
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def versions() -> dict[str, str]:
    """The versions that a report needs, ours and Python's first; `not installed` where a package is missing."""
    found = {"lora-studio": __version__, "python": platform.python_version(), "system": operating_system()}
    for package in REPORTED_PACKAGES:
        try:
            # A module says more than its package: `2.13.0+cu130`, where PyPI's metadata has `2.13.0`.
            found[package] = getattr(sys.modules.get(package), "__version__", None) or version(package)
        except PackageNotFoundError:
            found[package] = _("not installed")
    return found
