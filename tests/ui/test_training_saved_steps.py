"""The saved steps of a run: what is still there, how it scored, what is kept, and what a deletion costs."""

import re
from pathlib import Path

import pytest

from studio.core.errors import RunError
from studio.jobs.folder import RunState, RunStatus, write_status
from studio.training.events import AnyEvent, CheckpointEvent, ProposalEvent
from studio.training.folder import KEPT, RunFolder
from studio.training.session import RunHistory
from studio.ui.training.saved_steps import delete, question, saved_files, saved_steps, saved_steps_html, set_kept
from tests.training.told_runs import make_run, sample_event
from tests.ui.told_scores import reference_event, score_event


def history_of(*events: AnyEvent) -> RunHistory:
    history = RunHistory()
    for event in events:
        history.apply_event(event)
    return history


def checkpoint(run: RunFolder, step: int) -> CheckpointEvent:
    folder = f"checkpoints/step-{step:06}"
    run.file(folder).mkdir(parents=True)
    (run.file(folder) / "lora.safetensors").write_bytes(b"weights")
    return CheckpointEvent(step=step, folder=folder, num_bytes=19_300_000, seconds=1)


def lora(run: RunFolder, step: int) -> AnyEvent:
    event = sample_event(run.root, step)
    run.file(event.lora).write_bytes(bytes(1000))
    return event


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "runs" / "a", [], status=RunStatus(state="stopped", step=300, num_steps=400))


@pytest.fixture
def history(run: RunFolder) -> RunHistory:
    """Images of three steps, checkpoints of two, one of which was pruned."""
    events = [lora(run, step) for step in (100, 200, 300)] + [checkpoint(run, step) for step in (100, 200, 300)]
    run.file("checkpoints/step-000100/lora.safetensors").unlink()
    run.file("checkpoints/step-000100").rmdir()
    proposal = ProposalEvent(step=200, sentence="s", sure=True, lora="samples/step-000200/lora.safetensors")
    return history_of(reference_event(0.98), *events, score_event(200, 0.9), proposal)


def test_what_is_still_there_is_listed_newest_first_with_its_score_and_size(
    run: RunFolder, history: RunHistory
) -> None:
    rows = saved_steps(run, history)
    assert [(row.step, row.has_checkpoint) for row in rows] == [(300, True), (200, True), (100, False)]
    assert [row.num_bytes for row in rows] == [19_301_000, 19_301_000, 1000]
    assert (rows[1].score, rows[1].outcome) == ("white border 90%", "better")
    html = saved_steps_html(run, history)
    assert re.search(r">300 <span class=\"quiet\">resumes here<", html)
    assert re.search(r">200 <span class=\"good\">✓ recommended<", html)
    assert re.search(r">100 <span class=\"quiet\">LoRA only<", html)
    assert html.count('data-act="edit"') == 2, "what has no checkpoint cannot be kept"
    assert saved_steps_html(run, history_of()) == ""


def test_keeping_marks_the_checkpoint_as_its_pruning_reads_it(run: RunFolder, history: RunHistory) -> None:
    assert "is kept for good" in set_kept(run, history, 300)
    assert (run.checkpoints / "step-000300" / KEPT).exists()
    assert [row.is_kept for row in saved_steps(run, history)] == [True, False, False]
    assert "may be replaced" in set_kept(run, history, 300)
    assert not (run.checkpoints / "step-000300" / KEPT).exists()
    with pytest.raises(RunError, match="The checkpoint of step 100 is gone"):
        set_kept(run, history, 100)
    for step in (None, "300", 7):
        with pytest.raises(RunError):
            set_kept(run, history, step)


@pytest.mark.parametrize(
    ("state", "step", "words"),
    [
        ("stopped", 300, "The run would be resumed from here: without it, from step 200."),
        ("stopped", 200, "It is the recommended step."),
        ("paused", 100, "Its images and scores stay."),
    ],
)
def test_the_question_says_what_a_deletion_costs(
    state: RunState, step: int, words: str, run: RunFolder, history: RunHistory
) -> None:
    asked = question(run, history, step).what
    assert words in asked
    assert ("resumed" in asked) == (step == 300)


def test_a_finished_run_is_not_resumed_and_one_that_works_loses_nothing(run: RunFolder, history: RunHistory) -> None:
    write_status(run, RunStatus(state="finished", step=400, num_steps=400))
    assert "resumed" not in question(run, history, 300).what
    write_status(run, RunStatus(state="running", step=300, num_steps=400))
    with pytest.raises(RunError, match="Pause or stop it first"):
        question(run, history, 300)
    assert 'data-act="delete"' not in saved_steps_html(run, history)


def test_deleting_moves_checkpoint_and_lora_away_and_leaves_images(
    run: RunFolder, history: RunHistory, tmp_path: Path
) -> None:
    assert "Step 200 is in" in delete(run, history, 200, without_trash=tmp_path / "trash")
    assert saved_files(run, history, 200) == []
    assert [row.step for row in saved_steps(run, history)] == [300, 100]
    assert list(run.file("samples/step-000200").glob("*.png"))
    with pytest.raises(RunError, match="Nothing is saved of step 200 any more"):
        question(run, history, 200)


def test_no_path_leads_out_of_the_runs_folder(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    led_out = sample_event(run.root, 100).model_copy(update={"lora": "../../mine.safetensors"})
    assert saved_files(run, history_of(led_out), 100) == []
    whole = CheckpointEvent(step=100, folder=".", num_bytes=1, seconds=1)
    assert saved_files(run, history_of(whole), 100) == []
