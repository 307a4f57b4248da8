"""Memory: what is in use, watched for the gauge, and given back by offloading parts of a model.

Memory of process, system and accelerator: now, and its peak during a piece of work.

Memory of process, system and accelerator, told every second for the gauge.

Parts of a model that are not needed for a while leave memory, and come back to the bit.

Training computes with the U-Net alone for hours; the VAE and the text encoder of Stable Diffusion 1.5 take 0.8 GB.
Where passes are computed in half precision, the U-Net's own weights leave too, and rounded ones stand in: autocast
would keep a rounded copy of each beside it, from forward to backward.
"""

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import psutil
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from studio.core.errors import ModelError
from studio.core.language import _
from studio.core.system import MemorySample, MemoryUse
from studio.engine.device import release_memory
from studio.jobs.events import MemoryEvent

SAMPLE_SECONDS = 0.05


def read_memory(device: torch.device) -> MemorySample:
    """Memory at this moment, in bytes."""
    system = psutil.virtual_memory()
    allocated, limit = read_accelerator(device)
    return MemorySample(
        process_bytes=psutil.Process().memory_info().rss,
        system_available_bytes=system.available,
        system_total_bytes=system.total,
        accelerator_allocated_bytes=allocated,
        accelerator_limit_bytes=limit,
    )


def read_accelerator(device: torch.device) -> tuple[int | None, int | None]:
    """(what torch holds of it, its limit) in bytes; None on a CPU. Only from the thread that computes."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
    return None, None


def free_bytes(device: torch.device) -> int:
    """What may still be taken where the computing happens; on Apple silicon the GPU shares the system's memory."""
    if device.type == "cuda":  # other programs take of it too, the desktop for one
        return free_cuda_bytes(device)
    available = psutil.virtual_memory().available
    if device.type != "mps":
        return available
    # What its pool keeps for later is free, though the system counts it as taken.
    in_use, pool = torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory()
    return max(0, min(torch.mps.recommended_max_memory() - in_use, available + pool - in_use))


def total_bytes(device: torch.device) -> int:
    """The most that could ever be taken there, with nothing else running."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    return int(psutil.virtual_memory().total)


def free_cuda_bytes(device: torch.device) -> int:
    """What may still be taken of a CUDA device: what nobody has, and what this process's torch keeps for later."""
    free, __ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


# A LoRA's hook costs the same on every layer: nearly half of a small model's time, a few percent of a large one's.
# 64 MiB is one percent of what Stable Diffusion 1.5 needs.
SUM_LIMIT_BYTES = 64 * 2**20


def sum_limit(device: torch.device, dtype: torch.dtype) -> int:
    """Up to how many bytes of weights get sums with LoRAs: on CUDA in float32 a quarter of the memory that is free.

    There hooks cost a seventh of an image's time (docs/BENCHMARKS.md). In half precision a sum would round small
    updates away.
    """
    if device.type != "cuda" or dtype != torch.float32:
        return SUM_LIMIT_BYTES
    return max(SUM_LIMIT_BYTES, free_cuda_bytes(device) // 4)


class MemoryMeter:
    """Measures the memory of the work in a `with` block; `use` holds the result afterwards.

    A thread samples the process, so a spike shorter than 50 ms can be missed. The accelerator is asked only by
    the thread that computes (two threads can crash MPS, pytorch #197805): CUDA counts its own peak, MPS is read
    at each `sample_accelerator()`.
    """

    use: MemoryUse

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch_process, name="memory-meter", daemon=True)
        self._process = psutil.Process()
        self._peak_process = 0
        self._least_available = psutil.virtual_memory().available
        self._peak_accelerator: int | None = None

    def __enter__(self) -> "MemoryMeter":
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._before = read_memory(self._device)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        after = read_memory(self._device)
        self.sample_accelerator()
        if self._device.type == "cuda":
            self._peak_accelerator = torch.cuda.max_memory_reserved(self._device)
        self.use = MemoryUse(
            before=self._before,
            after=after,
            peak_process_bytes=max(self._peak_process, self._before.process_bytes, after.process_bytes),
            least_available_bytes=min(self._least_available, after.system_available_bytes),
            peak_accelerator_bytes=self._peak_accelerator,
        )

    def sample_accelerator(self) -> None:
        """Read the accelerator's memory; call it from the thread that computes."""
        allocated, __ = read_accelerator(self._device)
        if allocated is not None:
            self._peak_accelerator = max(self._peak_accelerator or 0, allocated)

    def _watch_process(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self._peak_process = max(self._peak_process, self._process.memory_info().rss)
            self._least_available = min(self._least_available, psutil.virtual_memory().available)


EVERY_SECONDS = 1.0


class MemoryWatch:
    """A thread during the `with` block. The accelerator is read by the computing thread alone: two crash MPS."""

    def __init__(self, device: torch.device, report: Callable[[MemoryEvent], None]) -> None:
        self._device = device
        self._report = report
        self._process = psutil.Process()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)
        self._accelerator: tuple[int | None, int | None] = (None, None)
        self.peak_process_bytes = 0
        self.peak_accelerator_bytes: int | None = None

    def __enter__(self) -> "MemoryWatch":
        self.read_accelerator()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def read_accelerator(self) -> None:
        """Read the accelerator's memory; call it from the thread that computes."""
        self._accelerator = read_accelerator(self._device)
        allocated, __ = self._accelerator
        if allocated is not None:
            self.peak_accelerator_bytes = max(self.peak_accelerator_bytes or 0, allocated)

    def sample(self) -> MemoryEvent:
        """Memory now."""
        process, system = self._process.memory_info().rss, psutil.virtual_memory()
        self.peak_process_bytes = max(self.peak_process_bytes, process)
        allocated, limit = self._accelerator
        return MemoryEvent(
            process_bytes=process,
            peak_process_bytes=self.peak_process_bytes,
            system_available_bytes=system.available,
            system_total_bytes=system.total,
            accelerator_bytes=allocated,
            peak_accelerator_bytes=self.peak_accelerator_bytes,
            accelerator_limit_bytes=limit,
        )

    def _watch(self) -> None:
        while True:
            self._report(self.sample())
            if self._done.wait(EVERY_SECONDS):
                return


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
                _(
                    "The cache lost the weights of the {part} ({file}), which wait there while they are "
                    "not needed. Resume the run: they are written again.",
                    part=type(self._module).__name__,
                    file=self._file,
                )
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
