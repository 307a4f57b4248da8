"""What an Apple GPU cannot do, does wrong or draws differently, as rules that an operation keeps or breaks.

Sources: MPS has no float64, and `.numpy()` of its tensors is refused, as are operations between devices. Attention was
wrong for views (pytorch #163597, #181133). More than 4 GiB end the process (pytorch #149261), 2**31 numbers are
computed wrongly without a word (ComfyUI #14837, which stays below 2**30), and so are 2**32 (pytorch #197636). beta 0
lets NaN of recycled memory through (diffusers #14438). Random state of MPS is not kept for gradient checkpointing's
recomputation (pytorch #127676), and a seed draws other numbers there than on a CPU.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import FrameType

import torch

import studio
from tests.mac.generators import is_of_device
from tests.mac.mps_kernels import MpsKernels, mps_kernels
from tests.mac.storages import lies_on_mac, was_never_written

MAX_NUMBERS, MAX_BYTES = 2**30, 2**32
FLOAT64 = (torch.float64, torch.complex128)
# torch itself takes indices from the CPU, and copies between devices.
COPIES = frozenset(("copy_", "_to_copy", "_copy_from", "_copy_from_and_resize"))
INDEXED = frozenset(("index.Tensor", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index.Tensor"))
JOINING = frozenset(("cat", "stack", "hstack", "vstack"))
BATCHED_PRODUCTS = {"bmm": (0, 1), "bmm.out": (0, 1), "baddbmm": (1, 2), "baddbmm_": (1, 2), "baddbmm.out": (1, 2)}
ADDED_PRODUCTS = frozenset(("addmm", "addbmm", "baddbmm", "addmv", "addr"))


class Rule(StrEnum):
    """The rules by name."""

    FLOAT64 = "float64 on the device"
    NO_KERNEL = "an operation without an MPS kernel"
    MIXED_DEVICES = "tensors of two devices in one operation"
    NUMPY = "numpy of a device tensor"
    NON_CONTIGUOUS = "non-contiguous attention"
    TOO_LARGE = "a tensor too large"
    UNINITIALISED = "beta 0 over uninitialised memory"
    DEVICE_RANDOM = "random numbers drawn on the device"


@dataclass(frozen=True)
class Problem:
    """A rule that was broken: by which operation, and where in the studio's or a library's code."""

    rule: Rule
    what: str
    place: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}, at {self.place}"


class BrokenRulesError(AssertionError):
    """What a real Mac would refuse, compute wrongly, or draw differently from a CPU."""

    def __init__(self, problems: dict[Problem, int]) -> None:
        self.problems = tuple(problems)
        lines = [f"{problem} ({count} times)" for problem, count in problems.items()]
        super().__init__("\n".join([f"{len(lines)} rules of a Mac are broken:", *lines]))


@dataclass(frozen=True)
class Operation:
    """One call of an operation on the device.

    Attributes:
        name: as in `native_functions.yaml`.
        tensors: everything that it reads.
        draws: whether it uses a random generator.
    """

    name: str
    args: tuple[object, ...]
    kwargs: dict[str, object]
    tensors: Sequence[torch.Tensor]
    draws: bool


@dataclass
class Rules:
    """Checks operations and keeps what was broken.

    Attributes:
        allowed_random: operations that may draw from the device's own random state, by name. Those that are given a
            generator of the device may: whoever made it seeded it.
        in_backward: said of problems that are found there.
        from_python: whether Python code asked for what runs now; else it is a part of torch's own attention, which was
            looked at as a whole, or of its gradient formulas.
    """

    allowed_random: frozenset[str] = frozenset()
    kernels: MpsKernels = field(default_factory=mps_kernels)
    problems: dict[Problem, int] = field(default_factory=dict)
    in_backward: int = 0
    from_python: bool = True

    def broken(self, rule: Rule, what: str) -> None:
        """Keep a problem; the same one at the same place is counted."""
        place = _place() + (", in backward" if self.in_backward else "")
        problem = Problem(rule, what, place)
        self.problems[problem] = self.problems.get(problem, 0) + 1

    def check_before(self, operation: Operation) -> None:
        """What is seen of an operation before it ran."""
        name = operation.name
        if not self.kernels.has(name):
            self.broken(Rule.NO_KERNEL, name)
        self._check_devices(operation)
        self._check_attention(operation)
        if name.partition(".")[0] in ADDED_PRODUCTS and operation.kwargs.get("beta") == 0:
            added = operation.args[0]
            if isinstance(added, torch.Tensor) and was_never_written(added):
                self.broken(Rule.UNINITIALISED, _described(name, operation.tensors))
        seeded = is_of_device(operation.kwargs.get("generator"))
        if operation.draws and not seeded and name not in self.allowed_random:
            self.broken(Rule.DEVICE_RANDOM, name)

    def check_tensors(self, name: str, tensors: Iterable[torch.Tensor]) -> None:
        """What holds of every tensor on the device."""
        for tensor in tensors:
            if tensor.dtype in FLOAT64:
                self.broken(Rule.FLOAT64, name)
            if tensor.numel() > MAX_NUMBERS or tensor.numel() * tensor.element_size() > MAX_BYTES:
                self.broken(Rule.TOO_LARGE, f"{name}: {tuple(tensor.shape)} of {_short(tensor.dtype)}")

    def check_contiguous(self, name: str, tensors: Iterable[object]) -> None:
        """Query, key, value and mask of an attention."""
        given = [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]
        if not all(tensor.is_contiguous() for tensor in given):
            shown = ", ".join(f"{tuple(t.shape)} with strides {t.stride()}" for t in given if not t.is_contiguous())
            self.broken(Rule.NON_CONTIGUOUS, f"{name}: {shown}")

    def _check_devices(self, operation: Operation) -> None:
        name = operation.name
        generator = operation.kwargs.get("generator")
        if isinstance(generator, torch.Generator) and not is_of_device(generator):
            self.broken(Rule.MIXED_DEVICES, f"{name} with a generator of the CPU")
        if name in COPIES:
            return
        considered = operation.tensors
        if name in INDEXED and lies_on_mac(operation.tensors[0]):
            considered = [t for t in considered if t.dtype not in (torch.int64, torch.int32, torch.bool, torch.uint8)]
        elsewhere = [t for t in considered if not lies_on_mac(t) and (t.dim() > 0 or name in JOINING)]
        if elsewhere and len(elsewhere) < len(operation.tensors):
            self.broken(Rule.MIXED_DEVICES, f"{_described(name, operation.tensors)}, on the CPU {_shapes(elsewhere)}")

    def _check_attention(self, operation: Operation) -> None:
        name = operation.name
        if not self.from_python:  # torch multiplies gradients as they lie; within MAX_NUMBERS none is known to be wrong
            return
        if name == "scaled_dot_product_attention" or (
            name.startswith("_scaled_dot_product_") and "backward" not in name
        ):
            self.check_contiguous(name, (*operation.args[:4], operation.kwargs.get("attn_mask")))
        for index in BATCHED_PRODUCTS.get(name, ()):
            factor = operation.args[index]
            assert isinstance(factor, torch.Tensor)
            # A factor that is only transposed is read as it lies, by every library of matrix products.
            if not factor.is_contiguous() and not factor.transpose(-1, -2).is_contiguous():
                shown = f"{tuple(factor.shape)} with strides {factor.stride()}"
                self.broken(Rule.NON_CONTIGUOUS, f"factor {index} of {name}: {shown}")


def _described(name: str, tensors: Iterable[torch.Tensor]) -> str:
    return f"{name} of {_shapes(tensors)}"


def _shapes(tensors: Iterable[torch.Tensor]) -> str:
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


STUDIO = Path(studio.__file__).parent
PARTS = ("device.py", "generators.py", "modes.py", "rules.py", "simulated_mac.py", "storages.py")
SIMULATOR = frozenset(Path(__file__).with_name(name) for name in PARTS)
TORCH = Path(torch.__file__).parent


def _place() -> str:
    """The innermost lines of the studio and of a library, torch itself left out; else of a test."""
    found: dict[str, str] = {}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(STUDIO):
            found.setdefault("studio", f"studio/{path.relative_to(STUDIO)}:{frame.f_lineno}")
        elif path in SIMULATOR or path.is_relative_to(TORCH) or not path.is_file():
            pass
        elif "site-packages" in path.parts:
            inside = path.parts[path.parts.index("site-packages") + 1 :]
            found.setdefault("library", f"{'/'.join(inside)}:{frame.f_lineno}")
        elif "tests" in path.parts:  # what called it is no longer of interest
            found["test"] = f"{path.name}:{frame.f_lineno}"
            break
        frame = frame.f_back
    if "studio" in found and "library" in found:
        return f"{found['studio']} ({found['library']})"
    return next((found[kind] for kind in ("studio", "library", "test") if kind in found), "an unknown place")
