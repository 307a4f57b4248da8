"""What lies beside the images is named and not trained on; whatever can be read is read; no link leads out."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from studio.cli.dataset import check_dataset
from studio.core.errors import DatasetError
from studio.core.paths import UserData, leads_out
from studio.datasets.export import write_sidecars
from studio.datasets.opened import OpenedDataset
from studio.datasets.reading import read_source
from studio.datasets.scores import score_folder
from studio.datasets.session import DatasetSession
from studio.datasets.source import PICTURE_SUFFIXES, DatasetRecipe, LayoutChoice, SourceReading
from studio.datasets.upload import DroppedFile
from studio.datasets.walk import MAX_DEPTH, walk_folder
from studio.images.decoding import open_rgb
from studio.images.formats import picture_kind
from tests.datasets.bad_inputs import GIF, JPEG, PNG, TIFF, WEBP, encoded, heic, picture
from tests.datasets.test_reading import captions, left, write

AS_FOUND = LayoutChoice()


def read(folder: Path) -> SourceReading:
    return read_source(folder, AS_FOUND)


def keys(folder: Path) -> list[str]:
    return [picture.key for picture in read(folder).pictures]


def severities(folder: Path) -> dict[str, str]:
    return {skipped.name: skipped.problem.severity for skipped in read(folder).skipped_files}


# Files and folders of systems and tools


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("@eaDir", "system folder"),
        ("@EADIR", "system folder"),
        (".@__thumb", "system folder"),
        ("@Recycle", "system folder"),
        ("#recycle", "system folder"),
        ("$RECYCLE.BIN", "system folder"),
        ("System Volume Information", "system folder"),
        ("lost+found", "system folder"),
        ("__MACOSX", "system folder"),
        ("_latent_cache", "folder of a tool"),
        ("_controls", "folder of a tool"),
        (".ipynb_checkpoints", "hidden folder"),
    ],
)
def test_a_folder_of_a_system_or_tool_is_named_and_not_looked_into(name: str, code: str, tmp_path: Path) -> None:
    write(tmp_path, "a.png", PNG)
    for place in (name, f"10_shoe/{name}/deep"):
        write(tmp_path, f"{place}/thumb.png", PNG)
        write(tmp_path, f"{place}/metadata.csv", "file_name,text\nthumb.png,wrong")
    reading = read(tmp_path)
    assert captions(reading) == {"a.png": None}
    assert left(reading) == {name: code, f"10_shoe/{name}": code}


@pytest.mark.parametrize("name", [".a.png", "._a.png", ".a.txt", ".metadata.csv", "Thumbs.db", "desktop.ini"])
def test_a_file_of_a_system_is_named_and_not_used(name: str, tmp_path: Path) -> None:
    write(tmp_path, "a.png", PNG)
    write(tmp_path, name, PNG)
    assert captions(read(tmp_path)) == {"a.png": None}
    assert severities(tmp_path) == {name: "note"}


def test_what_is_in_icloud_only_needs_fetching(tmp_path: Path) -> None:
    write(tmp_path, "a.png", PNG)
    write(tmp_path, ".b.jpg.icloud", b"bplist00")
    assert left(read(tmp_path)) == {".b.jpg.icloud": "in iCloud"}
    assert severities(tmp_path) == {".b.jpg.icloud": "reject"}


@pytest.mark.parametrize(
    "name", ["a-masklabel.png", "a_mask.png", "a_mask.jpg", "a-mask.png", "A_MASK.PNG", "masks/a.png"]
)
def test_a_mask_beside_its_image_is_not_trained_on_and_is_offered(name: str, tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", JPEG)
    write(tmp_path, name, PNG)
    reading = read(tmp_path)
    assert captions(reading) == {"a.jpg": None}
    (mask,) = reading.skipped_files
    assert (mask.name, mask.problem.code, mask.problem.severity) == (name, "mask", "note")
    assert "a mask of a.jpg" in mask.problem.sentence
    assert "as the mask folder of a training" in mask.problem.sentence


def test_what_is_only_called_a_mask_is_an_image(tmp_path: Path) -> None:
    for name in ("carnival_mask.png", "b.png", "b_mask.png", "masks/venice.png", "c.png", "c_mask.png"):
        write(tmp_path, name, PNG)
    write(tmp_path, "b_mask.txt", "a woman with a mask")
    write(tmp_path, "c_mask.png.txt", "a man with a mask")
    assert keys(tmp_path) == ["b.png", "b_mask.png", "c.png", "c_mask.png", "carnival_mask.png", "masks/venice.png"]


def test_an_accent_written_in_two_ways_is_one_name_to_a_mask(tmp_path: Path) -> None:
    write(tmp_path, "u\u0308bung.png", PNG)
    write(tmp_path, "\u00fcbung_mask.png", PNG)
    assert left(read(tmp_path)) == {"\u00fcbung_mask.png": "mask"}


def test_a_backup_of_another_program_is_not_a_second_image(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.jpg_original", "a.jpg~", "a.jpg.bak", "only.jpg~"):
        write(tmp_path, name, JPEG)
    assert keys(tmp_path) == ["a.jpg", "only.jpg~"]
    assert left(read(tmp_path)) == dict.fromkeys(("a.jpg_original", "a.jpg~", "a.jpg.bak"), "backup")


# Any ending, or none


STARTS = {
    "JPEG": JPEG,
    "PNG": PNG,
    "GIF": GIF,
    "WEBP": WEBP,
    "TIFF": TIFF,
    "BMP": encoded(picture(), "BMP"),
    "PPM": encoded(picture(mode="L"), "PPM"),
    "AVIF": encoded(picture(), "AVIF"),
    "JPEG2000": encoded(picture(), "JPEG2000"),
    "HEIF": heic(),
}


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize("name", ["IMG_0001", "photo.jpg_large", "shoe.v2", "shoe.download"])
def test_an_image_is_known_by_its_first_bytes_whatever_it_is_called(kind: str, name: str, tmp_path: Path) -> None:
    write(tmp_path, name, STARTS[kind])
    assert keys(tmp_path) == [name]
    assert picture_kind(STARTS[kind][:64]) == kind


ENDINGS = ("jpe", "pgm", "pbm", "pnm", "apng", "jp2", "j2k", "dib", "avifs", "mpo", "heic", "hif")


def test_rarer_endings_are_those_of_images(tmp_path: Path) -> None:
    for ending in ENDINGS:
        write(tmp_path, f"a.{ending.upper()}")
    assert sorted(keys(tmp_path)) == sorted(f"a.{ending.upper()}" for ending in ENDINGS)


NO_IMAGES = {
    ".bufr",
    ".fit",
    ".fits",
    ".gbr",
    ".grib",
    ".h5",
    ".hdf",
    ".iim",
    ".mpeg",
    ".mpg",
    ".pdf",
}  # but read by it


def test_every_ending_that_pillow_opens_is_one_of_images() -> None:
    Image.init()
    opened = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    assert opened - PICTURE_SUFFIXES - NO_IMAGES == set()


@pytest.mark.parametrize(
    "content",
    [
        b"P1 was the first of 3",
        b"BMW and others",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
        b"\0" * 80,
    ],
)
def test_text_sound_and_films_are_no_images(content: bytes, tmp_path: Path) -> None:
    write(tmp_path, "README", content)
    assert left(read(tmp_path)) == {"README": "other file"}


def test_a_pipe_without_ending_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert left(read(tmp_path)) == {"pipe": "other file"}


def test_a_raw_file_beside_its_image_is_a_note_and_alone_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    for name in ("a.NEF", "a.jpg", "b.nef"):
        write(tmp_path, name)
    assert keys(tmp_path) == ["a.jpg", "b.nef"]
    assert left(read(tmp_path)) == {"a.NEF": "RAW file"}


# Links


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Files that no dataset in `tmp_path / "dataset"` may read."""
    write(tmp_path, "outside/secret.txt", "root:x:0:0")
    write(tmp_path, "outside/secret.png", PNG)
    write(tmp_path, "outside/metadata.csv", "file_name,text\na.png,secret")
    write(tmp_path, "dataset/a.png", PNG)
    return tmp_path / "outside"


