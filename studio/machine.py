"""The machine and its software, told without loading any of it."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from studio import __version__

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
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
