"""For each rule of the simulated Mac something that breaks it, and is seen; and what comes close and may be done."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.mac.device import MPS
from tests.mac.rules import BrokenRulesError, Problem, Rule
from tests.mac.simulated_mac import simulated_mac


def broken(code: Callable[[], object], **options: object) -> list[Problem]:
    """What a Mac says of some code."""
    with pytest.raises(BrokenRulesError) as caught, simulated_mac(**options):  # type: ignore[arg-type]
        code()
    return list(caught.value.problems)


def rules(code: Callable[[], object], **options: object) -> set[Rule]:
    return {problem.rule for problem in broken(code, **options)}


def on_mac(*shape: int) -> torch.Tensor:
    """Drawn on the CPU, as it should be."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to("mps")


def test_float64_is_seen_in_a_copy_a_factory_and_a_result() -> None:
    assert rules(lambda: torch.zeros(2, dtype=torch.float64).to("mps")) == {Rule.FLOAT64}
    assert rules(lambda: torch.zeros(2, dtype=torch.float64, device="mps")) == {Rule.FLOAT64}
    assert rules(lambda: torch.tensor([0.5], dtype=torch.float64, device="mps")) == {Rule.FLOAT64}
    assert rules(lambda: torch.as_tensor(np.zeros(2), device="mps")) == {Rule.FLOAT64}
    assert rules(lambda: on_mac(2).double()) == {Rule.FLOAT64}
    assert rules(lambda: torch.view_as_complex(torch.zeros(2, 2).double()).to("mps")) == {Rule.FLOAT64}


def test_float64_of_the_cpu_may_be_sent_as_float32() -> None:
    with simulated_mac():
        assert torch.zeros(2, dtype=torch.float64).to("mps", torch.float32).dtype is torch.float32
        assert on_mac(2).cpu().double().dtype is torch.float64


def test_an_operation_without_a_kernel_is_seen() -> None:
    (problem,) = broken(lambda: torch.linalg.eigh(on_mac(2, 2)))
    assert problem.rule is Rule.NO_KERNEL
    assert problem.what == "_linalg_eigh"


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x + x,  # a structured kernel
        lambda x: x.add_(1),
        lambda x: F.linear(x, x),  # a kernel for the whole
        lambda x: F.silu(x),
        lambda x: torch.stack([x, x]),  # composite
        lambda x: torch.special.expit(x),
        lambda x: torch._foreach_mul([x, x], 2),  # slow, but explicit
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_operations_with_structured_and_composite_kernels_may_be_used(
    operation: Callable[[torch.Tensor], object], inference: bool
) -> None:
    with simulated_mac(), torch.inference_mode(inference):
        operation(on_mac(2, 2))


def test_what_a_composite_operation_is_made_of_is_seen_in_inference_mode_too() -> None:
    def inferred() -> None:
        with torch.inference_mode():
            F.dropout(on_mac(4), 0.5)

    assert rules(inferred) == {Rule.DEVICE_RANDOM}


def test_tensors_of_two_devices_are_seen_and_scalars_of_the_cpu_are_not() -> None:
    assert rules(lambda: on_mac(2) + torch.ones(2)) == {Rule.MIXED_DEVICES}
    assert rules(lambda: torch.ones(2) + on_mac(2).sum()) == {Rule.MIXED_DEVICES}
    assert rules(lambda: torch.stack([on_mac(1)[0], torch.tensor(1.0)])) == {Rule.MIXED_DEVICES}
    assert rules(lambda: torch.ones(3)[torch.tensor([0, 1], device="mps")]) == {Rule.MIXED_DEVICES}
    assert rules(lambda: F.embedding(torch.tensor([1]), on_mac(2, 2))) == {Rule.MIXED_DEVICES}
    with simulated_mac():
        assert (on_mac(2) * torch.tensor(2.0)).device == MPS
        assert on_mac(3)[torch.tensor([0, 2])].device == MPS
        on_mac(2).copy_(torch.ones(2))


