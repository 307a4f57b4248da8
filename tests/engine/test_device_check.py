"""The device check finds a device that computes wrongly; shown with a second model that was made wrong."""

import copy
import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn

from studio.core.errors import DeviceError
from studio.core.results import AttentionTrial, DeviceCheck, DeviceDifference
from studio.core.settings import ModelSettings
from studio.engine import device_check as checks
from studio.engine import device_policy
from studio.engine.attention import AttentionPlan
from studio.engine.device_check import (
    attention_candidates,
    check_device,
    check_operations,
    compare,
    compare_device,
    plan_of,
    try_attention,
)
from studio.engine.device_operations import (
    DROPOUT,
    LINEAR,
    UPSAMPLING,
    Compute,
    DeviceOperation,
    Tensors,
    attention_of,
    device_operations,
)
from studio.engine.device_policy import DevicePolicy, keep_check, kept_check, upsample_on_cpu
from studio.engine.model_files import find_model
from studio.engine.models import Components, load_components
from studio.engine.pipeline import PipelineManager

CPU = torch.device("cpu")


@pytest.fixture
def candidate() -> Components:
    """The model on another device, as it were."""
    return load_components(find_model("shoes-demo"), "float32")


@pytest.fixture(scope="module")
def reference() -> Components:
    """The model on the CPU; not the shared manager's, which keeps the last test's LoRAs attached."""
    return load_components(find_model("shoes-demo"), "float32")


def differences(candidate: Components, reference: Components) -> dict[str, float]:
    return {d.part: d.difference for d in compare(candidate, reference)}


def tf32(values: torch.Tensor) -> torch.Tensor:
    """Rounded to ten bits behind the point, as CUDA's convolutions read float32 by default."""
    bits = values.detach().contiguous().view(torch.int32)
    rounded = ((bits + 0x1000) & ~0x1FFF).view(torch.float32)
    return values + (rounded - values).detach()  # gradients pass


def result(*differences: DeviceDifference) -> DeviceCheck:
    return check_device(torch.device("cpu")).model_copy(update={"differences": differences, "device_name": "Apple GPU"})


def test_on_the_cpu_there_is_nothing_to_compare() -> None:
    check = check_device(torch.device("cpu"))
    assert check.differences == ()
    assert "no other device to compare it with" in check.sentence


def test_equal_devices_differ_by_nothing_in_all_three_parts(reference: Components, candidate: Components) -> None:
    assert differences(candidate, reference) == {"UNet steps": 0, "VAE decode": 0, "backward pass": 0}


def test_a_device_that_computes_the_unet_wrongly_is_found(reference: Components, candidate: Components) -> None:
    candidate.unet.conv_out.register_forward_hook(lambda _m, _i, out: out * 1.1)
    found = differences(candidate, reference)
    assert found["UNet steps"] > 0.01
    assert found["VAE decode"] == 0


def test_a_device_whose_convolutions_round_as_tf32_does_is_sound(reference: Components, candidate: Components) -> None:
    for module in (*candidate.unet.modules(), *candidate.vae.modules()):
        if isinstance(module, nn.Conv2d):
            module.weight.data = tf32(module.weight.data)
            module.register_forward_pre_hook(lambda _m, inputs: (tf32(inputs[0]),))
    found = compare(candidate, reference)
    assert all(1e-5 < difference.difference < difference.limit / 2 for difference in found)


def test_a_device_whose_gradients_alone_are_wrong_is_found(reference: Components, candidate: Components) -> None:
    candidate.unet.conv_in.weight.requires_grad_(True).register_hook(lambda gradient: gradient * 1.5)
    found = differences(candidate, reference)
    assert found["UNet steps"] == 0
    assert found["backward pass"] > 0.01


def test_nan_on_the_device_is_an_infinite_difference(reference: Components, candidate: Components) -> None:
    with torch.no_grad():
        candidate.vae.decoder.conv_out.bias[0] = float("nan")
    check = result(*compare(candidate, reference))
    assert not check.passed
    assert DeviceCheck.model_validate_json(check.model_dump_json()).differences[1].difference == float("inf")


