"""Deleting what a person made: a button, one question that names what goes, and the system's trash."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.text import template
from studio.ui.shell.parts import QUIET, toast, toasts

_template = template("ui/templates/shell.html")


@dataclass(frozen=True)
class TrashBox:
    """The question, which belongs to the one page that asked it: no refresh touches it."""

    question: gr.Row
    words: gr.HTML
    about: gr.Textbox
    really: gr.Button
    keep: gr.Button


def build(name: str) -> TrashBox:
    """Lay the question out, hidden; the button that asks it stands where its page wants it."""
    with gr.Row(visible=False, elem_id=f"{name}-trash", elem_classes="question") as question:
        words = gr.HTML(elem_id=f"{name}-trash-words", padding=False)
        about = gr.Textbox(visible=False)
        really = gr.Button("Delete", elem_id=f"{name}-trash-really", size="sm", variant="stop", min_width=96)
        keep = gr.Button("Keep", elem_id=f"{name}-trash-not", size="sm", min_width=96)
    return TrashBox(question, words, about, really, keep)


@dataclass(frozen=True)
class Question:
    """Whether to delete something.

    Attributes:
        about: its name or path, as whoever deletes it takes it.
        name: as people know it.
        what: what goes with it, in a sentence.
    """

    about: str
    name: str
    what: str

    @property
    def words(self) -> Markup:
        return _template("status", bold=f"Delete {self.name}?", sentence=self.what)


def wire(
    box: TrashBox,
    asked: Callable[..., Any],
    about: gr.components.Component | None,
    *,
    find: Callable[..., Question],
    delete: Callable[[str], str],
) -> Any:  # noqa: ANN401 - gradio's Dependency
    """Connect the question.

    Args:
        asked: the event that asks it, with `about` as its input.
        find: the question, from the inputs of `asked`.
        delete: moves that away, and says where it is now.

    Returns:
        the event of the deletion.
    """

    @wraps(find)  # Gradio looks at its parameters
    def ask(*values: Any) -> dict[Any, Any]:  # noqa: ANN401 - the inputs of `asked`
        with toasts():
            question = find(*values)
            return {box.question: gr.update(visible=True), box.words: question.words, box.about: question.about}

    def really(about: str) -> Any:  # noqa: ANN401 - gradio's update
        with toasts():
            toast(delete(about))
        return gr.update(visible=False)

    asked(ask, about, [box.question, box.words, box.about], **QUIET)
    box.keep.click(lambda: gr.update(visible=False), None, box.question, **QUIET)
    return box.really.click(really, box.about, box.question, **QUIET)
