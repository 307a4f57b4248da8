"""A batch killed, filled up, poisoned and shared between processes ends with exactly the planned images."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import psutil
import pytest

from studio.batches.folder import BatchFolder
from studio.batches.ledger import read_items
from studio.batches.torch.run import run_batch
from studio.jobs.folder import ask, read_status
from studio.training.events import read_events
from tests.faults.batches import (
    NUM_ITEMS,
    assert_exactly_as_planned,
    begin,
    fill_up,
    launch,
    num_made,
    pictures,
    wait_until,
)
from tests.faults.conftest import Place

# By hand: STUDIO_KILLS=100 STUDIO_BATCH_ITEMS=3000 python launch.py test tests/faults/test_batches.py
NUM_KILLS = int(os.environ.get("STUDIO_KILLS", "8"))
NUM_KILLED_ITEMS = int(os.environ.get("STUDIO_BATCH_ITEMS", "48"))
Make = Callable[[BatchFolder], ForkServerProcess]


@pytest.fixture
def make(forks: ForkServerContext, place: Place) -> Iterator[Make]:
    """Makes a batch in a process of its own; what is left of them is ended after the test."""
    started: list[ForkServerProcess] = []

    def make(folder: BatchFolder) -> ForkServerProcess:
        process = forks.Process(target=run_batch, args=(folder, place.user_data))
        process.start()
        started.append(process)
        return process

    yield make
    for process in started:
        process.kill()
        process.join()


def reported(folder: BatchFolder) -> list[str]:
    return [str(getattr(event, "message", "")) for event in read_events(folder.events)]


def to_the_end(make: Make, folder: BatchFolder) -> None:
    process = make(folder)
    process.join(240)
    assert process.exitcode == 0


@pytest.mark.slow
@pytest.mark.sample
@pytest.mark.timeout(3600)
def test_killed_at_random_moments_it_makes_exactly_the_planned_pictures(place: Place, make: Make) -> None:
    whole = begin(place, name="whole", total=NUM_KILLED_ITEMS)
    to_the_end(make, whole)
    rng = random.Random(11)
    folder, kills = begin(place, name="killed", total=NUM_KILLED_ITEMS), 0
    while kills < NUM_KILLS and num_made(folder) < NUM_KILLED_ITEMS:
        # Each life makes its share, so that the kills are spread over the whole batch.
        live_until_made(make(folder), folder, num_made(folder) + rng.uniform(0, 2 * NUM_KILLED_ITEMS / NUM_KILLS))
        kills += 1
    to_the_end(make, folder)
    assert_exactly_as_planned(folder, NUM_KILLED_ITEMS)
    assert pictures(folder) == pictures(whole)
    assert read_status(folder).state == "finished"


def live_until_made(process: ForkServerProcess, folder: BatchFolder, wanted: float) -> None:
    """Kill a process a moment after so many items are made."""
    wait_until(lambda: num_made(folder) >= min(wanted, NUM_KILLED_ITEMS) or not process.is_alive(), seconds=600)
    time.sleep(random.Random(wanted).uniform(0, 0.05))
    process.kill()
    process.join()


def test_a_picture_that_is_deleted_or_changed_after_its_row_is_made_again(place: Place, make: Make) -> None:
    folder = begin(place)
    to_the_end(make, folder)
    before = pictures(folder)
    folder.picture(3, "png").unlink()
    with folder.picture(5, "png").open("ab") as file:
        file.write(b"more")
    assert pictures(folder) != before
    to_the_end(make, folder)
    assert pictures(folder) == before
    assert_exactly_as_planned(folder)
    assert any(
        "2 images missing or damaged on the disk" in str(getattr(e, "message", "")) for e in read_events(folder.events)
    )


def test_a_stop_leaves_a_dataset_of_what_is_made_and_a_resume_makes_the_rest(place: Place, make: Make) -> None:
    whole = begin(place, name="whole", total=60)
    to_the_end(make, whole)
    folder = begin(place, name="stopped", total=60)
    process = make(folder)
    wait_until(lambda: num_made(folder) >= 3)
    ask(folder, "stop")
    process.join(60)
    assert process.exitcode == 0
    status = read_status(folder)
    assert status.state == "stopped"
    assert 0 < status.step < 60
    assert len(folder.metadata.read_text(encoding="utf-8").splitlines()) == status.step
    assert f"**{status.step} of 60 images are made and valid; {60 - status.step} are still" in folder.report.read_text(
        "utf-8"
    )
    to_the_end(make, folder)
    assert_exactly_as_planned(folder, 60)
    assert pictures(folder) == pictures(whole)


def test_sigterm_ends_it_well(place: Place, make: Make) -> None:
    folder = begin(place, total=60)
    process = make(folder)
    wait_until(lambda: num_made(folder) >= 2)
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 0
    assert read_status(folder).state == "stopped"


def test_the_same_batch_is_not_made_twice_at_once(place: Place, make: Make) -> None:
    folder = begin(place, total=200)
    first = make(folder)
    wait_until(lambda: num_made(folder) >= 1)
    second = make(folder)
    second.join(60)
    assert second.exitcode == 1
    assert first.is_alive()
    assert read_status(folder).state == "running"


def test_on_a_full_disk_it_waits_says_so_and_goes_on_with_nothing_lost(
    small_disk: Path, place: Place, make: Make
) -> None:
    whole = begin(place, name="whole", total=100)
    to_the_end(make, whole)
    folder = begin(place, name="full", total=100)
    moved = BatchFolder(Path(shutil.move(folder.root, small_disk / "batch")))
    process = make(moved)
    wait_until(lambda: num_made(moved) >= 3)
    filling = fill_up(small_disk)
    wait_until(lambda: waits(moved))
    assert process.is_alive()
    before = num_made(moved)
    time.sleep(0.5)
    assert num_made(moved) == before < 100
    filling.unlink()
    process.join(120)
    assert process.exitcode == 0
    assert any("There is space again" in words for words in reported(moved))
    assert pictures(moved) == pictures(whole)


def waits(folder: BatchFolder) -> bool:
    """Whether nothing was made for a while, though it is not finished."""
    before = num_made(folder)
    time.sleep(1.0)
    return num_made(folder) == before < 100


@pytest.mark.slow
@pytest.mark.sample
def test_two_processes_one_of_them_killed_then_three_make_the_same_bytes_as_one(place: Place, make: Make) -> None:
    one = begin(place, name="one", total=90)
    to_the_end(make, one)
    shared = begin(place, name="shared", total=90)
    first = launch(shared, place, num_processes=2)
    wait_until(lambda: num_made(shared) >= 6 or first.poll() is not None, seconds=120)
    workers = [p for p in psutil.Process(first.pid).children(recursive=True) if "batch" in p.cmdline()]
    assert len(workers) == 2
    workers[1].kill()
    first.communicate(timeout=120)
    assert 6 <= num_made(shared) < 90
    assert read_status(shared).state != "finished"
    again = launch(shared, place, num_processes=3)
    reported, _ = again.communicate(timeout=240)
    assert again.returncode == 0, reported.decode()[-3000:]
    assert_exactly_as_planned(shared, 90)
    assert pictures(shared) == pictures(one)
    ledgers = {row.item % 3 for row in read_items(shared.ledgers)}
    assert ledgers == {0, 1, 2}
    assert read_status(shared).state == "finished"


def test_the_number_of_items_is_what_the_tests_count_on(place: Place, make: Make) -> None:
    folder = begin(place)
    to_the_end(make, folder)
    assert_exactly_as_planned(folder, NUM_ITEMS)
