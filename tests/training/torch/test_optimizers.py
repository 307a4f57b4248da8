"""What optimizer, schedule, clipping and EMA do to the weights."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers.optimization import get_scheduler
from torch import nn
from torch.optim import AdamW

from studio.core.errors import SettingsError
from studio.datasets.snapshot import Snapshot
from studio.engine.models import Components
from studio.training.begin import assert_consistent
from studio.training.settings import LrSchedulerName
from studio.training.torch.adapters import Adapters
from studio.training.torch.loop import TrainingLoop
from studio.training.torch.loss import HeldOutLoss
from studio.training.torch.optimizers import (
    RunningMean,
    load_optimizer_state,
    make_optimizer,
    make_schedule,
    rate_factor,
    rate_in_use,
)
from studio.training.torch.processes import Processes
from tests.training.torch.parts import (
    give_effect,
    make_adapters,
    make_bench,
    make_loop,
    parameters_of,
    settings_of,
    weights_before_and_after,
)

STEPS = 40
MakeLoop = Callable[..., TrainingLoop]


@pytest.fixture
def adapters(components: Components) -> Adapters:
    """Of U-Net and text encoder."""
    return Adapters(components, settings_of(train_text_encoder=True))


@pytest.fixture
def loop_of(snapshot: Snapshot, components: Components, cache: Path, processes: Processes, tmp_path: Path) -> MakeLoop:
    """Makes a loop of settings; its layers have an effect already, so that every gradient is there."""

    def make(**changes: object) -> TrainingLoop:
        bench = make_bench(snapshot, settings_of(**changes), components, cache)
        adapters = make_adapters(bench)
        give_effect(adapters)
        return make_loop(bench, adapters, processes, tmp_path)

    return make


def rates_of(adapters: Adapters, **changes: object) -> list[float]:
    """The U-Net's rate in each of 40 optimizer steps, by the rate itself."""
    settings = settings_of(**{"max_train_steps": STEPS, "learning_rate": 0.5, **changes})
    optimizer = make_optimizer(adapters, settings)
    schedule = make_schedule(optimizer, settings)
    rates = []
    for _ in range(STEPS):
        rates.append(rate_in_use(optimizer) / 0.5)
        optimizer.step()
        schedule.step()
    return rates


# Schedules


def test_a_constant_rate_stays(adapters: Adapters) -> None:
    assert rates_of(adapters) == [1.0] * STEPS


def test_a_linear_rate_falls_to_nothing(adapters: Adapters) -> None:
    assert rates_of(adapters, lr_scheduler="linear") == pytest.approx([1 - i / STEPS for i in range(STEPS)])


def test_a_cosine_rate_falls_as_half_a_wave(adapters: Adapters) -> None:
    wanted = [(1 + math.cos(math.pi * i / STEPS)) / 2 for i in range(STEPS)]
    assert rates_of(adapters, lr_scheduler="cosine") == pytest.approx(wanted)


@pytest.mark.parametrize("cycles", [1, 2, 4])
def test_a_cosine_with_restarts_begins_anew_so_many_times(cycles: int, adapters: Adapters) -> None:
    rates = rates_of(adapters, lr_scheduler="cosine with restarts", lr_num_cycles=cycles)
    length = STEPS // cycles
    assert rates == pytest.approx([(1 + math.cos(math.pi * (i % length) / length)) / 2 for i in range(STEPS)])
    assert sum(after > before for before, after in pairwise(rates)) == cycles - 1


@pytest.mark.parametrize("cycles", [1, 4])
def test_the_number_of_restarts_changes_no_other_schedule(cycles: int, adapters: Adapters) -> None:
    wanted = rates_of(adapters, lr_scheduler="cosine")
    assert rates_of(adapters, lr_scheduler="cosine", lr_num_cycles=cycles) == wanted


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "cosine with restarts"])
def test_every_schedule_warms_up(name: str, adapters: Adapters) -> None:
    rates = rates_of(adapters, lr_scheduler=name, lr_warmup_steps=10)
    assert rates[:11] == pytest.approx([*(i / 10 for i in range(1, 11)), 1])
    assert max(rates[11:]) <= 1


