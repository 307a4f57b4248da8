"""The page is sent only what it does not show already."""

import gradio as gr

from studio.ui.parts import any_changed, changed_parts


def test_a_new_page_gets_everything() -> None:
    updates, seen = changed_parts({"a": "one", "b": gr.update(interactive=True)}, None)
    assert updates == ["one", gr.update(interactive=True)]
    assert set(seen) == {"a", "b"}


def test_a_timer_that_starts_or_stops_is_a_change() -> None:
    _, seen = changed_parts({"timer": gr.update(active=False)}, None)
    updates, _ = changed_parts({"timer": gr.update(active=True)}, seen)
    assert updates == [gr.update(active=True)]


def test_what_did_not_change_is_skipped() -> None:
    _, seen = changed_parts({"a": "one", "b": "two"}, None)
    updates, _ = changed_parts({"a": "one", "b": "TWO"}, seen)
    assert updates == [gr.skip(), "TWO"]


def test_a_page_with_foreign_memory_gets_everything() -> None:
    updates, _ = changed_parts({"a": "one"}, {"a": "something else"})
    assert updates == ["one"]


def test_whether_anything_else_changed_is_told_until_it_was_sent() -> None:
    _, seen = changed_parts({"step": "1", "picture": "a"}, None)
    assert not any_changed({"step": "2", "picture": "a"}, seen, but=("step",))
    assert any_changed({"step": "2", "picture": "b"}, seen, but=("step",))
    _, seen = changed_parts({"step": "2", "picture": "b"}, seen)
    assert not any_changed({"step": "3", "picture": "b"}, seen, but=("step",))
