"""Serving the page: private by default, no word to anyone outside, and away cleanly when told to stop."""

import gc
import itertools
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from studio.core.errors import RunError, SettingsError
from studio.core.files import read_text
from studio.core.language import _
from studio.core.paths import UserData
from studio.core.settings import ModelSettings, ServerSettings
from studio.datasets.session import DatasetSession
from studio.engine.process.client import EngineClient
from studio.images.tokens import TokenCounter, tokenizer_of
from studio.jobs.worker import ensure_worker
from studio.training.session import TrainingSession
from studio.ui.shell.commands import Commands
from studio.ui.shell.guards import LOOPBACK_HOSTS, allowed_hosts, read_root_path

FIRST_PORT, LAST_PORT = 7860, 7959
WINDOW_SECONDS = 10.0
NO_PROXY_NAMES = ("NO_PROXY", "no_proxy")
CERTIFICATE_NAMES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
MAC_APPS = ("Google Chrome", "Microsoft Edge", "Chromium", "Brave Browser")
WINDOWS_APPS = (("Google", "Chrome", "Application", "chrome.exe"), ("Microsoft", "Edge", "Application", "msedge.exe"))
LINUX_APPS = (
    "google-chrome",
    "google-chrome-stable",
    "chromium",
    "chromium-browser",
    "microsoft-edge",
    "brave-browser",
)


def serve(settings: ServerSettings, *, model: ModelSettings, user_data: UserData) -> None:
    """Serve until SIGTERM or Ctrl+C; then end the engine too.

    Raises:
        SettingsError: where the port is taken, `listen` has no passwords, or `root_path` is none.
    """
    logging.basicConfig(format="%(asctime)s %(message)s")
    logins, root_path = read_logins(settings), read_root_path(settings)
    port = choose_port(_address(settings), settings.port)
    cache = _prepare_environment(user_data)
    engine = EngineClient(user_data, model=model, cpu_only=settings.cpu)
    session, commands = DatasetSession(user_data, count_tokens=_token_counter(engine)), Commands(user_data)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with _plain_environment(), _collected_later():
        _launch(engine, session, commands, user_data, settings, port=port, logins=logins, root_path=root_path)
    for warning in warnings_of(settings):
        print(_("Warning: {warning}", warning=warning), flush=True)
    url = f"http://127.0.0.1:{port}"
    print(_address_words(url, port, listen=settings.listen), flush=True)
    try:
        ensure_worker(user_data)  # jobs that waited when the machine was switched off go on
    except RunError as error:  # of the queue: images are made without it, and the tabs that need it say so
        print(error, flush=True)
    engine.start()
    session.restore()
    if settings.open_browser:
        open_page(url, window=settings.window)
    try:
        while not stopping.wait(1.0):  # in slices: Windows hears Ctrl+C only between them
            pass
    finally:
        print(_("Stopping."), flush=True)
        commands.close()
        session.close()
        engine.stop()
        cache.cleanup()


def _address_words(url: str, port: int, *, listen: bool) -> str:
    if not listen:
        return _("LoRA Studio is at {url} (stop it with Ctrl+C)", url=url)
    names = ", ".join(allowed_hosts(True)[2:])
    return _(
        "LoRA Studio is at {url} and, for other machines, port {port} of {names} (stop it with Ctrl+C)",
        url=url,
        port=port,
        names=names,
    )