@pytest.mark.parametrize(
    ("link", "target", "severity"),
    [
        ("a.txt", "secret.txt", "reject"),
        ("a.caption", "secret.txt", "reject"),
        ("b.png", "secret.png", "reject"),
        ("metadata.csv", "metadata.csv", "reject"),
        ("table.jsonl", "secret.txt", "reject"),
        ("linked", "", "reject"),
        ("10_shoe", "", "reject"),
        ("README", "secret.png", "note"),
    ],
)
@pytest.mark.parametrize("relative", [False, True])
def test_a_link_out_of_the_folder_is_not_read_and_is_named(
    link: str, target: str, severity: str, relative: bool, outside: Path
) -> None:
    folder = outside.parent / "dataset"
    (folder / link).symlink_to(f"../outside/{target}" if relative else outside / target)
    reading = read(folder)
    assert captions(reading) == {"a.png": None}
    assert left(reading) == {link: "link leads out"}
    assert severities(folder) == {link: severity}


def test_a_link_to_the_root_ends(outside: Path) -> None:
    folder = outside.parent / "dataset"
    (folder / "root").symlink_to("/")
    assert walk_folder(folder).num_seen == 2


def test_a_chain_of_links_is_followed_to_its_end(outside: Path) -> None:
    folder = outside.parent / "dataset"
    (folder / "b.png").symlink_to("c.png")
    (folder / "c.png").symlink_to(outside / "secret.png")
    assert keys(folder) == ["a.png"]


