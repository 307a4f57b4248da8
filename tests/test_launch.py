"""launch.py and its modules, run for real on a tiny project whose packages lie in a folder: no network."""

import ast
import csv
import inspect
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from string import Formatter

import pytest

import launch
import launch_pip
import launch_venv
import launch_words
from studio.core.language import PORTUGUESE, language_of

pytestmark = pytest.mark.process

ROOT = Path(launch.__file__).parent
FILES = ("launch.py", "launch_venv.py", "launch_pip.py", "launch_words.py")

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "lora-studio"
version = "1.0"
"""

# Says that it has begun, and takes its time where the test has put a file named "slow".
BACKEND = """
import csv, io, time, zipfile
from pathlib import Path

{write_wheel}

def build_editable(folder, config_settings=None, metadata_directory=None):
    Path("building").touch()
    time.sleep(float(Path("slow").read_text()) if Path("slow").exists() else 0)
    needs = ["tiny-dependency", "tiny-test-runner ; extra == 'test'"]
    files = {{"lora_studio.pth": str(Path.cwd())}}
    return write_wheel(Path(folder), "lora_studio", "1.0", files, needs=needs).name
"""

STUDIO = """
import json, os, sys, tiny_dependency
print(json.dumps({"arguments": sys.argv[1:], "cwd": os.getcwd(), "prefix": sys.prefix, "file": __file__}))
sys.exit(7 if "--fail" in sys.argv or os.environ.get("FAIL", "?") in " ".join(sys.argv[1:]).split() else 0)
"""


def write_wheel(folder: Path, name: str, version: str, files: dict[str, str], needs: tuple[str, ...] = ()) -> Path:
    """Writes a wheel that pip accepts; its RECORD names the files without their hashes."""
    info = f"{name}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", "Provides-Extra: test"]
    files = {
        **files,
        f"{info}/METADATA": "\n".join([*metadata, *(f"Requires-Dist: {need}" for need in needs)]) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = io.StringIO()
    csv.writer(record).writerows([[file, "", ""] for file in [*files, f"{info}/RECORD"]])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record.getvalue()}.items():
            archive.writestr(file, text)
    return wheel


@dataclass(frozen=True)
class Project:
    """A folder with the real launch.py, and the environment it is started in."""

    folder: Path
    environment: dict[str, str]

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    @property
    def log(self) -> str:
        return (self.venv / "install.log").read_text()

    @property
    def packages(self) -> Path:
        return launch_pip.packages_in(self.venv)

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        """Starts launch.py in a session of its own, so that it can be killed with its children."""
        command = [sys.executable, str(self.folder / "launch.py"), *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder.parent,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored where the tests run with "&"
        )

    def launch(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        process = self.begin(*arguments)
        output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def report_of(finished: "subprocess.CompletedProcess[str]") -> dict[str, object]:
    """Returns what the tiny studio said when it started."""
    assert finished.returncode == 0, finished.stderr + finished.stdout
    report: dict[str, object] = json.loads(finished.stdout.splitlines()[-1])
    return report


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited 30 s in vain"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that was never set up."""
    place = tmp_path_factory.mktemp("launch")
    wheels = place / "wheels"
    wheels.mkdir()
    entry_points = {
        "tiny_dependency-1.0.dist-info/entry_points.txt": "[console_scripts]\ntiny = tiny_dependency:main\n"
    }
    write_wheel(wheels, "tiny_dependency", "1.0", {"tiny_dependency/__init__.py": "", **entry_points})
    write_wheel(wheels, "tiny_test_runner", "1.0", {"pytest/__init__.py": "", "pytest/__main__.py": STUDIO})

    folder = place / "fresh"
    (folder / "studio").mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "constraints.txt").write_text("tiny-dependency==1.0\n")
    (folder / "backend.py").write_text(BACKEND.format(write_wheel=inspect.getsource(write_wheel)))
    (folder / "studio" / "__init__.py").touch()
    (folder / "studio" / "__main__.py").write_text(STUDIO)

    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels.as_uri()}
    return Project(folder, kept | offline | {"TMPDIR": str(place)})  # where a killed pip leaves its files


@dataclass(frozen=True)
class FirstStart:
    project: Project
    finished: "subprocess.CompletedProcess[str]"
    copy: Path


