"""What is exported, `datasets` and our own reader read back with equal captions; and nothing is written by halves."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from studio.core.errors import DatasetError
from studio.datasets.checker import PictureChecker
from studio.datasets.export import export_imagefolder, export_kohya, export_zip, metadata_line
from studio.datasets.opened import OpenedDataset
from studio.datasets.reading import read_source
from studio.datasets.rows import fit_of
from studio.datasets.snapshot import Snapshot, changed_since, make_snapshot, read_snapshot, sha256_of, write_snapshot
from studio.datasets.source import DatasetRecipe, LayoutChoice
from tests.datasets.bad_inputs import encoded, picture

WHITE = "#ffffff"
CAPTIONS = {
    "a.png": 'a "quoted" shoe, red; new',
    "a.jpg": "Größe 42 – café",
    "sub/a.png": "-leading dash",
    "sub/übung, 2.webp": "🥾 boot, {braces} $(x)",
    "10_shoe/b.png": "ten times",
    "clear.png": "transparent",
    "plain.bmp": "",
}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("source")
    for number, key in enumerate(CAPTIONS):
        path = folder / "pictures" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        image = picture(64 + number, 80, "RGBA" if key == "clear.png" else "RGB")
        if key == "clear.png":
            image.putalpha(0)
        path.write_bytes(encoded(image, Image.registered_extensions()[path.suffix]))
    recipe = DatasetRecipe(source=str(folder / "pictures"), layout=LayoutChoice(layout="sidecar"))
    dataset = OpenedDataset("my shoes", folder / "own", recipe, count_tokens=len)
    checker = PictureChecker(folder / "checks.db", folder / "thumbnails", num_workers=1)
    dataset.check(checker)
    checker.close()
    dataset.set_captions(CAPTIONS, what="all")
    return make_snapshot("my shoes", recipe, dataset.rows)


def quiet(done: int, total: int) -> None:
    assert 0 <= done <= total


def texts(snapshot: Snapshot) -> list[str]:
    return sorted(entry.caption for entry in snapshot.entries)


def test_a_snapshot_comes_back_as_it_was(snapshot: Snapshot, tmp_path: Path) -> None:
    write_snapshot(tmp_path / "s.jsonl", snapshot)
    assert read_snapshot(tmp_path / "s.jsonl") == snapshot
    assert snapshot.header.num_pictures == len(CAPTIONS)


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "gone"])
def test_a_damaged_snapshot_is_said(damage: str, snapshot: Snapshot, tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    write_snapshot(file, snapshot)
    content = file.read_bytes()
    file.write_bytes({"cut": content[:-40], "changed": content.replace(b"ten", b"six"), "empty": b""}.get(damage, b""))
    if damage == "gone":
        file.unlink()
    with pytest.raises(DatasetError, match="snapshot"):
        read_snapshot(file)


def test_an_imagefolder_is_read_back_by_datasets(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    export_imagefolder(snapshot, tmp_path / "out", background=WHITE, progress=quiet)
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")
    )
    # An empty text is read as none.
    assert sorted(row["text"] or "" for row in loaded) == texts(snapshot)
    sizes = sorted(row["image"].size for row in loaded)
    assert sizes == sorted((entry.width, entry.height) for entry in snapshot.entries)


SPLIT_NAMES = ("test_1", "val", "my-dev shoe", "training", "eval/a", "__x/b", "validation.set/c", "é" * 120)
TAKEN = ("file_name", "source_file_name", "mask_file_names", "image", "text", "source_text", "repeats")


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_names_that_mean_something_to_datasets_change_nothing(
    form: str, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    attributes = {name: f"of {name}" for name in TAKEN}
    entry = next(entry for entry in snapshot.entries if entry.key == "a.png")
    named = [
        entry.model_copy(update={"key": f"{name}.png", "caption": f"shoe {name}", "attributes": attributes})
        for name in SPLIT_NAMES
    ]
    hostile = Snapshot(snapshot.header, tuple(named))
    source = tmp_path / "out"
    if form == "zip":
        source.mkdir()
        export_zip(hostile, source / "shoes.zip", background=WHITE, progress=quiet)
    else:
        export_imagefolder(hostile, source, background=WHITE, progress=quiet)
    loaded = datasets.load_dataset("imagefolder", data_dir=str(source), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    rows = loaded["train"]
    assert [row["text"] for row in rows] == [f"shoe {name}" for name in SPLIT_NAMES]
    assert [name for name, kind in rows.features.items() if isinstance(kind, datasets.Image)] == ["image"]
    others = {name: value for name, value in rows[0].items() if name not in ("image", "text", "repeats")}
    assert sorted(others.values()) == sorted(attributes.values())


def test_an_imagefolder_is_read_back_by_our_own_reader(snapshot: Snapshot, tmp_path: Path) -> None:
    export_imagefolder(snapshot, tmp_path / "out", background=WHITE, progress=quiet)
    reading = read_source(tmp_path / "out", LayoutChoice())
    assert reading.layout == "imagefolder"
    assert sorted(picture.caption or "" for picture in reading.pictures) == texts(snapshot)
    assert reading.skipped_files == ()


def test_kohya_folders_are_read_back_with_their_repeats(snapshot: Snapshot, tmp_path: Path) -> None:
    entries = tuple(e.model_copy(update={"repeats": 10 if e.key.startswith("10_") else 1}) for e in snapshot.entries)
    export_kohya(Snapshot(snapshot.header, entries), tmp_path / "out", background=WHITE, progress=quiet)
    reading = read_source(tmp_path / "out", LayoutChoice())
    assert reading.layout == "kohya"
    assert sorted(picture.caption or "" for picture in reading.pictures) == texts(snapshot)
    assert {picture.repeats for picture in reading.pictures if picture.caption == "ten times"} == {10}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"1_my-shoes", "10_my-shoes"}


def test_kohya_gets_several_captions_one_a_line(snapshot: Snapshot, tmp_path: Path) -> None:
    entries = (snapshot.entries[0].model_copy(update={"caption": "a shoe || red sneakers"}),)
    export_kohya(Snapshot(snapshot.header, entries), tmp_path / "out", background=WHITE, progress=quiet)
    (written,) = (tmp_path / "out").rglob("*.txt")
    assert written.read_text(encoding="utf-8") == "a shoe\nred sneakers\n"


def test_a_zip_holds_an_imagefolder(snapshot: Snapshot, tmp_path: Path) -> None:
    export_zip(snapshot, tmp_path / "out.zip", background=WHITE, progress=quiet)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
    reading = read_source(tmp_path / "out", LayoutChoice())
    assert sorted(picture.caption or "" for picture in reading.pictures) == texts(snapshot)


def test_files_are_copied_to_the_byte_unless_they_need_conversion(snapshot: Snapshot, tmp_path: Path) -> None:
    export_imagefolder(snapshot, tmp_path / "out", background="#0000ff", progress=quiet)
    source = {Path(entry.path).name: Path(entry.path) for entry in snapshot.entries}
    assert (tmp_path / "out/train/a.jpg").read_bytes() == source["a.jpg"].read_bytes()
    with Image.open(tmp_path / "out/train/clear.png") as clear:
        assert clear.mode == "RGB"
        assert clear.getpixel((0, 0)) == (0, 0, 255)
    assert (tmp_path / "out/train/plain.png").is_file()


WIDE, HIGH = 1400, 600


def with_crops(snapshot: Snapshot) -> Snapshot:
    """All wide, the first with its crop moved to the lower end; each pixel says where it lies."""
    whole = Image.new("RGB", (WIDE, HIGH))
    whole.putdata([(x % 256, y % 256, x // 256 * 16 + y // 256) for y in range(HIGH) for x in range(WIDE)])
    entries = []
    for entry in snapshot.entries[:3]:
        path = Path(entry.path).with_name(f"wide {Path(entry.path).name}.png")
        path.write_bytes(encoded(whole, "PNG"))
        kept = {"path": str(path), "sha256": sha256_of(path), "width": WIDE, "height": HIGH}
        entries.append(entry.model_copy(update={**kept, "key": path.name, "focus": None if entries else (0.5, 0.99)}))
    return Snapshot(snapshot.header, tuple(entries))


def part_of(path: Path) -> tuple[int, ...]:
    """Left, top, right and bottom of the part of the whole image that a file holds."""
    with Image.open(path) as image:
        corners = [image.getpixel(place) for place in ((0, 0), (image.width - 1, image.height - 1))]
    (left, top), (right, bottom) = [
        (red + 256 * (blue // 16), green + 256 * (blue % 16))
        for red, green, blue in corners  # type: ignore[misc]
    ]
    assert (right + 1 - left, bottom + 1 - top) == image.size
    return left, top, right + 1, bottom + 1


def trained_parts(snapshot: Snapshot) -> list[tuple[int, ...]]:
    """What training keeps of each image."""
    resolution = snapshot.header.recipe.resolution
    return [
        fit_of(WIDE, HIGH, resolution, step=None, square=False, focus=entry.focus).crop for entry in snapshot.entries
    ]


@pytest.mark.parametrize("export", [export_imagefolder, export_kohya, export_zip])
def test_cropped_copies_hold_the_pixels_that_are_trained_on(
    export: Callable[..., None], snapshot: Snapshot, tmp_path: Path
) -> None:
    wide, out = with_crops(snapshot), tmp_path / "out.zip"
    export(wide, out, background=WHITE, cropped=True, progress=quiet)
    if out.is_file():
        with zipfile.ZipFile(out) as archive:
            archive.extractall(tmp_path / "unpacked")
    parts = sorted(map(part_of, tmp_path.rglob("*.png")))
    assert parts == sorted(trained_parts(wide))
    assert [part[3] for part in parts].count(HIGH) == 1, "one was moved to the lower end"
    assert not any("crop" in path.read_text(encoding="utf-8") for path in tmp_path.rglob("metadata.jsonl"))


def test_whole_images_have_a_column_that_says_where_a_moved_crop_lies(snapshot: Snapshot, tmp_path: Path) -> None:
    wide = with_crops(snapshot)
    export_imagefolder(wide, tmp_path / "out", background=WHITE, progress=quiet)
    lines = (tmp_path / "out/train/metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["crop"] for line in lines] == [",".join(map(str, trained_parts(wide)[0])), "", ""]
    assert {part_of(path) for path in (tmp_path / "out").rglob("*.png")} == {(0, 0, WIDE, HIGH)}


def test_a_folder_that_is_not_empty_is_left_alone(snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DatasetError, match="not empty"):
        export_imagefolder(snapshot, tmp_path / "out", background=WHITE, progress=quiet)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_changed_picture_stops_the_export_and_nothing_is_left(snapshot: Snapshot, tmp_path: Path) -> None:
    entry = snapshot.entries[-1].model_copy(update={"sha256": "0" * 64})
    changed = Snapshot(snapshot.header, (*snapshot.entries[:-1], entry))
    for export, target in ((export_imagefolder, "out"), (export_kohya, "out"), (export_zip, "out.zip")):
        with pytest.raises(DatasetError, match="was changed"):
            export(changed, tmp_path / target, background=WHITE, progress=quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_change_since_the_snapshot_is_noticed(snapshot: Snapshot, tmp_path: Path) -> None:
    assert changed_since(snapshot) == ()
    entry = snapshot.entries[0]
    copy = tmp_path / "a.png"
    copy.write_bytes(Path(entry.path).read_bytes())
    moved = Snapshot(snapshot.header, (entry.model_copy(update={"path": str(copy)}),))
    assert changed_since(moved) == ()
    content = bytearray(copy.read_bytes())
    content[-20] ^= 1
    stamp = copy.stat()
    copy.write_bytes(content)
    os.utime(copy, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert len(changed_since(moved)) == 1
    copy.unlink()
    assert len(changed_since(moved)) == 1


def test_an_empty_dataset_cannot_be_exported() -> None:
    with pytest.raises(DatasetError, match="can be trained on"):
        make_snapshot("x", DatasetRecipe(source="/x"), [])


@given(st.text(max_size=30), st.dictionaries(st.sampled_from(TAKEN) | st.text(max_size=12), st.text(max_size=12)))
def test_a_line_of_metadata_reads_back(caption: str, attributes: dict[str, str]) -> None:
    line = metadata_line({"file_name": "a.png", "text": caption}, attributes)
    assert line.count(b"\n") == 1
    read = json.loads(line)
    assert (read.pop("file_name"), read.pop("text")) == ("a.png", caption)
    assert list(read.values()) == list(attributes.values())
    assert not [name for name in read if name.endswith(("file_name", "file_names")) or name in ("image", "images")]


def test_half_of_a_character_is_an_error_of_ours() -> None:
    with pytest.raises(DatasetError, match=r"a\.png holds half of a character"):
        metadata_line({"file_name": "a.png", "text": "\ud800"}, {})
