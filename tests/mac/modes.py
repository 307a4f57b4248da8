"""Two modes of torch that stand between code and torch; `simulated_mac.py` says what each is for."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.mac.device import MPS, SimulatedMac
from tests.mac.rules import Operation, Rule
from tests.mac.storages import lies_on_mac, mark_written

# These make a tensor from Python's numbers without an operation that a mode could see.
PAST_THE_DISPATCHER = (torch.tensor, torch.Tensor.new_tensor)


class Observer(TorchDispatchMode):
    """Sees every operation below autograd."""

    def __init__(self, mac: SimulatedMac) -> None:
        super().__init__()
        self._mac = mac

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's own signature
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        with torch._C.DisableTorchFunction():
            return self._observe(func, args, dict(kwargs or {}))

    def _observe(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        mac, rules = self._mac, self._mac.rules
        given = tensors = _tensors_in((*args, *kwargs.values()))
        on_mac = mac.lands_on_mac
        if on_mac is None:
            on_mac = any(map(lies_on_mac, tensors)) if tensors else mac.makes_on_mac
        if not on_mac:
            return func(*args, **kwargs)
        name = func.name().removeprefix("aten::").removesuffix(".default")
        is_whole = not rules.kernels.is_made_of_others(name)
        draws = is_whole and torch.Tag.nondeterministic_seeded in func.tags
        if mac.lands_on_mac is not None:  # what is copied to the device, or is only a pattern, may lie elsewhere
            tensors = [tensor for tensor in tensors if lies_on_mac(tensor)]
        rules.check_before(Operation(name, args, kwargs, tensors, draws))
        if not is_whole:  # in inference mode these come undivided
            with self, mac.making(on_mac=True, from_python=rules.from_python):
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        result = mac.compute(func, args, kwargs, draws=draws)
        results = _tensors_in((result,))
        given_storages = {id(tensor.untyped_storage()) for tensor in given}
        for made in results:
            if id(made.untyped_storage()) not in given_storages:
                mac.memory.take_in(made)
                mark_written(made, written=not name.startswith(("empty", "new_empty")))
        _mark_written(func, args, kwargs)
        rules.check_tensors(name, [tensor for tensor in (*tensors, *results) if lies_on_mac(tensor)])
        return result


def _mark_written(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Remember what an operation wrote into, by its schema."""
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            for written in _tensors_in((args[index] if index < len(args) else kwargs.get(argument.name),)):
                mark_written(written)


def _tensors_in(given: Iterable[object]) -> list[torch.Tensor]:
    """The tensors among arguments or results, those in lists and tuples too."""
    found: list[torch.Tensor] = []
    for one in given:
        if isinstance(one, torch.Tensor):
            found.append(one)
        elif isinstance(one, list | tuple):
            found += _tensors_in(one)
    return found


