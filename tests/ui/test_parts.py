"""The page is sent only what it does not show already."""

import asyncio
import re

import gradio as gr
import pytest

from studio.core.errors import RunError
from studio.ui.shell.parts import PAGE_PROBLEMS, Group, Guard, Page, Part, Refusal, changed_parts


def test_a_new_page_gets_everything() -> None:
    updates, seen = changed_parts({"a": "one", "b": gr.update(interinteractive=True)}, None)
    assert updates == ["one", gr.update(interinteractive=True)]
    assert set(seen) == {"a", "b"}


def test_a_button_that_opens_or_closes_is_a_change() -> None:
    _, seen = changed_parts({"button": gr.update(interactive=False)}, None)
    updates, _ = changed_parts({"button": gr.update(interactive=True)}, seen)
    assert updates == [gr.update(interactive=True)]


def test_what_did_not_change_is_skipped() -> None:
    _, seen = changed_parts({"a": "one", "b": "two"}, None)
    updates, _ = changed_parts({"a": "one", "b": "TWO"}, seen)
    assert updates == [gr.skip(), "TWO"]


def test_a_page_with_foreign_memory_gets_everything() -> None:
    updates, _ = changed_parts({"a": "one"}, {"a": "something else"})
    assert updates == ["one"]


def test_what_a_part_raises_ends_that_part_alone_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    guard, fails = Guard(), True

    def odd() -> str:
        if fails:
            raise OverflowError("date <b>out</b> of range")
        return "right again"

    def gone() -> dict[str, Part]:
        raise RunError("The queue cannot be read.")

    groups: dict[str, Group] = {"The run": lambda: {"state": odd, "run": gr.update(value="a")}, "The queue": gone}
    for _ in range(3):
        parts = guard.parts(groups)
        assert parts["run"] == gr.update(value="a")
        assert "This part cannot be shown." in str(parts["state"])
        assert "OverflowError: date &lt;b&gt;out&lt;/b&gt; of range" in str(parts["state"])
        assert "The queue cannot be shown. The queue cannot be read." in str(parts[PAGE_PROBLEMS])
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
    fails = False
    assert guard.parts(groups)["state"] == "right again"
    fails = True
    guard.parts(groups)
    assert len(caplog.records) == 3, "it fails anew"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ZeroDivisionError("of ours"), "This should not have happened: ZeroDivisionError: of ours."),
        (RunError("No run is chosen."), "No run is chosen."),
        (PermissionError(13, "Permission denied", "/x"), "/x is not writable."),
        (Refusal("A sentence."), "A sentence."),
    ],
)
def test_no_press_is_answered_with_a_bare_error(error: Exception, words: str) -> None:
    def fail() -> None:
        raise error

    with Page() as page:
        gr.Button().click(fail)
    with pytest.raises(Refusal, match=re.escape(words)):
        asyncio.run(page.process_api(0, []))


def test_a_value_that_gradio_refuses_is_said_by_its_label_and_range() -> None:
    with Page() as page:
        slider = gr.Slider(1, 150, label="Steps")
        choice = gr.Dropdown(["a"], label="Run")
        gr.Button().click(print, [slider, choice])
    for values, words in (
        ([0, "a"], "Steps must be a number between 1 and 150, got 0."),
        ([None, "a"], "Steps must be a number between 1 and 150, got nothing."),
        ([4, "gone"], "Run cannot be used here, got &#x27;gone&#x27;."),
    ):
        with pytest.raises(Refusal, match=re.escape(words)):
            asyncio.run(page.process_api(0, values))
