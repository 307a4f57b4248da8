"""fp16 scales the loss: its scale is part of a checkpoint, an overflow is skipped, and one without end is told.

fp16 itself needs CUDA. Here the scaler of a CPU stands in its place, on float32 passes.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from studio.core.errors import TrainingError
from studio.datasets.snapshot import Snapshot
from studio.engine.models import Components
from studio.training.torch.checkpoints import SCALER, Checkpoint, CheckpointStore, random_state, scaler_state
from studio.training.torch.loop import TrainingLoop
from studio.training.torch.processes import Processes
from tests.training.torch.parts import make_adapters, make_bench, make_loop, parameters_of, settings_of

Scaled = Callable[[float], TrainingLoop]


@pytest.fixture
def scaled(
    snapshot: Snapshot,
    components: Components,
    cache: Path,
    processes: Processes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Scaled:
    """A loop whose loss is scaled by so much at first."""

    def make(scale: float) -> TrainingLoop:
        monkeypatch.setattr(processes.accelerator, "scaler", torch.amp.GradScaler("cpu", init_scale=scale))
        bench = make_bench(snapshot, settings_of(max_train_steps=3), components, cache)
        return make_loop(bench, make_adapters(bench), processes, tmp_path)

    return make


def packed(loop: TrainingLoop) -> dict[str, bytes]:
    """The files of a checkpoint of this moment."""
    return loop.state.pack(random_states=random_state()[None], metadata={}, scaler=loop.processes.scaler_state)


def spoil_gradients(loop: TrainingLoop, *, steps: range) -> None:
    """Let a gradient overflow in some steps, from 0."""
    parameter = loop.state.adapters.parameters()[0]
    parameter.register_hook(lambda gradient: gradient * torch.inf if loop.state.position.step in steps else gradient)


def test_a_step_that_overflows_is_skipped_and_the_scale_is_halved(scaled: Scaled) -> None:
    loop = scaled(65536.0)
    spoil_gradients(loop, steps=range(1))
    before = parameters_of(loop.state.adapters)
    loop.denoiser.train()
    loop.step()
    assert all(torch.equal(before[name], after) for name, after in parameters_of(loop.state.adapters).items())
    assert loop.processes.accelerator.scaler.get_scale() == 32768
    assert loop.train() == "finished"
    after = parameters_of(loop.state.adapters)
    assert all(bool(torch.isfinite(value).all()) for value in after.values())
    assert any(not torch.equal(before[name], value) for name, value in after.items())


def test_gradients_that_are_infinite_whatever_the_scale_stop_the_run(scaled: Scaled) -> None:
    loop = scaled(2.0)
    spoil_gradients(loop, steps=range(100))
    before = parameters_of(loop.state.adapters)
    with pytest.raises(TrainingError, match="The gradient of step 3 is not finite"):
        loop.train()
    assert loop.processes.accelerator.scaler.get_scale() == 0.5
    assert all(torch.equal(before[name], after) for name, after in parameters_of(loop.state.adapters).items())


def test_a_checkpoint_holds_the_scale_and_a_resume_goes_on_with_it(
    scaled: Scaled, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loop = scaled(2048.0)
    spoil_gradients(loop, steps=range(1))
    assert loop.train() == "finished"
    store = CheckpointStore(tmp_path / "kept")
    store.save(3, packed(loop))
    checkpoint = store.newest(report=pytest.fail)
    assert checkpoint is not None
    resumed = torch.amp.GradScaler("cpu")
    monkeypatch.setattr(loop.processes.accelerator, "scaler", resumed)
    loop.processes.set_scaler_state(scaler_state(checkpoint))
    assert (resumed.get_scale(), resumed.state_dict()["_growth_tracker"]) == (1024, 2)


def test_a_checkpoint_without_a_scale_is_gone_on_with_too(scaled: Scaled, tmp_path: Path) -> None:
    loop = scaled(2048.0)
    loop.processes.set_scaler_state(
        scaler_state(Checkpoint(3, tmp_path, {name: c for name, c in packed(loop).items() if name != SCALER}))
    )
    assert loop.processes.accelerator.scaler.get_scale() == 2048


def test_without_fp16_there_is_no_scale_to_keep(processes: Processes) -> None:
    assert processes.scaler_state is None
    processes.set_scaler_state({"scale": 1.0})  # of a checkpoint of fp16: this process has no use for it
    assert not processes.overflow_is_due_to_scale()
