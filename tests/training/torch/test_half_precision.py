"""Training in half precision: nothing is kept twice, what learns stays float32, images have the model's own weights.

Only CUDA trains so; the CPU's bfloat16 stands in for it here.
"""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from studio.datasets.snapshot import Snapshot
from studio.engine.memory import OffloadedModule, all_present
from studio.engine.models import Components
from studio.images.files import read_picture_text
from studio.training.events import SampleEvent, read_events
from studio.training.torch import run as run_module
from studio.training.torch.loss import Denoiser
from studio.training.torch.memory import kept_bytes_of
from studio.training.torch.preparation import Prepared, prepare
from studio.training.torch.processes import Processes
from studio.training.torch.run import train_run
from tests.faults import conftest as faults
from tests.faults.conftest import Place
from tests.training.torch.parts import give_effect, make_adapters, make_bench, settings_of, state_of

place = faults.place


def kept_bytes(components: Components, snapshot: Snapshot, cache: Path, *, whole: bool) -> int:
    """What a pass keeps with a base in bfloat16, and layers in float32, or with all (`whole`) in bfloat16."""
    bench = make_bench(snapshot, settings_of(), components, cache)
    if not whole:
        components.unet.to(torch.bfloat16)
    adapters = make_adapters(bench)
    if whole:
        components.unet.to(torch.bfloat16)
        for parameter in adapters.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
    denoiser = Denoiser(components, train_text_encoder=False).train()
    return kept_bytes_of(denoiser, bench.maker.batch(0))


def test_a_pass_keeps_what_one_of_a_plain_half_precision_base_keeps(
    components: Components, snapshot: Snapshot, cache: Path
) -> None:
    again = copy.deepcopy(components)
    mixed = kept_bytes(components, snapshot, cache, whole=False)
    plain = kept_bytes(again, snapshot, cache, whole=True)
    assert mixed <= 1.05 * plain


def test_gradients_are_float32_and_those_of_float32_passes_up_to_rounding(
    components: Components, snapshot: Snapshot, cache: Path, tmp_path: Path
) -> None:
    bench = make_bench(snapshot, settings_of(), components, cache)
    unet = OffloadedModule(components.unet, tmp_path / "unet", stand_in=torch.bfloat16)
    adapters = make_adapters(bench)
    give_effect(adapters)
    denoiser = Denoiser(components, train_text_encoder=False).train()
    batch, gradients = bench.maker.batch(0), []
    for half in (False, True):
        if half:
            unet.offload()
        prediction = denoiser(batch.noisy_BCHW, batch.timesteps_B, batch.text_BND)
        assert prediction.dtype == torch.float32
        bench.noise_loss.weighted(prediction, batch).mean().backward()
        gradients.append([parameter.grad for parameter in adapters.parameters()])
        assert {parameter.dtype for parameter in adapters.parameters()} == {torch.float32}
        for parameter in adapters.parameters():
            parameter.grad = None
    plain, rounded = (torch.cat([grad.flatten() for grad in of if grad is not None]) for of in gradients)
    assert rounded.dtype == torch.float32
    assert float((plain - rounded).norm() / plain.norm()) < 0.05


def test_a_part_that_is_rounded_comes_back_to_the_bit_beside_layers_that_came_in_between(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    before = state_of(module)
    offloaded = OffloadedModule(module, tmp_path / "weights", stand_in=torch.bfloat16)
    offloaded.offload()
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    learns = nn.Linear(8, 8)
    module.append(learns)
    with all_present((offloaded,)):
        now = state_of(module)
        assert all(torch.equal(now[name], before[name]) for name in before)
    assert module[0].weight.dtype == torch.bfloat16
    assert learns.weight.dtype == torch.float32


def test_a_part_for_which_memory_runs_out_on_its_way_back_stays_away_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    before = state_of(module)
    offloaded = OffloadedModule(module, tmp_path / "weights", stand_in=torch.bfloat16)
    offloaded.offload()
    moved: list[bool] = []
    move = torch.Tensor.to

    def full(tensor: torch.Tensor, where: torch.device | torch.dtype) -> torch.Tensor:
        moved.append(isinstance(where, torch.device))
        if moved[-1] and sum(moved) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return move(tensor, where)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", full)
        with pytest.raises(torch.OutOfMemoryError), offloaded.present():
            pass
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    with offloaded.present():
        assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(module).items())


def test_a_whole_training_computes_in_half_and_its_images_in_full_precision(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[torch.dtype] = set()

    def watched(*args: object, **options: object) -> Prepared:
        prepared = prepare(*args, **options)  # type: ignore[arg-type]

        def note(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
            if module.training:
                seen.add(output.dtype)

        prepared.denoiser.unet.conv_in.register_forward_hook(note)
        return prepared

    monkeypatch.setattr(run_module, "prepare", watched)
    monkeypatch.setattr(Processes, "half_precision", torch.bfloat16)
    run = place.begin(mixed_precision="bf16", num_validation_images=1, validation_inference_steps=2)
    assert train_run(run, place.user_data) == "finished"
    assert seen == {torch.bfloat16}
    samples = [event for event in read_events(run.events) if isinstance(event, SampleEvent)]
    files = [run.root / name for sample in samples for name in (*sample.base, *sample.pictures) if name is not None]
    records = [read_picture_text(file).record for file in files]
    assert records
    assert {record.precision for record in records if record is not None} == {"float32"}
