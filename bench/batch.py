"""A batch beside a plain loop that saves the same files; what is around an image; a plan of a million; memory."""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure, measure_pairs, paired_figure, plain_figure
from bench.real_size_model import real_size_model
from bench.settings import BenchSettings
from studio.batches.folder import BatchFolder, begin_batch
from studio.batches.ledger import Ledger
from studio.batches.plan import BatchItem, open_plan
from studio.batches.settings import BatchSettings
from studio.batches.torch.image import BATCH_KEY, PictureMaker
from studio.core.files import write_atomically
from studio.core.paths import UserData
from studio.core.settings import SHIPPED_MODEL, GenerationSettings, LoraChoice, ModelSettings
from studio.engine.device import pick_device
from studio.engine.pipeline import PipelineManager
from studio.engine.progress import RunWatcher
from studio.images.files import PARAMETERS_KEY, encode_picture
from studio.loras.library import LoraLibrary

TIME_LIMIT = 1.02
AROUND_LIMIT_PERCENT = 3.0
MILLION_SECONDS, MILLION_BYTES = 30.0, 300 * 2**20
GROWTH_BYTES = 20 * 2**20
PEER = "a plain loop"
BLOCK = 5  # images: one alone says little
REAL_SIZE_STEPS = 2
USUAL_STEPS = 25


@dataclass(frozen=True)
class Loops:
    """Both loops over the same items with the same loaded model."""

    folder: BatchFolder
    items: tuple[BatchItem, ...]
    maker: PictureMaker
    ledger: Ledger

    def ours(self) -> float:
        """Seconds of the batch's own way: checks, scores, files that are whole or not there, the ledger."""
        started = time.perf_counter()
        for item in self.items:
            self.ledger.add(self.maker.make(item))
        return time.perf_counter() - started

    def theirs(self) -> float:
        """Seconds of generating and saving the same files, and nothing else."""
        started = time.perf_counter()
        for item in self.items:
            made = self.maker.manager.generate(item.generation)
            texts = {PARAMETERS_KEY: item.caption, BATCH_KEY: made.record.model_dump_json()}
            (self.folder.rejected / f"{item.index}.png").write_bytes(encode_picture(made.picture, texts))
        return time.perf_counter() - started

    def around(self) -> tuple[float, float]:
        """(seconds of one image, of those all that is not `generate()`)."""
        generating = [0.0]
        generate = self.maker.manager.generate

        def timed(*args: object, **kwargs: object) -> object:
            started = time.perf_counter()
            made = generate(*args, **kwargs)  # type: ignore[arg-type]
            generating[0] += time.perf_counter() - started
            return made

        self.maker.manager.generate = timed  # type: ignore[method-assign, assignment]
        try:
            whole = self.ours()
        finally:
            self.maker.manager.generate = generate  # type: ignore[method-assign]
        return generating[0] / len(self.items), (whole - generating[0]) / len(self.items)


def bench_batch(settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    """All figures of batches."""
    with tempfile.TemporaryDirectory(dir=user_data.cache) as place:
        loops = _loops(Path(place), SHIPPED_MODEL, num_steps=USUAL_STEPS, num_items=BLOCK, settings=settings)
        ours, theirs = measure_pairs(loops.ours, loops.theirs, pairs=settings.runs)
        what = f"{BLOCK} images (shipped model, LoRA, {USUAL_STEPS} steps)"
        figures = [paired_figure(what, ours, theirs, peer=PEER, unit="s", limit=TIME_LIMIT)]
    if settings.real_size:
        figures.append(_around_at_real_size(settings, user_data))
    figures += _million(user_data)
    return (*figures, _growth(user_data, settings))


def _loops(place: Path, model: str, *, num_steps: int, num_items: int, settings: BenchSettings) -> Loops:
    generation = GenerationSettings(prompt="", num_inference_steps=num_steps, loras=_loras(model))
    wanted = BatchSettings(
        model=model, prompts="product photo of red boots, white background", total=num_items, generation=generation
    )
    user_data = UserData(place)
    folder = begin_batch(wanted, user_data)
    plan = open_plan(folder.plan)
    manager = PipelineManager(
        pick_device(cpu_only=settings.cpu), rejected_folder=folder.rejected, library=LoraLibrary(user_data.loras)
    )
    manager.load(ModelSettings(model=model))
    folder.rejected.mkdir()
    ledger = Ledger(folder.ledgers / "process-0.db")
    maker = PictureMaker(manager, wanted, folder, None, write_atomically, ledger.reject, _raise, RunWatcher())
    loops = Loops(folder, tuple(plan.item(i) for i in range(num_items)), maker, ledger)
    loops.theirs()  # the first call warms up
    return loops


def _raise(item: BatchItem, error: Exception) -> None:
    raise error


def _loras(model: str) -> tuple[LoraChoice, ...]:
    return (LoraChoice(name="white-ground"),) if model == SHIPPED_MODEL else ()


def _around_at_real_size(settings: BenchSettings, user_data: UserData) -> Figure:
    """Of an image of 512 × 512: measured with two steps, as a share of the time that 25 take."""
    with real_size_model(user_data.cache) as folder, tempfile.TemporaryDirectory(dir=user_data.cache) as place:
        loops = _loops(Path(place), str(folder), num_steps=REAL_SIZE_STEPS, num_items=1, settings=settings)
        pairs = [loops.around() for _ in range(settings.runs)]
    shares = [100 * around / (generating * USUAL_STEPS / REAL_SIZE_STEPS) for generating, around in pairs]
    what = f"all around an image of 512 × 512, as a share of its {USUAL_STEPS} steps"
    return plain_figure(what, shares, unit="%", limit=AROUND_LIMIT_PERCENT)


def _million(user_data: UserData) -> list[Figure]:
    """In a fresh process, from the settings to the first image of a plan of a million."""
    found = _in_a_process("million", user_data)
    return [
        plain_figure("a million items planned, shown and begun", [found["seconds"]], unit="s", limit=MILLION_SECONDS),
        plain_figure("memory of that above a plan of one", [found["num_bytes"]], unit="B", limit=MILLION_BYTES),
    ]


def _growth(user_data: UserData, settings: BenchSettings) -> Figure:
    """Of the memory over a batch of 1,000 images, in a fresh process."""
    found = _in_a_process("growth", user_data, *(["--cpu"] if settings.cpu else []))
    return plain_figure("memory from image 100 to 1,000", [found["num_bytes"]], unit="B", limit=GROWTH_BYTES)


def _in_a_process(what: str, user_data: UserData, *options: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=user_data.cache) as place:
        command = [sys.executable, "-P", "-m", "bench.batch_process", what, place, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
