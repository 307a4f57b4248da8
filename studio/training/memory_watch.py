"""Memory of process, system and accelerator, told every second for the gauge."""

import threading
from collections.abc import Callable
from types import TracebackType

import psutil
import torch

from studio.engine.memory import read_accelerator
from studio.runs.events import MemoryEvent

EVERY_SECONDS = 1.0


class MemoryWatch:
    """A thread during the `with` block. The accelerator is read by the computing thread alone: two crash MPS."""

    def __init__(self, device: torch.device, tell: Callable[[MemoryEvent], None]) -> None:
        self._device = device
        self._tell = tell
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
        allocated, _ = self._accelerator
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
            self._tell(self.sample())
            if self._done.wait(EVERY_SECONDS):
                return
