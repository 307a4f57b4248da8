"""Images on another ground: proposed first, then used as copies that undo takes back; originals as they were."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.core.errors import DatasetError
from studio.datasets.checker import PictureChecker
from studio.datasets.export import export_imagefolder
from studio.datasets.grounds import MASKS, GroundChanger, GroundWork, use_copies
from studio.datasets.inspection import measure_border_whiteness
from studio.datasets.opened import OpenedDataset
from studio.datasets.snapshot import make_snapshot, with_masks
from studio.datasets.source import DatasetRecipe
from studio.images.grounds import GroundSettings
from tests.images.scores.drawn import draw


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PictureChecker]:
    folder = tmp_path_factory.mktemp("checks")
    made = PictureChecker(folder / "checks.db", folder / "thumbnails", num_workers=1)
    yield made
    made.close()


@pytest.fixture
def opened(tmp_path: Path, checker: PictureChecker) -> OpenedDataset:
    """Two images with a subject on grey and grass, and a white one without."""
    source = tmp_path / "images" / "below"
    source.mkdir(parents=True)
    for name in ("grey", "grass"):
        Image.fromarray(draw(name, side=256)).save(source / f"{name}.png")
    Image.new("RGB", (256, 256), "white").save(source / "white.png")
    return reopened(tmp_path, checker)


def reopened(folder: Path, checker: PictureChecker) -> OpenedDataset:
    recipe = DatasetRecipe(source=str(folder / "images"), resolution=256)
    dataset = OpenedDataset("shoes", folder / "own", recipe, count_tokens=len)
    dataset.check(checker)
    return dataset


def changed(
    opened: OpenedDataset, checker: PictureChecker, folder: Path, settings: GroundSettings | None = None
) -> GroundWork:
    keys = [row.key for row in opened.rows]
    work = GroundChanger(checker, folder).begin(opened, keys, settings or GroundSettings())
    assert work.done.wait(60)
    return work


def hashes(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def test_nothing_changes_before_the_images_are_used(
    opened: OpenedDataset, checker: PictureChecker, tmp_path: Path
) -> None:
    before = hashes(tmp_path / "own"), [row.path for row in opened.rows]
    work = changed(opened, checker, tmp_path / "cache")
    assert [(result.key, bool(result.problem)) for result in work.results] == [
        ("below/grass.png", False),
        ("below/grey.png", False),
        ("below/white.png", True),
    ]
    assert "No subject stands out" in str(work.made["below/white.png"].problem)
    assert (hashes(tmp_path / "own"), [row.path for row in opened.rows]) == before


def test_used_images_are_read_by_training_and_export_and_are_undone_as_one(
    opened: OpenedDataset, checker: PictureChecker, tmp_path: Path
) -> None:
    originals = hashes(tmp_path / "images")
    assert use_copies(opened, changed(opened, checker, tmp_path / "cache")) == 2
    assert opened.next_undo == "2 images on white"
    again = reopened(tmp_path, checker)
    snapshot = make_snapshot("shoes", again.recipe, again.rows)
    export_imagefolder(snapshot, tmp_path / "out", background="#ffffff", progress=lambda *_: None)
    for file in (entry.path for entry in snapshot.entries):
        assert measure_border_whiteness(Image.open(file)) == 1
    for path in (tmp_path / "out").rglob("*.png"):
        assert measure_border_whiteness(Image.open(path)) == 1
    assert hashes(tmp_path / "images") == originals
    again.undo()
    assert [row.path for row in again.rows] == [tmp_path / "images" / row.key for row in again.rows]


def test_undo_goes_back_to_the_copy_before(opened: OpenedDataset, checker: PictureChecker, tmp_path: Path) -> None:
    key = "below/grey.png"
    use_copies(opened, changed(opened, checker, tmp_path / "cache"), keys=[key])
    first = opened.row(key).path.read_bytes()
    use_copies(opened, changed(opened, checker, tmp_path / "cache", GroundSettings(subject_percent=90)), keys=[key])
    assert opened.row(key).path.read_bytes() != first
    opened.undo()
    assert opened.row(key).path.read_bytes() == first


def test_what_was_made_of_another_file_is_not_used(
    opened: OpenedDataset, checker: PictureChecker, tmp_path: Path
) -> None:
    work = changed(opened, checker, tmp_path / "cache")
    opened.convert("below/grey.png", checker)
    assert use_copies(opened, work) == 1
    with pytest.raises(DatasetError, match="no image to use"):
        use_copies(opened, work)


def test_masks_are_those_that_a_training_reads(opened: OpenedDataset, checker: PictureChecker, tmp_path: Path) -> None:
    settings = GroundSettings(white=False, masks=True)
    assert use_copies(opened, changed(opened, checker, tmp_path / "cache", settings)) == 2
    assert opened.next_undo == ""
    taken = with_masks(make_snapshot("shoes", opened.recipe, opened.rows), str(opened.folder / MASKS))
    masks = {entry.key: entry.mask for entry in taken.entries}
    assert [key for key, mask in masks.items() if mask] == ["below/grass.png", "below/grey.png"]
    for mask in filter(None, masks.values()):
        levels = np.asarray(Image.open(mask.path))
        assert levels[128, 128] == 255
        assert not levels[:12].any()


def test_a_change_of_nothing_is_refused(opened: OpenedDataset, checker: PictureChecker, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nothing would change"):
        changed(opened, checker, tmp_path / "cache", GroundSettings(white=False))


def test_a_stop_keeps_what_is_made(opened: OpenedDataset, checker: PictureChecker, tmp_path: Path) -> None:
    work = GroundChanger(checker, tmp_path / "cache").begin(opened, [row.key for row in opened.rows], GroundSettings())
    work.stop.set()
    assert work.done.wait(60)
    assert len(work.results) < 3
