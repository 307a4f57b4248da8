"""Open datasets: each page has its own, also after a restart; what cannot be opened leaves the one before."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.core.errors import DatasetError
from studio.core.paths import UserData
from studio.datasets.library import KEPT_IN_MEMORY
from studio.datasets.session import DatasetSession, TypedCaption
from studio.datasets.source import DatasetRecipe
from studio.datasets.upload import DroppedFile
from tests.datasets.bad_inputs import encoded, picture


def make_session(folder: Path) -> DatasetSession:
    return DatasetSession(UserData(folder / "user_data"), count_tokens=len)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[DatasetSession]:
    made = make_session(tmp_path)
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


def wait(session: DatasetSession) -> None:
    held = session._held.find("")
    assert held is not None and held.check is not None
    held.check.join(30)


def test_a_folder_is_opened_where_it_is_and_checked(session: DatasetSession, source: Path) -> None:
    opened = session.open_folder(f" '{source}' ")
    wait(session)
    assert opened.name == "my shoes"
    assert [row.is_used for row in opened.rows] == [True, True]
    assert not session.view.active
    assert sorted(path.name for path in source.iterdir()) == ["a.png", "a.txt", "b.png", "b.txt"]


def test_the_same_folder_is_the_same_dataset_with_its_edits(session: DatasetSession, source: Path) -> None:
    session.open_folder(str(source)).set_caption("a.png", "mine")
    assert session.open_folder(str(source)).row("a.png").caption == "mine"
    assert session.library.names() == ["my shoes"]


def test_what_was_open_is_open_after_a_restart(session: DatasetSession, source: Path, tmp_path: Path) -> None:
    session.open_folder(str(source)).set_caption("a.png", "mine")
    again = make_session(tmp_path)
    again.restore()
    assert again.opened.row("a.png").caption == "mine"
    again.close()


def test_a_source_that_is_gone_is_said_after_a_restart(session: DatasetSession, source: Path, tmp_path: Path) -> None:
    session.open_folder(str(source))
    wait(session)
    shutil.rmtree(source)
    again = make_session(tmp_path)
    again.restore()
    assert not again.is_open
    assert "cannot be found" in again.view.problem


@pytest.mark.parametrize("typed", ["", "  ", "not/whole", "/nowhere/at/all"])
def test_a_path_that_leads_nowhere_leaves_what_is_open(typed: str, session: DatasetSession, source: Path) -> None:
    session.open_folder(str(source))
    with pytest.raises(DatasetError):
        session.open_folder(typed)
    assert session.opened.name == "my shoes"


def test_a_folder_without_pictures_makes_no_dataset(session: DatasetSession, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no image"):
        session.open_folder(str(tmp_path / "empty"))
    assert session.library.names() == []


def test_a_recipe_that_cannot_be_read_leaves_the_one_before(session: DatasetSession, source: Path) -> None:
    opened = session.open_folder(str(source))
    wrong = opened.recipe.model_copy(update={"layout": opened.recipe.layout.model_copy(update={"layout": "fashion"})})
    with pytest.raises(DatasetError, match="no table"):
        session.change_recipe(wrong)
    assert session.opened is opened
    assert session.library.recipe("my shoes") == opened.recipe


def test_a_changed_recipe_is_kept_and_shown(session: DatasetSession, source: Path) -> None:
    before = session.view.version
    opened = session.open_folder(str(source))
    session.change_recipe(opened.recipe.model_copy(update={"resolution": 128}))
    assert session.library.recipe("my shoes").resolution == 128
    assert session.view.version != before


def dropped(uploads: Path, relative: str, content: bytes) -> DroppedFile:
    uploads.mkdir(exist_ok=True)
    file = uploads / f"upload-{len(list(uploads.iterdir()))}"
    file.write_bytes(content)
    return DroppedFile(relative, file)


def test_a_dropped_folder_becomes_a_dataset(session: DatasetSession, tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    files = [
        dropped(uploads, "shoes/10_boot/a.png", encoded(picture(), "PNG")),
        dropped(uploads, "shoes/10_boot/a.txt", b"a boot"),
    ]
    opened = session.open_dropped(files, uploads=uploads)
    assert (opened.name, opened.reading.layout) == ("shoes", "kohya")
    assert opened.row("10_boot/a.png").repeats == 10
    assert list(uploads.iterdir()) == [], "what was taken in is not kept twice"


def test_what_was_not_taken_of_a_drop_is_kept_to_be_said(session: DatasetSession, tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    files = [dropped(uploads, "a.png", encoded(picture(), "PNG")), dropped(uploads, "../b.png", b"x")]
    name = session.open_dropped(files, uploads=uploads).name
    assert [skipped_file.name for skipped_file in session.open_name(name).skipped_files] == ["../b.png"]
    assert list(uploads.iterdir()) == []


@pytest.mark.parametrize("name", ["notes.md", "broken.zip"])
def test_a_drop_of_nothing_useful_leaves_nothing_behind(name: str, session: DatasetSession, tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    with pytest.raises(DatasetError):
        session.open_dropped([dropped(uploads, name, b"nothing useful")], uploads=uploads)
    assert list(session.library.folder.iterdir()) == []
    assert list(uploads.iterdir()) == []


def test_nothing_dropped_is_said(session: DatasetSession, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Nothing arrived"):
        session.open_dropped([], uploads=tmp_path)


def typed(
    text: str, *, dataset: str = "my shoes", key: str = "a.png", page: str = "one", number: int = 1
) -> TypedCaption:
    return TypedCaption(dataset=dataset, key=key, text=text, page=page, number=number)


def log_of(session: DatasetSession, dataset: str = "my shoes") -> bytes:
    log = session.library.place(dataset) / "edits.jsonl"
    return log.read_bytes() if log.is_file() else b""


def test_a_typed_caption_is_saved_with_its_image(session: DatasetSession, source: Path) -> None:
    opened = session.open_folder(str(source))
    before = session.stamp
    row, stamp = session.save_caption(typed(" mine \n now"))
    assert (row.key, row.caption, row.caption_from) == ("a.png", "mine now", "your edit")
    assert before < stamp == session.stamp
    assert [row.caption for row in opened.rows] == ["mine now", "b"]


def test_a_typed_caption_lands_in_its_own_dataset_where_another_is_open(session: DatasetSession, source: Path) -> None:
    session.open_folder(str(source))
    seen = session.stamp
    second = shutil.copytree(source, source.parent / "second")
    session.open_folder(str(second))
    row, stamp = session.save_caption(typed("of the first"))
    assert row.caption == "of the first"
    assert stamp > seen
    assert session.opened.name == "second"
    assert session.opened.row("a.png").caption == "a"
    assert log_of(session, "second") == b""
    assert session.open_name("my shoes").row("a.png").caption == "of the first"
    assert session.stamp > stamp


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"key": "gone.png"}, "The dataset my shoes has no image gone.png"),
        ({"dataset": "gone"}, "There is no dataset gone any more"),
        ({"dataset": "../my shoes"}, "name must be letters"),
        ({"dataset": ""}, "No dataset is open"),
        ({"text": "half \ud83d of one"}, r"character 6 \(U\+D83D\) is half of one"),
        ({"text": "x" * 65_537}, "must have at most 65,536 bytes, got 65,537"),
    ],
)
def test_a_caption_that_cannot_be_saved_is_refused_with_a_sentence_and_nothing_is_written(
    session: DatasetSession, source: Path, wrong: dict[str, str], sentence: str
) -> None:
    session.open_folder(str(source))
    with pytest.raises(DatasetError, match=sentence):
        session.save_caption(typed("new").model_copy(update=wrong))
    assert log_of(session) == b""
    assert sorted(path.name for path in session.library.folder.iterdir() if path.is_dir()) == ["my shoes"]


def test_the_caption_of_a_deleted_image_is_refused(session: DatasetSession, source: Path) -> None:
    session.open_folder(str(source))
    (source / "a.png").unlink()
    session.open_name("my shoes")
    with pytest.raises(DatasetError, match=r"has no image a\.png"):
        session.save_caption(typed("new"))
    assert log_of(session) == b""


def test_a_text_that_arrives_after_a_later_one_of_its_page_changes_nothing(
    session: DatasetSession, source: Path
) -> None:
    session.open_folder(str(source))
    session.save_caption(typed("whole", number=8))
    saved = log_of(session)
    assert session.save_caption(typed("who", number=7))[0].caption == "whole"
    assert log_of(session) == saved
    assert session.save_caption(typed("of another page", page="two", number=1))[0].caption == "of another page"
    assert session.save_caption(typed("whole again", number=9))[0].caption == "whole again"


def test_a_caption_saved_while_the_dataset_is_read_anew_is_not_missed(
    session: DatasetSession, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.open_folder(str(source))
    read, saving = session.library.save_recipe, threading.Event()
    saver = threading.Thread(target=lambda: (saving.set(), session.save_caption(typed("meanwhile"))))

    def save_recipe(name: str, recipe: DatasetRecipe) -> None:  # by now the edits are read
        saver.start()
        saving.wait(5)
        saver.join(0.2)
        read(name, recipe)

    monkeypatch.setattr(session.library, "save_recipe", save_recipe)
    session.change_recipe(session.opened.recipe.model_copy(update={"default_caption": "none"}))
    saver.join(5)
    assert session.opened.row("a.png").caption == "meanwhile"


@pytest.fixture
def two(session: DatasetSession, source: Path) -> tuple[DatasetSession, DatasetSession]:
    """Two pages, each with a dataset of its own; that of the second was opened last."""
    session.open_folder(str(source))
    session.open_folder(str(shutil.copytree(source, source.parent / "second")))
    return session.of("my shoes"), session.of("second")


def test_each_page_changes_and_takes_back_what_is_of_its_own_dataset(
    two: tuple[DatasetSession, DatasetSession],
) -> None:
    for page in two:
        page.named(page.name).opened.set_caption("a.png", f"of {page.name}")
    first, second = two
    assert first.named("my shoes").opened.undo() == "caption of a.png"
    assert [page.opened.row("a.png").caption for page in two] == ["a", "of second"]
    second.change_recipe(second.opened.recipe.model_copy(update={"resolution": 128}))
    assert [page.opened.recipe.resolution for page in two] == [512, 128]
    assert first.view.name == "my shoes"
    assert first.view.version.partition("-")[0] < second.view.version.partition("-")[0]


def test_a_page_without_a_choice_shows_what_was_opened_last(
    session: DatasetSession, two: tuple[DatasetSession, DatasetSession]
) -> None:
    assert session.view.name == "second"
    before = two[0].opened
    assert session.show("my shoes") is before, "it is not read again"
    assert session.view.name == "my shoes"


def test_a_page_has_its_dataset_after_a_restart_also_where_another_was_opened_last(
    two: tuple[DatasetSession, DatasetSession], tmp_path: Path
) -> None:
    again = make_session(tmp_path)
    again.restore()
    page = again.of("my shoes")
    view = page.view
    assert (view.name, view.opening, view.active) == ("", "my shoes", True), "it is read in the background"
    while page.view.opening:
        threading.Event().wait(0.01)
    assert page.view.name == "my shoes"
    assert again.view.name == "second"
    again.close()


def test_a_press_about_a_dataset_that_is_gone_is_refused(two: tuple[DatasetSession, DatasetSession]) -> None:
    first, second = two
    shutil.rmtree(first.library.place("my shoes"))
    with pytest.raises(DatasetError, match="There is no dataset my shoes any more"):
        first.named("my shoes")
    with pytest.raises(DatasetError, match="No dataset is open"):
        first.named("")
    assert second.named("second").opened.name == "second"
    assert not first.library.place("my shoes").exists()


def test_a_page_that_names_no_dataset_of_ours_hears_why(session: DatasetSession) -> None:
    page = session.of("../runs")
    while page.view.opening:
        threading.Event().wait(0.01)
    assert "name must be letters" in page.view.problem


def test_few_datasets_stay_in_memory_and_the_others_are_read_again(session: DatasetSession, source: Path) -> None:
    names = ["my shoes", *(f"copy {number}" for number in range(KEPT_IN_MEMORY))]
    for name in names[1:]:
        shutil.copytree(source, source.parent / name)
    for name in names:
        session.open_folder(str(source.parent / name))
    assert [session.of(name).is_open for name in names] == [False, *([True] * KEPT_IN_MEMORY)]
    assert session.named("my shoes").opened.row("a.png").caption == "a"