DIFFUSERS_NAMES: dict[LrSchedulerName, str] = {
    "constant": "constant_with_warmup",
    "linear": "linear",
    "cosine": "cosine",
    "cosine with restarts": "cosine_with_restarts",
}


@pytest.mark.parametrize("warmup", [0, 1, 7, 40])
@pytest.mark.parametrize("name", DIFFUSERS_NAMES)
def test_every_schedule_is_diffusers_to_the_bit_but_for_the_warm_up(name: LrSchedulerName, warmup: int) -> None:
    settings = settings_of(lr_scheduler=name, lr_warmup_steps=warmup, max_train_steps=STEPS, lr_num_cycles=3)
    theirs = get_scheduler(
        DIFFUSERS_NAMES[name],
        AdamW([nn.Parameter(torch.zeros(1))]),
        num_warmup_steps=warmup,
        num_training_steps=STEPS,
        num_cycles=3,
    ).lr_lambdas[0]
    wanted = [theirs(step) for step in range(STEPS)]
    assert [rate_factor(settings, step) for step in range(STEPS)][warmup:] == wanted[warmup:]
    assert [rate_factor(settings, step, warmup_from_zero=True) for step in range(STEPS)] == wanted


def test_no_step_of_a_training_learns_nothing() -> None:
    for name in DIFFUSERS_NAMES:
        for warmup in (0, 1, 2, 39, 40, 100):
            settings = settings_of(lr_scheduler=name, lr_warmup_steps=warmup, max_train_steps=STEPS, lr_num_cycles=3)
            assert min(rate_factor(settings, step) for step in range(STEPS)) > 0


@pytest.mark.parametrize(("warmup", "highest"), [(0, 1), (STEPS, 1), (STEPS + 1, STEPS / (STEPS + 1))])
def test_a_warm_up_in_which_the_rate_never_reaches_its_full_value_is_refused(warmup: int, highest: float) -> None:
    settings = settings_of(lr_warmup_steps=warmup, max_train_steps=STEPS)
    assert max(rate_factor(settings, step) for step in range(STEPS)) == highest
    with nullcontext() if highest == 1 else pytest.raises(SettingsError, match="Warm-up"):
        assert_consistent(settings)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_rate_that_is_told_with_a_step_is_the_steps_own(accumulation: int, loop_of: MakeLoop) -> None:
    loop = loop_of(
        gradient_accumulation_steps=accumulation,
        train_batch_size=1,
        max_train_steps=6,
        lr_scheduler="linear",
        learning_rate=6e-3,
        lr_warmup_steps=2,
    )
    reported, used = rates_told_and_used(loop)
    assert reported == used
    assert reported == pytest.approx([3e-3, 6e-3, 6e-3, 4.5e-3, 3e-3, 1.5e-3])


def rates_told_and_used(loop: TrainingLoop) -> tuple[list[float], list[float]]:
    """Train; the rates that steps tell, and those that the optimizer had before each step."""
    reported, used = [], []
    while loop.state.position.step < loop.settings.max_train_steps:
        used.append(rate_in_use(loop.state.optimizer))
        reported.append(loop.step().learning_rate)
    return reported, used


@pytest.mark.parametrize("accumulation", [1, 4])
def test_warm_up_counts_optimizer_steps_whatever_the_accumulation(accumulation: int, loop_of: MakeLoop) -> None:
    loop = loop_of(
        gradient_accumulation_steps=accumulation,
        train_batch_size=1,
        max_train_steps=6,
        lr_warmup_steps=4,
        lr_scheduler="linear",
        learning_rate=1e-3,
    )
    rates: list[float] = []
    step = loop.state.optimizer.step

    def watched() -> None:
        rates.append(rate_in_use(loop.state.optimizer))
        step()

    loop.state.optimizer.step = watched  # type: ignore[method-assign]
    assert loop.train() == "finished"
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 0.5e-3])
    assert loop.state.position.batches_done == 6 * accumulation


# Rates


def test_a_first_step_moves_weights_by_the_rate(loop_of: MakeLoop) -> None:
    """AdamW's first step is the rate times the gradient's sign, where that is not next to zero."""
    loop = loop_of(learning_rate=1e-3, max_train_steps=1, weight_decay=0, max_grad_norm=1000)
    before, after = weights_before_and_after(loop)
    moved = torch.cat([(after[name] - before[name]).abs().flatten() for name in before])
    assert float(moved.median()) == pytest.approx(1e-3, rel=1e-2)
    assert float(moved.max()) <= 1.001e-3


