"""What is done to several images at once: those that are selected in the grid, and the one whose star is pressed.

Which are selected is known to the page's script alone.
"""

from collections.abc import Callable
from typing import Any

import gradio as gr
from pydantic import ValidationError

from studio.core.errors import DatasetError
from studio.core.files import read_text
from studio.core.language import N_, _
from studio.core.paths import assets_folder
from studio.core.records import Record
from studio.core.text import counted, template
from studio.datasets.bulk import changed_captions, tags_of, with_tag, without_tag
from studio.datasets.opened import OpenedDataset
from studio.datasets.session import DatasetSession
from studio.ui.datasets.detail import Subject
from studio.ui.shell.parts import QUIET, toast, toasts

_template = template("ui/templates/datasets.html")


class SelectedAct(Record):
    """What was pressed, and of which images: names that came from a browser."""

    act: str
    dataset: str
    keys: tuple[str, ...]
    tag: str = ""


def build() -> gr.HTML:
    """Lay the bar out; it is shown while images are selected."""
    script = read_text(assets_folder() / "selected.js")
    return gr.HTML(_template("selected"), elem_id="dataset-selected", padding=False, js_on_load=script)


def read_act(event: gr.EventData) -> SelectedAct:
    """
    Raises:
        DatasetError: where the page sent something else.
    """
    sent = {name: getattr(event, name, None) for name in ("act", "dataset", "keys", "tag")}
    try:
        return SelectedAct.model_validate({name: value for name, value in sent.items() if value is not None})
    except ValidationError as error:
        raise DatasetError(_("The page does not say which images are meant. Reload it.")) from error


def do(opened: OpenedDataset, asked: SelectedAct) -> int:
    """Do it to all of them, to be undone as one; how many changed.

    Raises:
        DatasetError: where an image is gone, there is no such act, or a tag is missing.
        OSError: where it cannot be saved; nothing is changed then.
    """
    switches: dict[str, Callable[[], int]] = {
        "exclude": lambda: opened.set_excluded(asked.keys, True),
        "include": lambda: opened.set_excluded(asked.keys, False),
        "star": lambda: opened.set_starred(asked.keys, True),
        "unstar": lambda: opened.set_starred(asked.keys, False),
        "tag": lambda: _change_tags(opened, asked, with_tag, N_("“{tag}” added to {captions}")),
        "untag": lambda: _change_tags(opened, asked, without_tag, N_("“{tag}” removed from {captions}")),
    }
    if asked.act not in switches:
        raise DatasetError(_("There is nothing like {act!r} to do.", act=asked.act))
    return switches[asked.act]()


def toggle_excluded(opened: OpenedDataset, asked: Subject) -> int:
    """Exclude the images of a press, or include them, as its button says of the one that is shown; how many changed.

    Raises:
        DatasetError: where there is none, or it is gone.
    """
    named = (asked.key,) if asked.key in asked.keys else asked.keys
    excluded = all(opened.row(key).excluded for key in named)
    return opened.set_excluded(asked.keys, not excluded)


def report(opened: OpenedDataset, num_changed: int) -> None:
    """Say what was done to several images; of one it is seen."""
    if num_changed > 1:
        toast(_("Done: {what}. Ctrl or ⌘ + Z undoes it.", what=opened.next_undo), duration=5)


def _change_tags(opened: OpenedDataset, asked: SelectedAct, change: Callable[[str, str], str], message: str) -> int:
    if not tags_of(asked.tag):
        raise DatasetError(_("Type the tag first."))
    rows = [opened.row(key) for key in dict.fromkeys(asked.keys)]
    changed = changed_captions(rows, lambda caption: change(caption, asked.tag))
    if not changed:
        raise DatasetError(_("No caption of {images} would change.", images=counted(len(rows), "image", "images")))
    captions_changed = counted(len(changed), "caption", "captions")
    return opened.set_captions(changed, what=_(message, tag=asked.tag.strip(), captions=captions_changed))


def wire(bar: gr.HTML, session: DatasetSession, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the bar and the stars."""

    def act(event: gr.EventData) -> None:
        with toasts():
            asked = read_act(event)
            opened = session.named(asked.dataset).opened
            report(opened, do(opened, asked))

    then_refresh(bar.click(act, None, None, **QUIET, trigger_mode="multiple"))
