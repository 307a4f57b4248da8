"""A Mac without a Mac: unmodified code believes that it computes on MPS, and every operation is checked on the way.

Numbers come from the CPU. Tensors that were sent to `mps` are marked (`storages.py`), and two modes of torch stand
between the code and torch:

- `Belief`, a `TorchFunctionMode`, does what a Mac does for `.to`, `.numpy`, and factories with `device=`.
- `Observer`, a `TorchDispatchMode`, sees every operation that reaches the device, in forward, recomputation and
  backward alike, carries the marks on, and checks the rules (`rules.py`).

`backward()` is itself a torch function, so a function mode is off while it runs. torch makes an exception for
gradient edges, and `Belief` uses it to stay on.

What sees non-contiguous attention where: `F.scaled_dot_product_attention` by `Belief`, in forward, recomputation and
backward functions written in Python; `aten::scaled_dot_product_attention` and `aten::_scaled_dot_product_*` where they
reach the dispatcher undivided (in inference mode, or from C++), and both factors of every `bmm` and `baddbmm`, by
`Observer`. Only gradients in torch's own formulas may be strided. Attention is computed as on MPS for the head widths
of Stable Diffusion: the whole score matrix, no fused kernel.

Modes belong to a thread: what another thread computes is not seen.

It shows that kernels exist and that what they are given is what they can compute. It does not show that they are right.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from accelerate.state import AcceleratorState, PartialState
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.mac.device import MPS, SimulatedMac
from tests.mac.generators import Generators
from tests.mac.modes import Belief, Observer
from tests.mac.rules import BrokenRulesError, Rules

NAME = "Apple M2 Max (simulated)"
MEMORY_LIMIT = 12 * 2**30


@contextmanager
def simulated_mac(
    *, allowed_random: frozenset[str] = frozenset(), beneath: str = "cpu", memory_limit: int = MEMORY_LIMIT
) -> Iterator[SimulatedMac]:
    """Within this block there is an Apple GPU, and it is what `pick_device` picks.

    Args:
        allowed_random: operations that may draw on the device, such as `bernoulli_.float`. By default none may: what
            the studio draws is promised to be the CPU's.
        beneath: `cpu`, or `meta` for shapes alone: no memory is taken and nothing is computed.
        memory_limit: bytes that the GPU recommends at most.

    Raises:
        BrokenRulesError: at the end, where rules were broken; it names each, and where.
    """
    mac = SimulatedMac(Rules(allowed_random), torch.device(beneath))
    with ExitStack() as stack:
        stack.enter_context(_accelerate_anew())
        for name, replacement in (_torchs_functions(mac, memory_limit) | _tensors_attributes(mac)).items():
            stack.enter_context(patch(name, replacement))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(Observer(mac))
        stack.enter_context(Belief(mac))
        yield mac
    if mac.rules.problems:
        raise BrokenRulesError(mac.rules.problems)


@contextmanager
def _accelerate_anew() -> Iterator[None]:
    """accelerate keeps to the device of a process's first `Accelerator`: here it meets its first, and forgets it."""
    kept = [(state, dict(state._shared_state)) for state in (AcceleratorState, PartialState)]
    for state, _ in kept:
        state._shared_state.clear()
    try:
        yield
    finally:
        for state, values in kept:
            state._shared_state.clear()
            state._shared_state.update(values)


def _tensors_attributes(mac: SimulatedMac) -> dict[str, object]:
    """What tensors say of themselves, by name.

    Not answers of `Belief`, which is off inside of every function of torch: hooks for saved tensors are called there,
    and gradient checkpointing compares devices in them.
    """
    base = torch._C.TensorBase
    return {
        "torch.Tensor.device": property(lambda t: MPS if mac.has(t) else base.device.__get__(t)),
        "torch.Tensor.is_mps": property(mac.has),
        "torch.Tensor.is_cpu": property(lambda t: not mac.has(t) and base.is_cpu.__get__(t)),
        "torch.Tensor.is_meta": property(lambda t: not mac.has(t) and base.is_meta.__get__(t)),
        "torch.Tensor.get_device": lambda t: 0 if mac.has(t) else base.get_device(t),
    }


def _torchs_functions(mac: SimulatedMac, memory_limit: int) -> dict[str, object]:
    """What torch says of the machine, by name."""
    return {
        "torch.backends.mps.is_available": lambda: True,
        "torch.backends.mps.is_built": lambda: True,
        "torch.backends.mps.is_macos_or_newer": lambda major, minor: True,
        "torch.accelerator.is_available": lambda: True,
        "torch.accelerator.current_accelerator": lambda check_available=False: torch.device("mps"),
        "torch.accelerator.device_count": lambda: 1,
        "torch.mps.is_available": lambda: True,
        "torch.mps.device_count": lambda: 1,
        "torch.mps.synchronize": lambda: None,
        "torch.mps.empty_cache": mac.memory.empty_cache,
        "torch.mps.current_allocated_memory": lambda: mac.memory.in_use,
        "torch.mps.driver_allocated_memory": lambda: mac.memory.held,
        "torch.mps.recommended_max_memory": lambda: memory_limit,
        "torch.mps.set_per_process_memory_fraction": lambda fraction: None,
        "torch.Generator": Generators,
        "torch.mps.get_rng_state": lambda device="mps": mac.random_state.clone(),
        "torch.mps.set_rng_state": mac.set_random_state,
        "torch.mps.manual_seed": mac.manual_seed,
        "studio.engine.device.processor_name": lambda: NAME,
    }