@pytest.fixture(scope="module")
def first_start(fresh: Project) -> FirstStart:
    """A project set up and started once, and a copy of its folder to put back."""
    project = replace(fresh, folder=fresh.folder.with_name("my studio"))
    shutil.copytree(fresh.folder, project.folder)
    finished = project.launch()
    copy = fresh.folder.with_name("copy")
    shutil.copytree(project.folder, copy, symlinks=True)
    return FirstStart(project, finished, copy)


@pytest.fixture
def ready(first_start: FirstStart) -> Project:
    """The project as it was after its first start, for tests that leave it so."""
    return first_start.project


@pytest.fixture
def project(first_start: FirstStart) -> Iterator[Project]:
    """The project as it was after its first start; put back afterwards, in the same place."""
    yield first_start.project
    folder = first_start.project.folder
    shutil.rmtree(folder)
    shutil.copytree(first_start.copy, folder, symlinks=True, copy_function=link_or_copy)


def link_or_copy(source: str, target: str) -> None:
    """Copies what tests may change, and links pip's thousand files, which none does: half the time."""
    if any(f"/site-packages/{name}/" in source for name in ("pip", "setuptools")):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def unfinish(project: Project, *, slow_seconds: float = 0) -> None:
    """Makes the next start run pip."""
    (project.venv / "lora-studio.json").unlink()
    (project.folder / "building").unlink()
    (project.folder / "slow").write_text(str(slow_seconds))


def test_first_start_makes_a_venv_installs_and_starts_the_studio(first_start: FirstStart) -> None:
    report = report_of(first_start.finished)
    assert report["prefix"] == str(first_start.project.venv)
    assert [line.split(" in ")[0] for line in first_start.finished.stdout.splitlines()[:-1]] == [
        "Making a virtual environment",
        "Installing LoRA Studio and the other packages (about 250 MB) …",
    ]


def test_set_up_writes_to_venv_only(first_start: FirstStart) -> None:
    ours = {*FILES, "pyproject.toml", "constraints.txt", "backend.py", "studio"}
    made_by_our_backend = {"building", "__pycache__"}
    assert {entry.name for entry in first_start.copy.iterdir()} - made_by_our_backend == ours | {".venv"}
    assert not list(first_start.copy.glob("__pycache__/launch*"))


def test_second_start_does_not_run_pip(ready: Project) -> None:
    before = ready.log
    finished = ready.launch()
    assert report_of(finished)["arguments"] == ["ui"]
    assert finished.stdout.count("\n") == 1
    assert ready.log == before


def test_second_start_costs_a_fraction_of_a_second(ready: Project) -> None:
    def seconds(command: list[str]) -> float:
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=ready.environment)
        return time.perf_counter() - started

    # The quickest of several, for a busy machine makes any one of them slow.
    launched = min(seconds([sys.executable, str(ready.folder / "launch.py")]) for _ in range(8))
    direct = min(seconds([str(ready.venv / "bin/python"), "-P", "-m", "studio", "ui"]) for _ in range(8))
    assert launched - direct < 0.5


def test_options_go_to_the_studio_which_runs_where_the_user_is(ready: Project) -> None:
    options = ["--port", "7999", "--user-data", "my data", "--no-such-option"]
    report = report_of(ready.launch(*options))
    assert report["arguments"] == ["ui", *options]
    assert report["cwd"] == str(ready.folder.parent)


def test_exit_code_is_the_studios(ready: Project) -> None:
    assert ready.launch("--fail").returncode == 7


def test_help_names_both_commands_and_sets_nothing_up(fresh: Project) -> None:
    finished = fresh.launch("--port", "1", "--help")
    assert "python launch.py [--port N]" in finished.stdout
    assert "python launch.py test [--all | pytest's arguments]" in finished.stdout
    assert finished.returncode == 0
    assert not fresh.venv.exists()


def test_a_folder_named_studio_where_the_user_is_does_not_take_our_place(ready: Project) -> None:
    other = ready.folder.parent / "studio"
    other.mkdir()
    (other / "__init__.py").touch()
    (other / "__main__.py").write_text("print('not ours')")
    report = report_of(ready.launch())
    shutil.rmtree(other)
    assert report["file"] == str(ready.folder / "studio" / "__main__.py")


