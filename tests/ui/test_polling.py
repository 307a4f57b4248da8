"""What the page's script asks about while something goes on, and how it comes to know the rest."""

from collections.abc import Iterator

import gradio as gr
import pytest

from studio.ui.parts import Update
from studio.ui.polling import PageNow, Polling

Parts = dict[str, Update]
REQUEST = gr.Request(session_hash="abc")


@pytest.fixture
def parts() -> Parts:
    """What the page should show: the step is live, the button and the pictures are Gradio's."""
    return {"step": "1", "pictures": "a", "button": gr.update(interactive=True)}


@pytest.fixture
def polling(parts: Parts) -> Iterator[Polling]:
    with gr.Blocks():
        yield Polling(lambda: PageNow(parts, 1.0), {"pictures": gr.HTML(), "button": gr.Button()})


def rest_of(brought: str) -> str:
    """What the page's script takes from a refresh."""
    digest, session, _ = brought.split(" ")
    assert session == "abc"
    return digest


def test_a_live_part_is_sent_where_the_page_has_another_and_then_no_more(polling: Polling, parts: Parts) -> None:
    first = polling.live({"step": ""})
    assert first["parts"]["step"]["html"] == "1"
    has = {"step": first["parts"]["step"]["digest"]}
    assert polling.live(has)["parts"] == {}
    parts["step"] = "2"
    assert polling.live(has)["parts"]["step"]["html"] == "2"


def test_only_parts_that_are_in_the_page_are_sent(polling: Polling) -> None:
    assert polling.live({})["parts"] == {}
    assert polling.live({"nosuch": "", "step": 3})["parts"].keys() == {"step"}


def test_whatever_else_changes_is_brought_by_a_refresh(polling: Polling, parts: Parts) -> None:
    pictures, button, seen, brought = polling.refresh(None, REQUEST)
    assert (pictures, button) == ("a", gr.update(interactive=True))
    assert polling.live({})["rest"] == rest_of(brought)
    parts["step"] = "2"
    assert polling.live({})["rest"] == rest_of(brought), "which the script writes itself"
    parts["pictures"] = "b"
    assert polling.live({})["rest"] != rest_of(brought)
    pictures, button, seen, brought = polling.refresh(seen, REQUEST)
    assert (pictures, button) == ("b", gr.skip())
    assert polling.live({})["rest"] == rest_of(brought)


def test_an_answer_that_was_overtaken_hides_no_change(polling: Polling, parts: Parts) -> None:
    *_, seen, _ = polling.refresh(None, REQUEST)
    old = polling.refresh(seen, REQUEST)  # on its way
    parts["pictures"] = "b"
    polling.refresh(seen, REQUEST)
    assert polling.live({})["rest"] != rest_of(old[-1]), "it arrives last, and with it the old picture"


def test_the_script_hears_of_every_refresh(polling: Polling) -> None:
    *_, seen, first = polling.refresh(None, REQUEST)
    *_, second = polling.refresh(seen, REQUEST)
    assert first != second
    assert rest_of(first) == rest_of(second)


def test_the_script_is_told_when_to_ask_again(polling: Polling) -> None:
    assert polling.live({})["look_again_seconds"] == 1.0
