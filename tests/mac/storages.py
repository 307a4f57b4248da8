"""Which memory lies on the simulated GPU: marked at the storage, which every view of a tensor shares.

torch keeps the Python object of a storage as long as its memory lives, and attributes with it.
"""

import weakref

import torch


def lies_on_mac(tensor: torch.Tensor) -> bool:
    """Whether a tensor's memory is the simulated GPU's."""
    return tensor.layout is torch.strided and getattr(tensor.untyped_storage(), "lies_on_mac", False)


def was_never_written(tensor: torch.Tensor) -> bool:
    """Whether it holds whatever the memory held before."""
    return getattr(tensor.untyped_storage(), "never_written", False)


def mark_written(tensor: torch.Tensor, *, written: bool = True) -> None:
    """Remember whether something was written into its memory; that of `torch.empty` begins unwritten."""
    tensor.untyped_storage().never_written = not written


class DeviceMemory:
    """Puts tensors on the simulated GPU, and counts bytes as torch's MPS allocator does.

    Attributes:
        in_use: bytes of living tensors.
        held: bytes with the pool that is kept for later tensors.
    """

    def __init__(self) -> None:
        self.in_use = 0
        self.held = 0

    def take_in(self, tensor: torch.Tensor) -> None:
        """From now on the tensor lies on the device."""
        storage = tensor.untyped_storage()
        if getattr(storage, "lies_on_mac", False):
            return
        storage.lies_on_mac = True
        self.in_use += storage.nbytes()
        self.held = max(self.held, self.in_use)
        weakref.finalize(storage, self._freed, storage.nbytes()).atexit = False

    def empty_cache(self) -> None:
        """Give back what no tensor uses."""
        self.held = self.in_use

    def _freed(self, num_bytes: int) -> None:
        self.in_use -= num_bytes