class Belief(TorchFunctionMode):
    """Answers what a Mac would answer."""

    def __init__(self, mac: SimulatedMac) -> None:
        super().__init__()
        self._mac = mac
        tensor = torch.Tensor
        self._answers: dict[object, Callable[..., Any]] = {
            tensor.to: self._to,
            tensor.cpu: lambda t, **_: self._to(t, "cpu"),
            tensor.type_as: self._to,
            tensor.numpy: self._numpy,
            tensor.__array__: self._array,
            tensor.backward: self._tensor_backward,
            torch.autograd.backward: self._backward,
            torch.autograd.grad: self._grad,
            F.scaled_dot_product_attention: self._attention,
            torch._C._nn._parse_to: torch._C._nn._parse_to,  # reads the arguments of `Module.to`, and makes nothing
        }

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - torch's own signature
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in (
            "__get__",
            "__set__",
        ):  # of attributes: most calls are, and compute nothing
            return func(*args, **kwargs)
        if func in self._answers:
            return self._answers[func](*args, **kwargs)
        if kwargs.get("device") is not None:
            return self._made(func, args, kwargs)
        on_mac = any(map(lies_on_mac, _tensors_in((*args, *kwargs.values()))))
        with self._mac.making(on_mac=on_mac):
            result = func(*args, **kwargs)
        if on_mac and func in PAST_THE_DISPATCHER:
            self._mac.memory.take_in(result)
        return result

    def _made(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        """What a factory makes on the device that it was told."""
        mac, on_mac = self._mac, _is_mps(kwargs["device"])
        if on_mac:
            kwargs["device"] = mac.beneath
        with mac.landing(on_mac=on_mac):
            made = func(*args, **kwargs)
        if not isinstance(made, torch.Tensor) or lies_on_mac(made) == on_mac:
            return made
        if func in PAST_THE_DISPATCHER:
            mac.memory.take_in(made)
            mac.rules.check_tensors(func.__name__, (made,))
            return made
        return mac.copy(made, on_mac=on_mac)  # as_tensor and its like share memory where they can

    def _to(self, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401
        device, options = self._destination(args, kwargs)
        options["dtype"] = options.get("dtype") or tensor.dtype
        here = lies_on_mac(tensor)
        there = here if device is None else _is_mps(device)
        if there and not here:  # converted before it is sent, as torch does
            return self._mac.copy(tensor.to(dtype=options["dtype"]), on_mac=True)
        if here and not there:
            tensor = self._mac.copy(tensor, on_mac=False)
        if not there and device is not None:
            options["device"] = device
        return tensor.to(**options)

    def _destination(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[object, dict[str, Any]]:
        """(device or None, the other arguments by name) of each of the three forms of `Tensor.to`."""
        options, given = dict(kwargs), list(args)
        device = options.pop("device", None)
        other = options.pop("other", None)
        if given and isinstance(given[0], torch.Tensor):
            other = given.pop(0)
            options.update(zip(("non_blocking", "copy"), given, strict=False))
        else:
            if given and not isinstance(given[0], torch.dtype):
                device = given.pop(0)
            options.update(zip(("dtype", "non_blocking", "copy"), given, strict=False))
        if other is not None:
            device, options["dtype"] = MPS if lies_on_mac(other) else other.device, other.dtype
        return device, options

    def _numpy(self, tensor: torch.Tensor, **kwargs: Any) -> Any:  # noqa: ANN401
        self._assert_off_device(tensor, "numpy")
        return tensor.numpy(**kwargs)

    def _array(self, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        self._assert_off_device(tensor, "__array__")
        return tensor.__array__(*args, **kwargs)

    def _assert_off_device(self, tensor: torch.Tensor, name: str) -> None:
        if lies_on_mac(tensor):
            self._mac.rules.broken(Rule.NUMPY, f"{name} of {tuple(tensor.shape)}")

    def _attention(self, *args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401
        given = (*args[:4], *(kwargs.get(name) for name in ("query", "key", "value", "attn_mask")))
        if any(isinstance(t, torch.Tensor) and lies_on_mac(t) for t in given):
            self._mac.rules.check_contiguous("scaled_dot_product_attention", given)
            with self._mac.making(on_mac=True, from_python=False):
                return F.scaled_dot_product_attention(*args, **kwargs)
        return F.scaled_dot_product_attention(*args, **kwargs)

    # Gradient edges in place of tensors: torch does not ask a mode about those, so this one stays on meanwhile.

    def _tensor_backward(
        self,
        tensor: torch.Tensor,
        gradient: torch.Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,  # noqa: ANN401
    ) -> None:
        self._backward(tensor, gradient, retain_graph, create_graph, inputs=inputs)

    def _backward(
        self,
        tensors: Any,  # noqa: ANN401
        grad_tensors: Any = None,  # noqa: ANN401
        retain_graph: bool | None = None,
        create_graph: bool = False,
        *,
        inputs: Any = None,  # noqa: ANN401
    ) -> None:
        outputs, gradients = _as_list(tensors), _as_list(grad_tensors)
        with self._backward_pass():
            torch.autograd.backward(
                _edges(outputs),
                _started(outputs, gradients),
                retain_graph=retain_graph,
                create_graph=create_graph,
                inputs=_edges(_as_list(inputs)) or None,
            )

    def _grad(self, outputs: Any, inputs: Any, grad_outputs: Any = None, **kwargs: Any) -> Any:  # noqa: ANN401
        wanted, asked = _as_list(outputs), _as_list(inputs)
        kwargs.pop("only_inputs", None)
        with self._backward_pass():
            return torch.autograd.grad(
                _edges(wanted), _edges(asked), _started(wanted, _as_list(grad_outputs)), **kwargs
            )

    @contextmanager
    def _backward_pass(self) -> Iterator[None]:
        self._mac.rules.in_backward += 1
        try:
            with self._mac.making(on_mac=True, from_python=False), self:
                yield
        finally:
            self._mac.rules.in_backward -= 1


def _is_mps(device: object) -> bool:
    if isinstance(device, int):  # the number of an accelerator, and that is MPS here
        return True
    assert isinstance(device, str | torch.device)
    return torch.device(device).type == "mps"


def _as_list(given: Any) -> list[Any]:  # noqa: ANN401
    if given is None:
        return []
    return [given] if isinstance(given, torch.Tensor) else list(given)


def _edges(tensors: list[Any]) -> list[Any]:
    return [get_gradient_edge(t) if isinstance(t, torch.Tensor) else t for t in tensors]


def _started(outputs: list[Any], gradients: list[Any]) -> list[torch.Tensor]:
    """What backward begins with: ones where nothing is given."""
    given = gradients or [None] * len(outputs)
    return [torch.ones_like(output) if g is None else g for output, g in zip(outputs, given, strict=True)]