def test_packages_of_other_programs_do_not_take_the_place_of_ours(ready: Project, tmp_path: Path) -> None:
    (tmp_path / "tiny_dependency.py").write_text("raise ImportError('not ours')")
    elsewhere = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": sys.base_prefix}
    report_of(replace(ready, environment=ready.environment | elsewhere).launch())


def test_the_test_command_adds_what_the_tests_need_and_runs_pytest_in_the_project(project: Project) -> None:
    finished = project.launch("test", "-k", "some", "--help")
    assert "Repairing .venv: the tests need more packages." in finished.stdout
    report = report_of(finished)
    assert report["arguments"] == ["-k", "some", "--help"]
    assert report["cwd"] == str(project.folder)
    assert project.launch("test", "--fail").returncode == 7


def arguments_of(finished: "subprocess.CompletedProcess[str]") -> list[list[str]]:
    """Returns what each pytest was given; the tiny one says so in a line of its own."""
    return [json.loads(line)["arguments"] for line in finished.stdout.splitlines() if line.startswith("{")]


def test_the_tests_without_arguments_are_the_fast_ones_and_more_are_named(project: Project) -> None:
    finished = project.launch("test")
    assert finished.returncode == 0, finished.stderr
    assert arguments_of(finished) == [[*launch.TIERS["fast"]]]
    assert "launch.py test --all" in finished.stdout


def test_all_tests_are_run_tier_after_tier(project: Project) -> None:
    finished = project.launch("test", "--all")
    assert finished.returncode == 0, finished.stderr
    assert arguments_of(finished) == [[*arguments] for arguments in launch.TIERS.values()]


def test_a_tier_that_fails_keeps_no_other_from_running_and_is_the_exit_code(project: Project) -> None:
    failing = replace(project, environment=project.environment | {"FAIL": "process"})
    finished = failing.launch("test", "--all")
    assert finished.returncode == 7
    assert len(arguments_of(finished)) == len(launch.TIERS)


def test_start_without_the_tests_keeps_what_they_need(project: Project) -> None:
    report_of(project.launch("test", "-q"))
    log = project.log
    report_of(project.launch())
    assert project.log == log
    (project.folder / "constraints.txt").write_text("tiny-dependency<2\n")
    report_of(project.launch())
    log = project.log
    report_of(project.launch("test", "-q"))
    assert project.log == log


