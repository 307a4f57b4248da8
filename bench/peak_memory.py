"""`python -m bench.peak_memory SIDE …`: make one image and print the peak memory of this process.

A process of its own for each, because a process never forgets its peak. Each side imports only what it needs.
"""

import argparse
import sys
from pathlib import Path
from typing import Literal, get_args

import psutil
from pydantic import BaseModel, ConfigDict

from studio.core.paths import UserData
from studio.core.settings import GenerationSettings, ModelSettings
from studio.core.system import prepare_threads

Side = Literal["studio", "diffusers"]


class PeakMemory(BaseModel):
    """In bytes; the accelerator's is None on a CPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    process_bytes: int
    accelerator_bytes: int | None


def peak_process_bytes() -> int:
    """The most memory that this process ever had resident."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage(): on Linux its peak outlives exec, so that of the bench's own process would be taken for ours.
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere


def peak_accelerator_bytes(device_type: str) -> int | None:
    """What torch took from the accelerator: on CUDA its peak, on MPS what it holds now, its cache included."""
    import torch

    if device_type == "cuda":
        return torch.cuda.max_memory_reserved()
    return torch.mps.driver_allocated_memory() if device_type == "mps" else None


def make_ours(folder: Path, settings: GenerationSettings, *, device_type: str, rejected: Path) -> None:
    """One image as the studio makes it."""
    import torch

    from studio.engine.pipeline import PipelineManager

    manager = PipelineManager(torch.device(device_type), rejected_folder=rejected)
    manager.load(ModelSettings(model=str(folder)))
    manager.generate(settings)


def make_theirs(folder: Path, settings: GenerationSettings, *, device_type: str) -> None:
    """One image as plain diffusers makes it."""
    import torch

    from bench.plain_pipeline import load_plain_pipeline, plain_picture

    plain_picture(load_plain_pipeline(folder, torch.device(device_type)), settings)


def main() -> None:
    """Make the image, print the peak as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("side", choices=get_args(Side))
    parser.add_argument("--model-folder", type=Path, required=True)
    parser.add_argument("--settings", type=GenerationSettings.model_validate_json, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--user-data", type=Path, required=True)
    options = parser.parse_args()
    prepare_threads()
    if options.side == "studio":
        rejected = UserData(options.user_data).rejected
        make_ours(options.model_folder, options.settings, device_type=options.device, rejected=rejected)
    else:
        make_theirs(options.model_folder, options.settings, device_type=options.device)
    peak = PeakMemory(process_bytes=peak_process_bytes(), accelerator_bytes=peak_accelerator_bytes(options.device))
    print(peak.model_dump_json(), flush=True)


if __name__ == "__main__":
    main()
