"""The page is sent only what it does not show already."""

import gradio as gr

from studio.ui.shell.parts import changed_parts


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
