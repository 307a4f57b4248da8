"""Runs `.venv`'s pip, and explains its failures. For launch.py; standard library only.

The user's settings for pip may have been made for quite other environments. Those that say where packages come from
and how to get there are respected; what is installed, and where to, is the project's to say.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from launch_words import N_, _, number

LOG = "install.log"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CONSTRAINTS = ("-c", "constraints.txt")
GIGABYTE = 10**9

# The settings of pip that are respected, by the names of their options, aliases included.
SOURCES = (
    *("index-url", "pypi-url", "extra-index-url", "no-index", "find-links", "cache-dir", "no-cache-dir"),
    *("proxy", "cert", "client-cert", "trusted-host", "timeout", "default-timeout", "retries"),
    *("keyring-provider", "use-feature", "use-deprecated"),  # the features include other stores of certificates
)

# How to know a failure by what pip or the system said (numbers, where words are translated), and what to say.
DISK_FULL = r"\[Errno (28|69|122)\]|\[WinError 112\]|No space left|No usable temporary directory"
NOT_PERMITTED = r"\[Errno (1|13|30)\]|\[WinError 5\]|Permission denied"
NETWORK = (
    r"connection broken|Max retries exceeded|Failed to connect|timed out|ProxyError|SSLError"
    r"|NewConnectionError|NameResolutionError|Connection(Reset|Refused|Aborted|)Error"
)
NO_INDEX = r"(?s)\bPIP_NO_INDEX\b.*(No matching distribution found|ResolutionImpossible)"
# ResolutionImpossible is how pip says it of a package that has a pin, and all of ours have.
NO_BUILD = r"No matching distribution found|ResolutionImpossible|not a supported wheel|requires a different Python"
ADVICE = {
    DISK_FULL: N_(
        "the disk is full: {free} GB are left for {root}, and temporary files need room too. Free about 3 GB (with"
        " CUDA 8 GB) and run launch.py again."
    ),
    r"ensurepip is not available|No module named '?(pip|venv|ensurepip)\b": N_(
        "this Python comes without pip. On Debian and Ubuntu, run `sudo apt install python{python}-venv`; elsewhere,"
        " get it from python.org."
    ),
    NOT_PERMITTED: N_(
        "writing in {root} is not permitted. Make the folder yours, or move it to a place of your own, and run"
        " launch.py again."
    ),
    r"Configuration file (could not be loaded|contains invalid)": N_(
        "pip's configuration has a mistake. Correct the file that is named below, and run launch.py again."
    ),
    r"SOCKS support": N_(
        "pip cannot use a SOCKS proxy, and ALL_PROXY or another proxy setting names one. Set HTTPS_PROXY to an http://"
        " proxy, or unset ALL_PROXY while you run launch.py."
    ),
    NETWORK: N_(
        "could not reach the package index. Check the network connection (behind a proxy, set HTTPS_PROXY) and run"
        " launch.py again: it continues from here."
    ),
    NO_INDEX: N_(
        "pip is set to ask no package index (no-index), and its other sources lack a package. Unset PIP_NO_INDEX, or"
        " no-index in pip's configuration (`pip config list` shows it), and run launch.py again."
    ),
    NO_BUILD: N_(
        "a package has no build for Python {python} on this system ({system}), or pip's sources lack it. Run launch.py"
        " with another Python (3.11 to 3.13), or on a system that PyTorch supports."
    ),
    "": N_("the reason is below. Run launch.py again; if it stops there again, delete .venv first."),
}


class SetupError(Exception):
    """Set-up cannot go on. The message says why and what to do; `cause` is one of ADVICE's patterns."""

    def __init__(self, message: str, cause: str = "") -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True)
class Attempt:
    """One way to install PyTorch: the line to print, pip's arguments, the room it takes, and the causes for which
    it may fail although nothing is wrong.
    """

    announcement: str
    arguments: list[str]
    needed_bytes: int
    expected: tuple[str, ...] = ()