def test_kill_while_the_venv_is_being_made_is_survived(fresh: Project) -> None:
    process = fresh.begin()
    wait_until((fresh.venv / "pyvenv.cfg").exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    finished = fresh.launch()
    assert "Repairing .venv: the last set-up was interrupted." in finished.stdout
    report_of(finished)
    shutil.rmtree(fresh.venv)


def test_kill_while_pip_runs_is_survived(project: Project) -> None:
    unfinish(project, slow_seconds=30)
    process = project.begin()
    wait_until((project.folder / "building").exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (project.folder / "slow").unlink()
    finished = project.launch()
    assert "Repairing .venv: its set-up did not finish." in finished.stdout
    report_of(finished)


def test_pip_that_outlives_a_killed_launcher_is_waited_for(project: Project) -> None:
    unfinish(project, slow_seconds=0.5)
    process = project.begin()
    wait_until((project.folder / "building").exists)
    process.kill()
    process.wait()
    finished = project.launch()
    assert "Another launch.py is setting up .venv here: waiting for it to finish …" in finished.stdout
    report_of(finished)


def test_of_two_at_once_one_installs_and_the_other_waits_and_says_so(project: Project) -> None:
    unfinish(project, slow_seconds=0.5)
    installed_before = project.log.count(" install -e ")
    first = project.begin()
    wait_until((project.folder / "building").exists)
    second = project.launch()
    assert "Another launch.py is setting up .venv here: waiting for it to finish …" in second.stdout
    report_of(second)
    assert first.wait(timeout=30) == 0
    assert project.log.count(" install -e ") - installed_before == 1


def test_ctrl_c_stops_with_a_line_and_the_next_start_goes_on(project: Project) -> None:
    unfinish(project, slow_seconds=30)
    process = project.begin()
    wait_until((project.folder / "building").exists)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert output.endswith("\nStopped. Run launch.py again to continue.\n")
    assert errors == ""
    (project.folder / "slow").unlink()
    report_of(project.launch())


def test_venv_without_its_interpreter_is_made_again(project: Project) -> None:
    for python in project.venv.glob("bin/python*"):
        python.unlink()
    finished = project.launch()
    assert "Repairing .venv: its Python does not start." in finished.stdout
    report_of(finished)


def test_package_whose_files_are_gone_is_installed_again(project: Project) -> None:
    file = project.packages / "tiny_dependency" / "__init__.py"
    file.unlink()  # its folder stays, and its metadata
    finished = project.launch()
    assert "Repairing .venv: packages are missing (tiny_dependency)." in finished.stdout
    report_of(finished)
    assert file.exists()


def test_package_whose_installation_was_cut_short_is_installed_again(project: Project) -> None:
    unfinish(project)
    script = project.venv / "bin" / "tiny"
    script.unlink()  # pip makes scripts after the wheel's own files, RECORD included, and then completes RECORD
    record = project.packages / "tiny_dependency-1.0.dist-info" / "RECORD"
    lines = record.read_text().splitlines()
    record.write_text("\n".join(line for line in lines if "INSTALLER" not in line and "bin/" not in line))
    report_of(project.launch())
    assert script.exists()


def test_package_without_record_is_installed_again(project: Project) -> None:
    unfinish(project)
    (project.packages / "tiny_dependency-1.0.dist-info" / "RECORD").unlink()
    (project.packages / "tiny_dependency" / "__init__.py").write_text("raise ImportError('half a file')")
    report_of(project.launch())


def test_sound_packages_are_left_alone(project: Project) -> None:
    unfinish(project)
    (project.packages / "tiny_dependency" / "__init__.py").write_text("print('changed by hand')")
    assert "changed by hand" in project.launch().stdout


def test_changed_pins_are_installed(project: Project) -> None:
    (project.folder / "constraints.txt").write_text("tiny-dependency<2\n")
    finished = project.launch()
    assert "Repairing .venv: pyproject.toml or constraints.txt has changed." in finished.stdout
    report_of(finished)


def test_moved_folder_is_mended_without_pip(project: Project) -> None:
    before = project.log
    moved = replace(project, folder=project.folder.with_name("moved"))
    project.folder.rename(moved.folder)
    finished = moved.launch()
    again = moved.launch()
    pip_script = (moved.venv / "bin" / "pip").read_text()
    log = moved.log
    moved.folder.rename(project.folder)
    assert f"Repairing .venv: the folder has moved from {project.folder}." in finished.stdout
    assert report_of(finished)["file"] == str(moved.folder / "studio" / "__main__.py")
    assert again.stdout.count("\n") == 1
    assert str(moved.venv) in pip_script
    assert str(project.venv) not in pip_script
    assert log == before


def test_foreign_venv_folder_is_refused_and_left_alone(fresh: Project) -> None:
    fresh.venv.mkdir()
    (fresh.venv / "novel.txt").write_text("chapter one")
    finished = fresh.launch()
    left = {entry.name: entry.read_text() for entry in fresh.venv.iterdir()}
    shutil.rmtree(fresh.venv)
    assert left == {"novel.txt": "chapter one"}
    assert finished.returncode == 1
    assert finished.stderr == (
        f"{fresh.venv} must be a virtual environment or not be there, but it is something else; nothing in it was"
        " touched. Move it away and run launch.py again.\n"
    )


def test_file_named_venv_is_refused_and_left_alone(fresh: Project) -> None:
    fresh.venv.write_text("a file")
    finished = fresh.launch()
    left = fresh.venv.read_text()
    fresh.venv.unlink()
    assert left == "a file"
    assert finished.returncode == 1
    assert "must be a virtual environment or not be there" in finished.stderr


# What users set for other environments, and what would come of it here.
SETTINGS_FOR_OTHERS = {
    "constraint": "{folder}/other-constraints.txt",
    "target": "{folder}/target",
    "prefix": "{folder}/prefix",
    "root": "{folder}/root",
    "global": "true",
    "user": "true",
    "site": "true",
    "require-virtualenv": "true",
    "require-hashes": "true",
    "no-binary": ":all:",
    "no-deps": "true",
    "dry-run": "true",
    "python": "{folder}/python",
    "quiet": "3",
}


@pytest.mark.parametrize("section", ["global", "install", "environment"])
def test_settings_of_pip_for_other_environments_do_not_hold_here(
    project: Project, tmp_path: Path, section: str
) -> None:
    unfinish(project)
    shutil.rmtree(project.packages / "tiny_dependency-1.0.dist-info")
    (tmp_path / "other-constraints.txt").write_text("tiny-dependency==9\n")
    settings = {name: value.format(folder=tmp_path) for name, value in SETTINGS_FOR_OTHERS.items()}
    environment = dict(project.environment)
    if section == "environment":
        environment |= {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items()}
    else:
        settings |= {"no-index": environment.pop("PIP_NO_INDEX"), "find-links": environment.pop("PIP_FIND_LINKS")}
        configuration = tmp_path / "pip.conf"
        lines = [f"[{section}]", *(f"{name} = {value}" for name, value in settings.items())]
        configuration.write_text("\n".join(lines))
        environment["PIP_CONFIG_FILE"] = str(configuration)
    report_of(replace(project, environment=environment).launch())
    assert {entry.name for entry in tmp_path.iterdir()} <= {"other-constraints.txt", "pip.conf"}


def test_where_packages_come_from_is_the_users_to_say() -> None:
    listed = """
:env:.index-url='https://me:secret@three.example/simple'
:env:.target='/elsewhere'
global.constraint='/etc/constraints.txt'
global.extra-index-url='https://four.example\\nhttps://five.example'
global.index-url='https://one.example/simple'
global.no-index='true'
install.index-url='https://two.example/simple'
install.no-index='False'
"""
    assert launch_pip.respected_settings(listed) == {
        "PIP_INDEX_URL": "https://me:secret@three.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://four.example\nhttps://five.example",
    }


def test_the_log_names_the_users_settings_without_their_values(ready: Project) -> None:
    commands = [line for line in ready.log.splitlines() if line.startswith("$ ")]
    assert " PIP_FIND_LINKS PIP_NO_INDEX " in commands[-1]
    assert ready.environment["PIP_FIND_LINKS"] not in commands[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "could not reach the package index. Check the network connection"),
        ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "pip cannot use a SOCKS proxy, and ALL_PROXY or another proxy setting"),
        ({"ALL_PROXY": "socks://127.0.0.1:9/"}, "pip cannot use a SOCKS proxy, and ALL_PROXY or another proxy setting"),
        ({"PIP_NO_INDEX": "1"}, "pip is set to ask no package index (no-index), and its other sources lack a package"),
        ({"PIP_CONFIG_FILE": "backend.py"}, "pip's configuration has a mistake. Correct the file that is named below"),
    ],
)
def test_without_packages_the_message_says_why(project: Project, settings: dict[str, str], message: str) -> None:
    unfinish(project)
    shutil.rmtree(project.packages / "tiny_dependency-1.0.dist-info")
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_CONFIG_FILE": os.devnull}
    if "PIP_CONFIG_FILE" in settings:
        settings = {"PIP_CONFIG_FILE": str(project.folder / settings["PIP_CONFIG_FILE"])}
    ours = ("PIP_", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy")
    online = {name: value for name, value in project.environment.items() if not name.startswith(ours)}
    finished = replace(project, environment=online | nowhere | settings).launch()
    assert finished.returncode == 1
    assert f" failed: {message}" in finished.stderr
    assert "Traceback" not in finished.stderr
    if not settings:
        assert "\n  Looking in indexes: http://127.0.0.1:9/simple\n" in finished.stderr
        report_of(project.launch())


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("ERROR: Could not install: [Errno 28] Kein Platz mehr", "the disk is full: .* GB are left for .*Free about 3"),
        ("No usable temporary directory found in ['/tmp']", "the disk is full"),
        ("created successfully because ensurepip is not available", "sudo apt install python3.*-venv"),
        ("/usr/bin/python3: No module named venv", "this Python comes without pip"),
        ("[Errno 13] Keine Berechtigung: '/srv/.venv'", "writing in .* is not permitted. Make the folder yours"),
        ("connection broken by 'NewConnectionError(...)'\nNo matching distribution found", "the package index"),
        ("(Caused by ProxyError('Cannot connect to proxy.'))", "behind a proxy, set HTTPS_PROXY"),
        ("No matching distribution found for torch==2.13.0", r"no build for Python 3\.\d+ on this system \(\w+\)"),
        ("ERROR: ResolutionImpossible: for help visit …", r"no build for Python 3\.\d+ on this system \(\w+\), or"),
        ("Something else", "the reason is below.*\n  Something else\n"),
    ],
)
def test_usual_failures_are_explained(tmp_path: Path, output: str, message: str) -> None:
    error = launch_pip.explained("Installing", output, tmp_path / ".venv")
    with pytest.raises(launch_pip.SetupError, match=f"(?s)Installing failed: .*{message}.*install.log"):
        raise error


