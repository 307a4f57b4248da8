"""What comes out of a run: the LoRA that goes to Inference, and the report as a file."""

import shutil
from pathlib import Path

import pytest

from studio.core.errors import RunError
from studio.loras.library import LoraLibrary, shipped_loras
from studio.training.events import AnyEvent, CheckpointEvent, ProposalEvent
from studio.training.folder import RunFolder
from studio.training.session import RunHistory
from studio.ui.training.results import add_to_library, lora_to_send, report_link
from tests.training.told_runs import make_run, sample_event

SHIPPED = shipped_loras() / "white-ground.safetensors"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "runs" / "a", [])


@pytest.fixture
def library(tmp_path: Path) -> LoraLibrary:
    (tmp_path / "nothing-ships").mkdir()
    return LoraLibrary(tmp_path / "loras", shipped=tmp_path / "nothing-ships")


def history_of(*events: AnyEvent) -> RunHistory:
    history = RunHistory()
    for event in events:
        history.apply_event(event)
    return history


def proposal(step: int) -> ProposalEvent:
    return ProposalEvent(step=step, sentence="s", sure=True, lora=f"samples/step-{step:06}/lora.safetensors")


def test_the_proposed_step_goes_before_the_last_pictures_and_those_before_a_checkpoint(run: RunFolder) -> None:
    saved = CheckpointEvent(step=700, folder="checkpoints/step-000700", num_bytes=1, seconds=1)
    samples = [sample_event(run.root, step) for step in (0, 300, 600)]
    assert lora_to_send(history_of()) is None
    assert lora_to_send(history_of(samples[0])) is None, "at step 0 there is nothing to send"
    assert lora_to_send(history_of(saved)) == (700, "checkpoints/step-000700/lora.safetensors")
    assert lora_to_send(history_of(saved, *samples)) == (600, "samples/step-000600/lora.safetensors")
    assert lora_to_send(history_of(saved, *samples, proposal(300))) == (300, "samples/step-000300/lora.safetensors")


def test_it_goes_to_the_library_once_under_a_name_that_tells_its_step(run: RunFolder, library: LoraLibrary) -> None:
    history = history_of(sample_event(run.root, 300), proposal(300))
    shutil.copyfile(SHIPPED, run.root / "samples/step-000300/lora.safetensors")
    assert add_to_library(run, history, library) == "white-shoes step 300"
    assert add_to_library(run, history, library) == "white-shoes step 300"
    assert library.names() == ("white-shoes step 300",)


def test_without_a_file_it_is_said(run: RunFolder, library: LoraLibrary) -> None:
    with pytest.raises(RunError, match="No LoRA yet"):
        add_to_library(run, history_of(), library)
    with pytest.raises(RunError, match="no longer in"):
        add_to_library(run, history_of(proposal(300)), library)
    outside = proposal(300).model_copy(update={"lora": f"../../{SHIPPED}"})
    with pytest.raises(RunError, match="no longer in"):
        add_to_library(run, history_of(outside), library)
    assert library.names() == ()


def test_the_report_is_saved_by_a_link_that_serves_no_file(run: RunFolder) -> None:
    link = report_link(run)
    assert link.startswith('<a class="link-button" download="a-report.html" href="data:text/html;base64,')
