"""Peak memory of loading a model and making an image: ours beside plain diffusers', each in a fresh process."""

from pathlib import Path

from pydantic import ValidationError

from bench.figures import Figure, measure_pairs, paired_figure
from bench.generation import PEER, REAL_SIZE_STEPS, SHIPPED_STEPS
from bench.peak_memory import PeakMemory, Side
from bench.processes import started_python
from bench.real_size_model import REAL_SIZE_PIXELS, real_size_model
from bench.settings import BenchSettings
from studio.core.errors import StudioError
from studio.core.paths import UserData
from studio.core.settings import SHIPPED_MODEL, SMOKE_PROMPTS, GenerationSettings
from studio.core.text import GIB
from studio.engine.device import pick_device
from studio.engine.model_files import find_model

LIMIT = 1.05
SHIPPED_PIXELS = 128
REAL_SIZE_PAIRS = 1  # it is the same to a few MiB every time, and a pair takes minutes


def bench_memory(settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    """The shipped model's peaks, and those of Stable Diffusion 1.5's size where it was asked for."""
    shipped = compare_peaks(
        "shipped model",
        find_model(SHIPPED_MODEL).folder,
        _picture(SHIPPED_STEPS, SHIPPED_PIXELS),
        pairs=settings.runs,
        cpu=settings.cpu,
        user_data=user_data,
    )
    if not settings.real_size:
        return shipped
    with real_size_model(user_data.cache) as folder:
        real_size = compare_peaks(
            "512 × 512",
            folder,
            _picture(REAL_SIZE_STEPS, REAL_SIZE_PIXELS),
            pairs=REAL_SIZE_PAIRS,
            cpu=settings.cpu,
            user_data=user_data,
        )
    return (*shipped, *real_size)


def compare_peaks(
    what: str, folder: Path, picture: GenerationSettings, *, pairs: int, cpu: bool, user_data: UserData
) -> tuple[Figure, ...]:
    """The processes' peaks; beside them the accelerator's, where one computes."""
    device_type = pick_device(cpu_only=cpu).type
    ours: list[PeakMemory] = []
    theirs: list[PeakMemory] = []

    def measure(side: Side, into: list[PeakMemory]) -> float:
        into.append(measure_peak(side, folder, picture, device_type=device_type, user_data=user_data))
        return into[-1].process_bytes / GIB

    values = measure_pairs(lambda: measure("studio", ours), lambda: measure("diffusers", theirs), pairs=pairs)
    figures = [paired_figure(f"peak memory ({what})", *values, peer=PEER, unit="GiB", limit=LIMIT)]
    on_accelerator = [
        [peak.accelerator_bytes / GIB for peak in peaks if peak.accelerator_bytes is not None]
        for peaks in (ours, theirs)
    ]
    if all(on_accelerator):
        name = f"peak memory on {device_type} ({what})"
        figures.append(paired_figure(name, *on_accelerator, peer=PEER, unit="GiB", limit=LIMIT))
    return tuple(figures)


def measure_peak(
    side: Side, folder: Path, picture: GenerationSettings, *, device_type: str, user_data: UserData
) -> PeakMemory:
    """Run one side in a fresh process and take its word for its peak.

    Raises:
        StudioError: where it fails; what it said is above, on the error stream.
    """
    options = ["--model-folder", str(folder), "--settings", picture.model_dump_json()]
    options += ["--device", device_type, "--user-data", str(user_data.root)]
    with started_python(["-m", "bench.peak_memory", side, *options]) as process:
        said, _ = process.communicate()
    try:
        return PeakMemory.model_validate_json(said)
    except ValidationError as error:
        raise StudioError(
            f"The image of {side} whose memory is measured was not made (code {process.returncode})."
        ) from error


def _picture(num_steps: int, pixels: int) -> GenerationSettings:
    return GenerationSettings(prompt=SMOKE_PROMPTS[0], num_inference_steps=num_steps, width=pixels, height=pixels)
