"""The caption's box: what the page's script is told, and what it may ask."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from studio.core.paths import UserData
from studio.datasets.query import DatasetQuery
from studio.datasets.session import DatasetSession
from studio.ui.datasets.browser import render_page
from studio.ui.datasets.detail import Subject, read_subject, render_row, saver
from tests.datasets.bad_inputs import encoded, picture

HOSTILE = "\"'><img src=x onerror=alert(1)> &amp;"


@pytest.fixture
def session(tmp_path: Path) -> Iterator[DatasetSession]:
    source = tmp_path / "shoes"
    source.mkdir()
    for name in "abc":
        (source / f"{name}.png").write_bytes(encoded(picture(), "PNG"))
        (source / f"{name}.txt").write_text(f"found {name}", encoding="utf-8")
    made = DatasetSession(UserData(tmp_path / "user_data"), count_tokens=len)
    made.open_folder(str(source))
    yield made
    made.close()


def typed(key: str, text: str, *, dataset: str = "shoes", number: int = 1) -> dict[str, object]:
    return {"dataset": dataset, "key": key, "text": text, "page": "one", "number": number}


def test_each_caption_is_saved_or_refused_by_itself(session: DatasetSession) -> None:
    answer = saver(session)(
        [typed("a.png", "new a"), typed("gone.png", "x"), typed("b.png", "x", dataset="gone"), typed("c.png", "c")]
    )
    assert [(saved["key"], saved["caption"], saved["number"]) for saved in answer["saved"]] == [
        ("a.png", "new a", 1),
        ("c.png", "c", 1),
    ]
    assert answer["saved"][0]["words"] == "5 of 75 tokens · from your edit"
    assert [(refused["dataset"], refused["key"]) for refused in answer["refused"]] == [
        ("shoes", "gone.png"),
        ("gone", "b.png"),
    ]
    assert "has no image gone.png" in answer["refused"][0]["sentence"]
    assert [row.caption for row in session.opened.rows] == ["new a", "found b", "c"]


def test_of_several_captions_the_longest_is_counted(session: DatasetSession) -> None:
    (saved,) = saver(session)([typed("a.png", "a boot || a red boot")])["saved"]
    assert saved["words"].startswith("10 of 75 tokens")
    assert not saved["over"]
    (saved,) = saver(session)([typed("a.png", f"{'a' * 50} || {'b' * 50}", number=2)])["saved"]
    assert not saved["over"]
    (saved,) = saver(session)([typed("a.png", f"a || {'b' * 80}", number=3)])["saved"]
    assert saved["over"]


def test_a_full_disk_is_said_of_each_caption(session: DatasetSession) -> None:
    (session.library.place("shoes") / "edits.jsonl").mkdir()  # cannot be written
    answer = saver(session)([typed("a.png", "new")])
    assert not answer["saved"]
    assert answer["refused"][0]["sentence"]
    assert session.opened.row("a.png").caption == "found a"


@pytest.mark.parametrize("wrong", [{}, {**typed("a.png", "x"), "more": 1}, {**typed("a.png", "x"), "text": None}])
def test_what_is_no_caption_is_not_taken(session: DatasetSession, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        saver(session)([typed("b.png", "new b"), wrong])
    assert session.opened.row("b.png").caption == "found b"


@pytest.mark.parametrize("said", [None, "a.png", [], {"key": 3}, {"beyond": "yes"}])
def test_a_subject_may_be_anything(session: DatasetSession, said: object) -> None:
    subject = read_subject(said)
    assert not subject.beyond
    assert render_row(session, subject, shown_file="")["caption"]["row"]["gone"]


def test_a_row_is_of_the_dataset_that_the_page_shows_or_of_none(session: DatasetSession) -> None:
    reported = render_row(session, Subject("shoes", "a.png"), shown_file="")["caption"]["row"]
    assert (reported["caption"], reported["stamp"], reported["gone"]) == ("found a", session.stamp, False)
    reported = render_row(session, Subject("another", "a.png"), shown_file="")["caption"]["row"]
    assert (reported["dataset"], reported["key"], reported["gone"]) == ("another", "a.png", True)


def test_the_grid_brings_whole_captions_and_the_images_next_to_it_escaped(session: DatasetSession) -> None:
    session.opened.set_caption("b.png", HOSTILE)
    html = render_page(session, DatasetQuery(per_page=1, page=2))["grid"]
    assert 'data-dataset="shoes"' in html
    assert f'data-stamp="{json.dumps(session.stamp)}"' in html
    assert '<span class="beyond" hidden data-key="a.png" data-caption="found a"' in html
    assert '<span class="beyond" hidden data-key="c.png" data-caption="found c"' in html
    assert html.count("<img src=x") == 0
    assert 'data-caption="&#34;&#39;&gt;&lt;img src=x onerror=alert(1)&gt; &amp;amp;"' in html