def test_a_neighbour_whose_name_begins_alike_is_outside(tmp_path: Path) -> None:
    write(tmp_path, "dataset-2/a.png", PNG)
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/a.png").symlink_to(tmp_path / "dataset-2/a.png")
    assert leads_out(tmp_path / "dataset/a.png", tmp_path / "dataset")


def test_a_link_within_the_folder_is_read_also_through_a_linked_source(tmp_path: Path) -> None:
    write(tmp_path, "dataset/sub/a.png", PNG)
    (tmp_path / "dataset/b.png").symlink_to("sub/a.png")
    (tmp_path / "entry").symlink_to(tmp_path / "dataset")
    assert keys(tmp_path / "entry") == ["b.png", "sub/a.png"]


def test_links_between_folders_do_not_multiply_the_images(tmp_path: Path) -> None:
    for level in range(20):
        write(tmp_path, f"d{level}/a.png", PNG)
        for name in ("x", "y"):
            (tmp_path / f"d{level}/{name}").symlink_to(tmp_path / f"d{level + 1}")
    write(tmp_path, "d20/a.png", PNG)
    assert len(keys(tmp_path)) == 21


def test_scores_compare_no_prompt_from_outside(outside: Path) -> None:
    folder = outside.parent / "dataset"
    (folder / "a.txt").symlink_to(outside / "secret.txt")
    assert [scored.prompt for scored in score_folder(folder).pictures] == [""]


def test_a_kept_caption_is_the_link_and_not_what_it_leads_to(outside: Path) -> None:
    folder = outside.parent / "dataset"
    (folder / "a.txt").symlink_to(outside / "secret.txt")
    recipe = DatasetRecipe(source=str(folder))
    dataset = OpenedDataset("links", outside.parent / "kept", recipe, count_tokens=len)
    dataset.set_caption("a.png", "a shoe")
    written = write_sidecars(dataset)
    assert (written.kept / "a.txt").is_symlink()
    assert (folder / "a.txt").read_text() == "a shoe\n"
    assert (outside / "secret.txt").read_text() == "root:x:0:0"


