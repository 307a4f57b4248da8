"""The card of a run that is finished: before and after, one sentence, and where its LoRA goes."""

from pathlib import Path

import pytest

from studio.jobs.folder import RunStatus
from studio.training.events import AnyEvent, ProposalEvent
from studio.training.folder import RunFolder
from studio.training.session import RunHistory, TrainingView, lora_of, loras_by_step
from studio.ui.training.destinations import lead_to
from studio.ui.training.end_card import end_card_html, verdict
from studio.ui.training.images import Thumbnails
from tests.training.told_runs import make_run, sample_event
from tests.ui.told_scores import reference_event, score_event


def history_of(*events: AnyEvent) -> RunHistory:
    history = RunHistory()
    for event in events:
        history.apply_event(event)
    return history


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "runs" / "a", [])


def view_of(run: RunFolder, *events: AnyEvent, state: str = "finished") -> TrainingView:
    status = RunStatus.model_validate({"state": state, "step": 400, "num_steps": 400})
    return TrainingView(run=run, status=status, history=history_of(*events))


@pytest.mark.parametrize(
    ("white", "dataset", "sentence"),
    [
        (0.97, 0.98, "White border 10% → 97%, better than the base (dataset 98%)."),
        (0.02, 0.98, "White border 10% → 2%, worse than the base (dataset 98%)."),
        (0.12, 0.98, "White border 10% → 12%, like the base (dataset 98%)."),
        (0.97, 0.1, "Off centre 20% → 20%, like the base (dataset 20%)."),
    ],
)
def test_the_verdict_is_a_sentence_about_the_score_that_says_most(white: float, dataset: float, sentence: str) -> None:
    scored = score_event(300, white)
    assert verdict(history_of(reference_event(dataset), scored), scored)[1] == sentence


def test_before_and_after_stand_beside_the_verdict_and_its_reasons(run: RunFolder, tmp_path: Path) -> None:
    proposal = ProposalEvent(step=300, sentence="Step 300: held-out loss lowest.", sure=True, lora="l")
    events = [sample_event(run.root, step) for step in (300, 400)]
    thumbnails = Thumbnails(tmp_path / "small", tmp_path / "datasets")
    html = end_card_html(view_of(run, *events, score_event(300, 0.9), proposal), thumbnails)
    assert html.count("gradio_api/file=") == 2
    assert "Before: the base" in html
    assert "After: step 300" in html
    assert "White border 10% → 90%, better than the base." in html
    assert "<b>Step 300 is recommended.</b> Held-out loss lowest." in html
    assert '<li class="outcome good">white backgrounds got better: 10% → 90%</li>' in html
    assert end_card_html(view_of(run, *events, proposal, state="running"), thumbnails) == ""
    assert end_card_html(view_of(run), thumbnails) == "", "nothing came out of it"


def test_a_run_whose_images_were_not_scored_says_so_and_one_that_lost_them_has_none(
    run: RunFolder, tmp_path: Path
) -> None:
    event = sample_event(run.root, 400)
    for name in filter(None, event.pictures):
        run.file(name).unlink()
    html = end_card_html(view_of(run, event), Thumbnails(tmp_path / "small", tmp_path / "datasets"))
    assert "Its images were not scored." in html
    assert "<img" not in html


def test_the_lora_of_a_step_is_that_of_its_images_else_of_its_checkpoint(run: RunFolder) -> None:
    event = sample_event(run.root, 300)
    lora = run.file(event.lora)
    lora.write_bytes(b"weights")
    history = history_of(sample_event(run.root, 0), event)
    assert loras_by_step(history) == {300: event.lora}
    assert lora_of(run, history, 300) == (300, lora)


def test_leading_to_a_mode_names_the_tab_and_the_mode() -> None:
    assert 'tab: "Batch" }' in lead_to("Batch")
    assert 'tab: "Inference", mode: "Compare" }' in lead_to("Inference", "Compare")
