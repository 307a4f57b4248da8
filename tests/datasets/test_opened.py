"""An open dataset: captions by who said them, changes on the disk at once, originals untouched, nothing uncounted."""

import hashlib
import shutil
import threading
from pathlib import Path

import pytest

from studio.core.errors import DatasetError
from studio.core.paths import assets_folder
from studio.datasets.checker import PictureChecker
from studio.datasets.export import write_sidecars
from studio.datasets.library import DatasetLibrary
from studio.datasets.opened import OpenedDataset
from studio.datasets.query import EDITED, EXCLUDED, NEEDS_FIXING, NO_PROBLEM, DatasetQuery, Facet
from studio.datasets.report import make_report
from studio.datasets.snapshot import make_snapshot, read_snapshot, write_snapshot
from studio.datasets.source import DatasetRecipe, RowChoice
from tests.datasets.bad_inputs import encoded, picture

SHOES = assets_folder() / "casual-shoes"


def count_words(caption: str) -> int:
    return len(caption.split())


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory):  # noqa: ANN201 - a generator of checkers
    folder = tmp_path_factory.mktemp("checks")
    made = PictureChecker(folder / "checks.db", folder / "thumbnails", num_workers=1)
    yield made
    made.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four images: two captioned, one transparent with a caption in latin-1, one cut short."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, side in (("a", 600), ("b", 700)):
        (folder / f"{name}.png").write_bytes(encoded(picture(side, side), "PNG"))
        (folder / f"{name}.txt").write_text(f"shoe {name}\n", encoding="utf-8")
    (folder / "c.png").write_bytes(encoded(picture(520, 640, "RGB").convert("LA").convert("RGBA"), "PNG"))
    (folder / "c.txt").write_bytes("Größe".encode("latin-1"))
    (folder / "d.png").write_bytes(encoded(picture(600, 600), "PNG")[:-9])
    return folder


def open_dataset(source: Path, folder: Path, checker: PictureChecker | None = None, **recipe: object) -> OpenedDataset:
    dataset = OpenedDataset(
        "shoes", folder, DatasetRecipe.model_validate({"source": str(source), **recipe}), count_tokens=count_words
    )
    if checker is not None:
        dataset.check(checker)
    return dataset


