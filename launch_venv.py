"""Makes `.venv`, installs the studio into it, and mends it. For launch.py; standard library only.

A set-up can be killed at any moment: a marker lies in `.venv` while that is half made, pip completes a package's
RECORD last, and the stamp that allows the quick start is the last thing of all.
"""

import contextlib
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import launch_pip
from launch_pip import SetupError, packages_in, python_in
from launch_words import _

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

STAMP = "lora-studio.json"
UNFINISHED = "unfinished"  # lies in .venv while that is made or emptied: all else in it is ours to delete

# Run by .venv's Python, with -I so that only what is installed there counts. Without names it looks for all
# that pip installed. A package that lost its files may still be found as a namespace, but without an origin.
PROBE = """
import importlib.util, json, sys
names = sys.argv[1:]
if not names:
    from importlib.metadata import packages_distributions
    names = [name for name in packages_distributions() if name.isidentifier()]
specs = {name: importlib.util.find_spec(name) for name in names}
found = [name for name, spec in specs.items() if spec is not None and spec.origin is not None]
print(json.dumps([sys.version_info[:2], found]))
"""


@dataclass(frozen=True)
class Stamp:
    """What a finished set-up has installed, where and from what."""

    root: str
    inputs: str
    python: list[int]
    extras: list[str]
    cpu_torch: bool
    modules: list[str]


def prepare(venv: Path, *, extras: list[str], cpu_torch: bool) -> Path:
    """Makes `.venv` fit for a start, and returns the path of its Python. Raises: SetupError."""
    try:
        if examine(venv, extras, cpu_torch) == ("", ""):
            return python_in(venv)
        with setup_lock(venv.parent) as lock:
            follow_move(venv)
            action, reason = examine(venv, extras, cpu_torch)  # the other launch.py may have done it all
            if reason:
                print(_("Repairing .venv: {reason}.", reason=reason), flush=True)
            if action == "make":
                make_venv(venv, lock)
            if action:
                install(venv, extras, cpu_torch, lock)
    except OSError as error:
        raise launch_pip.explained(_("Set-up"), str(error), venv) from error
    return python_in(venv)


def examine(venv: Path, extras: list[str], cpu_torch: bool) -> tuple[str, str]:
    """Returns what `.venv` needs before a start ("", "install" or "make") and why; changes nothing.

    Raises: SetupError, when `.venv` is neither a virtual environment nor a beginning of ours.
    """
    if not venv.exists():
        return "make", ""
    # One look, for another launch.py may be at work: it puts the marker there first and takes it away last.
    names = {entry.name for entry in venv.iterdir()} if venv.is_dir() else {"(a file)"}
    if not names or UNFINISHED in names:
        return "make", _("the last set-up was interrupted")
    if "pyvenv.cfg" not in names:
        raise SetupError(
            _(
                "{venv} must be a virtual environment or not be there, but it is something else; nothing in it was"
                " touched. Move it away and run launch.py again.",
                venv=venv,
            )
        )
    stamp = read_stamp(venv)
    needed = ["pip", *(stamp.modules if stamp else [])]
    probed = probe(venv, needed)
    if probed is None:
        return "make", _("its Python does not start")
    python, found = probed
    if python < [3, 11] or (stamp and stamp.python != python) or "pip" not in found:
        return "make", _("its Python is too old, has changed, or has no pip")
    if stamp is None:
        return "install", _("its set-up did not finish")
    missing = [name for name in needed if name not in found]
    reasons = {
        _("the folder has moved from {folder}", folder=stamp.root): stamp.root != str(venv.parent),
        _("packages are missing ({names})", names=", ".join(missing[:5])): missing != [],
        _("pyproject.toml or constraints.txt has changed"): stamp.inputs != digest_inputs(venv.parent),
        _("the tests need more packages"): not set(extras) <= set(stamp.extras),
        _("PyTorch is the build for the CPU, and there is an NVIDIA GPU"): stamp.cpu_torch and not cpu_torch,
    }
    reason = next((reason for reason, applies in reasons.items() if applies), "")
    return "install" if reason else "", reason


