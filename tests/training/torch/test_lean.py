"""Lean passes keep less for backward, and their outputs and gradients are the plain passes'."""

import copy
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from studio.datasets.snapshot import Snapshot
from studio.engine.attention import AttentionPlan, set_attention
from studio.engine.lean import LeanPasses
from studio.engine.memory_forecast import MemoryCount
from studio.engine.models import Components
from studio.training.settings import TARGET_NAMES
from studio.training.torch.loss import Denoiser, predict
from tests.training.torch.parts import Bench, give_effect, make_adapters, make_bench, settings_of

ALL_LAYERS = TARGET_NAMES[-1]
Passed = tuple[torch.Tensor, dict[str, torch.Tensor], int]  # prediction, gradients, bytes kept


def passed(
    snapshot: Snapshot,
    components: Components,
    cache: Path,
    *,
    lean: bool,
    change: Callable[[Components], None] = lambda components: None,
    wrapped: Callable[[nn.Module], nn.Module] = lambda denoiser: denoiser,
    **changes: object,
) -> Passed:
    """A pass of a copy of the model, forward and backward."""
    bench = make_bench(snapshot, settings_of(**changes), copy.deepcopy(components), cache)
    adapters = make_adapters(bench)
    give_effect(adapters)
    change(bench.components)
    denoiser = Denoiser(bench.components, train_text_encoder=bench.settings.train_text_encoder).train()
    if not lean:
        denoiser.lean.remove()
        denoiser.lean = LeanPasses(nn.Module())
    return _passed(bench, wrapped(denoiser), dict(adapters.named_parameters()))


def _passed(bench: Bench, model: nn.Module, parameters: dict[str, nn.Parameter]) -> Passed:
    batch = bench.maker.batch(0)
    torch.manual_seed(7)  # for LoRA dropout
    with MemoryCount() as count:
        prediction = predict(model, batch)
        num_bytes = count.now_bytes
    torch.autograd.backward(bench.noise_loss.weighted(prediction, batch).mean())
    gradients = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
    return prediction.detach(), gradients, num_bytes


def checkpointed(components: Components) -> None:
    components.unet.enable_gradient_checkpointing()


def half(components: Components) -> None:
    components.unet.to(torch.bfloat16)


def chunked(components: Components) -> None:
    set_attention(components, AttentionPlan(max_scores=64, contiguous=True))


def time_embedding_learns(components: Components) -> None:
    for name, parameter in components.unet.named_parameters():
        parameter.requires_grad_(parameter.requires_grad or name.endswith("time_emb_proj.weight"))


def convolutions_learn(components: Components) -> None:
    for name, parameter in components.unet.named_parameters():
        parameter.requires_grad_(parameter.requires_grad or name.endswith(("conv1.weight", "ff.net.2.weight")))


@pytest.mark.parametrize(
    ("changes", "change"),
    [
        *[({"targets": targets}, None) for targets in TARGET_NAMES],
        ({"targets": ALL_LAYERS, "use_dora": True}, None),
        ({"targets": ALL_LAYERS, "lora_dropout": 0.3}, None),
        ({"targets": ALL_LAYERS, "train_text_encoder": True}, None),
        ({"targets": ALL_LAYERS, "lora_dropout": 0.3}, checkpointed),
        ({"targets": ALL_LAYERS}, chunked),
        ({"targets": ALL_LAYERS}, half),
        ({"targets": ALL_LAYERS}, time_embedding_learns),
        ({}, convolutions_learn),
    ],
)
def test_prediction_and_gradients_are_the_plain_passes(
    changes: dict[str, object],
    change: Callable[[Components], None] | None,
    snapshot: Snapshot,
    components: Components,
    cache: Path,
) -> None:
    options = {**changes, **({} if change is None else {"change": change})}
    plain, plain_gradients, plain_bytes = passed(snapshot, components, cache, lean=False, **options)
    prediction, gradients, num_bytes = passed(snapshot, components, cache, lean=True, **options)
    assert torch.equal(prediction, plain)
    assert gradients.keys() == plain_gradients.keys()
    assert any(bool(gradient.abs().max() > 0) for gradient in gradients.values())
    for name, gradient in gradients.items():
        difference = float((gradient - plain_gradients[name]).norm())
        assert difference <= 1e-5 * float(plain_gradients[name].norm()), name
    assert num_bytes < (plain_bytes if change is not checkpointed else plain_bytes + 1)


@pytest.fixture
def one_process() -> Iterator[None]:
    """A group of this process alone, for DistributedDataParallel."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_gradients_are_the_same_in_distributed_data_parallel(
    snapshot: Snapshot, components: Components, cache: Path
) -> None:
    parallel = nn.parallel.DistributedDataParallel
    plain = passed(snapshot, components, cache, lean=False)
    found = passed(snapshot, components, cache, lean=True, wrapped=parallel)
    assert torch.equal(found[0], plain[0])
    for name, gradient in found[1].items():
        assert float((gradient - plain[1][name]).norm()) <= 1e-5 * float(plain[1][name].norm()), name


@pytest.mark.parametrize("targets", TARGET_NAMES)
def test_a_third_of_what_a_plain_pass_keeps_is_not_kept(
    targets: str, snapshot: Snapshot, components: Components, cache: Path
) -> None:
    plain, lean = (
        passed(snapshot, components, cache, lean=lean, targets=targets, resolution=128)[2] for lean in (False, True)
    )
    assert lean < 0.67 * plain, lean / plain


def kept_for(module: nn.Module, x: torch.Tensor) -> int:
    """Bytes that a pass keeps besides its input and output."""
    lean = LeanPasses(module)
    try:
        with lean.kept_leanly(), MemoryCount() as count:
            output = module(x)
            return count.now_bytes - output.nbytes
    finally:
        lean.remove()


def test_norm_activation_and_frozen_convolution_keep_their_input_alone() -> None:
    chain = nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1)).requires_grad_(False)
    x = torch.randn(1, 8, 16, 16, requires_grad=True)
    assert kept_for(chain, x) < x.nbytes / 8  # means and deviations of the groups
    chain[2].requires_grad_(True)
    assert kept_for(chain, x) < x.nbytes / 8, "a convolution that learns finds its input again too"


def test_a_frozen_convolution_does_not_keep_what_has_no_recipe() -> None:
    chain = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)).requires_grad_(False)
    assert kept_for(chain, torch.randn(1, 8, 16, 16, requires_grad=True)) == 0


def test_a_tensor_that_was_written_to_since_is_kept_as_it_is() -> None:
    norm, linear = nn.LayerNorm(8), nn.Linear(8, 8)

    def gradient(model: nn.Module, *, lean: bool) -> torch.Tensor:
        passes = LeanPasses(model if lean else nn.Module())
        linear.weight.grad = None
        with passes.kept_leanly():
            linear(norm(torch.arange(16.0).reshape(2, 8)).add_(1)).square().sum().backward()
        passes.remove()
        assert linear.weight.grad is not None
        return linear.weight.grad

    model = nn.ModuleList((norm, linear))
    norm.requires_grad_(False)
    assert torch.equal(gradient(model, lean=True), gradient(model, lean=False))


def test_removed_passes_leave_the_modules_as_they_were(components: Components) -> None:
    before = {name: dict(vars(module)) for name, module in components.unet.named_modules()}
    hooks = {name: len(module._forward_hooks) for name, module in components.unet.named_modules()}
    components.unet.requires_grad_(False)
    LeanPasses(components.unet).remove()
    for name, module in components.unet.named_modules():
        assert vars(module).keys() == before[name].keys()
        assert len(module._forward_hooks) == hooks[name]
