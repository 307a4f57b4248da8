"""What is done to several images of a dataset at once: undone as one, and only what a page could have meant."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from studio.core.errors import DatasetError
from studio.core.paths import UserData
from studio.datasets.opened import OpenedDataset
from studio.datasets.query import STARRED, DatasetQuery
from studio.datasets.session import DatasetSession
from studio.ui.datasets.browser import changed_facets, read_facets, render_page
from studio.ui.datasets.selected import SelectedAct, do, read_act
from tests.datasets.bad_inputs import encoded, picture

BOOTS = '{"name": "word", "value": "boots"}'


@pytest.fixture
def session(tmp_path: Path) -> Iterator[DatasetSession]:
    source = tmp_path / "shoes"
    source.mkdir()
    for name in "abc":
        (source / f"{name}.png").write_bytes(encoded(picture(), "PNG"))
        (source / f"{name}.txt").write_text(f"found {name}, boots", encoding="utf-8")
    made = DatasetSession(UserData(tmp_path / "user_data"), count_tokens=len)
    made.open_folder(str(source))
    yield made
    made.close()


def act(name: str, *keys: str, tag: str = "") -> SelectedAct:
    return SelectedAct(act=name, dataset="shoes", keys=keys, tag=tag)


def captions(opened: OpenedDataset) -> list[str]:
    return [row.caption for row in opened.rows]


def test_each_act_is_about_all_and_undone_as_one(session: DatasetSession) -> None:
    opened = session.opened
    do(opened, act("exclude", "a.png", "c.png"))
    do(opened, act("star", "a.png", "b.png"))
    do(opened, act("tag", "b.png", "c.png", tag="red"))
    do(opened, act("untag", "a.png", "b.png", "c.png", tag="BOOTS"))
    assert captions(opened) == ["found a", "found b, red", "found c, red"]
    assert opened.next_undo == "“BOOTS” removed from 3 captions"
    opened.undo()
    opened.undo()
    assert captions(opened) == [f"found {name}, boots" for name in "abc"]
    assert [row.starred for row in opened.rows] == [True, True, False]
    assert opened.next_undo == "starred 2 images"
    opened.undo()
    assert [row.starred for row in opened.rows] == [False, False, False]
    assert [row.excluded for row in opened.rows] == [True, False, True]
    do(opened, act("include", "a.png", "b.png", "c.png"))
    assert not any(row.excluded for row in opened.rows)


def test_stars_are_on_the_thumbnails_and_filter(session: DatasetSession) -> None:
    do(session.opened, act("star", "b.png"))
    assert [row.key for row in session.opened.found(DatasetQuery(problem=STARRED))] == ["b.png"]
    grid = render_page(session, DatasetQuery())["grid"]
    assert grid.count('aria-pressed="true" aria-label="Star b.png"') == 1
    assert grid.count('aria-pressed="false" aria-label="Star') == 2
    do(session.opened, act("unstar", "b.png"))
    assert 'aria-pressed="true"' not in render_page(session, DatasetQuery())["grid"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (act("delete", "a.png"), "nothing like 'delete'"),
        (act("exclude", "gone.png"), "no image gone.png"),
        (act("tag", "a.png", tag=" , "), "Type the tag first"),
        (act("tag", "a.png", "b.png", tag="boots"), "No caption of 2 images would change"),
    ],
)
def test_what_cannot_be_done_changes_nothing(session: DatasetSession, asked: SelectedAct, why: str) -> None:
    with pytest.raises(DatasetError, match=why):
        do(session.opened, asked)
    assert session.opened.next_undo == ""


@pytest.mark.parametrize(
    "sent", [{}, {"act": "star", "dataset": "a", "keys": "a"}, {"act": 1, "dataset": 2, "keys": []}]
)
def test_a_press_without_names_is_refused(sent: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match="Reload"):
        read_act(SimpleNamespace(**sent))  # type: ignore[arg-type]


def test_bars_are_added_once_dropped_by_place_and_never_believed(session: DatasetSession) -> None:
    one = changed_facets("[]", pressed=BOOTS)
    assert changed_facets(one, pressed=BOOTS) == one
    assert changed_facets("no JSON", pressed='{"name": "no such"}') == "[]"
    assert changed_facets(one, dropped="7") == changed_facets(one, dropped="x") == one
    assert changed_facets(one, dropped="0") == "[]"
    rendered = render_page(session, DatasetQuery(facets=read_facets(one)))
    assert "Most frequent words: <b>boots</b>" in rendered["chips"]
    assert render_page(session, DatasetQuery())["chips"] == ""
