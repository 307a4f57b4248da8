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
    "studio.engine": (
        "studio.engine_process",
        "studio.training",
        "studio.batches",
        "studio.ui",
        "studio.bench",
        "gradio",
    ),
    "studio.dataset": ("studio.engine", "studio.engine_process", "studio.training", "studio.ui", "gradio"),
    "studio.batches": (
        "studio.engine",
        "studio.engine_process",
        "studio.synthesis",
        "studio.training",
        "studio.jobs",
        "studio.ui",
        "gradio",
    ),
    "studio.synthesis": ("studio.engine_process", "studio.bench", "studio.ui", "gradio"),
    "studio.jobs": ("studio.engine", "studio.synthesis", "studio.training", "studio.ui", "gradio"),
    "studio.runs": ("studio.engine", "studio.engine_process", "studio.training", "studio.ui", "gradio"),
    "studio.batches.plan": ("studio.engine", "studio.engine_process", "studio.training", "studio.ui", "gradio"),
    "studio.training": ("studio.engine_process", "studio.bench", "studio.ui", "gradio"),
    "studio.scoring": ("studio.engine", "studio.engine_process", "studio.training", "studio.ui", "gradio"),
    "studio.ui": ("studio.engine", "studio.synthesis", "studio.training", "studio.bench"),
    "studio.engine_process": ("studio.ui", "studio.bench", "gradio"),
    "studio.settings": ("studio.engine", "studio.ui", "studio.jobs"),
    "studio.results": ("studio.engine", "studio.ui", "studio.jobs"),
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
        if module_name(path) == "studio.engine_process.main":
            continue  # the engine process itself: it is what imports the engine
        wrong = {name for name in imported_names(path) for other in FORBIDDEN[room] if belongs(name, other)}
        assert not wrong, f"{module_name(path)} imports {sorted(wrong)}"


def test_tabs_do_not_import_each_other() -> None:
    for path in (STUDIO / "ui").glob("*_tab.py"):
        wrong = {name for name in imported_names(path) if name.startswith("studio.ui.") and name.endswith("_tab")}
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


@pytest.mark.process
def test_the_page_never_imports_torch() -> None:
    modules = loaded_modules("import studio.ui.app, studio.ui.server, studio.__main__")
    assert "gradio" in modules
    assert not modules & set(HEAVY)


@pytest.mark.process
def test_planning_a_batch_loads_neither_torch_nor_a_parser_before_a_prompt_needs_one() -> None:
    modules = loaded_modules("import studio.batches.plan, studio.batch_settings")
    assert "numpy" in modules
    assert not modules & {*HEAVY, "gradio", "dynamicprompts", "pyparsing"}


@pytest.mark.process
def test_the_parser_of_prompts_loads_no_torch() -> None:
    modules = loaded_modules("import dynamicprompts.parser.parse")
    assert "pyparsing" in modules
    assert not modules & set(HEAVY)


@pytest.mark.process
def test_the_engine_does_import_torch_so_the_test_above_can_fail() -> None:
    assert {"torch", "diffusers"} <= loaded_modules("import studio.engine.pipeline")


@pytest.mark.process
def test_starting_the_engine_process_is_heard_of_before_torch_is_loaded() -> None:
    assert not loaded_modules("import studio.engine_process.main") & set(HEAVY)


@pytest.mark.process
def test_importing_has_no_effects(tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    code = f"import os; os.chdir({str(tmp_path)!r}); import studio.ui.server, studio.engine_process.client"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(STUDIO.parent)})
    assert set(tmp_path.iterdir()) == before