def test_a_generator_of_the_cpu_cannot_draw_on_the_device() -> None:
    generator = torch.Generator().manual_seed(0)
    assert Rule.MIXED_DEVICES in rules(lambda: torch.randn(2, generator=generator, device="mps"))


def test_numpy_of_a_device_tensor_is_seen() -> None:
    assert rules(lambda: on_mac(2).numpy()) == {Rule.NUMPY}
    assert rules(lambda: np.asarray(on_mac(2))) == {Rule.NUMPY}
    with simulated_mac():
        assert on_mac(2).cpu().numpy().shape == (2,)
        assert on_mac(2).tolist()


def heads(tensor: torch.Tensor, *, contiguous: bool) -> torch.Tensor:
    """(1, N, 2 · D) to (1, 2, N, D), as attention splits it."""
    split = tensor.view(1, -1, 2, tensor.shape[-1] // 2).transpose(1, 2)
    return split.contiguous() if contiguous else split


def attend(x: torch.Tensor, *, contiguous: bool = False) -> torch.Tensor:
    split = heads(x, contiguous=contiguous)
    return F.scaled_dot_product_attention(split, split, split)


@pytest.mark.parametrize("inference", [False, True])
def test_attention_over_views_is_seen(inference: bool) -> None:
    def views() -> None:
        with torch.inference_mode(inference):
            attend(on_mac(1, 4, 8))

    assert rules(views) == {Rule.NON_CONTIGUOUS}


def test_a_mask_that_is_a_view_is_seen() -> None:
    def masked() -> None:
        x = heads(on_mac(1, 4, 8), contiguous=True)
        F.scaled_dot_product_attention(x, x, x, attn_mask=torch.zeros(4, 1, device="mps").expand(1, 1, 4, 4))

    assert rules(masked) == {Rule.NON_CONTIGUOUS}


def test_attention_that_is_contiguous_the_first_time_only_is_seen_in_recomputation() -> None:
    passes = []

    def layer(x: torch.Tensor) -> torch.Tensor:
        passes.append(x.device)
        return attend(x, contiguous=len(passes) == 1)

    def train() -> None:
        x = on_mac(1, 4, 8).requires_grad_()
        checkpoint(layer, x, use_reentrant=False).sum().backward()

    problems = broken(train)
    assert passes == [MPS, MPS], "the recomputation asks for the device, and is told the same"
    assert {problem.rule for problem in problems} == {Rule.NON_CONTIGUOUS}
    assert all(problem.place.endswith("in backward") for problem in problems)


@pytest.mark.parametrize("product", ["bmm", "baddbmm"])
def test_products_of_score_matrices_are_seen_where_factors_are_views(product: str) -> None:
    def views() -> None:
        scores, values = on_mac(2, 3, 4), on_mac(3, 2, 4).transpose(0, 1)
        if product == "bmm":
            torch.bmm(scores, values.transpose(1, 2))
        else:
            torch.baddbmm(on_mac(2, 3, 3), scores, values.transpose(1, 2))

    assert rules(views) == {Rule.NON_CONTIGUOUS}
    with simulated_mac():  # as the transposed keys of any attention
        torch.bmm(on_mac(2, 3, 4), on_mac(2, 5, 4).transpose(1, 2))


class HandMadeBackward(torch.autograd.Function):
    """As an attention that computes its own gradients."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch's own
        context.save_for_backward(x, y)
        return torch.bmm(x, y)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ANN401
        _, y = context.saved_tensors
        return torch.bmm(gradient, y.transpose(1, 2)), None


def test_products_of_a_backward_function_are_seen_and_those_of_torchs_own_formulas_are_not() -> None:
    def train(multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        x = on_mac(2, 3, 4).requires_grad_()
        strided = on_mac(3, 2, 5).transpose(0, 1)
        multiply(x, on_mac(2, 4, 5)).backward(strided)
        assert x.grad is not None

    (problem,) = broken(lambda: train(HandMadeBackward.apply))
    assert problem.rule is Rule.NON_CONTIGUOUS
    assert problem.place.endswith("in backward")
    with simulated_mac():
        train(torch.bmm)


def test_tensors_too_large_are_seen_without_having_them() -> None:
    assert rules(lambda: torch.empty(2**30 + 1, dtype=torch.int8, device="mps"), beneath="meta") == {Rule.TOO_LARGE}
    assert rules(lambda: torch.empty(2**29 + 1, dtype=torch.int64, device="mps"), beneath="meta") == {Rule.TOO_LARGE}
    with simulated_mac(beneath="meta"):
        torch.empty(2**30, device="mps")


def test_the_score_matrix_that_attention_makes_on_a_mac_counts() -> None:
    def attention_at_1024() -> None:  # 2 · 8 · 16,384² scores of the largest layers
        x = torch.empty(2, 8, 16_384, 40, device="mps")
        F.scaled_dot_product_attention(x, x, x)

    assert rules(attention_at_1024, beneath="meta") == {Rule.TOO_LARGE}


def test_a_product_added_to_uninitialised_memory_is_seen() -> None:
    def sliced() -> None:  # what diffusers' attention slicing does
        x = on_mac(2, 3, 4)
        torch.baddbmm(torch.empty(2, 3, 3, device="mps"), x, x.transpose(1, 2), beta=0)

    assert rules(sliced) == {Rule.UNINITIALISED}
    with simulated_mac():
        x = on_mac(2, 3, 4)
        torch.baddbmm(torch.empty(2, 3, 3, device="mps").zero_(), x, x.transpose(1, 2), beta=0)
        torch.baddbmm(torch.zeros(2, 3, 3, device="mps"), x, x.transpose(1, 2), beta=0)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.randn(2, device="mps"),
        lambda: torch.rand(2, device="mps"),
        lambda: torch.randint(9, (2,), device="mps"),
        lambda: torch.randn_like(on_mac(2)),
        lambda: torch.rand_like(torch.ones(2), device="mps"),
        lambda: torch.empty(2, device="mps").normal_(),
        lambda: torch.bernoulli(torch.full((2,), 0.5, device="mps")),
        lambda: nn.init.kaiming_uniform_(torch.empty(2, 2, device="mps")),
        lambda: nn.Dropout(0.5)(on_mac(2)),
        lambda: nn.Linear(2, 2, device="mps"),
    ],
)
def test_numbers_drawn_on_the_device_are_seen(draw: Callable[[], object]) -> None:
    assert rules(draw) == {Rule.DEVICE_RANDOM}


def test_what_is_allowed_to_be_drawn_on_the_device_may_be() -> None:
    with simulated_mac(allowed_random=frozenset(("bernoulli_.float",))):
        F.dropout(on_mac(8), 0.5)
    assert rules(lambda: F.dropout(on_mac(8), 0.5), allowed_random=frozenset(("normal_",))) == {Rule.DEVICE_RANDOM}


def test_a_problem_says_where_it_is_and_how_often() -> None:
    with pytest.raises(BrokenRulesError, match=r"test_rules.py:\d+ \(3 times\)"), simulated_mac():
        for _ in range(3):
            on_mac(2).double()


def test_another_error_is_not_hidden_by_problems() -> None:
    with pytest.raises(ZeroDivisionError), simulated_mac():
        on_mac(2).double()
        _ = 1 / 0


def test_a_generator_of_the_device_that_was_seeded_may_draw_and_one_of_the_cpu_may_not() -> None:
    with simulated_mac():
        seeded = torch.Generator("mps").manual_seed(3)
        torch.empty(4, device="mps").bernoulli_(0.5, generator=seeded)
    with pytest.raises(BrokenRulesError, match="with a generator of the CPU"), simulated_mac():
        torch.empty(4, device="mps").bernoulli_(0.5, generator=torch.Generator().manual_seed(3))
