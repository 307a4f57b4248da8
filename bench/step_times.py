"""`python step_times.py OUTPUT SCRIPT ARGUMENTS …`: run a training script and write when each optimizer step ended.

It runs in a peer's own environment, so it needs torch alone. Nothing of the script is changed: torch itself tells of
the steps. OUTPUT is JSON: seconds and CPU seconds of each step after the first, and the most memory that the process
had; on CUDA the GPU is waited for after each step, and the most that torch took of it is told too.
"""

import itertools
import json
import runpy
import sys
import time
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook


def peak_process_bytes() -> int:
    """The most memory that this process ever had resident, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_accelerator_bytes() -> int | None:
    """The most that torch ever took of the CUDA device; None where it is not used."""
    return torch.cuda.max_memory_reserved() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]


def main() -> None:
    """Run the script as `__main__`."""
    output, script, *arguments = sys.argv[1:]
    ended: list[float] = []
    used: list[float] = []

    def note_end(*_: object) -> None:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
        ended.append(time.perf_counter())
        used.append(time.process_time())

    register_optimizer_step_post_hook(note_end)
    sys.argv = [script, *arguments]
    if not Path(script).with_name("__init__.py").is_file():  # as Python does for a script, but not for a package
        sys.path.insert(0, str(Path(script).parent))
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        result = {
            "step_seconds": [later - earlier for earlier, later in itertools.pairwise(ended)],
            "step_cpu_seconds": [later - earlier for earlier, later in itertools.pairwise(used)],
            "peak_process_bytes": peak_process_bytes(),
            "peak_accelerator_bytes": peak_accelerator_bytes(),
        }
        Path(output).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
