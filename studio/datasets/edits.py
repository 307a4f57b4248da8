"""A user's edits of a dataset, one by one or in bulk: captions, exclusions, converted copies. Saved, undone.

A change is on the disk when it is done. The log is a file of JSON lines that is only ever appended to, so that a kill
loses nothing that was said to be saved, and undo still works after a restart.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from studio.core.errors import DatasetError
from studio.core.files import read_file
from studio.core.language import N_, _
from studio.core.records import Record
from studio.datasets.source import Focus, SkippedFile
from studio.images.records import Problem

ValueT = TypeVar("ValueT")
TYPING_PAUSE = timedelta(seconds=10)
"""Captions typed into one image with no longer pause than this are undone together."""


class TextChange(Record):
    """Before and after; None: as the source has it."""

    before: str | None
    after: str | None


class SwitchChange(Record):
    """Before and after."""

    before: bool
    after: bool


class FocusChange(Record):
    """Before and after; None: the centre."""

    before: Focus | None
    after: Focus | None


class Edit(Record):
    """One change, of one image or of thousands, that is undone as one.

    Attributes:
        what: in words, for the undo button: `caption of a.png`, `replaced "shoe" in 12 captions`.
        made_at: when, in UTC.
        captions, excluded, converted, starred, focus: what changed, by the image's key. `converted` holds names of
            files in the dataset's own folder that are read in place of the source's.
    """

    what: str
    made_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    captions: Mapping[str, TextChange] = {}
    excluded: Mapping[str, SwitchChange] = {}
    converted: Mapping[str, TextChange] = {}
    starred: Mapping[str, SwitchChange] = {}
    focus: Mapping[str, FocusChange] = {}

    @property
    def keys(self) -> tuple[str, ...]:
        """Of every image that it changes."""
        return (*self.captions, *self.excluded, *self.converted, *self.starred, *self.focus)


class _Line(Record):
    """One line of the log: a new edit, one that goes on from the last, or a step back or forth among them."""

    act: Literal["do", "amend", "undo", "redo"]
    edit: Edit | None = None


class EditLog:
    """All edits of one dataset, and what they come to. Not safe for threads: its owner holds a lock.

    Attributes:
        captions: by key, where the user's differs from the source's.
        excluded: keys that the user took out.
        converted: by key, the name of the copy that is read instead.
        starred: keys that the user marked.
        focus: by key, around which the crop lies that the user moved.
        damaged: lines of the file that could not be understood; they are left in the file.
    """

    def __init__(self, path: Path) -> None:
        """Read the log, if there is one.

        Raises:
            OSError: where it cannot be read.
        """
        self._path = path
        self._begin_again()
        self.refresh()

    def _begin_again(self) -> None:
        self._done: list[Edit] = []
        self._undone: list[Edit] = []
        self.captions: dict[str, str] = {}
        self.excluded: set[str] = set()
        self.converted: dict[str, str] = {}
        self.starred: set[str] = set()
        self.focus: dict[str, Focus] = {}
        self.damaged: list[SkippedFile] = []
        self._ends_whole = True
        self._num_bytes = 0

    def refresh(self) -> bool:
        """Read the log again where another process wrote to it, as a command does; whether it did.

        Raises:
            OSError: where it cannot be read.
        """
        if (self._path.stat().st_size if self._path.is_file() else 0) == self._num_bytes:
            return False
        self._begin_again()
        self._replay(read_file(self._path))
        return True

    def apply(self, edit: Edit) -> None:
        """Make a change and write it down.

        Raises:
            OSError: where it cannot be written; nothing is changed then.
        """
        line = _Line(act="amend" if self._is_typed_on(edit) else "do", edit=edit)
        self._append(line)
        self._take(line)

    @property
    def next_undo(self) -> str:
        """What undo would take back, in words; "" where there is nothing."""
        return self._done[-1].what if self._done else ""

    @property
    def next_redo(self) -> str:
        """What redo would do again, in words; "" where there is nothing."""
        return self._undone[-1].what if self._undone else ""

    def undo(self) -> Edit:
        """Take the last change back.

        Raises:
            DatasetError: where there is none.
            OSError: where it cannot be written; nothing is changed then.
        """
        if not self._done:
            raise DatasetError(_("There is nothing to undo."))
        edit = self._done[-1]
        self._append(_Line(act="undo"))
        self._take(_Line(act="undo"))
        return edit

    def redo(self) -> Edit:
        """Do the change again that was taken back last.

        Raises:
            DatasetError: where there is none.
            OSError: where it cannot be written; nothing is changed then.
        """
        if not self._undone:
            raise DatasetError(_("There is nothing to redo."))
        edit = self._undone[-1]
        self._append(_Line(act="redo"))
        self._take(_Line(act="redo"))
        return edit

    def _is_typed_on(self, edit: Edit) -> bool:
        """Whether it goes on with typing into the caption that the last edit typed into."""
        if not self._done or self._undone or len(edit.captions) != 1 or len(edit.keys) != 1:
            return False
        last = self._done[-1]
        same = last.keys == edit.keys and last.captions.keys() == edit.captions.keys()
        return same and last.what == edit.what and edit.made_at - last.made_at <= TYPING_PAUSE

    def _append(self, line: _Line) -> None:
        """Write one line, all of it or none: a write that fails half-way is cut off again."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        content = line.model_dump_json(exclude_defaults=False).encode() + b"\n"
        with self._path.open("ab") as file:
            end = file.tell()
            try:
                file.write((b"" if self._ends_whole else b"\n") + content)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self._path, end)
                raise
            self._num_bytes = file.tell()
        self._ends_whole = True

    def _replay(self, content: bytes) -> None:
        self._num_bytes = len(content)
        *lines, rest = content.split(b"\n")
        for number, line in enumerate([*lines, *([rest] if rest else [])], start=1):
            try:
                self._take(_Line.model_validate_json(line))
            except (ValidationError, DatasetError):
                self.damaged.append(_damaged_line(self._path.name, number))
        self._ends_whole = not rest

    def _take(self, line: _Line) -> None:
        """Do what a line says, without writing it."""
        if line.act in ("do", "amend") and line.edit is not None:
            self._perform(line.edit)
            before = self._done.pop() if line.act == "amend" and self._done else None
            self._done.append(_joined(before, line.edit) if before else line.edit)
            self._undone.clear()
        elif line.act == "undo" and self._done:
            edit = self._done.pop()
            self._perform(_inverse(edit))
            self._undone.append(edit)
        elif line.act == "redo" and self._undone:
            edit = self._undone.pop()
            self._perform(edit)
            self._done.append(edit)
        else:
            raise DatasetError(_("The line takes something back or makes it again, and there is nothing."))

    def _perform(self, edit: Edit) -> None:
        _change(self.captions, {key: change.after for key, change in edit.captions.items()})
        _change(self.converted, {key: change.after for key, change in edit.converted.items()})
        _change(self.focus, {key: change.after for key, change in edit.focus.items()})
        for keys, changes in ((self.excluded, edit.excluded), (self.starred, edit.starred)):
            keys |= {key for key, change in changes.items() if change.after}
            keys -= {key for key, change in changes.items() if not change.after}


