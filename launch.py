"""Sets LoRA Studio up in `.venv` beside this file, then starts it or runs its tests; `--help` says how.

Standard library only. Python 3.6 has to be able to run it as far as its message for old Pythons: hence the
quoted annotations, and the late imports of launch_venv.py and launch_pip.py, which do the setting up.
launch_words.py has what it says in other languages.
"""

import io
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.dont_write_bytecode = True  # nothing is written outside .venv
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # it is not there under PYTHONSAFEPATH

from launch_words import N_, USAGE, _

# The tests by what they cost, each with pytest's arguments for it. tests/conftest.py gives most their markers.
EVEN = ("-n", "logical", "--maxprocesses", "8", "--dist", "worksteal")
TIERS = {
    "fast": ("-m", "not process and not browser and not slow", *EVEN),
    "process": ("-m", "process and not slow", *EVEN),
    "browser": ("-m", "browser and not slow", *EVEN),
    "slow": ("-m", "slow", *EVEN),
}
TITLES = {
    "fast": N_("== The fast tests"),
    "process": N_("== The process tests"),
    "browser": N_("== The browser tests"),
    "slow": N_("== The slow tests"),
}


def main() -> int:
    root = Path(__file__).resolve().parent
    is_mac = sys.platform == "darwin"
    refusal = refuse_mac(platform.machine(), platform.mac_ver()[0], has_apple_silicon()) if is_mac else ""
    refusal = refusal or refuse_old_python(sys.version_info[:3], sys.executable)
    if refusal:
        print(refusal, file=sys.stderr)
        return 1
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every console can show "…" or the folder's name
    try:
        return run(root, sys.argv[1:])
    except KeyboardInterrupt:
        print("\n" + _("Stopped. Run launch.py again to continue."))
        return 130


def refuse_mac(machine: str, macos: str, apple_silicon: bool) -> str:
    """Returns what to say where PyTorch has no build for this Mac, or for the Python in use on it; else nothing.

    The wheels of PyTorch 2.13 are tagged macosx_14_0_arm64. A Python that was built with an old SDK says 10.16 for
    every newer macOS, which is no reason to refuse.
    """
    if machine != "arm64" and not apple_silicon:
        return _(
            "LoRA Studio needs a Mac with Apple silicon and macOS 14 or newer, because PyTorch does; this Mac has an"
            " Intel processor. Nothing was installed."
        )
    if macos and macos != "10.16" and int(macos.split(".")[0]) < 14:
        return _(
            "LoRA Studio needs a Mac with Apple silicon and macOS 14 or newer, because PyTorch does; this is macOS"
            " {macos}. Update macOS in System Settings, then run launch.py again.",
            macos=macos,
        )
    if machine != "arm64":
        return _(
            "LoRA Studio needs a Mac with Apple silicon and macOS 14 or newer, because PyTorch does; this Mac will do,"
            " but this Python runs as an Intel program (under Rosetta). Run it with arch -arm64 python3 launch.py. If"
            " that fails, install Python for Apple silicon from python.org first."
        )
    return ""


def has_apple_silicon() -> bool:
    """Asks the system: to a process under Rosetta, platform.machine() says x86_64."""
    command = ["/usr/sbin/sysctl", "-in", "sysctl.proc_translated", "hw.optional.arm64"]
    return b"1" in subprocess.Popen(command, stdout=subprocess.PIPE).communicate()[0].split()


def refuse_old_python(version: "tuple[int, ...]", executable: str) -> str:
    """Returns what to say when this Python is too old, with the command to use instead; else nothing."""
    if version[:2] >= (3, 11):
        return ""
    advice = _("Install Python 3.11 from python.org or your package manager, and run it with python3.11 launch.py")
    for name in ("python3.13", "python3.12", "python3.11"):
        # Try it: version managers put commands on PATH for Pythons that are not there.
        if shutil.which(name) and subprocess.call([name, "-c", ""], stderr=subprocess.DEVNULL) == 0:
            advice = _("Run it with {name} launch.py", name=name)
            break
    found = ".".join(str(number) for number in version)
    return _(
        "LoRA Studio needs Python 3.11 or newer; this is {found} at {executable}. {advice}",
        found=found,
        executable=executable,
        advice=advice,
    )


def run(root: Path, arguments: "list[str]") -> int:
    """Sets up what is missing, then becomes the studio or pytest (on Windows: waits for it)."""
    import launch_pip
    import launch_venv

    testing = arguments[:1] == ["test"]
    if not testing and {"-h", "--help"} & set(arguments):
        print(_(USAGE))
        return 0
    extras = ["test"] if testing else []
    cpu_torch = wants_cpu_torch(sys.platform, has_nvidia_gpu(), "--cpu" in arguments and not testing)
    try:
        python = launch_venv.prepare(root / ".venv", extras=extras, cpu_torch=cpu_torch)
    except launch_pip.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    if testing:
        os.chdir(root)
    for name in ("PYTHONPATH", "PYTHONHOME"):  # other programs' packages, or another Python's
        os.environ.pop(name, None)
    if testing and arguments[1:] in ([], ["--all"]):
        return run_tiers(str(python), [*TIERS] if arguments[1:] else ["fast"])
    # -P: a folder named studio where the user happens to be is not ours.
    started = ["-m", "pytest", *arguments[1:]] if testing else ["-P", "-m", "studio", "ui", *arguments]
    command = [str(python), *started]
    if os.name != "nt":
        os.execv(command[0], command)
    return subprocess.call(command)


def run_tiers(python: str, names: "list[str]") -> int:
    """Runs each tier in a pytest of its own, and returns the first exit code that is not 0, if any."""
    codes = []
    for name in names:
        print(_(TITLES[name]), flush=True)
        process = subprocess.Popen([python, "-m", "pytest", *TIERS[name]])
        try:
            codes.append(process.wait())
        except KeyboardInterrupt:
            return process.wait()  # pytest has heard it too, and ends what it has started
    if names == ["fast"]:
        print(
            _(
                "These were the fast tests. `python launch.py test --all` runs those that start processes,\n"
                "those in a browser and the slow ones too; `python launch.py test tests/engine` runs all in a folder."
            )
        )
    return next((code for code in codes if code), 0)


def wants_cpu_torch(system: str, has_gpu: bool, cpu_only: bool) -> bool:
    """On Linux, PyPI's PyTorch brings CUDA along: gigabytes that are of no use without a GPU."""
    return system == "linux" and (cpu_only or not has_gpu)


def has_nvidia_gpu() -> bool:
    devices = ("/dev/nvidia0", "/proc/driver/nvidia")
    return any(Path(device).exists() for device in devices) or shutil.which("nvidia-smi") is not None


if __name__ == "__main__":
    sys.exit(main())
