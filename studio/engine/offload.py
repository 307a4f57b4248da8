"""Parts of a model that are not needed for a while leave memory, and come back to the bit.

Training computes with the U-Net alone for hours; the VAE and the text encoder of Stable Diffusion 1.5 take 0.8 GB.
Where passes are computed in half precision, the U-Net's own weights leave too, and rounded ones stand in: autocast
would keep a rounded copy of each beside it, from forward to backward.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from studio.core.errors import ModelError
from studio.engine.device import release_memory


class OffloadedModule:
    """A module whose weights lie in a file meanwhile. The module itself stays where it is.

    Args:
        module: what is to leave memory; its buffers, a few numbers, stay.
        file: where its weights lie. Named by their content, it is written once and found again by later runs.
        stand_in: the precision of what the module computes with meanwhile; None where it computes nothing.
    """

    def __init__(self, module: nn.Module, file: Path, *, stand_in: torch.dtype | None = None) -> None:
        self._module = module
        self._parameters = dict(module.named_parameters())  # those of now: layers that learn may come in between
        self._file = file
        self._stand_in = stand_in
        self._device = next(module.parameters()).device
        self._offloaded = False
        self._kept_sums: dict[str, int] = {}  # of the weights that the file holds; empty before it does

    def offload(self) -> None:
        """Free the weights' memory.

        Raises:
            OSError: where the file cannot be written; the weights are still in memory then.
        """
        if self._offloaded:
            return
        if not self._kept_sums:
            if not self._holds_the_weights():
                self._write()
            self._kept_sums = {name: bit_sum(weights) for name, weights in self._parameters.items()}
        self._leave()
        self._offloaded = True

    def _leave(self) -> None:
        for parameter in self._parameters.values():
            dtype = self._stand_in
            parameter.data = torch.empty(0, dtype=parameter.dtype) if dtype is None else parameter.data.to(dtype)
        release_memory(self._device)

    def bring_back(self) -> None:
        """Read the weights into memory, on the device where they were.

        Raises:
            ModelError: where the file is gone or damaged since; the module stays parked.
            RuntimeError: where the device has not the memory; likewise, all of it.
        """
        if not self._offloaded:
            return
        try:
            with safe_open(self._file, framework="pt") as file:
                weights = {name: file.get_tensor(name) for name in self._kept_sums}
            if changed := [name for name, tensor in weights.items() if bit_sum(tensor) != self._kept_sums[name]]:
                raise SafetensorError(f"{changed[0]} is not as it was written")
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"The cache lost the weights of the {type(self._module).__name__} ({self._file}), which wait there "
                "while they are not needed. Resume the run: they are written again."
            ) from error
        try:
            for name, parameter in self._parameters.items():
                parameter.data = weights[name].to(self._device)
            self._offloaded = False
        finally:
            if self._offloaded:
                self._leave()

    @contextmanager
    def present(self) -> Iterator[None]:
        """In memory during the `with` block, and gone again after it where it was gone before."""
        was_offloaded = self._offloaded
        self.bring_back()
        try:
            yield
        finally:
            if was_offloaded:
                self.offload()

    def _holds_the_weights(self) -> bool:
        """Whether a file of an earlier run is there and whole: compared to the bit, while there is what to compare."""
        try:
            with safe_open(self._file, framework="pt") as file:
                return all(_same_bits(file.get_tensor(n), p) for n, p in self._parameters.items())
        except (OSError, SafetensorError):
            return False

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._file.parent, prefix=".parking-") as folder:
            part = Path(folder) / "weights"
            weights = {n: p.detach().cpu().contiguous().clone() for n, p in self._parameters.items()}
            save_file(weights, part)
            part.replace(self._file)


@contextmanager
def all_present(offloaded: Sequence[OffloadedModule]) -> Iterator[None]:
    """All of them in memory, in their own precision, during the `with` block."""
    with ExitStack() as stack:
        for module in offloaded:
            stack.enter_context(module.present())
        yield


def bit_sum(tensor: torch.Tensor) -> int:
    """The sum of a tensor's bits, read as whole numbers: sees every changed number, at the speed of memory.

    Two changes that cancel each other to the bit are not seen; what happens to files by itself does not do that.
    """
    bits = tensor.detach().cpu().contiguous().reshape(-1)
    if bits.is_floating_point():
        bits = bits.view(torch.int32 if bits.element_size() == 4 else torch.int16)
    return int(bits.sum(dtype=torch.int64))


def _same_bits(stored: torch.Tensor, parameter: torch.Tensor) -> bool:
    own = parameter.detach().cpu()
    if (stored.dtype, stored.shape) != (own.dtype, own.shape):
        return False
    return torch.equal(stored.reshape(-1).view(torch.uint8), own.reshape(-1).view(torch.uint8))
