"""Zips of strangers: nothing leaves the folder, nothing fills the disk, and all or nothing is unpacked."""

import random
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from studio.core.errors import DatasetError
from studio.datasets.upload import ArchiveLimits, extract_zip


def make_zip(path: Path, members: dict[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return path


def unpacked(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_sub_folders_are_kept(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"a/x.png": b"1", "b/x.png": b"2", "b/": b""})
    assert extract_zip(archive, tmp_path / "out") == ()
    assert unpacked(tmp_path / "out") == {"a/x.png": b"1", "b/x.png": b"2"}


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/x.png", "C:/x.png", "a\\..\\..\\x.png"])
def test_names_that_lead_out_are_refused_and_said(name: str, tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"good.png": b"1", name: b"2"})
    (skipped_file,) = extract_zip(archive, tmp_path / "out")
    assert skipped_file.problem.severity == "reject"
    assert unpacked(tmp_path / "out") == {"good.png": b"1"}
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    "name", ["x" * 300 + ".png", "a/" + "y" * 300 + "/b.png", "ä" * 150 + ".png", "/".join("z" * 2500)]
)
def test_a_name_too_long_for_the_disk_costs_that_file_alone(name: str, tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"good.png": b"1", name: b"2", "after.png": b"3"})
    (skipped_file,) = extract_zip(archive, tmp_path / "out")
    assert (skipped_file.name, skipped_file.problem.code) == (name[:200], "name too long")
    assert "too long" in skipped_file.problem.sentence
    assert unpacked(tmp_path / "out") == {"good.png": b"1", "after.png": b"3"}


def test_links_are_not_made(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good.png", b"1")
        archive.writestr(link, b"/etc/passwd")
    (skipped_file,) = extract_zip(tmp_path / "a.zip", tmp_path / "out")
    assert skipped_file.name == "link.png"
    assert not (tmp_path / "out/link.png").is_symlink()


def test_what_a_mac_adds_is_said_once(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"a.png": b"1", "__MACOSX/._a.png": b"x", "__MACOSX/._b.png": b"x"})
    assert [skipped_file.name for skipped_file in extract_zip(archive, tmp_path / "out")] == ["__MACOSX"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_said_and_the_first_stays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", b"1")
        archive.writestr("a.png", b"2")
        archive.writestr("a.png/b.png", b"3")
    skipped_files = extract_zip(tmp_path / "a.zip", tmp_path / "out")
    assert [skipped_file.problem.code for skipped_file in skipped_files] == ["name twice", "name twice"]
    assert unpacked(tmp_path / "out") == {"a.png": b"1"}


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {f"{i}.png": b"x" for i in range(11)})
    with pytest.raises(DatasetError, match="11 files"):
        extract_zip(archive, tmp_path / "out", limits=ArchiveLimits(num_files=10))
    assert not (tmp_path / "out").exists()


def test_too_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"a.png": bytes(10_000)})
    with pytest.raises(DatasetError, match="unpacks to"):
        extract_zip(archive, tmp_path / "out", limits=ArchiveLimits(total_bytes=9_999))
    with pytest.raises(DatasetError, match="times its size"):
        extract_zip(archive, tmp_path / "out", limits=ArchiveLimits(ratio=10, ratio_counts_from_bytes=1000))


def test_a_member_that_holds_more_than_it_declares_is_refused(tmp_path: Path) -> None:
    content = bytearray(make_zip(tmp_path / "a.zip", {"a.png": bytes(5000)}).read_bytes())
    place = content.rindex(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", 10)  # the declared size
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DatasetError):
        extract_zip(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_encrypted_zip_is_said_to_be_so(tmp_path: Path) -> None:
    content = bytearray(make_zip(tmp_path / "a.zip", {"a.png": b"x"}).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DatasetError, match="encrypted"):
        extract_zip(tmp_path / "a.zip", tmp_path / "out")


def test_a_damaged_member_leaves_nothing_behind(tmp_path: Path) -> None:
    archive = make_zip(
        tmp_path / "a.zip", {"a.png": b"good", "b.png": b"soon damaged" * 50}, compression=zipfile.ZIP_STORED
    )
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"soon damaged", b"soon damagED", 1))
    with pytest.raises(DatasetError, match=r"b\.png|cannot be unpacked"):
        extract_zip(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_zip_is_said(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DatasetError):
        extract_zip(tmp_path / "a.zip", tmp_path / "out")


def test_damaged_zips_are_unpacked_or_refused_and_nothing_else(tmp_path: Path) -> None:
    rng = random.Random(4)
    whole = make_zip(tmp_path / "a.zip", {f"{i}/x.png": rng.randbytes(300) for i in range(8)}).read_bytes()
    for number in range(300):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        (tmp_path / "b.zip").write_bytes(content)
        try:
            extract_zip(tmp_path / "b.zip", tmp_path / "outs" / str(number))
        except DatasetError:
            assert not (tmp_path / "outs" / str(number)).exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"a.zip", "b.zip", "outs"}