def hashes(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def codes(dataset: OpenedDataset, key: str) -> set[str]:
    return {problem.code for problem in dataset.row(key).problems}


def test_before_the_check_nothing_is_called_usable(source: Path, tmp_path: Path) -> None:
    dataset = open_dataset(source, tmp_path / "own")
    assert [row.is_used for row in dataset.rows] == [False] * 4
    assert dataset.progress.num_checked == 0


def test_after_the_check_every_picture_is_counted(source: Path, tmp_path: Path, checker: PictureChecker) -> None:
    report = make_report(open_dataset(source, tmp_path / "own", checker))
    assert (report.num_found, report.num_used, report.num_rejected) == (4, 2, 2)
    assert report.how_many == "4 found − 2 that need fixing first = 2 will be trained on."
    assert report.needs_fixing


def test_images_that_the_table_does_not_name_are_counted(tmp_path: Path, checker: PictureChecker) -> None:
    folder = tmp_path / "three"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.png").write_bytes(encoded(picture(), "PNG"))
    (folder / "metadata.csv").write_text("file_name,text\nb.png,a boot\n", encoding="utf-8")
    report = make_report(open_dataset(folder, tmp_path / "own", checker))
    assert (report.num_found, report.num_without_row) == (1, 2)
    assert report.how_many == "3 found − 2 without a row in the table = 1 will be trained on."


def test_originals_are_never_changed(source: Path, tmp_path: Path, checker: PictureChecker) -> None:
    before = hashes(source)
    dataset = open_dataset(source, tmp_path / "own", checker)
    dataset.set_caption("a.png", "another")
    dataset.set_excluded(["b.png"], True)
    dataset.recode_caption("c.png")
    dataset.convert("a.png", checker)
    dataset.undo()
    assert hashes(source) == before


def test_an_edit_is_there_when_the_dataset_is_opened_again(
    source: Path, tmp_path: Path, checker: PictureChecker
) -> None:
    dataset = open_dataset(source, tmp_path / "own", checker)
    dataset.set_caption("a.png", "  a   red shoe ")
    dataset.set_excluded(["b.png"], True)
    again = open_dataset(source, tmp_path / "own", checker)
    assert again.row("a.png").caption == "a red shoe"
    assert again.row("a.png").caption_from == "your edit"
    assert again.row("b.png").excluded
    again.undo()
    assert not again.row("b.png").excluded


def test_the_same_caption_is_no_edit(source: Path, tmp_path: Path) -> None:
    dataset = open_dataset(source, tmp_path / "own")
    dataset.set_caption("a.png", "shoe a")
    assert dataset.row("a.png").caption_from == "a.txt"
    assert dataset.next_undo == ""


def test_a_caption_typed_in_mends_one_that_cannot_be_read(
    source: Path, tmp_path: Path, checker: PictureChecker
) -> None:
    dataset = open_dataset(source, tmp_path / "own", checker)
    assert dataset.row("c.png").is_rejected
    dataset.set_caption("c.png", "size")
    assert dataset.row("c.png").is_used
    dataset.undo()
    assert dataset.row("c.png").is_rejected


def test_one_click_re_encodes_a_caption(source: Path, tmp_path: Path, checker: PictureChecker) -> None:
    dataset = open_dataset(source, tmp_path / "own", checker)
    assert dataset.recode_caption("c.png") in ("cp1252", "latin-1")
    assert dataset.row("c.png").caption == "Größe"
    assert dataset.row("c.png").is_used


def test_one_click_converts_a_copy(source: Path, tmp_path: Path, checker: PictureChecker) -> None:
    (source / "e.png").write_bytes(encoded(picture(600, 600, "CMYK").convert("RGBA"), "PNG"))
    clear = picture(600, 600).convert("RGBA")
    clear.putalpha(0)
    (source / "e.png").write_bytes(encoded(clear, "PNG"))
    dataset = open_dataset(source, tmp_path / "own", checker)
    assert "transparent" in codes(dataset, "e.png")
    copy = dataset.convert("e.png", checker)
    assert copy.is_relative_to(tmp_path / "own")
    assert dataset.row("e.png").path == copy
    assert "transparent" not in codes(dataset, "e.png")
    dataset.undo()
    assert "transparent" in codes(dataset, "e.png")


def test_what_cannot_be_converted_says_so(source: Path, tmp_path: Path, checker: PictureChecker) -> None:
    dataset = open_dataset(source, tmp_path / "own", checker)
    with pytest.raises(DatasetError, match=r"d\.png cannot be converted"):
        dataset.convert("d.png", checker)


def test_a_key_that_came_from_elsewhere_is_refused(source: Path, tmp_path: Path) -> None:
    dataset = open_dataset(source, tmp_path / "own")
    for act in (dataset.row, dataset.recode_caption, lambda key: dataset.set_excluded([key], True)):
        with pytest.raises(DatasetError, match="no image"):
            act("../../etc/passwd")


def test_missing_long_and_equal_captions_are_said(source: Path, tmp_path: Path, checker: PictureChecker) -> None:
    (source / "b.txt").unlink()
    dataset = open_dataset(source, tmp_path / "own", checker)
    assert "caption missing" in codes(dataset, "b.png")
    dataset.set_caption("a.png", "word " * 80)
    assert "caption too long" in codes(dataset, "a.png")
    dataset.set_captions({"a.png": "same", "b.png": "same", "c.png": "same"}, what="all")
    assert any("captions are the same" in sentence for sentence in make_report(dataset).warnings)


def test_a_caption_for_all_without_one(source: Path, tmp_path: Path, checker: PictureChecker) -> None:
    (source / "b.txt").unlink()
    dataset = open_dataset(source, tmp_path / "own", checker, default_caption="a shoe")
    assert dataset.row("b.png").caption == "a shoe"
    assert dataset.row("a.png").caption == "shoe a"
    assert "caption missing" not in codes(dataset, "b.png")


def test_too_small_and_too_long_pictures_are_said(source: Path, tmp_path: Path, checker: PictureChecker) -> None:
    (source / "s.png").write_bytes(encoded(picture(100, 100), "PNG"))
    (source / "w.png").write_bytes(encoded(picture(2000, 500), "PNG"))
    dataset = open_dataset(source, tmp_path / "own", checker)
    assert "too small" in codes(dataset, "s.png")
    assert "extreme shape" in codes(dataset, "w.png")
    assert dataset.bucket_words(dataset.row("a.png")) == "512 × 512"


def test_rows_and_template_make_the_captions(tmp_path: Path, checker: PictureChecker) -> None:
    rows = (RowChoice(column="articleType", values=("Casual Shoes",)),)
    template = "{baseColour} {articleType}, white background"
    dataset = open_dataset(SHOES, tmp_path / "own", checker, rows=rows, template=template, resolution=128)
    report = make_report(dataset)
    assert (report.num_found, report.num_taken, report.num_used) == (60, 48, 48)
    assert report.how_many == "60 found − 12 not among the chosen rows = 48 will be trained on."
    assert dataset.row("images/10001.jpg").caption == "Black Casual Shoes, white background"
    assert not report.needs_fixing
    dataset.set_caption("images/10001.jpg", "mine")
    assert dataset.row("images/10001.jpg").caption == "mine"


def test_queries_search_filter_and_sort(source: Path, tmp_path: Path, checker: PictureChecker) -> None:
    dataset = open_dataset(source, tmp_path / "own", checker)
    dataset.set_caption("b.png", "boot")
    dataset.set_excluded(["d.png"], True)

    def keys(**query: object) -> list[str]:
        return [row.key for row in dataset.page(DatasetQuery.model_validate(query)).rows]

    assert keys() == ["a.png", "b.png", "c.png", "d.png"]
    assert keys(search="SHOE a") == ["a.png"]
    assert keys(search="boot") == ["b.png"]
    assert keys(search="nothing like it") == []
    assert keys(problem=EXCLUDED) == ["d.png"]
    assert keys(problem=EDITED) == ["b.png"]
    assert keys(problem=NEEDS_FIXING) == ["c.png"]
    assert keys(problem=NO_PROBLEM) == ["a.png", "b.png"]
    assert keys(problem="caption not UTF-8") == ["c.png"]
    assert keys(bucket="448 × 576") == ["c.png"]
    assert keys(sort="largest")[0] == "b.png"
    assert keys(per_page=3, page=2) == ["d.png"]
    assert keys(per_page=3, page=99) == ["d.png"]


def test_columns_filter(tmp_path: Path) -> None:
    dataset = open_dataset(SHOES, tmp_path / "own")
    page = dataset.page(DatasetQuery(column="articleType", value="Heels"))
    assert 0 < page.num_rows < 60
    assert {row.attributes["articleType"] for row in page.rows} == {"Heels"}


def test_a_page_knows_the_pictures_next_to_it_and_each_is_found_on_its_own(tmp_path: Path) -> None:
    dataset = open_dataset(SHOES, tmp_path / "own")

    def around(page: int) -> tuple[str | None, str | None]:
        shown = dataset.page(DatasetQuery(per_page=10, page=page))
        return (shown.before and shown.before.key, shown.after and shown.after.key)

    assert around(1) == (None, "images/10011.jpg")
    assert around(2) == ("images/10010.jpg", "images/10021.jpg")
    assert around(6) == ("images/10050.jpg", None)
    query = DatasetQuery(per_page=10, page=3)
    assert dataset.page_with(query, "images/10010.jpg") == 1
    assert dataset.page_with(query, "images/10011.jpg") == 2
    assert dataset.page_with(query, "gone.jpg") == 3


def test_edits_of_many_threads_are_all_kept(tmp_path: Path) -> None:
    dataset = open_dataset(SHOES, tmp_path / "own")
    keys = [row.key for row in dataset.rows]
    threads = [
        threading.Thread(target=lambda part=part: [dataset.set_caption(key, f"mine {key}") for key in keys[part::4]])
        for part in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = open_dataset(SHOES, tmp_path / "own")
    assert [row.caption for row in again.rows] == [f"mine {key}" for key in keys]


def test_captions_are_written_beside_the_pictures_only_when_asked(source: Path, tmp_path: Path) -> None:
    dataset = open_dataset(source, tmp_path / "own")
    dataset.set_caption("a.png", "edited")
    assert (source / "a.txt").read_text(encoding="utf-8") == "shoe a\n"
    written = write_sidecars(dataset)
    assert written.num_written == 1
    assert (source / "a.txt").read_text(encoding="utf-8") == "edited\n"
    assert (source / "b.txt").read_text(encoding="utf-8") == "shoe b\n"
    assert (written.kept / "a.txt").read_text(encoding="utf-8") == "shoe a\n"


def test_captions_that_are_written_beside_the_pictures_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    keys = ["a.jpg", "a.png", "b.png", "caf\u00e9.png", "d.png", "e.png"]
    for key in keys:
        (folder / key).touch()
    for name in ("a.txt", "b.png.txt", "cafe\u0301.txt", "d.caption"):
        (folder / name).write_text("old", encoding="utf-8")
    dataset = open_dataset(folder, tmp_path / "own")
    dataset.set_captions({key: f"new {key}" for key in keys}, what="all")
    dataset.set_caption("e.png", "\ufeffmarked")
    written = write_sidecars(dataset)
    assert written.num_written == len(keys) - 1
    (skipped,) = written.skipped_files
    assert skipped.name == "e.png"
    assert "cannot be kept in a text file" in skipped.problem.sentence
    again = open_dataset(folder, tmp_path / "no edits")
    assert {row.key: row.caption for row in again.rows} == {key: f"new {key}" for key in keys[:-1]} | {"e.png": ""}
    assert sorted(path.name for path in written.kept.iterdir()) == ["b.png.txt", "cafe\u0301.txt"]


def test_of_images_whose_names_are_the_same_to_a_mac_neither_caption_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for key in ("caf\u00e9.png", "cafe\u0301.png"):
        (folder / key).touch()
    if len(list(folder.iterdir())) < 2:
        pytest.skip("this file system takes both for one")
    dataset = open_dataset(folder, tmp_path / "own")
    dataset.set_captions(dict.fromkeys((row.key for row in dataset.rows), "new"), what="all")
    written = write_sidecars(dataset)
    assert (written.num_written, len(written.skipped_files)) == (0, 2)
    assert "another image" in written.skipped_files[0].problem.sentence


def test_captions_of_a_table_are_not_written_beside(tmp_path: Path) -> None:
    dataset = open_dataset(SHOES, tmp_path / "own")
    dataset.set_caption("images/10001.jpg", "edited")
    with pytest.raises(DatasetError, match="table"):
        write_sidecars(dataset)


def test_a_source_that_is_gone_is_said(source: Path, tmp_path: Path) -> None:
    library = DatasetLibrary(tmp_path / "datasets")
    library.save_recipe("shoes", DatasetRecipe(source=str(source)))
    shutil.rmtree(source)
    with pytest.raises(DatasetError, match="cannot be found"):
        library.open("shoes", count_tokens=count_words)


def test_the_version_changes_with_every_edit_and_rarely_while_checking(tmp_path: Path, checker: PictureChecker) -> None:
    dataset = open_dataset(SHOES, tmp_path / "own")
    versions = {dataset.version}

    class Watching:
        """A checker that looks at the version after each image."""

        def check(self, paths, *, background, on_checked, stop=None) -> None:  # noqa: ANN001
            def take(path, facts) -> None:  # noqa: ANN001
                on_checked(path, facts)
                versions.add(dataset.version)

            checker.check(paths, background=background, on_checked=take, stop=stop)

    dataset.check(Watching())  # type: ignore[arg-type]
    assert 2 < len(versions) <= 13
    checked = dataset.version
    assert checked not in versions
    dataset.set_caption("images/10001.jpg", "mine")
    assert dataset.version != checked


def test_a_moved_crop_is_kept_in_the_snapshot_and_undone(source: Path, tmp_path: Path, checker: PictureChecker) -> None:
    dataset = open_dataset(source, tmp_path / "d", checker)
    before = make_snapshot("d", dataset.recipe, dataset.rows)
    key = before.entries[0].key
    dataset.set_focus(key, (0.25, 0.5))
    dataset.set_focus(key, (0.25, 0.5))
    moved = make_snapshot("d", dataset.recipe, open_dataset(source, tmp_path / "d", checker).rows)
    assert [entry.focus for entry in moved.entries] == [(0.25, 0.5), *(None for _ in moved.entries[1:])]
    assert moved.header.digest != before.header.digest, "a run that goes on sees that it is another dataset"
    write_snapshot(tmp_path / "snapshot.jsonl", moved)
    assert read_snapshot(tmp_path / "snapshot.jsonl").entries == moved.entries
    assert dataset.next_undo == f"crop of {key}"
    dataset.undo()
    assert make_snapshot("d", dataset.recipe, dataset.rows).header.digest == before.header.digest
    assert dataset.next_undo == ""
    assert "focus" not in before.entries[0].model_dump_json(exclude_none=True)


def test_a_template_is_filled_from_what_was_measured(tmp_path: Path, checker: PictureChecker) -> None:
    template = "{colour} shoe, {ground}, {position}"
    folder = tmp_path / "shoes"
    folder.mkdir()
    shutil.copy(SHOES / "images" / "10001.jpg", folder)
    dataset = open_dataset(folder, tmp_path / "own", template=template)
    assert dataset.row("10001.jpg").caption == "shoe"
    dataset.check(checker)
    assert dataset.row("10001.jpg").caption == "black shoe, white background, centred"
    assert dataset.row("10001.jpg").caption_from == "the template"


def test_measured_columns_stand_beside_those_of_the_table(tmp_path: Path, checker: PictureChecker) -> None:
    dataset = open_dataset(SHOES, tmp_path / "own", checker, template="{baseColour} is {colour}, {ground}")
    assert dataset.columns[-5:] == ("colour", "ground", "orientation", "subject_size", "position")
    assert "baseColour" in dataset.columns
    for row in dataset.rows:
        first, __, second = row.caption.removesuffix(", white background").partition(" is ")
        assert first.lower() == second


def test_a_tables_own_column_counts_first(tmp_path: Path, checker: PictureChecker) -> None:
    folder = tmp_path / "shoes"
    folder.mkdir()
    shutil.copy(SHOES / "images" / "10001.jpg", folder / "a.jpg")
    (folder / "metadata.csv").write_text("file_name,colour\na.jpg,jet\n", encoding="utf-8")
    dataset = open_dataset(folder, tmp_path / "own", checker, template="{colour} shoe, {ground}")
    assert dataset.row("a.jpg").caption == "jet shoe, white background"


def test_images_are_found_by_what_was_measured(tmp_path: Path, checker: PictureChecker) -> None:
    dataset = open_dataset(SHOES, tmp_path / "own", checker)
    found = dataset.found(DatasetQuery(column="colour", value="navy"))
    assert [row.attributes["baseColour"] for row in found] == ["Navy"] * 5
    facet = Facet(name="column", column="position", value="centred")
    assert len(dataset.found(DatasetQuery(facets=(facet,)))) == 60


def test_a_snapshot_keeps_what_was_measured_for_exports_and_batches(tmp_path: Path, checker: PictureChecker) -> None:
    dataset = open_dataset(SHOES, tmp_path / "own", checker)
    snapshot = make_snapshot("shoes", dataset.recipe, dataset.rows)
    assert {entry.attributes["ground"] for entry in snapshot.entries} == {"white background"}


def test_the_longest_of_several_captions_counts(source: Path, tmp_path: Path, checker: PictureChecker) -> None:
    dataset = open_dataset(source, tmp_path / "own", checker)
    words = " ".join(["shoe"] * 50)
    dataset.set_caption("a.png", f"{words} || {words}")
    assert "caption too long" not in codes(dataset, "a.png")
    dataset.set_caption("a.png", f"{words} {words} || a shoe")
    assert "caption too long" in codes(dataset, "a.png")


def test_a_caption_from_what_is_measured_is_complete_once_its_image_is_checked(
    source: Path, tmp_path: Path, checker: PictureChecker
) -> None:
    dataset = open_dataset(source, tmp_path / "data", template="{orientation}")
    assert [(row.caption, row.awaits_check, row.lacks_caption) for row in dataset.rows[:2]] == [("", True, False)] * 2
    assert not any(problem.code.startswith("caption") for problem in dataset.row("a.png").problems)
    dataset.set_caption("b.png", "my own")
    assert not dataset.row("b.png").awaits_check
    dataset.check(checker)
    assert dataset.row("a.png").caption == "square"
    assert not any(row.awaits_check for row in dataset.rows)
    assert open_dataset(source, tmp_path / "data", template="a shoe").row("a.png").awaits_check is False


def test_a_column_of_the_table_with_the_name_of_a_measured_one_waits_for_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "a.png").write_bytes(encoded(picture(), "PNG"))
    (folder / "table.csv").write_text("file,colour\na.png,red\n", encoding="utf-8")
    dataset = open_dataset(folder, tmp_path / "data", template="{colour} shoe")
    assert (dataset.row("a.png").caption, dataset.row("a.png").awaits_check) == ("red shoe", False)
    assert open_dataset(folder, tmp_path / "data", template="{colour} {ground}").row("a.png").awaits_check
