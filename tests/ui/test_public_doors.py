"""The page uses Gradio by its public doors alone, so that another patch version of it cannot break the studio."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

UI = Path(__file__).resolve().parents[2] / "studio" / "ui"
PUBLIC = ("gradio", "gradio.components", "gradio.themes")
OUR_OWN = ("self", "cls")


def reaches(source: str) -> Iterator[str]:
    """Modules inside Gradio that are imported, and private names that are taken from what is not `self`."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        yield from (name for name in names if name.split(".")[0] == "gradio" and name not in PUBLIC)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner not in OUR_OWN:
                yield f"{owner}.{node.attr}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from gradio.routes import App", ["gradio.routes"]),
        ("import gradio.queueing", ["gradio.queueing"]),
        ("page._queue.sleep_when_free = 1", ["page._queue"]),
        ("files = event._data", ["event._data"]),
        ("import gradio as gr\nself._page = gr.themes.Base()", []),
    ],
)
def test_a_reach_inside_is_seen(source: str, expected: list[str]) -> None:
    assert list(reaches(source)) == expected


def test_nothing_of_gradios_inside_is_used() -> None:
    found = {path.name: names for path in UI.rglob("*.py") if (names := list(reaches(path.read_text("utf-8"))))}
    assert found == {}
