"""The command line, without the seconds that a process of its own takes to import torch."""

import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from studio.__main__ import main


def studio(*arguments: str, user_data: Path) -> subprocess.CompletedProcess[str]:
    """`python -m studio`, in this process: what it prints, and its exit code."""
    command = ["studio", *arguments, "--user-data", str(user_data)]
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(StringIO()) as output,
        redirect_stderr(StringIO()) as errors,
        pytest.raises(SystemExit) as ended,
    ):
        patch.setattr(sys, "argv", command)
        main()
    return subprocess.CompletedProcess(command, int(ended.value.code or 0), output.getvalue(), errors.getvalue())