def probe(venv: Path, modules: list[str]) -> tuple[list[int], list[str]] | None:
    """Returns the version of `.venv`'s Python and those modules that it finds; None if it does not run."""
    command = [str(python_in(venv)), "-I", "-c", PROBE, *modules]
    try:
        output = subprocess.check_output(command, stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    version, found = json.loads(output)
    return version, found


def read_stamp(venv: Path) -> Stamp | None:
    try:
        return Stamp(**json.loads((venv / STAMP).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_stamp(venv: Path, stamp: Stamp) -> None:
    temporary = venv / (STAMP + ".tmp")
    temporary.write_text(json.dumps(asdict(stamp)), "utf-8")
    temporary.replace(venv / STAMP)


def digest_inputs(root: Path) -> str:
    inputs = [(root / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"".join(inputs)).hexdigest()


@contextlib.contextmanager
def setup_lock(root: Path) -> Iterator[int]:
    """Lets one set-up run at a time. The lock is on launch.py, since `.venv` comes and goes; on POSIX pip
    inherits it, so that a pip that outlives a killed launch.py keeps the next one waiting.
    """
    with (root / "launch.py").open("rb") as file:
        waiting = False
        while not try_lock(file.fileno()):
            if not waiting:
                print(_("Another launch.py is setting up .venv here: waiting for it to finish …"), flush=True)
            waiting = True
            time.sleep(0.2)
        yield file.fileno()


def try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # past the end: others cannot read what is locked
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def follow_move(venv: Path) -> None:
    """Puts the folder's new path, if it has one, into `.venv`'s scripts (not into Windows' .exe) and .pth files."""
    stamp = read_stamp(venv)
    if stamp is None or stamp.root == str(venv.parent):
        return
    reason = _("the folder has moved from {folder}", folder=stamp.root)
    print(_("Repairing .venv: {reason}.", reason=reason), flush=True)
    old, new = re.compile(re.escape(os.fsencode(stamp.root)) + rb"(?=[/\\\s\"']|$)"), os.fsencode(venv.parent)
    for file in [*python_in(venv).parent.glob("*"), *packages_in(venv).glob("*.pth")]:
        data = b"" if file.is_symlink() or not file.is_file() else file.read_bytes()
        if b"\0" not in data and old.search(data):
            file.write_bytes(old.sub(lambda match: new, data))
    write_stamp(venv, replace(stamp, root=str(venv.parent)))


def make_venv(venv: Path, lock: int) -> None:
    print(_("Making a virtual environment in {venv} …", venv=venv), flush=True)
    venv.mkdir(exist_ok=True)
    (venv / UNFINISHED).touch()
    for entry in venv.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != UNFINISHED:
            entry.unlink()
    # Not sys.executable: that may have just been deleted.
    base_python = getattr(sys, "_base_executable", sys.executable)
    command = [base_python, "-I", "-m", "venv", str(venv)]
    launch_pip.run_logged(venv, lock, _("Making the virtual environment"), command, {})
    (venv / UNFINISHED).unlink()


def drop_incomplete(packages: Path) -> None:
    """Makes pip forget the packages that lost files or whose installation was cut short: pip reads only their
    metadata, and would leave them as they are.
    """
    for remains in packages.glob("~*"):  # where pip keeps what it replaces
        shutil.rmtree(remains, ignore_errors=True)
    for info in packages.glob("*.dist-info"):
        record = info / "RECORD"
        rows = csv.reader(record.read_text("utf-8").splitlines() if record.is_file() else [])
        names = [row[0] for row in rows if not row[0].endswith(".pyc")]
        # A wheel brings its RECORD along; what pip makes itself, INSTALLER among it, is added when all is there.
        if f"{info.name}/INSTALLER" not in names or not all((packages / name).exists() for name in names):
            shutil.rmtree(info)


def install(venv: Path, extras: list[str], cpu_torch: bool, lock: int) -> None:
    """Installs PyTorch, then the studio with the rest, and writes the stamp."""
    root, before = venv.parent, read_stamp(venv)
    extras = sorted({*extras, *(before.extras if before else [])})
    (venv / STAMP).unlink(missing_ok=True)
    drop_incomplete(packages_in(venv))
    inputs, pip = digest_inputs(root), launch_pip.pip_of(venv, lock)
    pin = re.search(r"^torch==([\w.]+)", (root / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    if pin is not None:
        launch_pip.install_torch(pip, launch_pip.torch_attempts(pin[1], sys.platform, cpu_torch))
    print(_("Installing LoRA Studio and the other packages (about 250 MB) …"), flush=True)
    target = f".[{','.join(extras)}]" if extras else "."
    pip.run(_("Installing LoRA Studio"), "install", "-e", target, *launch_pip.CONSTRAINTS)
    probed = probe(venv, [])
    assert probed is not None, "the Python that has just run pip does not start"
    python, found = probed
    write_stamp(venv, Stamp(str(root), inputs, python, extras, cpu_torch, ["studio", *found]))
