"""An image that is not what was written does not count as made, whatever its size."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.batches.folder import BatchFolder
from studio.batches.ledger import Ledger
from studio.batches.torch import run as run_module
from studio.batches.torch.run import run_batch
from studio.batches.torch.shard import compare_pictures
from studio.core.errors import BatchError, CancelledError
from studio.core.paths import UserData
from studio.jobs.events import NoteEvent
from studio.jobs.folder import ask, read_status
from studio.training.events import read_events
from tests.batches.torch.made import begun, lines, made, rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> BatchFolder:
    return made(tmp_path_factory.mktemp("whole"), total=3)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def contents(folder: BatchFolder) -> list[str]:
    return [hashlib.sha256((folder.root / row.file).read_bytes()).hexdigest() for row in rows(folder)]


@pytest.mark.parametrize("damage", [zero, flip_a_bit, Path.unlink])
def test_a_damaged_picture_is_set_aside_and_made_again_to_the_byte(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = made(tmp_path, total=3)
    before, picture = contents(folder), folder.picture(1, "png")
    damage(picture)
    damaged = picture.read_bytes() if picture.exists() else None
    assert run_batch(folder, UserData(tmp_path)) == "finished"
    assert contents(folder) == before == [line["sha256"] for line in lines(folder)]
    kept = list(folder.rejected.glob("damaged-*"))
    assert [path.read_bytes() for path in kept] == ([] if damaged is None else [damaged])
    notes = [event.message for event in read_events(folder.events) if isinstance(event, NoteEvent)]
    assert any("1 image missing or damaged on the disk: made again." in note for note in notes)


def test_two_damaged_files_of_one_picture_are_both_kept(tmp_path: Path) -> None:
    folder = made(tmp_path, total=1)
    for _ in range(2):
        zero(folder.picture(0, "png"))
        run_batch(folder, UserData(tmp_path))
    names = sorted(path.name for path in folder.rejected.glob("damaged-*"))
    assert names == ["damaged-0000000-2.png", "damaged-0000000.png"]


def test_what_is_damaged_while_the_batch_is_made_is_seen_before_it_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path, total=3)
    remake_copies, damaged = run_module.remake_copies, []

    def damaging(*arguments: object) -> None:
        if not damaged:
            damaged.append(zero(folder.picture(2, "png")))
        remake_copies(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "remake_copies", damaging)
    assert run_batch(folder, UserData(tmp_path)) == "finished"
    assert contents(folder) == [row.sha256 for row in rows(folder)]
    assert (folder.rejected / "damaged-0000002.png").is_file()


def test_a_disk_that_keeps_nothing_ends_the_batch_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begun(tmp_path, total=1)
    monkeypatch.setattr(run_module, "remake_copies", lambda *_: zero(folder.picture(0, "png")))
    with pytest.raises(BatchError, match="do not stay as they are written"):
        run_batch(folder, UserData(tmp_path))
    assert read_status(folder).state == "failed"


def test_comparing_tells_how_far_it_is_and_can_be_stopped(whole: BatchFolder) -> None:
    reported: list[int] = []
    found = compare_pictures(whole, progress=reported.append, cancelled=lambda: False)
    assert (reported, found.lost) == ([1, 2, 3], [])
    with pytest.raises(CancelledError):
        compare_pictures(whole, progress=reported.append, cancelled=lambda: len(reported) == 4)


def test_a_stop_while_pictures_are_compared_is_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path, total=3)
    compare = run_module.compare_pictures

    def asked_meanwhile(*arguments: object, **options: object) -> object:
        ask(folder, "stop")
        return compare(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "compare_pictures", asked_meanwhile)
    assert run_batch(folder, UserData(tmp_path)) == "stopped"
    assert read_status(folder).state == "stopped"


def test_a_row_in_another_ledger_that_tells_of_another_file_does_not_cost_the_good_one(tmp_path: Path) -> None:
    folder = made(tmp_path, total=2)
    before = contents(folder)
    other = Ledger(folder.ledgers / "process-7.db")
    other.add(rows(folder)[1].model_copy(update={"sha256": "0" * 64, "attempts": 3}))
    other.close()
    run_batch(folder, UserData(tmp_path))
    assert contents(folder) == before == [row.sha256 for row in rows(folder)]
    assert not list(folder.rejected.glob("damaged-*"))