def test_the_text_encoder_has_a_rate_of_its_own(loop_of: MakeLoop) -> None:
    loop = loop_of(
        train_text_encoder=True,
        learning_rate=1e-3,
        text_encoder_learning_rate=2e-4,
        max_train_steps=1,
        weight_decay=0,
        max_grad_norm=1000,
    )
    before, after = weights_before_and_after(loop)
    for part, rate in (("unet", 1e-3), ("text_encoder", 2e-4)):
        moved = torch.cat([(after[n] - before[n]).abs().flatten() for n in before if n.startswith(part)])
        assert float(moved.median()) == pytest.approx(rate, rel=2e-2)
    assert [group["lr"] for group in loop.state.optimizer.param_groups] == [1e-3, 2e-4]


def test_every_parameter_is_optimized_once(adapters: Adapters) -> None:
    optimizer = make_optimizer(adapters, settings_of(train_text_encoder=True))
    unet, text = (group["params"] for group in optimizer.param_groups)
    assert [id(p) for p in (*unet, *text)] == [id(p) for p in adapters.parameters()]
    assert len({id(p) for p in (*unet, *text)}) == len(unet) + len(text)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.5])
def test_weight_decay_shrinks_what_has_no_gradient(weight_decay: float, adapters: Adapters) -> None:
    settings = settings_of(train_text_encoder=True, learning_rate=0.1, text_encoder_learning_rate=0.05)
    optimizer = make_optimizer(adapters, settings.model_copy(update={"weight_decay": weight_decay}))
    before = parameters_of(adapters)
    for parameter in adapters.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in parameters_of(adapters).items():
        rate = 0.1 if name.startswith("unet") else 0.05
        torch.testing.assert_close(value, before[name] * (1 - rate * weight_decay), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("limit", [0.01, 1000.0])
def test_a_gradient_that_is_too_long_is_shortened(limit: float, loop_of: MakeLoop) -> None:
    loop = loop_of(max_grad_norm=limit, max_train_steps=1)
    norms: list[float] = []
    step = loop.state.optimizer.step

    def watched() -> None:
        gradients = [p.grad.flatten() for p in loop.state.adapters.parameters() if p.grad is not None]
        norms.append(float(torch.cat(gradients).norm()))
        step()

    loop.state.optimizer.step = watched  # type: ignore[method-assign]
    loop.train()
    (norm,) = norms
    if limit == 0.01:
        assert norm == pytest.approx(0.01, rel=1e-3)
    else:
        assert 0.02 < norm < 10, "it must be one that 0.01 shortens"


# Optimizers


def losses_before_and_after(loop: TrainingLoop) -> tuple[float, float]:
    """Of fixed noise on what it is trained on."""
    held_out = HeldOutLoss(loop.steps.maker, loop.steps.noise_loss, batch_size=loop.settings.train_batch_size)
    _, before = held_out.measure(loop.denoiser)
    assert loop.train() == "finished"
    _, after = held_out.measure(loop.denoiser)
    return before, after


def test_adamw_lowers_the_loss_on_what_it_sees(loop_of: MakeLoop) -> None:
    loop = loop_of(learning_rate=1e-1, max_train_steps=25, train_batch_size=4, gradient_accumulation_steps=1)
    before, after = losses_before_and_after(loop)
    assert after < 0.97 * before


def test_prodigys_estimate_of_the_rate_grows(loop_of: MakeLoop) -> None:
    """From a millionth, as soon as gradients agree; later steps are longer ones."""
    loop = loop_of(
        optimizer="Prodigy",
        learning_rate=1.0,
        max_train_steps=45,
        train_batch_size=8,
        gradient_accumulation_steps=1,
        weight_decay=0,
        rank=2,
    )
    moved: list[float] = []
    step = loop.state.optimizer.step

    def watched() -> None:
        before = parameters_of(loop.state.adapters)
        step()
        after = parameters_of(loop.state.adapters)
        moved.append(max(float((after[name] - before[name]).abs().max()) for name in before))

    loop.state.optimizer.step = watched  # type: ignore[method-assign]
    assert loop.train() == "finished"
    (group,) = loop.state.optimizer.param_groups
    assert group["d"] > 5e-6
    assert rate_in_use(loop.state.optimizer) == pytest.approx(group["d"])
    assert moved[-1] > 5 * moved[0] > 0


def test_prodigy_has_one_rate_for_all(adapters: Adapters) -> None:
    """It refuses others, so that the text encoder's own rate does not count."""
    settings = settings_of(optimizer="Prodigy", learning_rate=1.0, train_text_encoder=True)
    optimizer = make_optimizer(adapters, settings)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 1.0]
    for parameter in adapters.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = parameters_of(adapters)
    optimizer.step()
    assert all(not torch.equal(value, before[name]) for name, value in parameters_of(adapters).items())