def test_too_little_disk_space_is_said_before_installing(tmp_path: Path) -> None:
    launch_pip.require_space(tmp_path, 1)
    message = r"needs about 1000000000 GB of free disk space, and .* has \d+\.\d GB. Free some and run"
    with pytest.raises(launch_pip.SetupError, match=message):
        launch_pip.require_space(tmp_path, 10**18)


@pytest.mark.parametrize(
    ("machine", "macos", "apple_silicon", "said"),
    [
        ("arm64", "14.0", True, ""),
        ("arm64", "26.1", True, ""),
        ("arm64", "14.6.1", False, ""),  # the system could not be asked
        ("arm64", "10.16", True, ""),  # "newer than 10.15", to a Python built long ago
        ("arm64", "", True, ""),
        ("arm64", "13.7.8", True, "; this is macOS 13.7.8. Update macOS in System Settings"),
        ("arm64", "11.0", True, "; this is macOS 11.0. Update macOS in System Settings"),
        ("x86_64", "15.1", False, "; this Mac has an Intel processor. Nothing was installed."),
        ("x86_64", "10.15.7", False, "; this Mac has an Intel processor. Nothing was installed."),
        ("x86_64", "10.16", True, "; this Mac will do, but this Python runs as an Intel program (under Rosetta)."),
        ("x86_64", "15.1", True, "; this Mac will do, but this Python runs as an Intel program (under Rosetta)."),
        ("x86_64", "12.5", True, "; this is macOS 12.5. Update macOS in System Settings"),
    ],
)
def test_macs_and_pythons_that_pytorch_is_not_built_for_are_told(
    machine: str, macos: str, apple_silicon: bool, said: str
) -> None:
    refusal = launch.refuse_mac(machine, macos, apple_silicon)
    rule = "LoRA Studio needs a Mac with Apple silicon and macOS 14 or newer, because PyTorch does"
    assert refusal.startswith(rule + said) if said else refusal == ""


