from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class DownloadProgress:
    file: str
    done_bytes: int
    total_bytes: int
    elapsed_seconds: float


@dataclass(frozen=True)
class DownloadWatcher:
    on_progress: Callable[[DownloadProgress], None]
    cancelled: Callable[[], bool]