@pytest.mark.parametrize(("name", "kept"), [("AdamW", "exp_avg_sq"), ("Prodigy", "exp_avg_sq")])
def test_an_optimizers_state_goes_on_in_another(name: str, kept: str, adapters: Adapters) -> None:
    """Three steps, and one and two with the state carried over, come to the same weights."""
    settings = settings_of(optimizer=name, train_text_encoder=True, learning_rate=1.0 if name == "Prodigy" else 1e-3)
    initial = parameters_of(adapters)

    def run(first: int, then: int) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            for parameter_name, parameter in adapters.named_parameters():
                parameter.copy_(initial[parameter_name])
        generator = torch.Generator().manual_seed(1)
        optimizer = make_optimizer(adapters, settings)
        for number in range(first + then):
            if number == first:
                state = optimizer.state_dict()
                optimizer = make_optimizer(adapters, settings)
                optimizer.load_state_dict(state)
            for parameter in adapters.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
        assert all(kept in optimizer.state[parameter] for parameter in adapters.parameters())
        return parameters_of(adapters)

    whole, parts = run(3, 0), run(1, 2)
    for parameter_name, value in whole.items():
        assert torch.equal(value, parts[parameter_name])


def test_prodigy_is_set_up_as_its_authors_advise(adapters: Adapters) -> None:
    optimizer = make_optimizer(adapters, settings_of(optimizer="Prodigy", learning_rate=1.0, weight_decay=0.02))
    (group,) = optimizer.param_groups
    assert type(optimizer).__name__ == "Prodigy"
    assert (group["weight_decay"], group["use_bias_correction"], group["safeguard_warmup"]) == (0.02, True, True)


# EMA


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_a_running_mean_is_the_formula(decay: float) -> None:
    """m ← d · m + (1 - d) · w, where d is at most (1 + step) / (10 + step)."""
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    mean = RunningMean([parameter], decay)
    wanted = [1.0, -2.0]
    for step in range(1, 60):
        with torch.no_grad():
            parameter.copy_(torch.tensor([math.sin(step), step * 0.1]))
        mean.update(step)
        d = min(decay, (1 + step) / (10 + step))
        wanted = [d * w + (1 - d) * p for w, p in zip(wanted, parameter.tolist(), strict=True)]
        assert mean.means[0].tolist() == pytest.approx(wanted, rel=1e-4)


def test_a_larger_decay_follows_more_slowly() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    means = [RunningMean([parameter], decay) for decay in (0.5, 0.9, 0.99999)]
    with torch.no_grad():
        parameter += 1
    for step in range(1, 21):
        for mean in means:
            mean.update(step)
    fast, middle, slow = (float(mean.means[0]) for mean in means)
    assert fast > middle > 0
    assert middle > 0.8 > 0.1
    assert slow <= middle


def test_a_running_mean_does_not_change_the_weights() -> None:
    parameter = nn.Parameter(torch.ones(3))
    mean = RunningMean([parameter], 0.9)
    with torch.no_grad():
        parameter += 1
    mean.update(1)
    assert parameter.tolist() == [2.0] * 3
    assert mean.means[0].tolist() != [2.0] * 3


def test_a_running_mean_goes_on_from_what_is_put() -> None:
    parameter = nn.Parameter(torch.ones(2))
    mean = RunningMean([parameter], 0.5)
    own = mean.means[0]
    mean.put([torch.tensor([5.0, 6.0])])
    assert mean.means[0] is own
    assert own.tolist() == [5.0, 6.0]
    with pytest.raises(ValueError, match="zip"):
        mean.put([])