def test_old_python_is_told_what_to_do() -> None:
    said = launch.refuse_old_python((3, 8, 10), "/usr/bin/python3.8")
    assert said.startswith("LoRA Studio needs Python 3.11 or newer; this is 3.8.10 at /usr/bin/python3.8.")
    assert said.endswith(("and run it with python3.11 launch.py", "13 launch.py", "12 launch.py", "11 launch.py"))
    assert launch.refuse_old_python((3, 11, 0), "") == ""
    assert launch.refuse_old_python((4, 0, 0), "") == ""


def test_launcher_names_a_newer_python_only_if_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, status in (("python3.13", 127), ("python3.12", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launch.refuse_old_python((3, 9, 1), "python").endswith(" Run it with python3.12 launch.py")
    (tmp_path / "python3.12").unlink()
    assert "Install Python 3.11" in launch.refuse_old_python((3, 9, 1), "python")


def test_launcher_gets_as_far_as_that_on_python_3_6() -> None:
    imported = {
        launch: ["io", "os", "platform", "shutil", "subprocess", "sys", "Path", "N_", "USAGE", "_"],
        launch_words: ["os"],
    }
    for module, expected in imported.items():
        tree = ast.parse(inspect.getsource(module), feature_version=(3, 6))
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [name.name for node in imports for name in node.names]
        assert names == expected, "all these were in Python 3.6, or are ours"
        annotations = [node.annotation for node in ast.walk(tree) if isinstance(node, ast.arg)]
        assert all(isinstance(annotation, ast.Constant | ast.Name) for annotation in annotations), "quote the new ones"


def is_translated(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("_", "N_")


def said_in(node: ast.AST) -> Iterator[str]:
    """Words in a call that go through no `_`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and any(map(str.isalpha, node.value)):
        yield node.value
    if not is_translated(node):
        for child in ast.iter_child_nodes(node):
            yield from said_in(child)


def test_every_sentence_that_the_launcher_says_has_its_translation() -> None:
    sentences = {launch_words.USAGE}
    for module in (launch, launch_venv, launch_pip):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if is_translated(node):
                assert isinstance(node, ast.Call)
                sentence = node.args[0]
                sentences |= {sentence.value} if isinstance(sentence, ast.Constant) else set()
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "SetupError", "Attempt"):
                assert not [words for argument in node.args for words in said_in(argument)], ast.unparse(node)
    assert sentences == {*launch_words.PORTUGUESE}


@pytest.mark.parametrize("english", [*launch_words.PORTUGUESE])
def test_a_translation_of_the_launcher_has_the_values_of_its_sentence(english: str) -> None:
    def values(text: str) -> set[str | None]:
        return {name for _literal, name, _form, _conversion in Formatter().parse(text)}

    assert values(launch_words.PORTUGUESE[english]) == values(english)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LANG": "pt_BR.UTF-8"},
        {"LANG": "pt"},
        {"LANG": "en_US.UTF-8"},
        {"LANG": "pt_BR.UTF-8", "LC_ALL": "C.UTF-8"},
        {"LANG": "de_DE", "LC_ALL": "", "LC_MESSAGES": "PT_pt"},
        {"LANG": "pt_BR.UTF-8", "STUDIO_LANGUAGE": "en"},
        {"LANG": "en_US.UTF-8", "STUDIO_LANGUAGE": "pt-BR"},
        {"LANG": "pt_BR.UTF-8", "STUDIO_LANGUAGE": ""},
        {"LANG": "ptx"},
    ],
    ids=str,
)
def test_the_launcher_speaks_the_language_of_the_studio(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name in ("STUDIO_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launch_words.speaks_portuguese() == (language_of(environment) == PORTUGUESE)


def test_the_launcher_says_it_in_portuguese(fresh: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = replace(fresh, environment=fresh.environment | {"STUDIO_LANGUAGE": "pt-BR"}).launch("--help")
    assert "Prepara o LoRA Studio em .venv" in finished.stdout
    monkeypatch.setenv("STUDIO_LANGUAGE", "pt-BR")
    assert launch.refuse_mac("x86_64", "14.1", False).endswith("este Mac tem um processador Intel. Nada foi instalado.")
    with pytest.raises(
        launch_pip.SetupError, match=r"^A preparação precisa de cerca de 1000000000 GB .* tem \d+,\d GB"
    ):
        launch_pip.require_space(fresh.folder, 10**18)


@pytest.mark.parametrize(
    ("system", "has_gpu", "cpu_only", "expected"),
    [
        ("linux", False, False, True),
        ("linux", True, False, False),
        ("linux", True, True, True),
        ("darwin", False, False, False),
        ("win32", False, True, False),
    ],
)
def test_cpu_build_is_for_linux_without_a_gpu_or_on_request(
    system: str, has_gpu: bool, cpu_only: bool, expected: bool
) -> None:
    assert launch.wants_cpu_torch(system, has_gpu, cpu_only) is expected


def test_cpu_build_is_sought_in_pips_own_sources_then_at_pytorch_then_given_up() -> None:
    attempts = launch_pip.torch_attempts("2.13.0", "linux", cpu_torch=True)
    assert [attempt.arguments[:4] for attempt in attempts] == [
        ["--no-deps", "torch==2.13.0+cpu"],
        ["--no-deps", "torch==2.13.0+cpu", "--extra-index-url", "https://download.pytorch.org/whl/cpu"],
        ["torch==2.13.0", "-c", "constraints.txt"],
    ]
    assert "several GB of CUDA" in attempts[-1].announcement


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_plain_build_takes_one_attempt(system: str) -> None:
    (attempt,) = launch_pip.torch_attempts("2.13.0", system, cpu_torch=False)
    assert attempt.arguments == ["torch==2.13.0", "-c", "constraints.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux are there two builds of PyTorch to choose from")
def test_torch_build_follows_what_is_wanted_and_there(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = project.folder / "torch"
    sources.mkdir()
    (project.folder / "constraints.txt").write_text("torch==1.0\n")
    plain = write_wheel(sources, "torch", "1.0", {"torch/__init__.py": ""})
    there = {"PIP_FIND_LINKS": f"{project.environment['PIP_FIND_LINKS']} {sources.as_uri()}"}
    project = replace(project, environment=project.environment | there)

    output = project.launch("--cpu").stdout
    assert "Installing PyTorch 1.0 for the CPU (about 200 MB) …\nNot from pip's own sources" in output
    assert "Not from there either: getting PyTorch with several GB of CUDA packages …\nInstalling LoRA Studio" in output
    assert (project.packages / "torch-1.0.dist-info").exists()

    write_wheel(sources, "torch", "1.0+cpu", {"torch/__init__.py": ""})
    unfinish(project)
    assert "Not from" not in project.launch("--cpu").stdout
    assert (project.packages / "torch-1.0+cpu.dist-info").exists()

    for wheel in set(sources.iterdir()) - {plain}:
        wheel.unlink()
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    assert launch_venv.examine(project.venv, [], cpu_torch=True) == ("", "")
    launch_venv.prepare(project.venv, extras=[], cpu_torch=False)
    assert [info.name for info in project.packages.glob("torch-*")] == ["torch-1.0.dist-info"]


@pytest.fixture
def real_pip(ready: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[launch_pip.Pip]:
    """The tiny project's own, run from here."""
    for name, value in ready.environment.items():
        monkeypatch.setenv(name, value)
    with (ready.folder / "launch.py").open() as lock:
        yield launch_pip.pip_of(ready.venv, lock.fileno())


def attempt(*arguments: str, needed_bytes: int = 0, expected: tuple[str, ...] = ()) -> launch_pip.Attempt:
    return launch_pip.Attempt(" ".join(arguments), [*arguments], needed_bytes, expected)


def test_any_failure_leads_on_to_the_next_way_to_install_pytorch(
    real_pip: launch_pip.Pip, capsys: pytest.CaptureFixture[str]
) -> None:
    contradiction = attempt("tiny-dependency==1.0", "tiny-dependency==2.0")
    no_reason_known = attempt("--no-such-option")
    launch_pip.install_torch(real_pip, [contradiction, no_reason_known, attempt("tiny-dependency"), attempt("never")])
    assert capsys.readouterr().out.splitlines() == [
        "tiny-dependency==1.0 tiny-dependency==2.0",
        "--no-such-option",
        "tiny-dependency",
    ]


def test_the_most_telling_failure_is_shown_and_all_are_in_the_log(ready: Project, real_pip: launch_pip.Pip) -> None:
    lacking = attempt("tiny-dependency==9", expected=(launch_pip.NO_INDEX,))
    offline = attempt("tiny-dependency==8", "--find-links", "http://127.0.0.1:9/", "--retries", "1")
    with pytest.raises(launch_pip.SetupError, match="could not reach the package index"):
        launch_pip.install_torch(real_pip, [lacking, offline, attempt("--no-such-option")])
    for reason in ("found for tiny-dependency==9", "found for tiny-dependency==8", "no such option: --no-such-option"):
        assert reason in ready.log


@pytest.mark.parametrize(
    ("causes", "reported"),
    [
        (["NO_BUILD", "NETWORK", ""], 2),  # the first two are no wonder
        (["NO_BUILD", "NETWORK", "NO_BUILD"], 2),
        (["NO_BUILD", "NETWORK", "NETWORK"], 2),
        (["NETWORK", "NO_BUILD", ""], 0),
        (["", "", "NO_BUILD"], 2),
        (["", "", ""], 2),
        (["NO_BUILD", "NETWORK", "DISK_FULL"], 2),
        (["NOT_PERMITTED"], 0),
    ],
)
def test_a_failure_that_was_to_be_expected_tells_least(causes: list[str], reported: int) -> None:
    attempts = launch_pip.torch_attempts("2.13.0", "linux", cpu_torch=True)
    errors = [launch_pip.SetupError(cause, getattr(launch_pip, cause) if cause else "") for cause in causes]
    failures = list(zip(attempts, errors, strict=False))
    assert launch_pip.most_telling(failures) is errors[reported]


def test_a_full_disk_ends_the_attempts(real_pip: launch_pip.Pip, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(launch_pip.SetupError, match="needs about 1000000000 GB of free disk space"):
        launch_pip.install_torch(real_pip, [attempt("first", needed_bytes=10**18), attempt("second")])
    assert capsys.readouterr().out == "first\n"
