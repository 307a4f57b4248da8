"""What comes out of a run: the LoRA that goes to Inference, and the report as a file."""

import shutil
from pathlib import Path

import pytest
import torch

from studio.core.errors import RunError
from studio.core.paths import UserData
from studio.core.settings import SHIPPED_MODEL
from studio.engine.lora_file import read_weights
from studio.engine.model_files import find_model
from studio.engine.models import load_components
from studio.jobs.folder import RunState, RunStatus
from studio.loras.library import LoraLibrary, shipped_loras
from studio.training.events import AnyEvent, CheckpointEvent, ProposalEvent
from studio.training.folder import RunFolder
from studio.training.session import RunHistory, TrainingView, add_to_library, lora_to_send
from studio.ui.shell.commands import CommandRunner, CommandState
from studio.ui.training.results import export_arguments, export_html, exported_models, render, report_link
from tests.jobs.scripted_jobs import wait_until
from tests.training.told_runs import SETTINGS, make_run, sample_event

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


@pytest.mark.process
def test_it_goes_into_a_whole_model_in_the_runs_folder_which_is_then_shown(run: RunFolder) -> None:
    history = history_of(sample_event(run.root, 300), proposal(300))
    lora = run.root / "samples/step-000300/lora.safetensors"
    shutil.copyfile(SHIPPED, lora)
    runner, folder = CommandRunner(UserData(run.root.parents[1])), run.root / "white-shoes step 300-merged"
    runner.start(*export_arguments(run, history, "merged"), about=run.name)
    assert "is being written" in export_html(run, runner.state)
    wait_until(lambda: not runner.state.running, seconds=120)
    assert runner.state.problem == ""
    assert runner.state.last_line.startswith(f"Written: {folder} (108 layers")
    assert exported_models(run) == [folder]
    assert f'<code class="path">{folder}</code>' in export_html(run, CommandState()), "in another process too"
    base, merged = (load_components(find_model(str(model)), "float32") for model in (SHIPPED_MODEL, folder))
    path, layer = next(iter(read_weights("a", lora, base).unet.items()))
    change = layer.scale * (layer.up.flatten(1) @ layer.down.flatten(1))
    weight = base.unet.get_submodule(path).weight
    wanted = weight + change.reshape(weight.shape)
    torch.testing.assert_close(merged.unet.get_submodule(path).weight, wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.process
def test_why_no_whole_model_was_written_is_said_below_its_run_alone(run: RunFolder) -> None:
    runner = CommandRunner(UserData(run.root.parents[1]))
    runner.start("export", "no-such-lora", about=run.name)
    wait_until(lambda: not runner.state.running, seconds=120)
    assert "There is no LoRA named no-such-lora" in export_html(run, runner.state)
    assert export_html(make_run(run.root.parent / "b", []), runner.state) == ""
    assert export_html(None, runner.state) == ""


def test_a_whole_model_is_made_of_the_model_that_was_trained_on(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"model": "/models/a b", "prediction_type": "v_prediction"})
    run = make_run(tmp_path / "runs" / "a", [], settings=settings)
    history = history_of(sample_event(run.root, 300), proposal(300))
    shutil.copyfile(SHIPPED, run.root / "samples/step-000300/lora.safetensors")
    command, file, *options = export_arguments(run, history, "checkpoint")
    assert (command, Path(file)) == ("export", run.root / "samples/step-000300/lora.safetensors")
    assert options == [
        "--to=checkpoint",
        f"--output={run.root}/white-shoes step 300-checkpoint.safetensors",
        "--model=/models/a b",
        "--prediction-type=v_prediction",
    ]


@pytest.mark.parametrize(
    ("state", "running", "may"),
    [("finished", False, True), ("running", False, False), ("finished", True, False), ("stopped", False, True)],
)
def test_no_whole_model_is_written_beside_a_run_or_another(
    state: RunState, running: bool, may: bool, run: RunFolder
) -> None:
    view = TrainingView(run=run, status=RunStatus(state=state), history=history_of(proposal(300)))
    shown = render(view, CommandState(running=running))
    assert {shown[f"training-export-{form}"]["interactive"] for form in ("checkpoint", "merged")} == {may}


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
