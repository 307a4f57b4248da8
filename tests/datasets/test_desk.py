"""The desk: what was open is open again after a restart; what cannot be opened leaves the one before."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.core.errors import DatasetError
from studio.core.paths import UserData
from studio.datasets.recipe import DatasetRecipe
from studio.datasets.session import DatasetDesk, TypedCaption
from studio.datasets.upload import DroppedFile
from tests.datasets.bad_inputs import encoded, picture


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


def typed(
    text: str, *, dataset: str = "my shoes", key: str = "a.png", page: str = "one", number: int = 1
) -> TypedCaption:
    return TypedCaption(dataset=dataset, key=key, text=text, page=page, number=number)


def log_of(desk: DatasetDesk, dataset: str = "my shoes") -> bytes:
    log = desk.library.place(dataset) / "edits.jsonl"
    return log.read_bytes() if log.is_file() else b""


def test_a_typed_caption_is_saved_with_its_image(desk: DatasetDesk, source: Path) -> None:
    opened = desk.open_folder(str(source))
    before = desk.stamp
    row, stamp = desk.save_caption(typed(" mine \n now"))
    assert (row.key, row.caption, row.caption_from) == ("a.png", "mine now", "your edit")
    assert before < stamp == desk.stamp
    assert [row.caption for row in opened.rows] == ["mine now", "b"]


def test_a_typed_caption_lands_in_its_own_dataset_where_another_is_open(desk: DatasetDesk, source: Path) -> None:
    desk.open_folder(str(source))
    seen = desk.stamp
    second = shutil.copytree(source, source.parent / "second")
    desk.open_folder(str(second))
    row, stamp = desk.save_caption(typed("of the first"))
    assert row.caption == "of the first"
    assert stamp > seen
    assert desk.opened.name == "second"
    assert desk.opened.row("a.png").caption == "a"
    assert log_of(desk, "second") == b""
    assert desk.open_name("my shoes").row("a.png").caption == "of the first"
    assert desk.stamp > stamp


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"key": "gone.png"}, "The dataset my shoes has no picture gone.png"),
        ({"dataset": "gone"}, "There is no dataset gone any more"),
        ({"dataset": "../my shoes"}, "name must be letters"),
        ({"dataset": ""}, "name must be letters"),
        ({"text": "half \ud83d of one"}, r"character 6 \(U\+D83D\) is half of one"),
        ({"text": "x" * 65_537}, "must have at most 65,536 bytes, got 65,537"),
    ],
)
def test_a_caption_that_cannot_be_saved_is_refused_with_a_sentence_and_nothing_is_written(
    desk: DatasetDesk, source: Path, wrong: dict[str, str], sentence: str
) -> None:
    desk.open_folder(str(source))
    with pytest.raises(DatasetError, match=sentence):
        desk.save_caption(typed("new").model_copy(update=wrong))
    assert log_of(desk) == b""
    assert sorted(path.name for path in desk.library.folder.iterdir() if path.is_dir()) == ["my shoes"]


def test_the_caption_of_a_deleted_image_is_refused(desk: DatasetDesk, source: Path) -> None:
    desk.open_folder(str(source))
    (source / "a.png").unlink()
    desk.open_name("my shoes")
    with pytest.raises(DatasetError, match=r"has no picture a\.png"):
        desk.save_caption(typed("new"))
    assert log_of(desk) == b""


def test_a_text_that_arrives_after_a_later_one_of_its_page_changes_nothing(desk: DatasetDesk, source: Path) -> None:
    desk.open_folder(str(source))
    desk.save_caption(typed("whole", number=8))
    saved = log_of(desk)
    assert desk.save_caption(typed("who", number=7))[0].caption == "whole"
    assert log_of(desk) == saved
    assert desk.save_caption(typed("of another page", page="two", number=1))[0].caption == "of another page"
    assert desk.save_caption(typed("whole again", number=9))[0].caption == "whole again"


def test_a_caption_saved_while_the_dataset_is_read_anew_is_not_missed(
    desk: DatasetDesk, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open_folder(str(source))
    read, saving = desk.library.save_recipe, threading.Event()
    saver = threading.Thread(target=lambda: (saving.set(), desk.save_caption(typed("meanwhile"))))

    def save_recipe(name: str, recipe: DatasetRecipe) -> None:  # by now the edits are read
        saver.start()
        saving.wait(5)
        saver.join(0.2)
        read(name, recipe)

    monkeypatch.setattr(desk.library, "save_recipe", save_recipe)
    desk.change_recipe(desk.opened.recipe.model_copy(update={"default_caption": "none"}))
    saver.join(5)
    assert desk.opened.row("a.png").caption == "meanwhile"


def test_a_page_that_shows_another_dataset_than_the_open_one_changes_nothing(desk: DatasetDesk, source: Path) -> None:
    desk.open_folder(str(source))
    assert desk.opened_as("my shoes") is desk.opened
    with pytest.raises(DatasetError, match="this page shows the dataset old, and my shoes was opened meanwhile"):
        desk.opened_as("old")
