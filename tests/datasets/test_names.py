"""Names of files: whatever signs they have, what belongs together is found, and what we write we find again."""

import hashlib
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.datasets.export import export_imagefolder, export_kohya
from studio.datasets.library import DatasetLibrary, safe_name
from studio.datasets.reading import read_source
from studio.datasets.snapshot import Snapshot, SnapshotEntry, SnapshotHeader, with_masks
from studio.datasets.source import DatasetRecipe, LayoutChoice

SIGNS = st.sampled_from("ab._- ()[]{}'$%&#,;~é靴🥾\u0301\u200b\u00a0\u202e\ufe0f\U00020000ﬁßİ")
STEMS = st.text(SIGNS, min_size=1, max_size=10) | st.sampled_from(
    ["CON", "nul", "aux.txt", "café", "cafe\u0301", "a.png", "10_shoe", "gas_mask", "test_1", "x" * 90, "靴" * 66]
)


def is_file_name(name: str) -> bool:
    """Whether a file may be called so, and is not hidden."""
    return not name.startswith(".") and not name.startswith("~") and len(name.encode()) < 200


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes a new folder for each example."""
    folder = tmp_path_factory.mktemp("names")
    return lambda: Path(tempfile.mkdtemp(dir=folder))


def snapshot_of_names(names: list[str], folder: Path) -> Snapshot:
    """Of files that are no images: copied and hashed, not decoded."""
    entries = []
    for number, name in enumerate(names):
        content = f"image {number}".encode()
        (folder / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        values = {"key": name, "path": str(folder / name), "sha256": digest, "num_bytes": len(content)}
        size = {"width": 8, "height": 8}
        entries.append(SnapshotEntry(**values, **size, caption=f"caption {number}", repeats=1 + number % 2))
    header = SnapshotHeader(name=names[0], recipe=DatasetRecipe(source=str(folder)), num_pictures=len(names), digest="")
    return Snapshot(header, tuple(entries))


NAMES = st.lists(
    st.builds("{}{}".format, STEMS, st.sampled_from([".png", ".PNG", ".jpg", ".webp"])).filter(is_file_name),
    min_size=1,
    max_size=5,
    unique_by=lambda name: unicodedata.normalize("NFC", name),
)


@settings(max_examples=25)
@given(NAMES)
def test_what_is_exported_under_any_names_reads_back(numbered: Callable[[], Path], names: list[str]) -> None:
    folder = numbered()
    (folder / "source").mkdir()
    snapshot = snapshot_of_names(names, folder / "source")
    wanted = sorted((entry.sha256, entry.caption) for entry in snapshot.entries)
    for export, target in ((export_kohya, folder / "kohya"), (export_imagefolder, folder / "imagefolder")):
        export(snapshot, target, background="#ffffff", progress=lambda done, total: None)
        reading = read_source(target, LayoutChoice())
        found = [(hashlib.sha256(p.path.read_bytes()).hexdigest(), p.caption) for p in reading.pictures]
        assert (reading.layout, sorted(found)) == (target.name, wanted)
        assert not [skipped for skipped in reading.skipped_files if skipped.problem.severity == "reject"]
    repeats = {picture.caption: picture.repeats for picture in read_source(folder / "kohya", LayoutChoice()).pictures}
    assert repeats == {entry.caption: entry.repeats for entry in snapshot.entries}


@settings(max_examples=50)
@given(
    STEMS.filter(is_file_name),
    st.sampled_from(["NFC", "NFD"]),
    st.sampled_from(["", "-masklabel", "_mask"]),
    st.sampled_from([".png", ".JPG"]),
)
def test_a_mask_is_found_by_its_images_name(
    numbered: Callable[[], Path], stem: str, form: str, mark: str, ending: str
) -> None:
    folder = numbered()
    snapshot = snapshot_of_names([f"{stem}.webp"], folder)
    name = unicodedata.normalize(form, stem) + mark + ending  # type: ignore[arg-type]
    (folder / "masks").mkdir()
    (folder / "masks" / name).write_bytes(b"mask")
    (entry,) = with_masks(snapshot, str(folder / "masks")).entries
    assert entry.mask is not None
    assert Path(entry.mask.path).name == name


@settings(max_examples=50)
@given(st.text(max_size=100) | STEMS | st.just("靴" * 90) | st.just("\U00020000" * 80))
def test_a_safe_name_is_safe_and_stays_the_same(numbered: Callable[[], Path], wanted: str) -> None:
    name = safe_name(wanted)
    assert safe_name(name) == name == unicodedata.normalize("NFC", name)
    assert 0 < len(name.encode()) <= 200
    assert name.partition(".")[0].upper() not in {"CON", "NUL", "AUX", "PRN", "COM1", "LPT9"}
    library = DatasetLibrary(numbered())
    for _ in range(2):
        free = library.free_name(wanted)
        library.save_recipe(free, DatasetRecipe(source="/x"))
        assert free in library.names()
        assert library.recipe(free).source == "/x"
        assert library.known_name(unicodedata.normalize("NFD", free)) == free
