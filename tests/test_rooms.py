"""What a process loads: the page's never loads torch. Who may import whom is import-linter's (pyproject.toml)."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

STUDIO = Path(__file__).resolve().parent.parent / "studio"
MAX_LINES = 350
MAX_FUNCTION_LINES = 60
HEAVY = ("torch", "diffusers", "transformers", "peft", "accelerate", "onnxruntime")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(STUDIO.parent).with_suffix("").parts).removesuffix(".__init__")


def imported_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_a_module_is_short_enough_to_be_read_whole() -> None:
    lengths = {module_name(path): path.read_text(encoding="utf-8").count("\n") for path in STUDIO.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_a_function_fits_on_a_screen() -> None:
    lengths = {
        f"{module_name(path)}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in STUDIO.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_tabs_do_not_import_each_other() -> None:
    for path in (STUDIO / "ui").glob("*/tab.py"):
        wrong = {name for name in imported_names(path) if name.startswith("studio.ui.") and name.endswith(".tab")}
        assert not wrong, module_name(path)


def loaded_modules(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after running the code."""
    output = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*{{m.partition('.')[0] for m in sys.modules}})"],
        capture_output=True,
        text=True,
        check=True,
        cwd=STUDIO.parent,
    ).stdout
    return set(output.splitlines()[-1].split())


@pytest.mark.process
def test_the_page_never_imports_torch() -> None:
    modules = loaded_modules("import studio.ui.shell.app, studio.ui.shell.server, studio.cli.app")
    assert "gradio" in modules
    assert not modules & set(HEAVY)


@pytest.mark.process
def test_planning_a_batch_loads_neither_torch_nor_gradio() -> None:
    modules = loaded_modules("import studio.batches.plan, studio.batches.settings")
    assert "numpy" in modules
    assert not modules & {*HEAVY, "gradio"}


@pytest.mark.process
def test_the_engine_does_import_torch_so_the_test_above_can_fail() -> None:
    assert {"torch", "diffusers"} <= loaded_modules("import studio.engine.pipeline")


@pytest.mark.process
def test_starting_the_engine_process_is_heard_of_before_torch_is_loaded() -> None:
    assert not loaded_modules("import studio.engine.process.worker") & set(HEAVY)


@pytest.mark.process
def test_importing_has_no_effects(tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    code = f"import os; os.chdir({str(tmp_path)!r}); import studio.ui.shell.server, studio.engine.process.client"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(STUDIO.parent)})
    assert set(tmp_path.iterdir()) == before


def test_the_files_that_architecture_names_are_there() -> None:
    page = (STUDIO.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`([\w./-]+/[\w.-]+)`", page) if not name.startswith("/")}
    assert len(named) > 30
    assert not {name for name in named if not any((folder / name).exists() for folder in (STUDIO, STUDIO.parent))}
