"""Programs that a bench starts, and always ends: those and no others."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

LEAVE_SECONDS = 20.0


def python_environment() -> dict[str, str]:
    """Ours, but Python may keep its compiled files, as it does for users: without them it compiles at every start."""
    environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


@contextmanager
def started_python(arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python ARGUMENTS` during the `with` block, its output a pipe; end it afterwards if it is still there."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=python_environment()
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
