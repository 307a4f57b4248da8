"""The desk: what was open is open again after a restart; what cannot be opened leaves the one before."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.dataset.desk import DatasetDesk
from studio.dataset.intake import DroppedFile
from studio.errors import DatasetError
from studio.paths import UserData
from tests.dataset.bad_inputs import encoded, picture


def make_desk(folder: Path) -> DatasetDesk:
    return DatasetDesk(UserData(folder / "user_data"), count_tokens=len)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[DatasetDesk]:
    made = make_desk(tmp_path)
    yield made
    made.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "my shoes"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.png").write_bytes(encoded(picture(), "PNG"))
        (folder / f"{name}.txt").write_text(name, encoding="utf-8")
    return folder


def wait(desk: DatasetDesk) -> None:
    assert desk._check is not None
    desk._check.join(30)


def test_a_folder_is_opened_where_it_is_and_checked(desk: DatasetDesk, source: Path) -> None:
    opened = desk.open_folder(f" '{source}' ")
    wait(desk)
    assert opened.name == "my shoes"
    assert [row.is_used for row in opened.rows] == [True, True]
    assert not desk.view.active
    assert sorted(path.name for path in source.iterdir()) == ["a.png", "a.txt", "b.png", "b.txt"]


def test_the_same_folder_is_the_same_dataset_with_its_edits(desk: DatasetDesk, source: Path) -> None:
    desk.open_folder(str(source)).set_caption("a.png", "mine")
    assert desk.open_folder(str(source)).row("a.png").caption == "mine"
    assert desk.library.names() == ["my shoes"]


def test_what_was_open_is_open_after_a_restart(desk: DatasetDesk, source: Path, tmp_path: Path) -> None:
    desk.open_folder(str(source)).set_caption("a.png", "mine")
    again = make_desk(tmp_path)
    again.restore()
    assert again.opened.row("a.png").caption == "mine"
    again.close()


def test_a_source_that_is_gone_is_said_after_a_restart(desk: DatasetDesk, source: Path, tmp_path: Path) -> None:
    desk.open_folder(str(source))
    wait(desk)
    shutil.rmtree(source)
    again = make_desk(tmp_path)
    again.restore()
    assert not again.is_open
    assert "cannot be found" in again.view.problem


@pytest.mark.parametrize("typed", ["", "  ", "not/whole", "/nowhere/at/all"])
def test_a_path_that_leads_nowhere_leaves_what_is_open(typed: str, desk: DatasetDesk, source: Path) -> None:
    desk.open_folder(str(source))
    with pytest.raises(DatasetError):
        desk.open_folder(typed)
    assert desk.opened.name == "my shoes"


def test_a_folder_without_pictures_makes_no_dataset(desk: DatasetDesk, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no picture"):
        desk.open_folder(str(tmp_path / "empty"))
    assert desk.library.names() == []


def test_a_recipe_that_cannot_be_read_leaves_the_one_before(desk: DatasetDesk, source: Path) -> None:
    opened = desk.open_folder(str(source))
    wrong = opened.recipe.model_copy(update={"layout": opened.recipe.layout.model_copy(update={"layout": "fashion"})})
    with pytest.raises(DatasetError, match="no table"):
        desk.change_recipe(wrong)
    assert desk.opened is opened
    assert desk.library.recipe("my shoes") == opened.recipe


def test_a_changed_recipe_is_kept_and_shown(desk: DatasetDesk, source: Path) -> None:
    before = desk.view.version
    opened = desk.open_folder(str(source))
    desk.change_recipe(opened.recipe.model_copy(update={"resolution": 128}))
    assert desk.library.recipe("my shoes").resolution == 128
    assert desk.view.version != before


def dropped(uploads: Path, relative: str, content: bytes) -> DroppedFile:
    uploads.mkdir(exist_ok=True)
    file = uploads / f"upload-{len(list(uploads.iterdir()))}"
    file.write_bytes(content)
    return DroppedFile(relative, file)


def test_a_dropped_folder_becomes_a_dataset(desk: DatasetDesk, tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    files = [
        dropped(uploads, "shoes/10_boot/a.png", encoded(picture(), "PNG")),
        dropped(uploads, "shoes/10_boot/a.txt", b"a boot"),
    ]
    opened = desk.open_dropped(files, uploads=uploads)
    assert (opened.name, opened.reading.layout) == ("shoes", "kohya")
    assert opened.row("10_boot/a.png").repeats == 10


def test_what_was_not_taken_of_a_drop_is_kept_to_be_said(desk: DatasetDesk, tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    files = [dropped(uploads, "a.png", encoded(picture(), "PNG")), dropped(uploads, "../b.png", b"x")]
    name = desk.open_dropped(files, uploads=uploads).name
    assert [leftover.name for leftover in desk.open_name(name).leftovers] == ["../b.png"]


@pytest.mark.parametrize("name", ["notes.md", "broken.zip"])
def test_a_drop_of_nothing_useful_leaves_nothing_behind(name: str, desk: DatasetDesk, tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    with pytest.raises(DatasetError):
        desk.open_dropped([dropped(uploads, name, b"nothing useful")], uploads=uploads)
    assert list(desk.library.folder.iterdir()) == []


def test_nothing_dropped_is_said(desk: DatasetDesk, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Nothing arrived"):
        desk.open_dropped([], uploads=tmp_path)
