"""The simulated GPU itself: what lies on it, its random state, and copies to it and from it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.mac.rules import Problem, Rules
from tests.mac.storages import DeviceMemory, lies_on_mac

MPS = torch.device("mps", 0)


@dataclass
class SimulatedMac:
    """The simulated GPU: its memory, its random state, the rules.

    Attributes:
        beneath: where numbers really are: the CPU, or `meta`, where there are only shapes, of any size.
        lands_on_mac: while a factory or a copy runs, where its result lies; None where the operands decide.
        computes: while a kernel runs: those of `meta` are Python, and must see where tensors really are.
        makes_on_mac: where torch itself makes a tensor from nothing on the way, such as the mask of a causal attention.
    """

    rules: Rules
    beneath: torch.device
    memory: DeviceMemory = field(default_factory=DeviceMemory)
    random_state: torch.Tensor = field(default_factory=lambda: torch.Generator().get_state())
    lands_on_mac: bool | None = None
    makes_on_mac: bool = False
    computes: bool = False

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(self.rules.problems)

    def has(self, tensor: torch.Tensor) -> bool:
        """What a tensor answers when it is asked whether it is here."""
        with torch._C.DisableTorchFunction():
            return not self.computes and lies_on_mac(tensor)

    def compute(
        self, func: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object], *, draws: bool
    ) -> object:
        """Let a kernel run. What draws, draws from the device's own generator.

        The CPU's seed and saved state do not reach that one: gradient checkpointing does not bring it back.
        """
        state = torch.get_rng_state() if draws else None
        if state is not None:
            torch.set_rng_state(self.random_state)
        self.computes = True
        try:
            return func(*args, **kwargs)
        finally:
            self.computes = False
            if state is not None:
                self.random_state = torch.get_rng_state()
                torch.set_rng_state(state)

    @contextmanager
    def landing(self, *, on_mac: bool) -> Iterator[None]:
        before, self.lands_on_mac = self.lands_on_mac, on_mac
        try:
            yield
        finally:
            self.lands_on_mac = before

    @contextmanager
    def making(self, *, on_mac: bool, from_python: bool = True) -> Iterator[None]:
        before = self.makes_on_mac, self.rules.from_python
        self.makes_on_mac, self.rules.from_python = on_mac, from_python
        try:
            yield
        finally:
            self.makes_on_mac, self.rules.from_python = before

    def copy(self, tensor: torch.Tensor, *, on_mac: bool) -> torch.Tensor:
        """A copy on the device or off it; gradients go the other way."""
        copied: torch.Tensor = _Copy.apply(tensor, self, on_mac)
        return copied

    def manual_seed(self, seed: int) -> None:
        self.random_state = torch.Generator().manual_seed(seed).get_state()

    def set_random_state(self, state: torch.Tensor, device: object = None) -> None:
        self.random_state = state.clone()


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, tensor: torch.Tensor, mac: SimulatedMac, on_mac: bool) -> torch.Tensor:  # noqa: ANN401
        context.mac, context.on_mac = mac, on_mac
        with mac.landing(on_mac=on_mac):
            return tensor.to(mac.beneath, copy=True) if on_mac else tensor.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        return context.mac.copy(gradient, on_mac=not context.on_mac), None, None
