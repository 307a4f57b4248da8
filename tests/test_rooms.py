"""Imports point one way, and the page's process never loads torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

STUDIO = Path(__file__).resolve().parent.parent / "studio"
HEAVY = ("torch", "diffusers", "transformers", "peft", "accelerate")

# Who may not import whom, by the start of the module's name (ARCHITECTURE.md tells why).
FORBIDDEN = {
    "studio.core": ("studio.images", "studio.jobs", "studio.datasets", "studio.engine", "studio.ui", "gradio"),
    "studio.images": ("studio.jobs", "studio.datasets", "studio.engine", "studio.training", "studio.ui", "gradio"),
    "studio.jobs": (
        "studio.images",
        "studio.datasets",
        "studio.engine",
        "studio.training",
        "studio.batches",
        "studio.ui",
    ),
    "studio.datasets": ("studio.engine", "studio.training", "studio.batches", "studio.ui", "gradio"),
    "studio.engine": ("studio.training", "studio.batches", "studio.ui", "gradio"),
    "studio.training": ("studio.batches", "studio.ui", "studio.cli", "gradio"),
    "studio.batches": ("studio.ui", "studio.cli", "gradio"),
    "studio.ui": ("studio.training.torch", "studio.batches.torch", "studio.cli", "bench"),
}


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


def belongs(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    paths = [path for path in STUDIO.rglob("*.py") if belongs(module_name(path), room)]
    assert paths
    for path in paths:
        if module_name(path) == "studio.engine.process.worker":
            continue  # the engine process itself: it is what imports the engine
        wrong = {name for name in imported_names(path) for other in FORBIDDEN[room] if belongs(name, other)}
        assert not wrong, f"{module_name(path)} imports {sorted(wrong)}"


def test_tabs_do_not_import_each_other() -> None:
    for path in (STUDIO / "ui").glob("*/tab.py"):
        wrong = {
            name
            for name in imported_names(path)
            if name.startswith("studio.ui.") and name.endswith(".tab") and "shell" not in path.parts
        }
        assert not wrong, path.name


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


def test_the_page_never_imports_torch() -> None:
    modules = loaded_modules("import studio.ui.shell.app, studio.ui.shell.server, studio.cli.app")
    assert "gradio" in modules
    assert not modules & set(HEAVY)


def test_planning_a_batch_loads_neither_torch_nor_gradio() -> None:
    modules = loaded_modules("import studio.batches.plan, studio.batches.settings")
    assert "numpy" in modules
    assert not modules & {*HEAVY, "gradio"}


def test_the_engine_does_import_torch_so_the_test_above_can_fail() -> None:
    assert {"torch", "diffusers"} <= loaded_modules("import studio.engine.pipeline")


def test_starting_the_engine_process_is_heard_of_before_torch_is_loaded() -> None:
    assert not loaded_modules("import studio.engine.process.worker") & set(HEAVY)


def test_importing_has_no_effects(tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    code = f"import os; os.chdir({str(tmp_path)!r}); import studio.ui.shell.server, studio.engine.process.client"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(STUDIO.parent)})
    assert set(tmp_path.iterdir()) == before