def open_page(url: str, *, window: bool) -> None:
    """Open the page in the browser, or in a window without its bars where a browser at hand can do that."""
    program = find_window_program(sys.platform, os.environ) if window else None
    if program is None:
        if window:
            print(_("Found no Chrome, Edge, Brave or Chromium, so the page opens in your browser instead."), flush=True)
        webbrowser.open(url)
        return
    opened = subprocess.Popen(
        [program, f"--app={url}"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    instead = _("{program} opened no window, so the page opens in your browser instead.", program=program)
    threading.Thread(target=_wait_for_window, args=(opened, url, instead), daemon=True).start()


def _wait_for_window(opened: subprocess.Popen[bytes], url: str, instead: str) -> None:
    """So that no ended process is left over. One that fails at once has no screen, or must not run as this user."""
    started = time.monotonic()
    if opened.wait() != 0 and time.monotonic() - started < WINDOW_SECONDS:
        print(instead, flush=True)
        webbrowser.open(url)


def find_window_program(platform: str, environment: Mapping[str, str]) -> str | None:
    """A browser that knows `--app`; None where there is none.

    Args:
        platform: as `sys.platform`.
    """
    if platform == "darwin":
        folders = [Path(start, "Applications") for start in ("/", Path.home())]
        files = [Path(folder, f"{name}.app/Contents/MacOS/{name}") for name in MAC_APPS for folder in folders]
    elif platform == "win32":
        starts = [environment.get(name) for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")]
        files = [Path(start, *path) for path in WINDOWS_APPS for start in starts if start]
    else:
        found = (shutil.which(name, path=environment.get("PATH")) for name in LINUX_APPS)
        return next(filter(None, found), None)
    return next((str(file) for file in files if file.is_file()), None)


def _address(settings: ServerSettings) -> str:
    return "0.0.0.0" if settings.listen else "127.0.0.1"


def warnings_of(settings: ServerSettings) -> tuple[str, ...]:
    """What others could read, in sentences: passwords on the way, and passwords on this machine."""
    found = []
    if settings.listen and not settings.root_path.startswith("https:"):
        found.append(
            _(
                "other machines reach the studio by plain HTTP, so passwords and images can be read on the way. Do "
                "this only on a network that you trust, or put a proxy with TLS in front and name its address with "
                "--root-path."
            )
        )
    file = settings.auth_file
    if file is not None and os.name != "nt" and file.stat().st_mode & stat.S_IROTH:
        found.append(
            _("everyone on this machine can read the passwords in {file}. Protect it: chmod 600 {file}", file=file)
        )
    return tuple(found)


def read_logins(settings: ServerSettings) -> list[tuple[str, str]] | None:
    """The user:password lines of the auth file; None where there is no file.

    Raises:
        SettingsError: where `listen` is asked for without a file, or the file holds no login.
    """
    file = settings.auth_file
    if file is None:
        if settings.listen:
            raise SettingsError(
                _(
                    "listen opens the studio to other machines, so it needs auth_file, got none. Write a text file "
                    "with one user:password on each line and start again with --listen --auth-file FILE."
                )
            )
        return None
    try:
        lines = read_text(file, encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        message = _("auth_file must be a readable text file, got {file} ({error}).", file=file, error=error)
        raise SettingsError(message) from error
    logins = []
    for number, line in enumerate(lines, start=1):
        user, __, password = line.strip().partition(":")
        if line.strip() and not (user and password):
            message = _("auth_file must hold user:password lines, got none in line {number} of it.", number=number)
            raise SettingsError(message)
        if line.strip():
            logins.append((user, password))
    if not logins:
        raise SettingsError(_("auth_file must hold at least one user:password line, got {file} without.", file=file))
    return logins


def choose_port(address: str, wanted: int | None) -> int:
    """The wanted port, or the first free one from 7860.

    Raises:
        SettingsError: where it is taken, or all are.
    """
    if wanted is not None:
        if not _is_free(address, wanted):
            raise SettingsError(
                _(
                    "port must be free, got {port}, which another program uses (perhaps another studio). "
                    "Choose another with --port, or leave it out to take the next free one.",
                    port=wanted,
                )
            )
        return wanted
    for port in range(FIRST_PORT, LAST_PORT + 1):
        if _is_free(address, port):
            return port
    raise SettingsError(
        _(
            "port must be free, but all from {first} to {last} are used. Choose one with --port.",
            first=FIRST_PORT,
            last=LAST_PORT,
        )
    )


def _is_free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name != "nt":  # there it would let us share the port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _prepare_environment(user_data: UserData) -> tempfile.TemporaryDirectory[str]:
    """What gradio reads when it is imported: no analytics, its files in our cache."""
    folder = user_data.cache / "page"
    folder.mkdir(parents=True, exist_ok=True)
    _purge(folder)
    cache = tempfile.TemporaryDirectory(dir=folder, prefix=f"{os.getpid()}-", ignore_cleanup_errors=True)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = cache.name
    os.chdir(cache.name)  # gradio serves files below the working folder
    return cache


@contextmanager
def _plain_environment() -> Iterator[None]:
    """While it is imported, gradio fails on a proxy of a kind that it does not know, and on certificates that are not
    there. The engine and the jobs, which download, find both again, and never ask a proxy for this machine.
    """
    names = (*NO_PROXY_NAMES, *CERTIFICATE_NAMES)
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(NO_PROXY_NAMES, "*"))
    for name in CERTIFICATE_NAMES:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)
        os.environ.update(loopback_past_proxies(os.environ))


def loopback_past_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """`no_proxy` as the user has it, and this machine itself; nothing where the environment names no proxies.

    There, a variable of ours would hide the proxies that macOS and Windows keep in their own settings.
    """
    if not any(name.lower().endswith("_proxy") and value for name, value in environment.items()):
        return {}
    merged = {}
    for name, other in itertools.permutations(NO_PROXY_NAMES):
        entries = [entry.strip() for entry in environment.get(name, environment.get(other, "")).split(",")]
        entries = [entry[1:-1] if entry[:1] == "[" and entry[-1:] == "]" else entry for entry in entries if entry]
        merged[name] = ",".join(dict.fromkeys([*entries, *LOOPBACK_HOSTS, "::1"]))
    return merged


@contextmanager
def _collected_later() -> Iterator[None]:
    """What gradio's import and the page's layout make stays: to search it for garbage, again and again as it grows,
    took a fifth of the start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _purge(folder: Path) -> None:
    """Remove what studios that no longer run left in the cache (a killed one cannot clean up)."""
    for skipped_file in folder.iterdir():
        pid = skipped_file.name.partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            for path in sorted(skipped_file.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            skipped_file.rmdir()


def _token_counter(engine: EngineClient) -> Callable[[str], int]:
    """Counts a caption's tokens as the loaded model would; as Stable Diffusion 1 before one is loaded."""
    return lambda caption: TokenCounter(engine.view.tokenizer_file or tokenizer_of()).count_plain(caption)


def _launch(
    engine: EngineClient,
    session: DatasetSession,
    commands: Commands,
    user_data: UserData,
    settings: ServerSettings,
    *,
    port: int,
    logins: list[tuple[str, str]] | None,
    root_path: str,
) -> None:
    """Build the page and serve it from a thread."""
    # Imported here: gradio reads its environment, set above, when it is imported.
    import gradio

    from studio.ui.shell.app import build_app
    from studio.ui.shell.parts import uploads_folder
    from studio.ui.shell.web_server import serve_in_thread, web_app

    trainings = TrainingSession(user_data)
    served = [session.thumbnails, trainings.thumbnails]  # images that we encoded ourselves, and nothing else
    for folder in served:
        folder.mkdir(parents=True, exist_ok=True)
    gradio.set_static_paths(served)

    def build_page() -> gradio.Blocks:
        page = build_app(engine, session, trainings, user_data, commands=commands, cpu_only=settings.cpu)
        return page.queue(default_concurrency_limit=4, max_size=32)

    hosts = allowed_hosts(settings.listen)
    app = web_app(build_page, hosts=hosts, logins=logins, uploads=uploads_folder(), root_path=root_path)
    serve_in_thread(app, address=_address(settings), port=port)
