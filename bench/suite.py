"""The benches by name, and running those that were asked for. A new bench is one more entry here."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.batch import bench_batch
from bench.captions import bench_captions
from bench.cold_start import bench_cold_start
from bench.dataset import bench_dataset
from bench.figures import Figure
from bench.generation import bench_real_size, bench_shipped
from bench.lora import bench_lora
from bench.memory import bench_memory
from bench.passes import bench_passes
from bench.scale import bench_scale
from bench.settings import BenchName, BenchSettings
from bench.speed import bench_speed
from bench.startup import bench_startup
from bench.training import bench_training
from bench.training_tab import bench_training_tab
from studio.core.errors import EngineError, SkippedError
from studio.core.paths import UserData
from studio.jobs.device_lock import DeviceLock


@dataclass(frozen=True)
class Bench:
    """A bench, and how it measures, in a sentence or two for the report."""

    run: Callable[[BenchSettings, UserData], tuple[Figure, ...]]
    method: str


@dataclass(frozen=True)
class BenchResult:
    """What one bench measured; `skipped` says what it lacked where it could not."""

    name: BenchName
    method: str
    figures: tuple[Figure, ...]
    skipped: str = ""


# Children first: later benches leave torch and models in this process.
BENCHES: Mapping[BenchName, Bench] = {
    "startup": Bench(
        bench_startup,
        "From starting `python -m studio ui` until its page answers 200 on 127.0.0.1, beside a fresh Python until it "
        "has done `import gradio`; one start of each is not counted.",
    ),
    "cold-start": Bench(
        bench_cold_start,
        "From starting the engine process until the page's client knows of the smoke test's first image (loading "
        "and previews are in it), then from each image to the next. The process is cold; the disk is so in the "
        "first run only.",
    ),
    "memory": Bench(
        bench_memory,
        "The most memory that a fresh process had resident while it loaded the model and made one image: 25 steps "
        "of the shipped model, 2 of the real size at 512 × 512.",
    ),
    "dataset": Bench(
        bench_dataset,
        "JPEGs with captions, made for it, checked with two worker processes (hashes, full decoding, thumbnail, "
        "figures, cache), beside plain Pillow in two processes that decodes them and saves thumbnails; starting the "
        "processes is in both. Then the same images visited again. Pages of ten thousand small images, drawn in "
        "a fresh process.",
    ),
    "captions": Bench(
        bench_captions,
        "The Dataset tab in headless Chromium, 1280 × 900, with 2,000 images of 512 × 512 open and checked. From the "
        "key for the next image to the first frame that shows its caption, fifty times in each run.",
    ),
    "shipped": Bench(
        bench_shipped,
        "`PipelineManager.generate()` beside `StableDiffusionPipeline`, in one process: same folder, scheduler, "
        "prompt, seed, steps and guidance, float32. The first call of each is not counted; its images are compared "
        "as uint8 / 255.",
    ),
    "lora": Bench(
        bench_lora,
        "A LoRA switched on and off and re-weighted on a model of Stable Diffusion 1.5's size; base and LoRA image "
        "beside the base's alone; the peak memory of a fresh process with a LoRA beside one without; the time that "
        "the text encoder takes for words met before beside new ones.",
    ),
    "passes": Bench(
        bench_passes,
        "Counted, not timed. Every tensor of a guided step of Stable Diffusion 1.5's U-Net, by its shapes (torch's "
        "meta device), with attention in the chunks that a Mac uses and with whole scores. What autograd keeps of a "
        "training pass beside diffusers' own passes, and of one whose frozen weights are bf16 and whose LoRA is "
        "float32 beside one that is bf16 throughout.",
    ),
    "training": Bench(
        bench_training,
        "`studio train` with the preset quick-try on the demo dataset, and the border of ten images whose prompts "
        "and seeds it never saw. A step with all that watches it beside the same passes bare, in one process. At "
        "Stable Diffusion 1.5's size (random weights, 512 × 512, float32, batch 2, rank 8), each side a fresh process "
        "of three steps, the best but the first counted: `studio train` beside diffusers' own "
        "`train_text_to_image_lora.py` (attention layers) and kohya's `train_network.py` (192 layers, cached latents), "
        "or beside a plain loop where no checkout was given. Peers checkpoint every block; ours none, or frees 70 % "
        "of the activations' memory.",
    ),
    "speed": Bench(
        bench_speed,
        "The built-in model with the built-in LoRA at guidance 4; ten prompts in words that were not trained on, and "
        "as many seeds of each as there are runs. All ways of drawing an image one after the other, the first of each "
        "not counted; each value is the mean of ten prompts, its range that of the seeds. Distance: root mean square "
        "of 255. The Speed LoRA is made by the preset, from its beginning to the file.",
    ),
    "training-tab": Bench(
        bench_training_tab,
        "The Training tab in headless Chromium, 1280 × 900. CPU seconds of the page's process and all of the browser's "
        "during 30 s in which nothing goes on. CPU seconds of the page's process during 30 s in which a run of "
        "20,000 steps, with held-out losses, memory and images, goes on at two steps a second; what the "
        "browser's main thread was busy (CDP's TaskDuration) from one answer to the next. A step of a real training "
        "(shipped model, quick try, on all cores) with the tab open and with an empty page, in blocks of 20 s in "
        "turns, each block its median. From the click on Start, with the engine loaded and idle, to the first step; "
        "from the click on Stop to the checkpoint, both by the run's own events.",
    ),
    "batch": Bench(
        bench_batch,
        "Five images of a batch (checks, scores, files that are whole or not there, the ledger) beside a loop over "
        "the same loaded pipeline that only generates and saves the same files. What is around one image of 512 × "
        "512, measured with two steps, as a share of 25. A file of a million prompts planned, shown, fixed and its "
        "last item drawn, and a batch of a thousand small images, each in a fresh process.",
    ),
    "scale": Bench(
        bench_scale,
        "3,000 ended runs of 500 steps, 600 batches, all of them in the queue, 1,500 LoRAs and 50,000 "
        "images, each the copy of one. In a fresh process: what the page shows as it opens and the newest images, the "
        "first time; then the process's CPU time for a look at each tab in turn, twenty times.",
    ),
    "real-size": Bench(
        bench_real_size,
        "The same with random weights in Stable Diffusion 1.5's size, scheduler (PNDM) and resolution. Validation is "
        "timed by itself, each check as often as `generate()` makes it, as a share of the time of the two-step "
        "picture.",
    ),
}


def run_benches(settings: BenchSettings, user_data: UserData) -> tuple[BenchResult, ...]:
    """Run them one after the other, telling on the error stream which one runs.

    Raises:
        EngineError: where another process has the device: it would be measured too.
        StudioError: where a bench cannot be carried out.
    """
    lock = DeviceLock(user_data.device_lock)
    if not lock.acquire("python -m studio bench"):
        raise EngineError(f"The device is in use by {lock.owner()}, which would falsify every figure. Stop it first.")
    user_data.cache.mkdir(parents=True, exist_ok=True)
    try:
        return tuple(_run(name, settings, user_data) for name in settings.names)
    finally:
        lock.release()


def _run(name: BenchName, settings: BenchSettings, user_data: UserData) -> BenchResult:
    print(f"{name} …", end="", file=sys.stderr, flush=True)
    start = time.perf_counter()
    figures: tuple[Figure, ...] = ()
    skipped = ""
    try:
        figures = BENCHES[name].run(settings, user_data)
    except SkippedError as error:
        skipped = str(error)
        print(f" skipped: {skipped}", end="", file=sys.stderr)
    print(f" {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return BenchResult(name, BENCHES[name].method, figures, skipped)
