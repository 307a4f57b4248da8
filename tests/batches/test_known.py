"""Which items need nothing more: read on from where the last look stopped, each counted once."""

from pathlib import Path

import pytest

from studio.batches.torch import shard as known_module
from studio.batches.torch.shard import KnownItems
from tests.batches.test_follower import ledger, row


def test_items_of_all_ledgers_are_known_and_count_once(tmp_path: Path) -> None:
    first, second = ledger(tmp_path), ledger(tmp_path, 1)
    first.add(row(0))
    second.add(row(1, "failed"))
    second.add(row(0, attempts=2))
    known = KnownItems(tmp_path, 4)
    assert known.look() == 2
    assert list(known.flags) == [1, 1, 0, 0]
    first.add(row(3))
    assert known.look() == 3


def test_what_is_to_be_made_again_is_known_again_only_by_a_new_row(tmp_path: Path) -> None:
    first = ledger(tmp_path)
    for item in range(3):
        first.add(row(item))
    known = KnownItems(tmp_path, 3)
    known.look()
    first.forget([1])
    known.forget([1, 1])
    assert (known.look(), list(known.flags)) == (2, [1, 0, 1])
    first.add(row(1))
    assert (known.look(), list(known.flags)) == (3, [1, 1, 1])


def test_a_look_reads_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ledger(tmp_path)
    known = KnownItems(tmp_path, 1000)
    for item in range(50):
        first.add(row(item))
    known.look()
    read: list[int] = []
    states_since = known_module.states_since

    def counted(path: Path, seq: int) -> list[tuple[int, int, str]]:
        found = states_since(path, seq)
        read.append(len(found))
        return list(found)

    monkeypatch.setattr(known_module, "states_since", counted)
    first.add(row(50))
    assert known.look() == 51
    assert read == [1]