def test_the_sentence_tells_what_is_wrong_and_what_to_do() -> None:
    good = DeviceDifference(part="VAE decode", difference=1e-5, limit=1e-2)
    bad = DeviceDifference(part="backward pass", difference=0.5, limit=1e-2)
    assert "the largest difference is 1.0e-05 (VAE decode)" in result(good).sentence
    assert "backward pass differs by 5.0e-01" in result(good, bad).sentence
    assert "--cpu" in result(good, bad).sentence


def test_a_result_is_kept_for_this_machine_and_torch_version_alone(tmp_path: Path) -> None:
    path, device = tmp_path / "checks.json", torch.device("cpu")
    check = check_device(device)
    assert kept_check(path, device) is None
    keep_check(path, check.model_copy(update={"torch_version": "1.0"}))
    assert kept_check(path, device) is None
    keep_check(path, check)
    keep_check(path, check)
    assert kept_check(path, device) == check
    assert path.read_text().count('"torch_version"') == 2, "the older one of the same kind was replaced"


def test_a_damaged_file_of_results_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "checks.json"
    path.write_text("[{")
    assert kept_check(path, torch.device("cpu")) is None
    check = check_device(torch.device("cpu"))
    keep_check(path, check)
    assert kept_check(path, torch.device("cpu")) == check


def test_the_operations_are_those_of_stable_diffusion_and_right_on_the_cpu_itself() -> None:
    found = check_operations(CPU, device_operations(side=16))
    assert [difference.part for difference in found] == [
        "3 × 3 convolution",
        "group norm",
        LINEAR,
        UPSAMPLING,
        DROPOUT,
        "baddbmm over recycled memory",
    ]
    for difference in found:
        assert difference.passed, difference.part
        assert difference.difference == 0
        assert difference.seconds is not None and difference.seconds > 0


def spoiled(compute: Compute, *, by: float) -> Compute:
    """As `compute`, but its second output (a gradient, where there are some) is off, as on a faulty device."""

    def wrong(device: torch.device) -> Tensors:
        first, *others = compute(device)
        return [first * (1 + by), *others] if not others else [first, others[0] * (1 + by), *others[1:]]

    return wrong


@pytest.mark.parametrize("operation", device_operations(side=16), ids=lambda operation: operation.name)
@pytest.mark.parametrize("by", [0.01, float("nan")])
def test_each_operation_that_is_off_is_found(operation: DeviceOperation, by: float) -> None:
    reference = operation.reference or operation.compute
    faulty = replace(operation, compute=spoiled(operation.compute, by=by), reference=reference)
    (found,) = check_operations(CPU, [faulty])
    assert not found.passed


def test_a_device_that_drops_other_numbers_in_the_recomputation_is_found() -> None:
    """As a Mac would with dropout drawn from the device's own random state."""
    (operation,) = (operation for operation in device_operations(side=16) if operation.name == DROPOUT)
    drawn: list[int] = []

    def unlucky(device: torch.device) -> Tensors:
        def seeds(*_: object) -> torch.Tensor:
            drawn.append(1)
            return torch.tensor(len(drawn))  # no random state to bring back

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randint", seeds)
            return operation.compute(device)

    (found,) = check_operations(CPU, [replace(operation, compute=unlucky)])
    assert not found.passed


PLANS = tuple(AttentionPlan(max_scores=2**n, contiguous=True) for n in (10, 14, 18))


def test_ways_that_are_wrong_are_never_chosen_however_fast() -> None:
    for wrong in range(len(PLANS)):

        def compute(plan: AttentionPlan, *, tokens: int, width: int, wrong: int = wrong) -> Compute:
            if plan == PLANS[wrong]:
                return lambda device: [torch.zeros(2, 8, tokens, width)] * 4  # fast and wrong
            return attention_of(plan, tokens=tokens, width=width)

        trials = try_attention(CPU, PLANS, tokens=64, compute=compute)
        assert [trial.passed for trial in trials] == [plan != PLANS[wrong] for plan in PLANS]
        chosen = plan_of(trials)
        assert chosen in PLANS
        assert chosen != PLANS[wrong]


