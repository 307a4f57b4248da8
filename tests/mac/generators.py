"""Random generators of the simulated GPU, given to an operation by whoever seeded them."""

import torch

_Generator = torch.Generator
_of_device: dict[int, torch.Generator] = {}  # by the object beneath: Python's is another at each operation


def is_of_device(generator: object) -> bool:
    """Whether a generator was made for the simulated GPU."""
    return isinstance(generator, _Generator) and generator._cdata in _of_device


class _AnyGenerator(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _Generator)


class Generators(metaclass=_AnyGenerator):
    """In place of `torch.Generator`: one of the device it is required."""

    def __new__(cls, device: object = "cpu") -> torch.Generator:  # type: ignore[misc]
        if torch.device(device).type != "mps":  # type: ignore[call-overload]
            return _Generator(device)  # type: ignore[arg-type]
        made = _Generator()
        _of_device[made._cdata] = made  # kept, so that no other is ever taken for it
        return made