@pytest.mark.parametrize("kind", [{}, {"use_dora": True, "train_text_encoder": True, "use_rslora": True}])
def test_with_ema_the_loop_gives_the_mean_of_its_weights(kind: dict[str, object], loop_of: MakeLoop) -> None:
    """Written out from the weights after each step; training itself goes on with the weights as they are."""
    changes = {"max_train_steps": 3, "learning_rate": 1e-2, "ema_decay": 0.25, **kind}
    loop = loop_of(use_ema=True, **changes)
    history = [parameters_of(loop.state.adapters)]
    step = loop.state.schedule.step

    def watched() -> None:
        history.append(parameters_of(loop.state.adapters))
        step()

    loop.state.schedule.step = watched  # type: ignore[method-assign]
    loop.train()
    wanted = history[0]
    for number, weights in enumerate(history[1:], start=1):
        d = min(0.25, (1 + number) / (10 + number))
        wanted = {name: d * wanted[name] + (1 - d) * weights[name] for name in wanted}
    given = {(part, path): layer for part, path, layer in loop.state.weights().layers()}
    last = {(part, path): layer for part, path, layer in loop.state.adapters.weights().layers()}
    assert given.keys() == last.keys()
    for (part, path), layer in given.items():
        sides = {"lora_A.default": layer.down, "lora_B.default": layer.up}
        if "use_dora" in kind:
            assert layer.magnitude is not None
            sides["lora_magnitude_vector.default"] = layer.magnitude
        for side, value in sides.items():
            mean = wanted[f"{part}.{path}.{side}.weight"].reshape(value.shape)
            torch.testing.assert_close(value, mean, atol=1e-6, rtol=1e-5)
        assert layer.alpha == last[part, path].alpha
        assert not torch.equal(layer.up, last[part, path].up)


def test_without_ema_the_loop_gives_its_last_weights(loop_of: MakeLoop) -> None:
    loop = loop_of(max_train_steps=1)
    loop.train()
    given, last = loop.state.weights(), loop.state.adapters.weights()
    for path, layer in last.unet.items():
        assert torch.equal(given.unet[path].up, layer.up)
        assert torch.equal(given.unet[path].down, layer.down)


@pytest.mark.parametrize("before", [True, False, None])
def test_a_resumed_optimizer_computes_as_this_device_does_under_fp16s_scaler(before: bool | None) -> None:
    """A GPU goes on with a checkpoint of a CPU's, and with one from before steps were one kernel."""
    weight = nn.Parameter(torch.zeros(3))

    def step(optimizer: AdamW, scaler: torch.amp.GradScaler) -> None:
        scaler.scale((weight - 1).square().sum()).backward()
        scaler.unscale_(optimizer)  # as clipping does
        scaler.step(optimizer)
        scaler.update()

    step(first := AdamW([weight], lr=0.1, fused=before), torch.amp.GradScaler("cpu"))
    resumed = AdamW([weight], lr=0.1, fused=True)
    load_optimizer_state(resumed, first.state_dict())
    step(resumed, torch.amp.GradScaler("cpu"))
    assert resumed.param_groups[0]["fused"] is True
    assert resumed.state[weight]["step"] == 2


@pytest.mark.parametrize("warmup", [0, 3])
def test_restarts_are_refused_from_where_on_the_rate_no_longer_falls_in_each_cycle(warmup: int) -> None:
    """Too many are sampled too coarsely: of 100 in 100 steps, the rate stands still at its full value."""
    for steps in range(warmup + 2, warmup + 14):
        for cycles in range(2, steps + 3):
            changes = {"lr_num_cycles": cycles, "lr_warmup_steps": warmup, "max_train_steps": steps}
            settings = settings_of(lr_scheduler="cosine with restarts", **changes)
            rates = [rate_factor(settings, step) for step in range(warmup, steps)]
            falls = sum(after < before for before, after in pairwise(rates))
            if falls >= cycles:
                assert_consistent(settings)
            else:
                with pytest.raises(SettingsError, match="Restarts"):
                    assert_consistent(settings)
