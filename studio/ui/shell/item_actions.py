"""Keeping order in what a person made: a name and a note for it; deleting it.

Each has a quiet button, which opens one line in place: a name and a note to be written, or a question that names what
goes to the system's trash.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from annotated_types import MaxLen
from markupsafe import Markup

from studio.core.errors import StudioError
from studio.core.language import _
from studio.core.records import Label, label_or_none, read_label
from studio.core.text import template
from studio.jobs.session import FolderT, JobSession
from studio.jobs.words import title
from studio.ui.shell.parts import QUIET, paragraph, toast, toasts

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
        really = gr.Button(_("Delete"), elem_id=f"{name}-trash-really", size="sm", variant="stop", min_width=96)
        keep = gr.Button(_("Keep"), elem_id=f"{name}-trash-not", size="sm", min_width=96)
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
        return _template("status", bold=_("Delete {name}?", name=self.name), sentence=self.what)


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


def label_html(file: Path) -> Markup:
    """What a person called something, and noted on it, from the file that has it; empty where nobody did."""
    try:
        label = read_label(file)
    except StudioError as error:
        return paragraph("note bad", error)
    return Markup() if label == Label() else _template("label", label=label)


@dataclass(frozen=True)
class LabelBox:
    """The line in which a name and a note are written. It belongs to the one page that opened it, as `TrashBox`."""

    line: gr.Row
    name: gr.Textbox
    note: gr.Textbox
    star: gr.Checkbox
    about: gr.Textbox
    save: gr.Button
    cancel: gr.Button


def build_label(name: str, *, has_name: bool = True, has_star: bool = False, names_file: bool = False) -> LabelBox:
    """Lay the line out, hidden; the button that opens it stands where its page wants it.

    Args:
        names_file: the name is a file's, which may be longer than a label's.
    """
    longest = None if names_file else _length("name")
    with gr.Row(visible=False, elem_id=f"{name}-label", elem_classes="question label-line") as line:
        called = gr.Textbox(
            visible=has_name, max_lines=1, max_length=longest, elem_id=f"{name}-label-name", min_width=200
        )
        note = gr.Textbox(lines=1, max_lines=6, max_length=_length("note"), elem_id=f"{name}-label-note", min_width=240)
        star = gr.Checkbox(label=_("Star"), visible=has_star, elem_id=f"{name}-label-star", min_width=72)
        about = gr.Textbox(visible=False)
        save = gr.Button(_("Save"), elem_id=f"{name}-label-save", size="sm", min_width=84)
        cancel = gr.Button(_("Cancel"), elem_id=f"{name}-label-cancel", size="sm", min_width=84)
    return LabelBox(line, called, note, star, about, save, cancel)


def _length(field: str) -> int | None:
    """How many characters a label's field may have."""
    return next((rule.max_length for rule in Label.model_fields[field].metadata if isinstance(rule, MaxLen)), None)


@dataclass(frozen=True)
class Written:
    """What a person wrote in the line."""

    name: str
    note: str
    starred: bool

    def label(self) -> Label:
        """It as a label.

        Raises:
            SettingsError: where a text is too long, or holds characters that cannot be shown.
        """
        return Label.of(name=self.name, note=self.note, starred=self.starred)


@dataclass(frozen=True)
class Labelled:
    """What is to be named or noted on.

    Attributes:
        about: its name or path, as whoever names it takes it.
        shown: that in short, for the line's own labels.
        label: as it is now.
        can_be_named: whether more than its note can be changed.
    """

    about: str
    shown: str
    label: Label
    can_be_named: bool = True


def wire_label(
    box: LabelBox,
    asked: Callable[..., Any],
    about: gr.components.Component | None,
    *,
    find: Callable[..., Labelled],
    save: Callable[[str, Written], str],
) -> Any:  # noqa: ANN401 - gradio's Dependency
    """Connect the line.

    Args:
        asked: the event that opens it, with `about` as its input.
        find: what it is about, from the inputs of `asked`.
        save: takes what that is about, and what was written; what to say of it, "" where the page shows it.

    Returns:
        the event of the saving.
    """
    written = [box.name, box.note, box.star]

    @wraps(find)  # Gradio looks at its parameters
    def open_line(*values: Any) -> dict[Any, Any]:  # noqa: ANN401 - the inputs of `asked`
        with toasts():
            found = find(*values)
        return {
            box.line: gr.update(visible=True),
            box.name: gr.update(
                value=found.label.name, label=_("Name of {name}", name=found.shown), interactive=found.can_be_named
            ),
            box.note: gr.update(
                value=found.label.note, label=_("Note") if box.name.visible else _("Note on {name}", name=found.shown)
            ),
            box.star: found.label.starred,
            box.about: found.about,
        }

    def keep(about: str, *texts: Any) -> Any:  # noqa: ANN401 - gradio's values, and its update
        name, note, starred = texts
        with toasts():
            if said := save(str(about), Written(str(name or ""), str(note or ""), bool(starred))):
                toast(said)
        return gr.update(visible=False)

    asked(open_line, about, [box.line, *written, box.about], **QUIET)
    box.cancel.click(lambda: gr.update(visible=False), None, box.line, **QUIET)
    saving = [box.save.click, box.name.submit, box.note.submit]
    return gr.on(saving, keep, [box.about, *written], box.line, **QUIET)


def wire_job_label(
    box: LabelBox,
    asked: Callable[..., Any],
    selection: gr.components.Component,
    *,
    folder_of: Callable[[str], FolderT],
    session: JobSession[FolderT],
) -> Any:  # noqa: ANN401 - gradio's Dependency
    """Connect the line of a run or a batch: `folder_of` has the one that a page shows."""

    def find(selection: str) -> Labelled:
        folder = folder_of(selection)
        return Labelled(folder.name, title(folder), label_or_none(folder.label))

    def save(about: str, written: Written) -> str:
        session.set_label(session.named(about), written.label())
        return ""

    return wire_label(box, asked, selection, find=find, save=save)
