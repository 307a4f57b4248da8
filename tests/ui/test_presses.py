"""Every press on the page with values that no page of ours sends: each is answered, or refused in a sentence."""

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.state_holder import SessionState

from studio.core.paths import UserData
from studio.core.settings import ModelSettings
from studio.engine.process.client import EngineClient
from studio.training.session import TrainingSession
from studio.ui.shell.app import build_app
from studio.ui.shell.parts import Refusal
from tests.ui.test_mutated_user_data import CheckedAtOnce

WRONG: tuple[object, ...] = (None, "../no such thing", -1, float("nan"), ["a", 2])
REQUEST = gr.Request(session_hash="abc")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[gr.Blocks]:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "python")

    monkeypatch.setattr(subprocess, "Popen", refuse)  # a press starts nothing here, and what it says then is seen too
    user_data = UserData(tmp_path / "user_data")
    user_data.root.mkdir()
    datasets = CheckedAtOnce(user_data, count_tokens=len)
    engine = EngineClient(user_data, model=ModelSettings(), cpu_only=True)
    yield build_app(engine, datasets, TrainingSession(user_data), user_data, cpu_only=True)
    datasets.close()


async def answer(page: gr.Blocks, function: Any, values: list[object], state: SessionState) -> str:  # noqa: ANN401
    """What the page says of a press; "" where it does what it should."""
    try:
        await page.process_api(function, values, request=REQUEST, state=state)
    except Refusal as refusal:
        return str(refusal.message)
    return ""


async def answers(page: gr.Blocks) -> list[tuple[str, object, str]]:
    """(function, value in all its inputs, what is said), of each function of the page once."""
    state = SessionState(page)
    functions = {(fn.name, len(fn.inputs)): fn for fn in page.fns.values() if fn.fn is not None}
    return [
        (function.name, value, await answer(page, function, [value] * len(function.inputs), state))
        for function in functions.values()
        for value in WRONG
    ]


def test_no_press_is_answered_with_a_bare_error_whatever_it_sends(page: gr.Blocks) -> None:
    said = asyncio.run(answers(page))
    assert len({name for name, *_ in said}) > 30
    for name, value, words in said:
        assert words == "" or re.fullmatch(r".{15,}[.?!”)]", words, re.DOTALL), (name, value, words)
    assert sum(bool(words) for *_, words in said) > 50, "most of them are refused"
