"""The simulated Mac answers as a Mac does: where tensors are, what is copied, drawn and kept, gradients, memory."""

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn
from torch.utils.checkpoint import checkpoint

from studio.engine.device import device_name, pick_device
from studio.training.torch.processes import Processes
from tests.mac.device import MPS
from tests.mac.simulated_mac import simulated_mac


def test_it_is_picked_and_named_and_gone_afterwards() -> None:
    with simulated_mac():
        assert pick_device() == torch.device("mps")
        assert device_name(pick_device()) == "Apple M2 Max (simulated)"
        tensor = torch.ones(2).to("mps")
    assert pick_device() == torch.device("cpu")
    assert tensor.device == torch.device("cpu")


def test_processes_of_a_training_are_on_the_mac_and_those_before_it_stay_where_they_were() -> None:
    before = Processes(cpu_only=True, mixed_precision="no")
    with simulated_mac():
        assert Processes(cpu_only=False, mixed_precision="no").device.type == "mps"
    with simulated_mac():
        assert Processes(cpu_only=True, mixed_precision="no").device.type == "cpu"
    assert before.device == Processes(cpu_only=True, mixed_precision="no").device == torch.device("cpu")


def test_tensors_answer_where_they_are() -> None:
    with simulated_mac():
        here, there = torch.ones(2), torch.ones(2).to("mps")
        assert (here.device, here.is_mps, here.is_cpu) == (torch.device("cpu"), False, True)
        assert (there.device, there.is_mps, there.is_cpu) == (MPS, True, False)
        for made in (
            there * 2,
            there[:1],
            there.to(torch.float16),
            here.to(there),
            here.type_as(there),
            there.clone(),
            copy.deepcopy(there),
            torch.zeros_like(there),
            there.new_zeros(3),
            there.new_tensor([1.0]),
            torch.arange(3, device="mps"),
            torch.linspace(0, 1, 3, device=there.device),
            nn.Linear(2, 2).to("mps").weight,
            copy.deepcopy(nn.Linear(2, 2).to("mps")).bias,
            nn.BatchNorm1d(2).to(device="mps", dtype=torch.float16).running_mean,
        ):
            assert made.device == MPS
        for made in (
            there.cpu(),
            there.to("cpu", torch.float16),
            there.to(here),
            torch.zeros_like(there, device="cpu"),
            here.clone(),
            here.to(torch.float16),
            torch.zeros(2),
        ):
            assert made.device == torch.device("cpu")


def test_memory_is_not_shared_between_devices() -> None:
    with simulated_mac():
        here = torch.zeros(2)
        there = here.to("mps")
        back = there.cpu()
        there.add_(1)
        assert (here.tolist(), there.tolist(), back.tolist()) == ([0, 0], [1, 1], [0, 0])
        assert there.to("mps") is there


def test_gradients_go_back_to_where_their_leaves_are() -> None:
    with simulated_mac():
        leaf, weight = torch.ones(2, requires_grad=True), torch.tensor([0.5, 2.0]).to("mps").requires_grad_()
        ((leaf.to("mps") * weight).cpu() * 2).sum().backward()
        assert leaf.grad is not None
        assert weight.grad is not None
        assert (leaf.grad.device, weight.grad.device) == (torch.device("cpu"), MPS)
        assert torch.equal(leaf.grad, 2 * weight.detach().cpu())


@pytest.mark.parametrize("with_gradients", [False, True])
def test_backward_and_grad_give_the_cpus_numbers(with_gradients: bool) -> None:
    def gradients(device: str) -> list[torch.Tensor]:
        x = torch.arange(3.0).to(device).requires_grad_()
        y = torch.arange(1.0, 4.0).to(device).requires_grad_()
        start = torch.tensor([1.0, 0.5, 2.0]).to(device) if with_gradients else None
        output = x * y.exp() if with_gradients else (x * y.exp()).sum()
        found = [*torch.autograd.grad(output, (x, y), start, retain_graph=True)]
        output.backward(start, retain_graph=True)
        torch.autograd.backward(output, start, inputs=[x])
        assert x.grad is not None
        assert y.grad is not None
        return [gradient.cpu() for gradient in (*found, x.grad, y.grad)]

    with simulated_mac():
        found = gradients("mps")
    for gradient, expected in zip(found, gradients("cpu"), strict=True):
        assert torch.equal(gradient, expected)


def test_the_cpus_seed_and_saved_state_do_not_reach_the_devices_generator() -> None:
    with simulated_mac(allowed_random=frozenset(("randn", "bernoulli_.float"))):
        state = torch.get_rng_state()
        first, second = torch.randn(4, device="mps"), torch.randn(4, device="mps")
        assert torch.equal(torch.get_rng_state(), state)
        assert not torch.equal(first, second)
        torch.manual_seed(0)  # this one seeds all devices
        first = torch.randn(4, device="mps")
        torch.manual_seed(0)
        assert torch.equal(first, torch.randn(4, device="mps"))
        torch.mps.set_rng_state(state := torch.mps.get_rng_state())
        first = torch.randn(4, device="mps")
        torch.mps.set_rng_state(state)
        assert torch.equal(first, torch.randn(4, device="mps"))
        x = torch.ones(64, device="mps", requires_grad=True)
        kept = checkpoint(F.dropout, x, 0.5, use_reentrant=False)
        kept.sum().backward()
        assert x.grad is not None
        assert not torch.equal(kept != 0, x.grad != 0), "torch keeps no state of MPS for a recomputation"


def test_memory_is_counted_with_and_without_the_pool() -> None:
    with simulated_mac() as mac:
        kept, left = torch.zeros(1000, device="mps"), torch.zeros(500, device="mps")
        view = kept[:10]
        del left, kept
        assert (torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory()) == (4000, 6000)
        torch.mps.empty_cache()
        assert torch.mps.driver_allocated_memory() == 4000
        del view
        assert mac.memory.in_use == 0
