"""The form of a dataset's layout and template, and the table of captions: what is read of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.core.errors import DatasetError
from studio.core.paths import UserData
from studio.datasets.session import DatasetSession
from studio.ui.datasets.bulk import read_table, save_table
from studio.ui.datasets.recipe import NONE, fill, read_recipe
from tests.datasets.bad_inputs import encoded, picture


@pytest.fixture
def session(tmp_path: Path) -> Iterator[DatasetSession]:
    """Two images with caption files, and a table of one that is not read."""
    source = tmp_path / "shoes"
    source.mkdir()
    for name in "ab":
        (source / f"{name}.png").write_bytes(encoded(picture(), "PNG"))
        (source / f"{name}.txt").write_text(f"found {name}", encoding="utf-8")
    (source / "table.csv").write_text("file,model\na.png,Runner\n", encoding="utf-8")
    made = DatasetSession(UserData(tmp_path / "user_data"), count_tokens=len)
    made.open_folder(str(source))
    assert made.opened.reading.layout == "sidecar"
    yield made
    made.close()


def form(session: DatasetSession, **changed: object) -> dict[str, object]:
    shown = {name: value["value"] if isinstance(value, dict) else value for name, value in fill(session).items()}
    return {**shown, "row_column": NONE, **changed}


def test_a_template_for_the_columns_of_another_layout_is_applied_with_it(session: DatasetSession) -> None:
    with pytest.raises(DatasetError, match="'model', which is not there"):
        read_recipe(session, form(session, template="{model} shoe"))
    session.change_recipe(read_recipe(session, form(session, layout="table", template="{model} shoe")))
    assert session.opened.row("a.png").caption == "Runner shoe"


def test_a_template_that_another_layout_has_not_either_is_refused(session: DatasetSession) -> None:
    before = session.opened.recipe
    wrong = read_recipe(session, form(session, layout="table", template="{price}"))
    with pytest.raises(DatasetError, match="'price', which is not there"):
        session.change_recipe(wrong)
    assert session.opened.recipe == session.library.recipe("shoes") == before
    assert [row.caption for row in session.opened.rows] == ["found a", "found b"]


def test_of_the_table_only_what_was_typed_is_saved(session: DatasetSession) -> None:
    shown = {row.key: row.caption for row in session.opened.rows}
    session.opened.set_caption("b.png", "changed meanwhile")
    typed = read_table([["a.png", "typed"], ["b.png", "found b"]])
    assert save_table(session, typed, shown) == 1
    assert [row.caption for row in session.opened.rows] == ["typed", "changed meanwhile"]
    assert save_table(session, read_table([["a.png", None], ["b.png", "found b"]]), typed) == 1
    assert session.opened.row("a.png").caption == ""
