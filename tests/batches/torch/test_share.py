"""Processes of one launch: who may write to which ledger, and how the error of one reaches all."""

import os
import time
from pathlib import Path

import pytest

from studio.batches.folder import BatchFolder
from studio.batches.torch import run as run_module
from studio.batches.torch.run import run_batch
from studio.batches.torch.shard import Share
from studio.core.errors import BatchError
from studio.core.paths import UserData
from studio.jobs.folder import read_status
from tests.batches.torch.made import begun


def share(tmp_path: Path, index: int, count: int = 2) -> Share:
    return Share(BatchFolder(tmp_path), index=index, count=count, local_index=index)


def test_a_process_writes_its_own_ledger_and_the_first_one_those_of_nobody(tmp_path: Path) -> None:
    first, second = share(tmp_path, 0), share(tmp_path, 1)
    ledgers = {number: tmp_path / "ledgers" / f"process-{number}.db" for number in (0, 1, 2, 11)}
    assert [number for number, path in ledgers.items() if first.owns_ledger(path)] == [0, 2, 11]
    assert [number for number, path in ledgers.items() if second.owns_ledger(path)] == [1]


def test_the_error_of_one_process_is_heard_by_the_others_and_the_first_word_counts(tmp_path: Path) -> None:
    with share(tmp_path, 0) as first, share(tmp_path, 1) as second:
        assert not first.is_halted()
        time.sleep(0.01)  # the folder's clock
        second.halt("The device is lost.")
        assert first.is_halted()
        first.halt()
        assert first.halted_because() == "The device is lost."


def test_what_halted_an_earlier_launch_does_not_count(tmp_path: Path) -> None:
    halt = tmp_path / "ledgers" / "halt"
    before = share(tmp_path, 0)
    halt.write_text("The device is lost.", encoding="utf-8")
    os.utime(halt, (1, 1))
    with before:
        assert before.halted_because() == ""


def test_the_first_process_fails_with_the_error_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begun(tmp_path)
    compare = run_module.compare_pictures

    def meanwhile(*arguments: object, **options: object) -> object:
        os.utime(folder.ledgers / "process-0.begun", (1, 1))
        share(folder.root, 1).halt("The device is lost.")
        return compare(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "compare_pictures", meanwhile)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BatchError, match="The device is lost"):
        run_batch(folder, UserData(tmp_path))
    assert (read_status(folder).state, read_status(folder).message) == ("failed", "The device is lost.")
