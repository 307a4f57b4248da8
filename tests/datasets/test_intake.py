"""What is dropped arrives whole, below the names it had, and nothing is taken that leads elsewhere."""

import zipfile
from pathlib import Path

import pytest

from studio.core.errors import DatasetError
from studio.datasets.upload import DroppedFile, common_folder, take_files


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return folder


def dropped(uploads: Path, relative: str, content: bytes = b"x") -> DroppedFile:
    file = uploads / f"{len(list(uploads.iterdir()))}"
    file.write_bytes(content)
    return DroppedFile(relative, file)


def test_sub_folders_are_kept(uploads: Path, tmp_path: Path) -> None:
    files = [dropped(uploads, "shoes/a/x.png", b"1"), dropped(uploads, "shoes/b/x.png", b"2")]
    assert take_files(files, tmp_path / "new", uploads=uploads) == ()
    assert (tmp_path / "new/shoes/a/x.png").read_bytes() == b"1"
    assert (tmp_path / "new/shoes/b/x.png").read_bytes() == b"2"


@pytest.mark.parametrize(
    "relative", ["../x.png", "a/../../x.png", "/etc/x.png", "C:/x.png", "a\\..\\..\\x.png", "", "half \ud800.png"]
)
def test_a_name_that_leads_out_is_refused_and_said(uploads: Path, tmp_path: Path, relative: str) -> None:
    files = [dropped(uploads, "good.png"), dropped(uploads, relative)]
    (skipped_file,) = take_files(files, tmp_path / "new", uploads=uploads)
    assert "leads out" in skipped_file.problem.sentence
    assert [path.name for path in (tmp_path / "new").rglob("*")] == ["good.png"]
    assert not (tmp_path / "x.png").exists()


def test_only_uploads_are_taken(uploads: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    with pytest.raises(DatasetError, match="did not arrive"):
        take_files([DroppedFile("a.png", secret)], tmp_path / "new", uploads=uploads)
    assert secret.read_bytes() == b"secret"
    assert not (tmp_path / "new").exists()


def test_a_link_among_the_uploads_leads_nowhere(uploads: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    (uploads / "link").symlink_to(secret)
    with pytest.raises(DatasetError, match="did not arrive"):
        take_files([DroppedFile("a.png", uploads / "link")], tmp_path / "new", uploads=uploads)


def test_two_files_of_one_name_are_not_mixed_up(uploads: Path, tmp_path: Path) -> None:
    files = [dropped(uploads, "x.png", b"1"), dropped(uploads, "x.png", b"2")]
    (skipped_file,) = take_files(files, tmp_path / "new", uploads=uploads)
    assert skipped_file.name == "x.png"
    assert (tmp_path / "new/x.png").read_bytes() == b"1"


def test_one_content_under_one_name_in_two_folders_is_two_files(uploads: Path, tmp_path: Path) -> None:
    """Gradio keeps it once, and names the same place for both."""
    first = dropped(uploads, "a/x.png", b"1")
    files = [first, DroppedFile("b/x.png", first.uploaded), DroppedFile("c/x.png", first.uploaded)]
    assert take_files(files, tmp_path / "new", uploads=uploads) == ()
    assert {path: (tmp_path / "new" / path).read_bytes() for path in ("a/x.png", "b/x.png", "c/x.png")} == {
        "a/x.png": b"1",
        "b/x.png": b"1",
        "c/x.png": b"1",
    }


def test_a_file_and_a_folder_of_one_name_do_not_clash(uploads: Path, tmp_path: Path) -> None:
    files = [dropped(uploads, "a", b"1"), dropped(uploads, "a/b.png", b"2")]
    (skipped_file,) = take_files(files, tmp_path / "new", uploads=uploads)
    assert skipped_file.name == "a/b.png"


def test_a_zip_is_unpacked_into_a_folder_of_its_name(uploads: Path, tmp_path: Path) -> None:
    file = uploads / "shoes"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/x.png", b"1")
    take_files([DroppedFile("shoes.zip", file)], tmp_path / "new", uploads=uploads)
    assert (tmp_path / "new/shoes/a/x.png").read_bytes() == b"1"


def test_a_name_too_long_for_the_disk_costs_that_file_alone(uploads: Path, tmp_path: Path) -> None:
    files = [dropped(uploads, name) for name in ("good.png", "x" * 300 + ".png", "d" * 300 + "/a.png", "after.png")]
    skipped_files = take_files(files, tmp_path / "new", uploads=uploads)
    assert [skipped_file.name[0] for skipped_file in skipped_files] == ["x", "d"]
    assert all("too long" in skipped_file.problem.sentence for skipped_file in skipped_files)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["after.png", "good.png"]


def test_a_zip_with_the_longest_name_that_a_disk_takes_is_unpacked(uploads: Path, tmp_path: Path) -> None:
    file = uploads / "shoes"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.png", b"1")
    folder = "n" * 251
    take_files([DroppedFile(f"{folder}.zip", file)], tmp_path / "new", uploads=uploads)
    assert (tmp_path / "new" / folder / "x.png").read_bytes() == b"1"


def test_a_zip_beside_a_folder_of_its_name_costs_itself_alone(uploads: Path, tmp_path: Path) -> None:
    file = uploads / "shoes"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.png", b"1")
    files = [dropped(uploads, "a/y.png"), DroppedFile("a.zip", file)]
    (skipped_file,) = take_files(files, tmp_path / "new", uploads=uploads)
    assert skipped_file.name == "a.zip"
    assert (tmp_path / "new/a/y.png").is_file()


def test_what_fails_leaves_no_half_dataset(uploads: Path, tmp_path: Path) -> None:
    files = [dropped(uploads, "a.png"), dropped(uploads, "broken.zip", b"PK\x03\x04 cut short")]
    with pytest.raises(DatasetError):
        take_files(files, tmp_path / "new", uploads=uploads)
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".new*"))


def test_the_dataset_is_named_after_what_was_dropped() -> None:
    assert common_folder([DroppedFile("shoes/a.png", Path()), DroppedFile("shoes/b.png", Path())]) == "shoes"
    assert common_folder([DroppedFile("shoes.zip", Path())]) == "shoes"
    assert common_folder([DroppedFile("a.png", Path()), DroppedFile("b.png", Path())]) == "dropped images"
