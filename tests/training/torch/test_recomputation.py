"""Partial checkpointing: what is measured is what is freed, and what is computed again gives the same gradients."""

import shutil
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from studio.datasets.snapshot import Snapshot
from studio.engine.attention import AttentionPlan, set_attention
from studio.engine.memory_forecast import MemoryCount
from studio.engine.models import Components
from studio.training.folder import PassFacts, read_plan
from studio.training.settings import TARGET_NAMES
from studio.training.torch.adapters import Adapters
from studio.training.torch.loss import Denoiser, predict
from studio.training.torch.recomputation import RecomputationCosts, curve_of, measure_costs, set_checkpointing
from studio.training.torch.run import train_run
from tests.faults import conftest as faults
from tests.faults.conftest import Place, final_state
from tests.training.torch.parts import Bench, give_effect, make_adapters, make_bench, settings_of

place = faults.place
LEVELS = (20, 50, 80, 100)


def prepared(
    snapshot: Snapshot, components: Components, cache: Path, **changes: object
) -> tuple[Bench, Adapters, Denoiser, RecomputationCosts]:
    bench = make_bench(snapshot, settings_of(**changes), components, cache)
    adapters = make_adapters(bench)
    give_effect(adapters)
    denoiser = Denoiser(bench.components, train_text_encoder=bench.settings.train_text_encoder).train()
    return bench, adapters, denoiser, measure_costs(denoiser, bench.maker.batch(0))


def kept_bytes(denoiser: Denoiser, bench: Bench) -> int:
    """Of one image."""
    batch = bench.maker.batch(0).first(1)
    with MemoryCount() as count:
        prediction = predict(denoiser, batch)
        return int(count.now_bytes - prediction.untyped_storage().nbytes())


