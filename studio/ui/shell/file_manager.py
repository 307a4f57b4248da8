"""Opening a folder in the system's file manager: only where whoever asks sits at this very machine."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import gradio as gr
from starlette.datastructures import Headers

from studio.ui.shell.parts import toast

FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


def show_folder(folder: Path, request: gr.Request) -> None:
    """Open it where the asker can see that; else tell its path.

    Raises:
        FileNotFoundError: where the folder is gone.
    """
    client = request.client.host if request.client else None
    if not (is_same_machine(client, request.headers) and open_folder(folder)):
        toast(f"It cannot be opened from here. Its path is {folder}", duration=20)


def is_same_machine(client: str | None, headers: Headers | Mapping[str, str]) -> bool:
    """Whether a request comes from this machine itself, as far as can be told; not where something handed it on."""
    if client is None or any(name in headers for name in FORWARDED):
        return False
    try:
        return ip_address(client).is_loopback
    except ValueError:
        return client == "localhost"


def open_folder(folder: Path, *, platform: str = sys.platform, environment: Mapping[str, str] = os.environ) -> bool:
    """Open it in a window of the file manager; False where this machine has none, or no screen.

    Raises:
        FileNotFoundError: where the folder is gone.
    """
    if not folder.is_dir():
        raise FileNotFoundError(2, "The folder is gone", str(folder))
    command = opening_command(platform, environment)
    if command is None:
        return False
    process = subprocess.Popen(
        [*command, str(folder.resolve())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    threading.Thread(target=process.wait, daemon=True).start()  # so that no ended process is left over
    return True


def opening_command(platform: str, environment: Mapping[str, str]) -> list[str] | None:
    """The program that shows a folder; None where there is none."""
    if platform == "darwin":
        return ["open"]
    if platform == "win32":
        return ["explorer"]
    has_screen = bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))
    program = shutil.which("xdg-open", path=environment.get("PATH"))
    return [program] if has_screen and program else None
