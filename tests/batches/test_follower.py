"""Following ledgers: each row is read once, an item counts once, the pace is that of late."""

import time
from pathlib import Path

from studio.batches.ledger import ItemRow, ItemState, Ledger, RejectionRow
from studio.batches.session import BatchFollower


def row(item: int, state: ItemState = "done", *, attempts: int = 1) -> ItemRow:
    made_at = f"2026-11-26T02:{item // 60 % 60:02}:{item % 60:02}+00:00"
    return ItemRow(
        item=item, state=state, file=f"dataset/{item}.png", seed=item, attempts=attempts, seconds=0.1, made_at=made_at
    )


def ledger(folder: Path, process: int = 0) -> Ledger:
    return Ledger(folder / f"process-{process:03}.db")


def test_without_a_ledger_nothing_is_done(tmp_path: Path) -> None:
    progress = BatchFollower(tmp_path / "ledgers").look(running=True)
    assert (progress.num_done, progress.pictures_per_second) == (0, None)


def test_what_became_of_items_is_counted_over_all_ledgers(tmp_path: Path) -> None:
    first, second = ledger(tmp_path), ledger(tmp_path, 1)
    follower = BatchFollower(tmp_path)
    for item in range(20):
        (first, second)[item % 2].add(row(item))
    first.add(row(20, "failed", attempts=4))
    first.reject(RejectionRow(item=20, attempt=0, seed=1, reason="grey", made_at=""))
    progress = follower.look(running=True)
    assert (progress.num_done, progress.num_failed, progress.num_rejected) == (20, 1, 1)
    first.add(row(0, "rejected"))
    second.add(row(1, "again"))
    progress = follower.look(running=True)
    assert (progress.num_done, progress.num_set_aside, progress.num_to_remake) == (18, 1, 1)


def test_an_item_that_is_made_again_counts_once(tmp_path: Path) -> None:
    first, second = ledger(tmp_path), ledger(tmp_path, 1)
    follower = BatchFollower(tmp_path)
    first.add(row(0))
    follower.look(running=True)
    first.add(row(0, attempts=2))
    second.add(row(0))
    assert follower.look(running=True).num_done == 1
    first.add(row(0, "failed", attempts=3))
    after = follower.look(running=True)
    assert (after.num_done, after.num_failed) == (0, 1)


def test_the_pace_is_that_of_the_last_minute_and_begins_anew_after_a_pause(tmp_path: Path) -> None:
    noted, now = ledger(tmp_path), [0.0]
    follower = BatchFollower(tmp_path, clock=lambda: now[0])
    assert follower.look(running=True).pictures_per_second is None
    for item in range(4):
        now[0] += 2
        noted.add(row(item))
        pace = follower.look(running=True).pictures_per_second
    assert pace == 0.5
    assert follower.look(running=False).pictures_per_second is None
    now[0] += 1000
    noted.add(row(4))
    assert follower.look(running=True).pictures_per_second is None, "the pause is not a part of the pace"


def test_a_hundred_thousand_rows_are_read_once(tmp_path: Path) -> None:
    noted = ledger(tmp_path)
    values = [
        (item, "done", f"dataset/{item}.png", "", 1, "", item, 1, 0.1, "2026-11-26T02:00:00+00:00", "", "{}")
        for item in range(100_000)
    ]
    names = "item, state, file, sha256, num_bytes, content, seed, attempts, seconds, made_at, reason, facts"
    noted._connection.execute("begin")
    noted._connection.executemany(f"insert into items ({names}) values ({', '.join('?' * 12)})", values)
    noted._connection.execute("commit")
    follower = BatchFollower(tmp_path)
    assert follower.look(running=True).num_done == 100_000
    started = time.perf_counter()
    for item in range(100_000, 100_010):
        noted.add(row(item))
        follower.look(running=True)
    assert follower.look(running=True).num_done == 100_010
    assert time.perf_counter() - started < 2, "ten looks, each with the writing of a row"
