"""The command line as a whole: light to import, imported by nothing, and what a wheel lacks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from studio.cli.options import lora_choices, lora_name
from studio.core.paths import CHECKOUT_FOLDER, assets_folder

STUDIO = CHECKOUT_FOLDER / "studio"
COMMANDS = {"ui", "smoke", "generate", "compare", "dataset", "train", "batch", "export", "score", "jobs", "doctor"}
HEAVY = {"torch", "diffusers", "transformers", "gradio", "numpy", "scipy", "PIL", "psutil", "filelock", "tokenizers"}


def python(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A Python of its own that takes the studio from `folder` and works elsewhere."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-P", *words], capture_output=True, text=True, env=environment, cwd="/", check=False
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a wheel installs it: without what lies beside it."""
    folder = tmp_path_factory.mktemp("site-packages")
    shutil.copytree(STUDIO, folder / "studio", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "studio" / "assets").symlink_to(assets_folder())
    return folder


@pytest.mark.process
def test_importing_the_app_loads_nothing_heavy() -> None:
    program = "import sys, studio.cli.app; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(python("-c", program, folder=CHECKOUT_FOLDER).stdout.split())
    assert {"typer", "pydantic", "bench"} <= loaded
    heavy = {
        "torch",
        "diffusers",
        "transformers",
        "gradio",
        "numpy",
        "scipy",
        "PIL",
        "psutil",
        "filelock",
        "tokenizers",
    }
    assert not loaded & heavy


# Says, when torch is about to be imported, who waits for the device and whether garbage is collected; ends there.
AT_TORCH = """
import gc, sys
from pathlib import Path
from studio.cli.app import app

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            waiting = Path(sys.argv[1]).glob("device.waiting/*")
            print(*(file.read_text() for file in waiting), gc.isenabled())
            raise SystemExit

sys.meta_path.insert(0, Finder())
app([*sys.argv[2:], "--user-data", sys.argv[1]])
"""


@pytest.mark.process
@pytest.mark.parametrize("kind", ["train", "batch"])
def test_a_job_asks_for_the_device_before_it_imports_torch(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / {"train": "runs", "batch": "batches"}[kind] / "shoes"
    folder.mkdir(parents=True)
    for name in ("settings.json", "batch.json"):
        (folder / name).write_text("{}")
    done = python("-c", AT_TORCH, str(tmp_path), kind, str(folder), folder=CHECKOUT_FOLDER)
    assert "shoes" in done.stdout, done.stderr
    assert done.stdout.split()[-1] == "False"


@pytest.mark.process
def test_generate_collects_no_garbage_while_it_imports_torch(tmp_path: Path) -> None:
    done = python("-c", AT_TORCH, str(tmp_path), "generate", "shoes", folder=CHECKOUT_FOLDER)
    assert done.stdout.split() == ["False"], done.stderr


def test_nothing_else_imports_the_command_line() -> None:
    importing = re.compile(r"^\s*(from|import) studio\.cli\b", re.MULTILINE)
    paths = [path for path in STUDIO.rglob("*.py") if importing.search(path.read_text(encoding="utf-8"))]
    importers = {path.relative_to(STUDIO).parts[0] for path in paths}
    assert importers == {"cli", "__main__.py"}


@pytest.mark.process
def test_a_checkout_has_every_command_and_bench() -> None:
    done = python("-m", "studio", "bench", "--help", folder=CHECKOUT_FOLDER)
    assert done.returncode == 0, done.stderr
    assert "Measure the studio beside its peers" in done.stdout
    words = python("-m", "studio", "--help", folder=CHECKOUT_FOLDER).stdout.split()
    assert {*COMMANDS, "version", "bench"} <= {*words}


@pytest.mark.process
@pytest.mark.parametrize("options", [(), ("--runs", "3", "--only", "shipped")])
def test_an_installed_studio_says_that_bench_needs_a_checkout(installed: Path, options: tuple[str, ...]) -> None:
    (installed / "bench").mkdir(exist_ok=True)  # a stranger's package of that name is left alone
    (installed / "bench" / "__init__.py").write_text("raise SystemExit('not ours')")
    done = python("-m", "studio", "bench", *options, folder=installed)
    assert done.returncode == 2
    assert done.stderr.startswith("bench is not part of an installed LoRA Studio")
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_an_installed_studio_has_every_other_command(installed: Path) -> None:
    done = python("-m", "studio", "--help", folder=installed)
    assert done.returncode == 0, done.stderr
    assert {*COMMANDS, "version"} <= {*done.stdout.split()}
    assert "bench" not in done.stdout.split()


# Marks whatever goes through gettext, and prints what does not of all that `--help` shows.
WITHOUT_TRANSLATION = """
import gettext, typer, studio.core.language as language

class Marks(gettext.NullTranslations):
    def gettext(self, message):
        return f"<{message}>"

language.catalogue = lambda tag: Marks()
from studio.cli.app import app

def walk(command, path):
    for parameter in command.params:
        record = parameter.get_help_record(typer.Context(command, info_name=path))
        if record and "<" not in record[1]:
            print(path, *record)
    if not (command.help or "").startswith("<"):
        print(path, command.help)
    for name, inner in getattr(command, "commands", {}).items():
        if name != "bench":  # for those who have the source; it speaks English
            walk(inner, f"{path} {name}")

walk(typer.main.get_command(app), "studio")
"""


@pytest.mark.process
def test_every_help_text_can_be_translated() -> None:
    done = python("-c", WITHOUT_TRANSLATION, folder=CHECKOUT_FOLDER)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_a_lora_on_the_command_line_is_a_name_or_a_file_in_any_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "a b.SAFETENSORS"
    assert {lora_name(text) for text in (str(file), f"'{file}'", file.as_uri(), file.name)} == {str(file)}
    assert lora_choices(["white-ground:0.5", f"{file}:0.8", "x: y"]) == (
        {"name": "white-ground", "strength": "0.5"},
        {"name": str(file), "strength": "0.8"},
        {"name": "x: y"},
    )
