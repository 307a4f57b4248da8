"""How long until the page answers, beside what `import gradio` alone takes."""

import http.client
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from bench.figures import Figure, measure_pairs, paired_figure
from bench.processes import started_python
from bench.settings import BenchSettings
from studio.core.errors import StudioError
from studio.core.paths import UserData

LIMIT = 1.5
POLL_SECONDS = 0.01
PATIENCE_SECONDS = 120.0


def bench_startup(settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    """Seconds from starting the process to the page's first answer; both sides once before, to warm the disk.

    Raises:
        StudioError: where the page does not come.
    """
    with tempfile.TemporaryDirectory(dir=user_data.cache, prefix="bench-") as folder:
        page_seconds(Path(folder), cpu=settings.cpu)
        import_seconds()
        ours, theirs = measure_pairs(
            lambda: page_seconds(Path(folder), cpu=settings.cpu), import_seconds, pairs=settings.runs
        )
    figure = paired_figure("page's first answer", ours, theirs, peer="import gradio", unit="s", limit=LIMIT)
    return (figure,)


def page_seconds(folder: Path, *, cpu: bool) -> float:
    """Seconds until `python -m studio ui` answers 200, with `folder` as its user data."""
    port = free_port()
    command = ["-m", "studio", "ui", "--no-browser", "--port", str(port), "--user-data", str(folder)]
    start = time.perf_counter()
    with started_python([*command, "--cpu"] if cpu else command) as process:
        while not page_answers(port):
            if process.poll() is not None or time.perf_counter() - start > PATIENCE_SECONDS:
                raise StudioError(f"The page did not come. Start it by hand to see why: python {' '.join(command)}")
            time.sleep(POLL_SECONDS)
        return time.perf_counter() - start


def import_seconds() -> float:
    """Seconds until a fresh Python has imported gradio; that it says so leaves its way out uncounted."""
    start = time.perf_counter()
    with started_python(["-c", "import gradio; print('done', flush=True)"]) as process:
        assert isinstance(process, subprocess.Popen) and process.stdout is not None
        said = process.stdout.readline()
        seconds = time.perf_counter() - start
    if said.strip() != b"done":
        raise StudioError("gradio cannot be imported. Run `python -m studio doctor`.")
    return seconds


def free_port() -> int:
    """A port on 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def page_answers(port: int) -> bool:
    """Whether a page is served there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):  # it does not listen yet
        return False
    finally:
        connection.close()