def python_in(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def packages_in(venv: Path) -> Path:
    return next(venv.glob("lib/python*/site-packages"), venv / "Lib" / "site-packages")


@dataclass(frozen=True)
class Pip:
    """`.venv`'s pip. `settings` are those of the user that hold here, as environment variables."""

    venv: Path
    lock: int
    settings: dict[str, str]

    def run(self, step: str, *arguments: str) -> None:
        """Raises: SetupError, when pip fails."""
        command = [str(python_in(self.venv)), "-I", "-m", "pip", "--no-input", *arguments]
        run_logged(self.venv, self.lock, step, command, self.settings)


def pip_of(venv: Path, lock: int) -> Pip:
    """Returns `.venv`'s pip with the user's SOURCES. Raises: SetupError, when pip's configuration cannot be read."""
    python, names = str(python_in(venv)), ("PIP_CONFIG_FILE", *map(variable, SOURCES))
    settings = {name: os.environ[name] for name in names if name in os.environ}
    # The configuration is about this command, too: each of these would hide some of it.
    told = {"PIP_PYTHON": python, **dict.fromkeys(("PIP_QUIET", "PIP_GLOBAL", "PIP_USER", "PIP_SITE"), "0")}
    env = environment({**settings, **told})
    command = [python, "-I", "-m", "pip", "config", "list"]
    listed = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace", check=False)
    if listed.returncode != 0:
        raise explained(_("Reading pip's configuration"), listed.stderr, venv)
    return Pip(venv, lock, respected_settings(listed.stdout))


def respected_settings(listed: str) -> dict[str, str]:
    """Returns what of `pip config list` is in SOURCES, as environment variables; a switch that is off is left out."""
    found = {}
    for section in ("global", "install", ":env:"):  # as for pip, the later win
        for name, value in re.findall(rf"^{section}\.([\w.-]+)=(.*)$", listed, re.MULTILINE):
            if name in SOURCES:
                found[variable(name)] = str(ast.literal_eval(value))
    off = ("0", "false", "no", "off", "n", "f")
    return {name: value for name, value in found.items() if not (name == "PIP_NO_INDEX" and value.lower() in off)}


def variable(option: str) -> str:
    return f"PIP_{option.upper().replace('-', '_')}"


def environment(settings: dict[str, str]) -> dict[str, str]:
    """Returns our variables without those that are pip's or Python's, and with these settings."""
    neutral = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    return {**neutral, **settings, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONIOENCODING": "utf-8"}


def torch_attempts(pin: str, system: str, cpu_torch: bool) -> list[Attempt]:
    """Returns the ways to install PyTorch on `sys.platform`'s system, best first."""
    plain = [f"torch=={pin}", *CONSTRAINTS]
    if not cpu_torch:
        if system == "linux":
            with_cuda = _("Installing PyTorch {pin} (about 3 GB, with CUDA) …", pin=pin)
            return [Attempt(with_cuda, plain, 8 * GIGABYTE)]
        return [Attempt(_("Installing PyTorch {pin} (about 200 MB) …", pin=pin), plain, 3 * GIGABYTE)]
    here = ["--no-deps", f"torch=={pin}+cpu"]
    there = [*here, "--extra-index-url", CPU_INDEX, "--retries", "2", "--timeout", "15"]
    none_here, none_there = (NO_INDEX, NO_BUILD), (NO_INDEX, NO_BUILD, NETWORK)
    return [
        Attempt(_("Installing PyTorch {pin} for the CPU (about 200 MB) …", pin=pin), here, 3 * GIGABYTE, none_here),
        Attempt(_("Not from pip's own sources: trying download.pytorch.org …"), there, 3 * GIGABYTE, none_there),
        Attempt(_("Not from there either: getting PyTorch with several GB of CUDA packages …"), plain, 8 * GIGABYTE),
    ]


def install_torch(pip: Pip, attempts: list[Attempt]) -> None:
    """Makes the attempts until one succeeds, or the disk or a permission stands in the way of all.

    Raises: SetupError, that of the attempt whose failure says most.
    """
    packages = packages_in(pip.venv)
    if len(attempts) == 1 and any(packages.glob("torch-*+cpu.dist-info")):
        pip.run(_("Removing PyTorch"), "uninstall", "-y", "torch")  # to pip, 2.0+cpu would do for 2.0
    is_there = (packages / "torch").exists()
    failures: list[tuple[Attempt, SetupError]] = []
    for attempt in attempts:
        print(attempt.announcement, flush=True)
        try:
            if not is_there:
                require_space(pip.venv, attempt.needed_bytes)
            pip.run(_("Installing PyTorch"), "install", *attempt.arguments)
            return
        except SetupError as error:
            failures.append((attempt, error))
            if error.cause in (DISK_FULL, NOT_PERMITTED):
                break
    raise most_telling(failures)


def most_telling(failures: list[tuple[Attempt, SetupError]]) -> SetupError:
    """Returns a failure that was not expected, if possible one that ADVICE knows; of equals the last."""

    def rank(position: int) -> tuple[bool, int, int]:
        attempt, error = failures[position]
        return error.cause in attempt.expected, [*ADVICE].index(error.cause), -position

    return failures[min(range(len(failures)), key=rank)][1]


def require_space(place: Path, needed_bytes: int) -> None:
    """Raises: SetupError, when the disk that `place` is on has less room than that."""
    free, needed = shutil.disk_usage(place).free / GIGABYTE, needed_bytes / GIGABYTE
    if free < needed:
        said = _(
            "Setting up needs about {needed} GB of free disk space, and {place} has {free} GB. Free some and run"
            " launch.py again.",
            needed=number(needed, 0),
            place=place,
            free=number(free, 1),
        )
        raise SetupError(said, DISK_FULL)


def run_logged(venv: Path, lock: int, step: str, command: list[str], settings: dict[str, str]) -> None:
    """Runs a command in the project's folder, its output going to the log. Raises: SetupError if it fails."""
    env = environment({**settings, "PIP_CONFIG_FILE": os.devnull})
    with (venv / LOG).open("ab") as log:
        start = log.tell()
        # The names alone: the values may hold passwords.
        log.write(f"\n$ {' '.join([*settings, *command])}\n".encode("utf-8", "replace"))
        log.flush()
        fds = () if os.name == "nt" else (lock,)
        status = subprocess.call(command, cwd=venv.parent, env=env, pass_fds=fds, stdout=log, stderr=log)
    if status != 0:
        raise explained(step, (venv / LOG).read_bytes()[start:].decode("utf-8", "replace"), venv)


def explained(step: str, output: str, venv: Path) -> SetupError:
    """Returns the error for a step that failed: why, what to do, and the last lines of what it printed."""
    free = shutil.disk_usage(venv.parent).free / GIGABYTE
    cause = DISK_FULL if free < 0.05 else next(pattern for pattern in ADVICE if re.search(pattern, output))
    python = "{}.{}".format(*sys.version_info)
    advice = _(ADVICE[cause], root=venv.parent, free=number(free, 1), python=python, system=sys.platform)
    lines = [line[:200] for line in output.splitlines() if line.strip()]
    sources = [line for line in lines[:-8] if line.startswith("Looking in ")]
    failed, more = _("{step} failed: {advice}", step=step, advice=advice), _("(More in {log})", log=venv / LOG)
    return SetupError("\n  ".join([failed, *sources, *lines[-8:], more]), cause)
