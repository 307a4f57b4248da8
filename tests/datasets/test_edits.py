"""Edits are on the disk when they are made, can be undone after a restart, and survive a torn last line."""

from datetime import timedelta
from pathlib import Path

import pytest

from studio.core.errors import DatasetError
from studio.datasets.bulk import with_tag, without_tag
from studio.datasets.edits import TYPING_PAUSE, Edit, EditLog, SwitchChange, TextChange


def caption(after: str, *, before: str | None = None, key: str = "a.png", what: str = "caption of a.png") -> Edit:
    return Edit(what=what, captions={key: TextChange(before=before, after=after)})


def test_an_edit_is_there_after_a_restart(tmp_path: Path) -> None:
    EditLog(tmp_path / "edits.jsonl").apply(caption("red shoe"))
    assert EditLog(tmp_path / "edits.jsonl").captions == {"a.png": "red shoe"}


def test_undo_and_redo_work_after_a_restart(tmp_path: Path) -> None:
    log = EditLog(tmp_path / "edits.jsonl")
    log.apply(caption("red shoe"))
    log.apply(Edit(what="excluded b.png", excluded={"b.png": SwitchChange(before=False, after=True)}))
    again = EditLog(tmp_path / "edits.jsonl")
    assert again.next_undo == "excluded b.png"
    again.undo()
    assert again.excluded == set()
    again.undo()
    assert again.captions == {}
    once_more = EditLog(tmp_path / "edits.jsonl")
    assert once_more.captions == {}
    once_more.redo()
    once_more.redo()
    assert once_more.captions == {"a.png": "red shoe"}
    assert once_more.excluded == {"b.png"}
    assert once_more.next_redo == ""


def test_a_bulk_edit_is_undone_as_one(tmp_path: Path) -> None:
    log = EditLog(tmp_path / "edits.jsonl")
    log.apply(Edit(what="all", captions={f"{i}.png": TextChange(before=None, after="x") for i in range(50)}))
    log.undo()
    assert log.captions == {}


def test_typing_on_in_one_caption_is_undone_as_one(tmp_path: Path) -> None:
    log = EditLog(tmp_path / "edits.jsonl")
    log.apply(caption("r"))
    log.apply(caption("re", before="r"))
    log.apply(caption("red", before="re"))
    assert EditLog(tmp_path / "edits.jsonl").captions == {"a.png": "red"}
    log.undo()
    assert log.captions == {}
    assert log.next_undo == ""
    assert EditLog(tmp_path / "edits.jsonl").captions == {}


def test_typing_after_a_pause_is_another_edit(tmp_path: Path) -> None:
    log = EditLog(tmp_path / "edits.jsonl")
    first = caption("red")
    log.apply(first)
    later = first.made_at + TYPING_PAUSE + timedelta(seconds=1)
    log.apply(caption("red shoe", before="red").model_copy(update={"made_at": later}))
    log.undo()
    assert log.captions == {"a.png": "red"}


def test_a_new_edit_forgets_what_was_undone(tmp_path: Path) -> None:
    log = EditLog(tmp_path / "edits.jsonl")
    log.apply(caption("red"))
    log.undo()
    log.apply(caption("blue"))
    assert log.next_redo == ""
    with pytest.raises(DatasetError, match="nothing to redo"):
        log.redo()


def test_nothing_to_undo_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nothing to undo"):
        EditLog(tmp_path / "edits.jsonl").undo()


def test_a_torn_last_line_costs_only_itself_and_is_said(tmp_path: Path) -> None:
    file = tmp_path / "edits.jsonl"
    log = EditLog(file)
    log.apply(caption("red", key="a.png"))
    log.apply(caption("blue", key="b.png", what="caption of b.png"))
    file.write_bytes(file.read_bytes()[:-20])
    torn = EditLog(file)
    assert torn.captions == {"a.png": "red"}
    assert [skipped_file.name for skipped_file in torn.damaged] == ["edits.jsonl line 2"]
    torn.apply(caption("green", key="c.png", what="caption of c.png"))
    assert EditLog(file).captions == {"a.png": "red", "c.png": "green"}


def test_an_edit_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "edits.jsonl"
    log = EditLog(file)
    log.apply(caption("red"))
    file.unlink()
    file.mkdir()
    with pytest.raises(OSError, match="directory"):
        log.apply(caption("blue", before="red"))
    assert log.captions == {"a.png": "red"}


def test_stars_are_kept_and_undone_as_exclusions_are(tmp_path: Path) -> None:
    path = tmp_path / "edits.jsonl"
    log = EditLog(path)
    star = SwitchChange(before=False, after=True)
    log.apply(Edit(what="starred 2 images", starred={"a.png": star, "b.png": star}))
    log.apply(Edit(what="unstarred b.png", starred={"b.png": SwitchChange(before=True, after=False)}))
    again = EditLog(path)
    assert (again.starred, again.excluded) == ({"a.png"}, set())
    again.undo()
    assert again.starred == {"a.png", "b.png"}
    again.undo()
    assert again.starred == set()


@pytest.mark.parametrize(
    ("caption", "tag", "with_it", "without_it"),
    [
        ("", "red", "red", ""),
        ("a shoe", "red", "a shoe, red", "a shoe"),
        ("a shoe, Red ,blue", "red", "a shoe, Red ,blue", "a shoe, blue"),
        ("reddish, red shoe", "red", "reddish, red shoe, red", "reddish, red shoe"),
        ("a, b", " b , c", "a, b, c", "a"),
    ],
)
def test_a_tag_is_a_whole_part_of_a_caption_in_any_case(caption: str, tag: str, with_it: str, without_it: str) -> None:
    assert with_tag(caption, tag) == with_it
    assert without_tag(caption, tag) == without_it