def test_without_any_right_way_the_device_is_refused() -> None:
    def compute(plan: AttentionPlan, *, tokens: int, width: int) -> Compute:
        right = attention_of(plan, tokens=tokens, width=width)
        return spoiled(right, by=0.5) if plan in PLANS else right

    trials = try_attention(CPU, PLANS, tokens=64, compute=compute)
    assert plan_of(trials) is None
    check = result().model_copy(update={"attention": trials})
    assert not check.passed
    assert "no attention method is correct, of 3 that were tried" in check.sentence
    assert "--cpu" in check.sentence


def without_memory(device: torch.device) -> Tensors:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")


def test_memory_that_runs_out_says_nothing_of_how_a_device_computes() -> None:
    """A game has the GPU for a moment: nothing that would be kept for ever may come of it."""

    def some(plan: AttentionPlan, *, tokens: int, width: int) -> Compute:
        return without_memory if plan in PLANS[1:] else attention_of(plan, tokens=tokens, width=width)

    trials = try_attention(CPU, PLANS, tokens=64, compute=some)
    assert plan_of(trials) == PLANS[0], "one that takes less is right"

    def none(plan: AttentionPlan, *, tokens: int, width: int) -> Compute:
        return without_memory if plan in PLANS else attention_of(plan, tokens=tokens, width=width)

    with pytest.raises(torch.OutOfMemoryError):
        try_attention(CPU, PLANS, tokens=64, compute=none)
    convolution = device_operations(side=16)[0]
    with pytest.raises(torch.OutOfMemoryError):
        check_operations(CPU, [replace(convolution, compute=without_memory, reference=convolution.compute)])


def trial(seconds: float, *, scores: int, difference: float = 1e-6) -> AttentionTrial:
    return AttentionTrial(
        max_scores=scores, contiguous=True, head_width=None, difference=difference, limit=1e-3, seconds=seconds
    )


def test_the_fastest_right_way_is_chosen_and_of_equals_the_one_that_takes_less_memory() -> None:
    small, large, wrong = trial(0.104, scores=2**24), trial(0.1, scores=2**28), trial(0.01, scores=2**26, difference=1)
    check = result(good()).model_copy(update={"attention": (small, wrong, large)})
    assert check.chosen_attention == small
    slow = trial(0.2, scores=2**24)
    assert result().model_copy(update={"attention": (slow, wrong, large)}).chosen_attention == large
    assert "Attention: chunks of 64 MiB, the fastest correct method." in check.sentence


def good(part: str = "VAE decode") -> DeviceDifference:
    return DeviceDifference(part=part, difference=1e-5, limit=1e-2)


def test_what_the_studio_can_do_without_is_avoided_and_said() -> None:
    avoided = DeviceDifference(part=UPSAMPLING, difference=1, limit=1e-3, consequence="it is computed on the CPU")
    check = result(good(), avoided)
    assert check.passed
    assert check.is_wrong(UPSAMPLING)
    assert not check.is_wrong(DROPOUT)
    assert f"Wrong here: {UPSAMPLING}; it is computed on the CPU." in check.sentence


def test_on_a_mac_chunks_and_widened_heads_are_tried_all_of_them_contiguous_and_below_the_limit() -> None:
    plans = attention_candidates(torch.device("mps"))
    assert all(plan.contiguous and plan.max_scores is not None and plan.max_scores <= 2**28 for plan in plans)
    assert {plan.head_width for plan in plans} == {None, 64, 96, 128}
    assert attention_candidates(torch.device("cuda")) == (AttentionPlan(),)


@pytest.mark.parametrize("size", [(), ([7, 9],)], ids=str)
def test_a_layer_that_upsamples_on_the_cpu_computes_the_same(
    reference: Components, size: tuple[list[int], ...]
) -> None:
    layer = copy.deepcopy(reference.unet.up_blocks[0].upsamplers[0])
    x = torch.randn(1, layer.channels, 4, 4, requires_grad=True)
    expected = layer(x, *size)
    upsample_on_cpu(layer)
    assert torch.equal(layer(x, *size), expected)
    layer(x, *size).sum().backward()
    assert x.grad is not None


