"""What the Batch tab shows: states in words, how far, how fast, images, what came out; hostile text as text."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image

from studio.batches.folder import BatchFolder
from studio.batches.session import BatchProgress, BatchView, PastBatch
from studio.core.text import clock_text
from studio.jobs.folder import RunState, RunStatus
from studio.ui.batches import view as batch_view

HOSTILE = "<img src=x onerror=alert(1)>"


def view_of(folder: Path, state: RunState, **changes: object) -> BatchView:
    status = RunStatus(state=state, step=42, num_steps=60, remaining_seconds=8, message=HOSTILE)
    progress = BatchProgress(num_done=41, num_failed=1, num_rejected=3, pictures_per_second=3.1)
    return BatchView(batch=BatchFolder(folder), status=status, progress=progress, **changes)


@pytest.mark.parametrize(
    ("state", "words"),
    [("running", "Running."), ("paused", "Paused."), ("failed", "Failed."), ("finished", "Finished.")],
)
def test_a_state_is_a_word_with_how_far_it_is(state: RunState, words: str, tmp_path: Path) -> None:
    html = batch_view.state_html(view_of(tmp_path, state))
    assert f"<b>{words}</b>" in html
    assert "41 of 60 images · 1 failed · 3 tries not taken" in html
    assert ("3.1 a second · 8.0 s left · ready at" in html) == (state == "running")
    assert 'aria-valuenow="41"' in html
    assert "<img" not in html


def test_what_a_batch_was_asked_for_stands_in_its_head(tmp_path: Path) -> None:
    html = batch_view.state_html(view_of(tmp_path, "running", asked=frozenset({"stop"})))
    assert "<b>Stopping after this image.</b>" in html


def test_without_a_batch_it_says_what_to_do_first() -> None:
    assert "press “Start”" in batch_view.state_html(BatchView())
    assert "&lt;b" in batch_view.state_html(BatchView(problem="<b>"))


def test_slow_batches_say_seconds_a_picture_and_the_day() -> None:
    status = RunStatus(state="running", num_steps=5)
    slow = BatchView(status=status, progress=BatchProgress(pictures_per_second=0.1))
    assert "10 s per image" in batch_view.progress_words(slow)
    later = datetime.now() + timedelta(days=1)
    assert clock_text(later) == f"{later:%A %H:%M}"


def test_what_came_out_is_shown_once_it_has_ended(tmp_path: Path) -> None:
    batch = BatchFolder(tmp_path)
    batch.report.write_text("# name\n\n**60 of 60 images**\n", encoding="utf-8")
    running, finished = view_of(tmp_path, "running"), view_of(tmp_path, "finished")
    assert batch_view.report_markdown(running) == batch_view.sheet_html(running) == ""
    assert batch_view.report_markdown(finished) == "**60 of 60 images**"
    Image.new("RGB", (300, 300), "blue").save(batch.grid)
    assert "X/Y grid" in batch_view.sheet_html(finished)


def test_past_batches_are_buttons_with_their_state(tmp_path: Path) -> None:
    past = (
        PastBatch(
            "20261126-021218-shoes", datetime(2026, 11, 26, 2, 12), RunStatus(state="finished", step=60), "shoes"
        ),
        PastBatch(HOSTILE, None, RunStatus(state="failed", message=HOSTILE), HOSTILE),
    )
    html = batch_view.past_html(BatchView(names=("a",) * 32, past=past))
    assert 'data-name="20261126-021218-shoes">shoes</button>' in html
    assert "2026-11-26 02:12" in html
    assert "finished" in html
    assert "not listed: 30" in html
    assert "<img" not in html
