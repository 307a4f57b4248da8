"""What is done to several images at once, and to the crop of one: undone as one, and only what a page can mean."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from studio.core.errors import DatasetError
from studio.core.paths import UserData
from studio.datasets.opened import OpenedDataset
from studio.datasets.query import STARRED, DatasetQuery
from studio.datasets.rows import Bucket, assign_bucket
from studio.datasets.session import DatasetSession
from studio.ui.datasets.browser import changed_facets, read_facets, render_page
from studio.ui.datasets.detail import Subject, move_crop
from studio.ui.datasets.html import large_picture
from studio.ui.datasets.selected import SelectedAct, do, read_act, toggle_excluded
from tests.datasets.bad_inputs import encoded, picture
from tests.datasets.rows import make_facts

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


@pytest.mark.parametrize("shown_excluded", [False, True])
def test_the_button_does_to_all_what_it_says_of_the_image_that_is_shown(
    session: DatasetSession, shown_excluded: bool
) -> None:
    opened = session.opened
    opened.set_excluded(["a.png" if shown_excluded else "b.png"], True)
    asked = Subject("shoes", "a.png", beyond=False, selected=("a.png", "b.png", "c.png"))
    assert toggle_excluded(opened, asked) == (1 if shown_excluded else 2)
    assert [row.excluded for row in opened.rows] == [not shown_excluded] * 3


def test_where_the_image_that_is_shown_is_not_selected_one_excluded_of_several_is_not_all(
    session: DatasetSession,
) -> None:
    opened = session.opened
    opened.set_excluded(["a.png", "b.png"], True)
    asked = Subject("shoes", "a.png", beyond=False, selected=("b.png", "c.png"))
    assert toggle_excluded(opened, asked) == 1
    assert toggle_excluded(opened, asked) == 2
    assert [row.excluded for row in opened.rows] == [True, False, False]


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
    assert changed_facets(one, pressed=BOOTS) == "[]", "pressed again, it is released"
    assert changed_facets("no JSON", pressed='{"name": "no such"}') == "[]"
    assert changed_facets(one, dropped="7") == changed_facets(one, dropped="x") == one
    assert changed_facets(one, dropped="0") == "[]"
    rendered = render_page(session, DatasetQuery(facets=read_facets(one)))
    assert "Most frequent words: <b>boots</b>" in rendered["chips"]
    assert render_page(session, DatasetQuery())["chips"] == ""


def moved(session: DatasetSession, focus: object, *, key: str = "a.png", dataset: str = "shoes") -> None:
    move_crop(session, SimpleNamespace(dataset=dataset, key=key, focus=focus))  # type: ignore[arg-type]


def test_the_crop_is_drawn_where_it_was_moved_and_back_in_the_centre(session: DatasetSession) -> None:
    row = session.opened.row("a.png")
    facts = make_facts(width=200, height=100)
    path = Path(row.path)
    Image.new("RGB", (200, 100), "red").save(path)

    def drawn() -> str:
        now = replace(session.opened.row("a.png"), facts=facts)
        fit = assign_bucket(200, 100, (Bucket(64, 64),), focus=now.focus)
        return large_picture(session, now, fit)

    assert "left:25.00%;top:0.00%;width:50.00%;height:100.00%" in drawn()
    assert 'data-free="x"' in drawn()
    moved(session, [0.9, 0.5])
    assert "left:50.00%;top:0.00%" in drawn()
    assert "centre it" in drawn()
    moved(session, None)
    assert "left:25.00%;top:0.00%" in drawn()
    assert "centre it" not in drawn()


@pytest.mark.parametrize("focus", ["x", [0.5], [0.5, 1.5], [float("nan"), 0.5], {"x": 1}])
def test_a_place_outside_the_image_is_refused(session: DatasetSession, focus: object) -> None:
    with pytest.raises(DatasetError, match="Reload"):
        moved(session, focus)
    with pytest.raises(DatasetError, match=r"no image gone\.png"):
        moved(session, [0.5, 0.5], key="gone.png")
    assert session.opened.row("a.png").focus is None


def test_a_tag_waits_for_captions_that_are_not_complete(session: DatasetSession) -> None:
    opened = session.change_recipe(session.opened.recipe.model_copy(update={"template": "{orientation} shoe"}))
    with pytest.raises(DatasetError, match="not complete yet"):
        do(opened, act("tag", "a.png", tag="red"))
    assert not opened.next_undo