# Drops, checks and trainings follow the same rules


def test_a_dropped_zip_follows_the_same_rules(tmp_path: Path) -> None:
    names = ("set/10_shoe/a.png", "set/10_shoe/@eaDir/a.png", "set/.DS_Store", "__MACOSX/set/._a.png", "@eaDir/set.jpg")
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    with zipfile.ZipFile(uploads / "set.zip", "w") as archive:
        for name in names:
            archive.writestr(name, PNG)
    session = DatasetSession(UserData(tmp_path / "user_data"), count_tokens=len)
    try:
        opened = session.open_dropped([DroppedFile("set.zip", uploads / "set.zip")], uploads=uploads)
    finally:
        session.close()
    assert [(picture.key, picture.repeats) for picture in opened.reading.pictures] == [("10_shoe/a.png", 10)]
    assert {skipped.name for skipped in opened.skipped_files} == {"10_shoe/@eaDir", ".DS_Store", "__MACOSX"}


def test_a_folder_of_links_out_says_why_it_holds_no_image(outside: Path) -> None:
    folder = outside.parent / "links"
    folder.mkdir()
    (folder / "a.png").symlink_to(outside / "secret.png")
    session = DatasetSession(UserData(outside.parent / "user_data"), count_tokens=len)
    with pytest.raises(DatasetError, match=r"There is no image in .*a\.png: A link that leads out of the folder"):
        session.open_folder(str(folder))
    session.close()


def test_the_check_lists_what_is_not_used(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = outside.parent / "dataset"
    (folder / "link.txt").symlink_to("/etc/passwd")
    write(folder, "@eaDir/a.png", PNG)
    write(folder, "a_mask.png", PNG)
    recipe = DatasetRecipe(source=str(folder), resolution=128)
    assert not check_dataset(recipe, UserData(outside.parent / "user_data"), as_json=False)
    printed = capsys.readouterr().out
    assert "1 found = 1 will be trained on." in printed
    for line in ("'link.txt': link leads out", "'@eaDir': system folder", "'a_mask.png': mask"):
        assert line in printed


# HEIC


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_upright_and_keeps_its_colours(orientation: int, tmp_path: Path) -> None:
    write(tmp_path, "a.heic", heic(orientation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    as_png = Image.open(io.BytesIO(encoded(picture(), "PNG", exif=exif)))
    wanted = np.asarray(ImageOps.exif_transpose(as_png)).astype(int)
    found = np.asarray(open_rgb(tmp_path / "a.heic")).astype(int)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).mean() < 4


@given(st.binary(max_size=64), st.sampled_from([b"", *(content[:16] for content in STARTS.values())]))
def test_any_first_bytes_are_some_kind(content: bytes, start: bytes) -> None:
    assert picture_kind(start + content) in {"", "RAW", *STARTS}


# Bounds


def test_a_folder_that_holds_too_much_is_refused_and_progress_is_reported(tmp_path: Path) -> None:
    for number in range(2_100):
        (tmp_path / f"{number}.txt").touch()
    seen: list[int] = []
    assert walk_folder(tmp_path, on_progress=seen.append, progress_step=1000).num_seen == 2_100
    assert seen == [1000, 2000]
    with pytest.raises(DatasetError, match=r"holds more than 2,000 files and folders\. Give the folder in which"):
        walk_folder(tmp_path, max_files=2_000)


def test_what_lies_too_deep_is_named(tmp_path: Path) -> None:
    deep = "/".join("d" for _ in range(MAX_DEPTH))
    write(tmp_path, f"{deep}/a.png", PNG)
    write(tmp_path, f"{deep}/d/b.png", PNG)
    assert keys(tmp_path) == [f"{deep}/a.png"]
    assert left(read(tmp_path)) == {f"{deep}/d": "too deep"}
