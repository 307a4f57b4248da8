"""The page over what a studio holds after years: 3,000 runs, 600 batches, 1,500 LoRAs, 50,000 images."""

import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from bench.browser import empty_user_data
from bench.figures import Figure, plain_figure
from bench.long_run import LongRun
from bench.processes import started_python
from bench.scale_pages import PageLooks
from bench.settings import BenchSettings
from studio.batches.folder import begin_batch
from studio.batches.settings import BatchSettings
from studio.core.errors import StudioError
from studio.core.paths import UserData
from studio.core.results import ImageRecord, Timings
from studio.core.settings import SHIPPED_MODEL, GenerationSettings
from studio.images.files import save_picture
from studio.jobs.database import changing
from studio.jobs.folder import JobFolder, RunStatus, write_status
from studio.jobs.queue import JobKind, JobQueue
from studio.loras.library import shipped_loras

NUM_RUNS, NUM_BATCHES, NUM_LORAS, NUM_IMAGES = 3000, 600, 1500, 50_000
IMAGES_PER_DAY = 500
TOLD_STEPS = 500
OPEN_LIMIT_SECONDS, LOOK_LIMIT_SECONDS = 1.0, 0.05


def bench_scale(settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    """Opening the page, and a look of its script.

    Raises:
        StudioError: where the page cannot be measured.
    """
    with empty_user_data(user_data) as years:
        fill_user_data(years)
        looks = [_looks(years) for _ in range(settings.runs)]
    what = f"{NUM_RUNS:,} runs, {NUM_BATCHES:,} batches, {NUM_LORAS:,} LoRAs, {NUM_IMAGES:,} images"
    opened = [look.open_seconds for look in looks]
    each = [seconds for look in looks for seconds in look.look_cpu_seconds]
    return (
        plain_figure(f"{what}: the page opened", opened, unit="s", limit=OPEN_LIMIT_SECONDS),
        plain_figure("the same: CPU of a look", each, unit="s", limit=LOOK_LIMIT_SECONDS),
    )


def _looks(user_data: UserData) -> PageLooks:
    with started_python(["-m", "bench.scale_pages", str(user_data.root)]) as process:
        said, _ = process.communicate()
    try:
        return PageLooks.model_validate_json(said)
    except ValidationError as error:
        raise StudioError(f"The page was not measured (code {process.returncode}).") from error


def fill_user_data(user_data: UserData) -> None:
    """One of each made as the studio makes it, and the others as its copies, all ended, all in the queue."""
    run = LongRun(user_data, told_steps=TOLD_STEPS)
    run.end()
    batch = begin_batch(BatchSettings(prompts="a {red|blue} shoe", total=4), user_data)
    write_status(batch, RunStatus(state="finished", step=4, num_steps=4))
    _copy_jobs("train", run.folder, NUM_RUNS, user_data)
    _copy_jobs("batch", batch, NUM_BATCHES, user_data)
    user_data.loras.mkdir(parents=True)
    (lora,) = shipped_loras().glob("*.safetensors")
    copied = Path(shutil.copyfile(lora, user_data.loras / "style 0000.safetensors"))
    for number in range(1, NUM_LORAS):
        os.link(copied, user_data.loras / f"style {number:04}.safetensors")
    _make_images(user_data.outputs)


def _copy_jobs(kind: JobKind, folder: JobFolder, number: int, user_data: UserData) -> None:
    """Further folders of the same files, by links, and a line of the queue for each."""
    queue = JobQueue(user_data)
    job = queue.add(kind, folder.root, folder.name)
    queue.finish_job(job.id, "finished", "All is well.")
    now = datetime.now()
    with changing(user_data.database) as connection:
        row = dict(connection.execute("select * from jobs where id = ?", (job.id,)).fetchone())
        del row["id"]
        for index in range(1, number):
            copy = folder.root.parent / f"{now - timedelta(hours=index):%Y%m%d-%H%M%S}-{kind}-{index}"
            shutil.copytree(folder.root, copy, copy_function=os.link)
            values = {**row, "run_folder": str(copy.resolve()), "title": copy.name}
            marks = ", ".join("?" * len(values))
            connection.execute(f"insert into jobs ({', '.join(values)}) values ({marks})", tuple(values.values()))


def _make_images(outputs: Path) -> None:
    record = ImageRecord(
        settings=GenerationSettings(prompt="a red shoe"),
        width=128,
        height=128,
        model=SHIPPED_MODEL,
        model_revision="",
        scheduler="ddim",
        loras=(),
        device="cpu",
        precision="float32",
        checks=(),
        timings=Timings(text_seconds=0.1, step_seconds=(0.1,), vae_seconds=0.1, total_seconds=0.3, first_call=False),
        made_at=datetime.now().astimezone(),
        versions={},
    )
    first = outputs / "first.png"
    outputs.mkdir(parents=True, exist_ok=True)
    save_picture(first, np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8), record)
    start = datetime(2026, 1, 1)
    for number in range(NUM_IMAGES):
        moment = start + timedelta(days=number // IMAGES_PER_DAY, seconds=number % IMAGES_PER_DAY)
        day = outputs / f"{moment:%Y-%m-%d}"
        day.mkdir(exist_ok=True)
        os.link(first, day / f"{moment:%H%M%S-%f}-seed{number}.png")
    first.unlink()
