"""Sets LoRA Studio up in `.venv` beside this file, then starts it or runs its tests; `--help` says how.

Standard library only. Python 3.6 has to be able to run it as far as its message for old Pythons: hence the
quoted annotations, and the late import of launch_venv.py, which does the setting up.
"""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

USAGE = """\
python launch.py [--port N] [--no-browser] [--user-data DIR] [--cpu] [--listen] [--auth-file FILE]
    Sets LoRA Studio up in .venv beside launch.py if need be, and starts it. The options go to
    `python -m studio ui`, which checks them. --cpu on Linux also means PyTorch without CUDA.

python launch.py test [pytest's arguments]
    Sets up the same with what the tests need, and runs them.

Everything is installed into .venv; what pip said is in .venv/install.log."""


def main() -> int:
    root = Path(__file__).resolve().parent
    refusal = refuse_old_python(sys.version_info[:3], sys.executable)
    if refusal:
        print(refusal, file=sys.stderr)
        return 1
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every console can show "…" or the folder's name
    try:
        return run(root, sys.argv[1:])
    except KeyboardInterrupt:
        print("\nStopped. Run launch.py again to go on.")
        return 130


def refuse_old_python(version: "tuple[int, ...]", executable: str) -> str:
    """Returns what to say when this Python is too old, with the command to use instead; else nothing."""
    if version[:2] >= (3, 11):
        return ""
    advice = "Install Python 3.11 from python.org or your package manager, and run it with python3.11 launch.py"
    for name in ("python3.13", "python3.12", "python3.11"):
        # Try it: version managers put commands on PATH for Pythons that are not there.
        if shutil.which(name) and subprocess.call([name, "-c", ""], stderr=subprocess.DEVNULL) == 0:
            advice = f"Run it with {name} launch.py"
            break
    found = ".".join(str(number) for number in version)
    return f"LoRA Studio needs Python 3.11 or newer; this is {found} at {executable}. {advice}"


def run(root: Path, arguments: "list[str]") -> int:
    """Sets up what is missing, then becomes the studio or pytest (on Windows: waits for it)."""
    sys.dont_write_bytecode = True  # nothing is written outside .venv
    sys.path.insert(0, str(root))  # it is not there under PYTHONSAFEPATH
    import launch_venv

    testing = arguments[:1] == ["test"]
    if not testing and {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    extras = ["test"] if testing else []
    cpu_torch = wants_cpu_torch(sys.platform, has_nvidia_gpu(), "--cpu" in arguments and not testing)
    try:
        python = launch_venv.prepare(root / ".venv", extras=extras, cpu_torch=cpu_torch)
    except launch_venv.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    if testing:
        os.chdir(root)
    # -P: a folder named studio where the user happens to be is not ours.
    started = ["-m", "pytest", *arguments[1:]] if testing else ["-P", "-m", "studio", "ui", *arguments]
    command = [str(python), *started]
    if os.name != "nt":
        os.execv(command[0], command)
    return subprocess.call(command)


def wants_cpu_torch(system: str, has_gpu: bool, cpu_only: bool) -> bool:
    """On Linux, PyPI's PyTorch brings CUDA along: gigabytes that are of no use without a GPU."""
    return system == "linux" and (cpu_only or not has_gpu)


def has_nvidia_gpu() -> bool:
    devices = ("/dev/nvidia0", "/proc/driver/nvidia")
    return any(Path(device).exists() for device in devices) or shutil.which("nvidia-smi") is not None


if __name__ == "__main__":
    sys.exit(main())
