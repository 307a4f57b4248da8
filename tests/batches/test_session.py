"""The batches as the page sees them, read from batches' folders, ledgers and the queue alone."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from studio.batches import session as batch_desk
from studio.batches.folder import BatchFolder, begin_batch
from studio.batches.ledger import ItemRow, Ledger
from studio.batches.review import ReviewQuery
from studio.batches.session import BatchSession, training_side
from studio.batches.settings import BatchSettings
from studio.core.errors import BatchError
from studio.core.paths import UserData
from studio.jobs.events import EventWriter, MemoryEvent
from studio.jobs.folder import RunState, RunStatus, take_requests, write_status
from studio.jobs.queue import JobQueue
from studio.jobs.words import title


def make_batch(session: BatchSession, name: str, state: RunState = "new") -> BatchFolder:
    settings = BatchSettings(name=name, prompts="{colour} boots", attributes="colour: black, red", images_per_prompt=2)
    batch = begin_batch(settings, session.user_data)
    write_status(batch, RunStatus(state=state, num_steps=4, remaining_seconds=60))
    return batch


def note(batch: BatchFolder, item: int) -> None:
    path = batch.picture(item, "png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (96, 160), "red").save(path)
    file = path.relative_to(batch.root).as_posix()
    noted = Ledger(batch.ledgers / "process-000.db")
    noted.add(ItemRow(item=item, state="done", file=file, seed=42 + item, attempts=1, seconds=0.5, made_at="2026"))
    noted.close()


@pytest.fixture
def session(tmp_path: Path) -> BatchSession:
    return BatchSession(UserData(tmp_path))


def test_without_batches_there_is_nothing_and_nothing_to_follow(session: BatchSession) -> None:
    view = session.view()
    assert (view.names, view.batch, view.active, view.problem) == ((), None, False, "")
    with pytest.raises(BatchError, match="No batch is chosen"):
        session.named("")


def test_it_shows_the_named_batch_else_the_one_that_runs_else_the_newest(session: BatchSession) -> None:
    first, second = make_batch(session, "a", "finished"), make_batch(session, "b", "stopped")
    newest, other = sorted((first, second), key=lambda batch: batch.name, reverse=True)
    assert session.view().batch == newest
    write_status(other, RunStatus(state="running", step=1, num_steps=4))
    assert session.view().batch == other
    assert session.view().active
    assert session.view(newest.name).batch == newest
    assert session.view(other.name).batch == other
    assert session.view().batch == other, "what one page was shown is nothing to the next"
    assert [past.name for past in session.view().past] == [newest.name, other.name]


def test_a_batch_that_is_gone_is_said_and_no_other_takes_its_place(session: BatchSession) -> None:
    gone, other = make_batch(session, "a", "paused"), make_batch(session, "b", "running")
    shutil.rmtree(gone.root)
    view = session.view(gone.name)
    assert (view.batch, view.status, view.names) == (None, None, (other.name,))
    assert [past.name for past in view.past] == [other.name]
    assert f"There is no batch {title(gone)} any more" in view.problem
    shutil.rmtree(other.root)
    assert session.view(gone.name).problem == "", "where there are none at all, that is what is said"


def test_two_pages_follow_two_batches_without_opening_them_anew(
    session: BatchSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = make_batch(session, "a", "running"), make_batch(session, "b", "running")
    for number, batch in enumerate(batches, start=1):
        for item in range(number):
            note(batch, item)
    opened: list[Path] = []
    follow = batch_desk.BatchFollower
    monkeypatch.setattr(batch_desk, "BatchFollower", lambda ledgers: opened.append(ledgers) or follow(ledgers))
    for _ in range(3):
        assert [session.view(batch.name).progress.num_done for batch in batches] == [1, 2]
    assert opened == [batch.ledgers for batch in batches]


@pytest.mark.parametrize("name", ["nothing", "a", ".."])
def test_a_name_that_a_page_sends_is_never_a_path(session: BatchSession, name: str, tmp_path: Path) -> None:
    batch = make_batch(session, "a")
    for sent in (name, str(batch.root)):
        with pytest.raises(BatchError, match="There is no batch"):
            session.named(sent)
        assert session.view(sent).batch is None


def test_what_is_made_is_shown_with_its_prompt_by_every_session(session: BatchSession) -> None:
    batch = make_batch(session, "a", "running")
    note(batch, 0)
    note(batch, 2)
    memory = MemoryEvent(process_bytes=1, peak_process_bytes=1, system_available_bytes=1, system_total_bytes=2)
    EventWriter(batch.events).report(memory)
    for one in (session, BatchSession(session.user_data)):  # the second is that of a page that was started again
        view = one.view()
        assert view.progress.num_done == 2
        images = one.review(batch, ReviewQuery()).images
        assert [(image.item, image.prompt) for image in images] == [(2, "red boots"), (0, "black boots")]
        assert view.history is not None
        assert view.history.memory
        assert view.ready_at is not None


def test_a_batch_that_is_no_job_is_asked_through_its_folder(session: BatchSession) -> None:
    batch = make_batch(session, "a", "running")
    session.ask(batch, "pause")
    assert take_requests(batch) == {"pause"}


def test_a_batch_in_the_queue_is_stopped_through_its_job(session: BatchSession) -> None:
    batch = make_batch(session, "a")
    job = JobQueue(session.user_data).add("batch", batch.root, batch.name)
    assert session.view().in_line
    assert session.view().active
    session.ask(batch, "stop")
    assert JobQueue(session.user_data).job(job.id).state == "stopped"
    assert not session.view().in_line


def test_a_damaged_status_or_ledger_is_said_and_not_raised(session: BatchSession) -> None:
    batch = make_batch(session, "a", "running")
    batch.ledgers.mkdir()
    (batch.ledgers / "process-000.db").write_bytes(b"no ledger" * 1000)
    assert "cannot be read" in session.view().problem
    batch.status.write_text("{", encoding="utf-8")
    assert "cannot be read" in session.view().problem
    (batch.ledgers / "process-000.db").unlink()
    view = session.view()
    assert view.status is not None
    assert (view.problem, view.status.state) == ("", "failed")
    assert "cannot be read. Resume the batch to write it again." in view.status.message


def test_a_dataset_of_a_batch_is_trained_at_its_pictures_size(session: BatchSession) -> None:
    batch = make_batch(session, "a")
    assert training_side(batch) is None
    note(batch, 0)
    assert training_side(batch) == 120  # the side of a square of 96 x 160, in eights
    picture = next(batch.dataset.glob("0000/*.png"))
    (picture.parent / "0000009.png").write_bytes(b"no image")
    assert training_side(batch) == 120
    picture.write_bytes(b"")
    assert training_side(batch) is None


def test_a_second_press_on_make_again_changes_nothing_of_a_batch_that_runs(
    session: BatchSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(session, "a")
    monkeypatch.setattr(session, "_job", lambda _: SimpleNamespace(state="running"))
    monkeypatch.setattr(session, "resume", lambda _: pytest.fail("It goes on already."))
    monkeypatch.setattr(session, "enqueue", lambda _: pytest.fail("It goes on already."))
    session.remake(batch)