def gradients(bench: Bench, adapters: Adapters, denoiser: Denoiser) -> list[torch.Tensor]:
    for parameter in adapters.parameters():
        parameter.grad = None
    torch.manual_seed(7)  # for LoRA dropout
    torch.autograd.backward(bench.noise_loss(denoiser, bench.maker.batch(0)).mean())
    return [parameter.grad for parameter in adapters.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("targets", [TARGET_NAMES[0], TARGET_NAMES[-1]])
def test_so_much_is_freed_as_was_measured(
    targets: str, snapshot: Snapshot, components: Components, cache: Path
) -> None:
    bench, __, denoiser, costs = prepared(snapshot, components, cache, targets=targets)
    assert kept_bytes(denoiser, bench) == pytest.approx(costs.kept_bytes, rel=0.01)
    for percent in LEVELS:
        parts = costs.freeing(percent)
        set_checkpointing(denoiser, recomputed=[part.path for part in parts])
        wanted = costs.kept_bytes - sum(part.freed_bytes for part in parts)
        assert kept_bytes(denoiser, bench) == pytest.approx(wanted, rel=0.01), percent
        assert costs.percent(parts) >= percent
    of_all = kept_bytes(denoiser, bench)
    set_checkpointing(denoiser, on=True)
    assert kept_bytes(denoiser, bench) == pytest.approx(of_all, rel=0.01), "all parts are full checkpointing"


@pytest.mark.parametrize(
    "changes",
    [{}, {"targets": TARGET_NAMES[-1], "lora_dropout": 0.3}, {"use_dora": True}, {"train_text_encoder": True}],
)
def test_gradients_do_not_depend_on_it(
    changes: dict[str, object], snapshot: Snapshot, components: Components, cache: Path
) -> None:
    bench, adapters, denoiser, costs = prepared(snapshot, components, cache, **changes)
    expected = gradients(bench, adapters, denoiser)
    for percent in LEVELS:
        set_checkpointing(denoiser, recomputed=[part.path for part in costs.freeing(percent)])
        found = gradients(bench, adapters, denoiser)
        assert all(map(torch.equal, found, expected)), percent
    set_checkpointing(denoiser)
    assert all(map(torch.equal, gradients(bench, adapters, denoiser), expected))


def test_queries_keys_and_values_of_attention_in_chunks_are_freed_too(
    snapshot: Snapshot, components: Components, cache: Path
) -> None:
    """As Apple's GPUs compute it, from copies that are contiguous."""
    set_attention(components, AttentionPlan(max_scores=64, contiguous=True, head_width=64))
    bench, adapters, denoiser, costs = prepared(snapshot, components, cache)
    freed = {part.path.rpartition(".")[2] for part in costs.parts}
    assert {"to_q", "to_k", "to_v"} <= freed
    expected = gradients(bench, adapters, denoiser)
    parts = costs.freeing(60)
    set_checkpointing(denoiser, recomputed=[part.path for part in parts])
    assert kept_bytes(denoiser, bench) == costs.kept_bytes - sum(part.freed_bytes for part in parts)
    assert all(map(torch.equal, gradients(bench, adapters, denoiser), expected))


def test_the_best_go_first_and_a_block_after_its_layers(
    snapshot: Snapshot, components: Components, cache: Path
) -> None:
    parts = prepared(snapshot, components, cache)[-1].parts
    places = {part.path: i for i, part in enumerate(parts)}
    assert any(part.block_bytes for part in parts)
    assert any(not part.block_bytes for part in parts)
    layers = [part for part in parts if not part.block_bytes]
    assert [part.worth for part in layers] == sorted((part.worth for part in layers), reverse=True)
    for part in parts:
        within = [places[other] for other in places if other.startswith(f"{part.path}.")]
        assert all(place < places[part.path] for place in within), part.path


def test_flops_are_those_that_torch_counts(snapshot: Snapshot, components: Components, cache: Path) -> None:
    """Torch's counter knows no fused attention on a CPU, so attention is computed as products for it."""
    bench = make_bench(snapshot, settings_of(), components, cache)
    components.unet.requires_grad_(False)
    denoiser, batch = Denoiser(components, train_text_encoder=False), bench.maker.batch(0)
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        predict(denoiser, batch.first(1))
    assert measure_costs(denoiser, batch).flops == counter.get_total_flops()


def test_the_curve_ends_where_it_was_measured(snapshot: Snapshot, components: Components, cache: Path) -> None:
    bench, __, ___, costs = prepared(snapshot, components, cache)
    on, off = PassFacts(seconds=3.0, peak_bytes=10**9), PassFacts(seconds=2.0, peak_bytes=2 * 10**9)
    curve = curve_of(costs, on, off, bench.settings)
    accumulation = bench.settings.gradient_accumulation_steps
    assert (curve[0].percent, curve[0].seconds) == (0, 2.0 * accumulation)
    assert (curve[-1].percent, curve[-1].seconds, curve[-1].peak_bytes) == (100, 3.0 * accumulation, 10**9)
    assert [point.seconds for point in curve] == sorted(point.seconds for point in curve)
    without = curve_of(costs, on, None, bench.settings)
    assert without[0].seconds == pytest.approx(3.0 * accumulation / costs.slowdown(costs.parts))


def test_a_run_goes_on_with_the_parts_that_it_began_with_and_ends_the_same(place: Place) -> None:
    partly = {"gradient_checkpointing": "part", "gradient_checkpointing_percent": 60}
    whole = place.begin(name="whole", max_train_steps=4, **partly)
    assert train_run(whole, place.user_data) == "finished"
    again = place.begin(name="again", max_train_steps=4, **partly)
    assert train_run(again, place.user_data) == "finished"
    plan = read_plan(again)
    assert plan is not None
    assert plan.recomputed
    assert not plan.gradient_checkpointing
    for step in (3, 4):
        shutil.rmtree(again.checkpoints / f"step-{step:06}")
    assert train_run(again, place.user_data) == "finished"
    resumed = read_plan(again)
    assert resumed is not None
    assert resumed.recomputed == plan.recomputed
    assert final_state(again, 4) == final_state(whole, 4)
