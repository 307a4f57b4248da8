"""Memory of devices, as their own figures tell it: a Mac's and a GPU's are given as numbers."""

from collections.abc import Callable
from types import SimpleNamespace

import psutil
import pytest
import torch

from studio.core.errors import says_no_memory, system_error_message
from studio.engine.device import prepare_device, trim_memory
from studio.engine.memory import free_bytes, total_bytes

GIB = 2**30
CPU, MPS, CUDA = (torch.device(name) for name in ("cpu", "mps", "cuda"))


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Sets what Metal tells, and gives the list of what it is asked to do."""

    def reports(*, in_use: int, pool: int, limit: int = 16 * GIB, available: int = 5 * GIB) -> list[str]:
        done: list[str] = []
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available, total=32 * GIB))
        monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: in_use)
        monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: pool)
        monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: limit)
        monkeypatch.setattr(torch.mps, "empty_cache", lambda: done.append("emptied"))
        monkeypatch.setattr(torch.mps, "set_per_process_memory_fraction", lambda share: done.append(f"limit {share}"))
        return done

    return reports


def test_on_a_cpu_what_is_free_is_what_the_system_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5 * GIB, total=8 * GIB))
    assert (free_bytes(CPU), total_bytes(CPU)) == (5 * GIB, 8 * GIB)


@pytest.mark.parametrize(
    ("in_use", "pool", "free"),
    [
        (2 * GIB, 2 * GIB, 5 * GIB),  # the system has less than the limit leaves
        (2 * GIB, 6 * GIB, 9 * GIB),  # four of what it counts as taken are only kept for later
        (13 * GIB, 15 * GIB, 3 * GIB),  # the limit leaves less
        (17 * GIB, 17 * GIB, 0),
    ],
)
def test_on_apples_gpu_what_its_pool_keeps_for_later_is_free(
    in_use: int, pool: int, free: int, mac: Callable[..., list[str]]
) -> None:
    mac(in_use=in_use, pool=pool)
    assert free_bytes(MPS) == free
    assert total_bytes(MPS) == 16 * GIB


def test_on_cuda_what_others_hold_is_not_free_and_what_torch_keeps_for_later_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5 * GIB))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (9 * GIB, 16 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 4 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3 * GIB)
    assert free_bytes(CUDA) == 10 * GIB


@pytest.mark.parametrize(
    ("in_use", "pool", "emptied"),
    [
        (2 * GIB, 2 * GIB + GIB // 2, False),
        (2 * GIB, 4 * GIB, True),
        (8 * GIB, 11 * GIB, False),  # less than half of what is in use
        (8 * GIB, 13 * GIB, True),
    ],
)
def test_a_pool_far_above_what_is_in_use_is_given_back(
    in_use: int, pool: int, emptied: bool, mac: Callable[..., list[str]]
) -> None:
    done = mac(in_use=in_use, pool=pool)
    trim_memory(MPS)
    trim_memory(CPU)
    assert done == (["emptied"] if emptied else [])


def test_a_mac_fails_with_an_error_before_it_swaps(mac: Callable[..., list[str]]) -> None:
    done = mac(in_use=0, pool=0)
    prepare_device(MPS)
    prepare_device(CPU)
    assert done == ["limit 1.0"]


@pytest.mark.parametrize(
    "words",
    [
        "MPS backend out of memory (MPS allocated: 17.2 GB, other allocations: 1 GB, max allowed: 18 GB)",
        "Invalid buffer size: 16.00 GB",
        "MPSGraph does not support tensor dims larger than INT_MAX",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
    ],
)
def test_every_devices_words_for_too_much_lead_to_what_to_lower(words: str) -> None:
    assert says_no_memory(words)
    assert "Choose a smaller image size" in system_error_message(RuntimeError(words))
    assert "Choose a smaller image size" not in system_error_message(RuntimeError("invalid shape"))