def _damaged_line(name: str, number: int) -> SkippedFile:
    sentence = _(
        "This line of the dataset's edits cannot be read, so what it changed is not in effect. "
        "Check whether a caption or an exclusion is missing."
    )
    problem = Problem(code=N_("edit unreadable"), severity="note", sentence=sentence)
    return SkippedFile(name=_("{name} line {number}", name=name, number=number), problem=problem)


def _change(values: dict[str, ValueT], changes: Mapping[str, ValueT | None]) -> None:
    for key, after in changes.items():
        if after is None:
            values.pop(key, None)
        else:
            values[key] = after


def _inverse(edit: Edit) -> Edit:
    return Edit(
        what=edit.what,
        captions={key: TextChange(before=c.after, after=c.before) for key, c in edit.captions.items()},
        excluded={key: SwitchChange(before=c.after, after=c.before) for key, c in edit.excluded.items()},
        converted={key: TextChange(before=c.after, after=c.before) for key, c in edit.converted.items()},
        starred={key: SwitchChange(before=c.after, after=c.before) for key, c in edit.starred.items()},
        focus={key: FocusChange(before=c.after, after=c.before) for key, c in edit.focus.items()},
    )


def _joined(first: Edit, second: Edit) -> Edit:
    """Two edits of one caption as one: before as the first found it, after as the second left it."""
    ((key, change),) = second.captions.items()
    whole = TextChange(before=first.captions[key].before, after=change.after)
    return second.model_copy(update={"captions": {key: whole}})
