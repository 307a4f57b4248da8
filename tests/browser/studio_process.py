"""A real studio in a process of its own, and the browser to look at it with: for tests and screenshots."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
import psutil
from safetensors.numpy import load_file, save_file

from studio.core.paths import UserData, assets_folder
from studio.core.settings import SHIPPED_MODEL
from studio.jobs.device_lock import DeviceLock

START_SECONDS = 60.0
STOP_SECONDS = 20.0
BROWSER_VARIABLE = "STUDIO_CHROMIUM"
BROWSER_NAMES = ("chromium", "chromium-browser", "google-chrome")
MAC_BROWSERS = (
    Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
    Path("/Applications/Chromium.app/Contents/MacOS/Chromium"),
)
BROWSER_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CHANNELS = ("red", "green", "blue")
LIVE_PARTS = ("status-activity", "status-jobs", "training-state", "batch-state")  # of those, what tests look at

Found = TypeVar("Found")


@dataclass(frozen=True)
class RunningStudio:
    """A studio that serves its page; `output` is the file that holds what it printed."""

    url: str
    port: int
    process: subprocess.Popen[bytes]
    user_data: UserData
    output: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def engine(self) -> psutil.Process | None:
        """The engine process; None while there is none."""
        for child in psutil.Process(self.pid).children():
            try:
                if "studio.engine.process.worker" in child.cmdline():
                    return child
            except psutil.Error:  # it ended while we looked
                continue
        return None

    @property
    def printed(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    def wait_for_engine(self) -> psutil.Process:
        """The engine process, as soon as there is one."""
        return wait_for(lambda: self.engine, what="the engine process")

    def press(self, button: str, *values: object) -> int:
        """Do what a button of the page does, without a browser: the status of the answer."""
        return httpx.post(f"{self.url}/gradio_api/run/{button}", json={"data": values}).status_code

    def shown(self) -> str:
        """All that a page is given when it opens, without its markup."""
        has = dict.fromkeys(LIVE_PARTS, "")
        answers = [
            self.answer("open", ""),
            self.answer("refresh_inference", None, ""),
            self.answer("live", has, "", ["status", "training", "batch"]),
        ]
        return re.sub(r"<[^>]*>", " ", "".join(answers))

    def answer(self, name: str, *values: object) -> str:
        """What the page is answered where it asks, without a browser."""
        return httpx.post(f"{self.url}/gradio_api/run/{name}", json={"data": values}).text

    def make_ready(self) -> None:
        """End what runs and load the shipped model, where a test left it otherwise."""
        if "smoke test: " in self.shown():
            self.press("cancel")
        wait_for(lambda: re.search(r" ready | no model loaded ", self.shown()), what="the engine to be free")
        if not re.search(rf"model\s+{SHIPPED_MODEL} ", self.shown()) or " ready " not in self.shown():
            self.press("load", SHIPPED_MODEL, "float32", "auto", False)
            wait_for(lambda: " ready " in self.shown(), what="the shipped model")

    def end(self) -> int:
        """Ask the studio to stop, as Ctrl+C does, and return its exit code."""
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)


@contextmanager
def running_studio(
    user_data: Path, *options: str, environment: Mapping[str, str] | None = None, port: int | None = None
) -> Iterator[RunningStudio]:
    """Start a studio on a port, or a free one, wait for its page, and end it with its engine, whatever happened.

    It computes on the CPU, so that its page says the same on every machine.
    """
    user_data.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    output = user_data / f"printed-{port}.txt"
    command = studio_command(
        "ui", "--no-browser", "--cpu", "--port", str(port), "--user-data", str(user_data), *options
    )
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**studio_environment(), **(environment or {})}
        )
    studio = RunningStudio(f"http://127.0.0.1:{port}", port, process, UserData(user_data), output)
    family = [psutil.Process(process.pid)]
    try:
        wait_for(lambda: "LoRA Studio is at" in studio.printed or process.poll() is not None, what="the studio's page")
        assert process.poll() is None, f"The studio ended at once:\n{studio.printed}"
        yield studio
    finally:
        end_family(family)


def end_family(family: list[psutil.Process]) -> None:
    """End processes and their children: asked first, then made to."""
    for process in list(family):
        try:
            family += process.children(recursive=True)
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=STOP_SECONDS)


def studio_command(*arguments: str) -> list[str]:
    """The command line of the studio in the Python that runs the tests."""
    return [sys.executable, "-m", "studio", *arguments]


def studio_environment() -> dict[str, str]:
    """Our environment, with one thread for each studio, no word to the Hub, a trash of the tests' own where the system
    allows that, and no user data but what is given.
    """
    kept = {name: value for name, value in os.environ.items() if name != "STUDIO_USER_DATA"}
    # The tests' user data lies in the system's folder for temporary files, from which Gradio serves anything: as for
    # users, theirs is another one.
    temporary = Path(tempfile.gettempdir()) / "studio-tests"
    temporary.mkdir(exist_ok=True)
    own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TMPDIR": str(temporary), "XDG_DATA_HOME": str(temporary)}
    return {**kept, **own}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: Callable[[], Found | None], *, what: str, seconds: float = START_SECONDS) -> Found:
    """Ask until the answer is true; for what no page shows."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.05)
    return found


@contextmanager
def device_taken(user_data: UserData, purpose: str) -> Iterator[None]:
    """Hold the device of a `user_data/`, as another program of the studio would."""
    lock = DeviceLock(user_data.device_lock)
    assert lock.acquire(purpose)
    try:
        yield
    finally:
        lock.release()


def poisoned_model(folder: Path, *, channel: int) -> Path:
    """A copy of the shipped model whose VAE gives NaN in one colour channel (0: red, 1: green, 2: blue)."""
    model = folder / f"poisoned-{CHANNELS[channel]}"
    shutil.copytree(assets_folder() / SHIPPED_MODEL, model)
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["decoder.conv_out.bias"][channel] = np.nan
    save_file(tensors, weights, metadata={"format": "pt"})
    return model


def find_browser() -> str | None:
    """The Chromium of STUDIO_CHROMIUM, of the path, or of a Mac's applications; None where there is none."""
    chosen = os.environ.get(BROWSER_VARIABLE)
    if chosen:
        return chosen
    on_path = (shutil.which(name) for name in BROWSER_NAMES)
    in_applications = (str(path) for path in MAC_BROWSERS if path.is_file())
    return next(filter(None, [*on_path, *in_applications]), None)