Gpu = Callable[[DeviceCheck], tuple[PipelineManager, list[int]]]


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """Makes managers whose device is checked as a GPU is, though it is the CPU, and is found to be what is given."""

    def make(found: DeviceCheck) -> tuple[PipelineManager, list[int]]:
        made: list[int] = []

        def check(device: torch.device, *, on_part: Callable[[str], None]) -> DeviceCheck:
            on_part("attention")
            made.append(1)
            return found

        monkeypatch.setattr(device_policy, "check_device", check)
        monkeypatch.setattr(DevicePolicy, "_needs_check", True)
        manager = PipelineManager(CPU, rejected_folder=tmp_path / "rejected", device_checks=tmp_path / "checks.json")
        return manager, made

    return make


def test_a_gpu_is_checked_once_when_a_model_is_first_loaded(gpu: Gpu, tiny_model: Path) -> None:
    found = check_device(CPU).model_copy(update={"differences": (good(),)})
    manager, checks = gpu(found)
    parts: list[str] = []
    settings = ModelSettings(model=str(tiny_model))
    facts = manager.load(settings, on_check=parts.append)
    assert (facts.device_check, checks, parts) == (found, [1], ["attention"])
    again, checks = gpu(found)
    assert again.load(settings).device_check == found
    assert checks == [], "it was kept"


def test_a_gpu_that_is_wrong_is_refused_and_no_model_is_loaded(gpu: Gpu, tiny_model: Path) -> None:
    bad = DeviceDifference(part="3 × 3 convolution", difference=1, limit=1e-3)
    manager, _ = gpu(check_device(CPU).model_copy(update={"differences": (good(), bad)}))
    with pytest.raises(DeviceError, match=r"3 × 3 convolution differs by 1\.0e\+00.*--cpu"):
        manager.load(ModelSettings(model=str(tiny_model)))
    assert manager.facts is None


def test_a_load_does_not_fail_with_a_check_that_has_no_memory_or_cannot_be_kept(
    gpu: Gpu, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = check_device(CPU).model_copy(update={"differences": (good(),)})
    settings = ModelSettings(model=str(tiny_model))
    manager, _ = gpu(found)
    with monkeypatch.context() as patch:
        patch.setattr(device_policy, "check_device", lambda device, *, on_part: without_memory(device))
        assert manager.load(settings).device_check is None

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(device_policy, "write_atomically", full)
        assert manager.load(settings).device_check == found
    assert not (tmp_path / "checks.json").exists(), "so the next load finds it out again"


def test_upsampling_that_is_wrong_moves_to_the_cpu(gpu: Gpu, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[nn.Module] = []
    monkeypatch.setattr(device_policy, "upsample_on_cpu", moved.append)
    wrong = DeviceDifference(part=UPSAMPLING, difference=1, limit=1e-3, consequence="it is computed on the CPU")
    manager, _ = gpu(check_device(CPU).model_copy(update={"differences": (good(), wrong)}))
    manager.load(ModelSettings(model=str(tiny_model)))
    components = manager.components
    modules = [*components.unet.modules(), *components.vae.modules()]
    assert moved == [module for module in modules if isinstance(module, Upsample2D)]
    assert moved


def test_a_whole_check_of_a_small_size_tries_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, though all is the CPU's."""
    parts: list[str] = []
    monkeypatch.setattr(checks, "attention_candidates", lambda device: PLANS)
    check = compare_device(CPU, on_part=parts.append, side=8)
    assert check.passed
    assert len(check.attention) == 3
    assert [d.part for d in check.differences][-3:] == ["UNet steps", "VAE decode", "backward pass"]
    assert check.differences[0].part == "attention, heads 80 wide"
    assert parts[0] == "attention, way 1 of 3"
    assert parts[-1] == "the shipped model's passes"
    assert check.sentence.startswith("CPU matches the CPU")
