"""Whether activations are kept: decided by the memory at hand, measured on the model, and never a matter of result."""

import copy
from pathlib import Path

import pytest
import torch

from studio.core.errors import TrainingError
from studio.core.results import DeviceCheck, DeviceDifference
from studio.datasets.snapshot import Snapshot
from studio.engine.device_check import check_device
from studio.engine.device_operations import DROPOUT, LINEAR
from studio.engine.models import Components
from studio.engine.pipeline import PipelineManager
from studio.training.settings import CheckpointingChoice
from studio.training.torch import memory as checkpointing
from studio.training.torch import memory as limits
from studio.training.torch.batches import TrainingBatch
from studio.training.torch.loss import Denoiser
from studio.training.torch.memory import (
    BACKWARD_FACTOR,
    MPS_MAX_ROWS,
    SHARE_OF_FREE,
    assert_fits,
    assert_room,
    decide_checkpointing,
    kept_bytes_of,
    largest_batch,
)
from studio.training.torch.recomputation import Part, RecomputationCosts
from tests.training.torch.parts import CPU, Bench, give_effect, make_adapters, make_bench, settings_of

GIB = 2**30


def decide(
    monkeypatch: pytest.MonkeyPatch,
    *,
    free: int,
    per_picture: int,
    choice: CheckpointingChoice = "auto",
    parts: tuple[Part, ...] = (),
    **changes: int,
) -> checkpointing.CheckpointingDecision:
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: free)
    num_processes = changes.pop("num_processes", 1)
    return decide_checkpointing(
        settings_of(gradient_checkpointing=choice, **changes),
        device=CPU,
        measure=lambda: RecomputationCosts(per_picture, flops=100, parts=parts),
        num_processes=num_processes,
    )


def test_it_is_off_where_a_batch_fits_and_says_what_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    decision = decide(monkeypatch, free=8 * GIB, per_picture=GIB, train_batch_size=2)
    assert not decision.on
    assert decision.reason == (
        "Gradient checkpointing is off, which is faster: a batch of 2 keeps about 2.5 GB, 8.0 GB are free."
    )


def test_it_is_on_where_a_batch_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    decision = decide(monkeypatch, free=8 * GIB, per_picture=GIB, train_batch_size=6)
    assert decision.on
    assert "a batch of 6 keeps about 7.5 GB, 8.0 GB are free" in decision.reason


