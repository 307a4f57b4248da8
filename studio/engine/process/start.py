"""Starting the engine process, and the log that it writes to."""

import os
import subprocess
import sys
from typing import IO

from studio.core.paths import UserData

LOG_LIMIT_BYTES = 2**20


def start_engine_process(user_data: UserData, *, cpu_only: bool) -> "subprocess.Popen[bytes]":
    """The process, with pipes to ask it and to hear it.

    Raises:
        OSError: where it cannot be started, or its log cannot be opened.
    """
    # -P and cwd: modules come from where the studio is installed, never from a folder of uploads.
    command = [sys.executable, "-P", "-m", "studio.engine.process.worker", "--user-data", str(user_data.root)]
    with _open_log(user_data) as log:
        return subprocess.Popen(
            [*command, "--cpu"] if cpu_only else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "TRANSFORMERS_VERBOSITY": "error"},
            cwd=user_data.root,
            # Ctrl+C in the terminal reaches the page's process alone, which then ends this one.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )


def _open_log(user_data: UserData) -> IO[bytes]:
    """The engine's log, appended to; one older file is kept when it grows beyond 1 MB."""
    log_file = user_data.logs / "engine.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    if log_file.is_file() and log_file.stat().st_size > LOG_LIMIT_BYTES:
        log_file.replace(log_file.with_suffix(".old.log"))
    return log_file.open("ab")