@pytest.mark.parametrize(("free", "on"), [(10_000_000_000, False), (9_999_999_990, True)])
def test_it_is_off_up_to_a_share_of_what_is_free(free: int, on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    per_picture = 1_600_000_000  # four keep 6.4, and backward a quarter more: 8.0 of 10.0 billions
    assert decide(monkeypatch, free=free, per_picture=per_picture, train_batch_size=4).on is on


PARTS = (Part("a", 400, flops=10), Part("b", 300, flops=20), Part("c", 200, flops=40, block_bytes=250))


def test_no_more_is_computed_again_than_memory_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    decision = decide(
        monkeypatch, free=8 * GIB, per_picture=GIB, parts=(Part("a", GIB // 4, 7), Part("b", GIB // 4, 9))
    )
    assert (decision.on, decision.recomputed) == (False, ()), "all fits"
    monkeypatch.setattr(checkpointing, "MIN_FREE_TO_MEASURE", 0)
    free = int(700 * 2 * BACKWARD_FACTOR / SHARE_OF_FREE) + 1  # two images of 700 bytes each
    decision = decide(monkeypatch, free=free, per_picture=1000, parts=PARTS)
    assert (decision.on, decision.recomputed) == (False, ("a",))
    assert decision.reason.startswith("Gradient checkpointing frees 44% of the activations, about 5% slower: a batch")
    decision = decide(monkeypatch, free=free // 2, per_picture=1000, parts=PARTS)
    assert (decision.on, decision.recomputed) == (False, ("a", "b"))
    decision = decide(monkeypatch, free=free // 3, per_picture=1000, parts=PARTS)
    assert (decision.on, decision.recomputed) == (True, ())


@pytest.mark.parametrize(
    ("percent", "on", "recomputed"), [(0, False, ()), (44, False, ("a",)), (45, False, ("a", "b")), (100, True, ())]
)
def test_a_part_is_a_share_of_what_can_be_freed(
    percent: int, on: bool, recomputed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"gradient_checkpointing_percent": percent}
    decision = decide(monkeypatch, free=1, per_picture=1000, choice="part", parts=PARTS, **changes)
    assert (decision.on, decision.recomputed) == (on, recomputed)
    assert "as you chose" in decision.reason


def test_with_little_memory_it_is_on_and_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "free_bytes", lambda device: 2 * GIB)

    def measured() -> RecomputationCosts:
        raise AssertionError("measuring might be what ends the process")

    decision = decide_checkpointing(settings_of(), device=CPU, measure=measured, num_processes=1)
    assert decision.on
    assert decision.reason == "Gradient checkpointing is on: only 2.0 GB are free."


def test_processes_share_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not decide(monkeypatch, free=8 * GIB, per_picture=GIB, train_batch_size=4).on
    assert decide(monkeypatch, free=8 * GIB, per_picture=GIB, train_batch_size=4, num_processes=2).on


@pytest.mark.parametrize(("choice", "on"), [("on", True), ("off", False)])
def test_a_choice_is_a_choice_whatever_is_free(
    choice: CheckpointingChoice, on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for free in (GIB, 1000 * GIB):
        decision = decide(monkeypatch, free=free, per_picture=GIB, choice=choice)
        assert (decision.on, decision.reason) == (on, f"Gradient checkpointing is {choice}, as you chose.")


def kept(bench: Bench, *, side: int, pictures: int = 1) -> int:
    denoiser = Denoiser(bench.components, train_text_encoder=False)
    batch = TrainingBatch(
        keys=("a",) * pictures,
        noisy_BCHW=torch.randn(pictures, 4, side, side),
        target_BCHW=torch.randn(pictures, 4, side, side),
        timesteps_B=torch.full((pictures,), 500),
        text_BND=bench.maker.batch(0).text_BND[:1].expand(pictures, -1, -1),
        weights_B=torch.ones(pictures),
        mask_B1HW=None,
    )
    return kept_bytes_of(denoiser, batch)


@pytest.fixture
def bench(snapshot: Snapshot, components: Components, cache: Path) -> Bench:
    return make_bench(snapshot, settings_of(), components, cache)


def test_what_is_kept_grows_with_the_picture_and_is_of_one_picture(bench: Bench) -> None:
    make_adapters(bench)
    small, large = kept(bench, side=8), kept(bench, side=16)
    # Four times the area: activations of convolutions grow so, attention maps more, the text not at all.
    assert 2.5 * small < large < 17 * small
    assert kept(bench, side=8, pictures=3) == small


def test_a_bigger_batch_needs_more_and_may_turn_it_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    make_adapters(bench)
    per_picture = kept(bench, side=16)
    free = int(per_picture * BACKWARD_FACTOR / SHARE_OF_FREE * 4)
    monkeypatch.setattr(checkpointing, "MIN_FREE_TO_MEASURE", 0)
    assert not decide(monkeypatch, free=free + 64, per_picture=per_picture, train_batch_size=4).on
    assert decide(monkeypatch, free=free + 64, per_picture=per_picture, train_batch_size=5).on


def test_the_models_own_weights_do_not_count_and_with_checkpointing_little_is_kept(bench: Bench) -> None:
    make_adapters(bench)
    plain = kept(bench, side=16)
    bench.components.unet.train()
    bench.components.unet.enable_gradient_checkpointing()
    checkpointed = kept(bench, side=16)
    weights = sum(p.numel() * p.element_size() for p in bench.components.unet.parameters())
    assert plain < weights + 64e6
    assert checkpointed < 0.6 * plain


@pytest.mark.parametrize("changes", [{}, {"train_text_encoder": True}, {"use_dora": True}, {"lora_dropout": 0.3}])
def test_gradients_are_the_same_with_and_without(
    changes: dict[str, object], snapshot: Snapshot, components: Components, cache: Path
) -> None:
    found = []
    for on in (False, True):
        bench = make_bench(snapshot, settings_of(**changes), copy.deepcopy(components), cache)
        adapters = make_adapters(bench)
        give_effect(adapters)
        if on:
            bench.components.unet.enable_gradient_checkpointing()
        denoiser = Denoiser(bench.components, train_text_encoder=bench.settings.train_text_encoder)
        denoiser.train()
        batch = bench.maker.batch(0)
        torch.manual_seed(7)  # for LoRA dropout, which must be drawn alike when a part is computed again
        prediction = denoiser(batch.noisy_BCHW, batch.timesteps_B, batch.text_BND)
        losses = bench.noise_loss.weighted(prediction, batch)
        torch.autograd.backward(losses.mean())
        found.append((losses.detach(), {n: p.grad for n, p in adapters.named_parameters()}))
    (losses, gradients), (losses_on, gradients_on) = found
    assert torch.equal(losses, losses_on)
    assert sum(bool(g is not None and g.abs().max() > 0) for g in gradients.values()) > len(gradients) / 2
    for name, gradient in gradients.items():
        other = gradients_on[name]
        assert gradient is not None, name
        assert other is not None, name
        assert torch.allclose(gradient, other, rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize(
    ("resolution", "most"), [(64, 512), (256, 32), (512, 8), (768, 3), (1024, 2), (1448, 1), (2048, 1)]
)
def test_on_apples_gpus_a_batch_has_at_most_so_many_tokens(resolution: int, most: int) -> None:
    assert largest_batch("mps", resolution) == most
    tokens = (resolution // 8) ** 2
    assert most == 1 or most * tokens <= MPS_MAX_ROWS < (most + 1) * tokens


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_elsewhere_only_memory_limits_a_batch(device_type: str) -> None:
    assert largest_batch(device_type, 2048) is None


def checked(part: str) -> DeviceCheck:
    wrong = DeviceDifference(part=part, difference=1, limit=1e-3, consequence="it is avoided")
    return check_device(CPU).model_copy(update={"differences": (wrong,)})


def test_what_the_device_check_found_wrong_is_not_asked_of_the_device() -> None:
    def refused(check: DeviceCheck | None, **changes: object) -> str:
        try:
            assert_fits(settings_of(**changes), resolution=512, device=CPU, check=check)
        except TrainingError as error:
            return str(error)
        return ""

    assert refused(None, train_batch_size=3, lora_dropout=0.1) == ""
    assert refused(checked(LINEAR), train_batch_size=2) == ""
    assert "train_batch_size must be at most 2 at 512 pixels" in refused(checked(LINEAR), train_batch_size=3)
    assert "lora_dropout must be 0 or gradient_checkpointing off" in refused(checked(DROPOUT), lora_dropout=0.1)
    assert refused(checked(DROPOUT), lora_dropout=0.1, gradient_checkpointing="off") == ""
    assert refused(checked(DROPOUT)) == ""


def test_a_step_that_the_device_could_never_hold_is_refused_before_it_is_computed(
    manager: PipelineManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(total: int, **changes: object) -> str:
        monkeypatch.setattr(limits, "total_bytes", lambda device: total)
        try:
            assert_room(settings_of(**changes), manager.components, resolution=512, device=CPU)
        except TrainingError as error:
            return str(error)
        return ""

    assert refused(GIB // 8, train_batch_size=2) == "", "a usual step is not counted"
    assert "A batch of 8 at 512 pixels takes about" in refused(GIB // 8, train_batch_size=8)
    assert "set gradient_checkpointing on" in refused(GIB // 8, train_batch_size=8, gradient_checkpointing="off")
    assert refused(64 * GIB, train_batch_size=8) == ""


def test_a_step_in_half_precision_needs_half_the_room(
    manager: PipelineManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fits(total: int, dtype: torch.dtype) -> bool:
        monkeypatch.setattr(limits, "total_bytes", lambda device: total)
        try:
            assert_room(settings_of(train_batch_size=8), manager.components, resolution=512, device=CPU, dtype=dtype)
        except TrainingError:
            return False
        return True

    totals = [GIB * n // 8 for n in range(1, 40)]
    whole, half = (next(t for t in totals if fits(t, dtype)) for dtype in (torch.float32, torch.bfloat16))
    assert half <= whole / 2 + GIB / 8
