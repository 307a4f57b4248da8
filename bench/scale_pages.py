"""A page over what was made in years: opened, and looked at again; run as a program, so that nothing is known yet."""

import sys
import time
from pathlib import Path

from studio.batches.session import BatchSession
from studio.core.paths import UserData
from studio.core.records import Record
from studio.core.settings import ModelSettings
from studio.datasets.session import DatasetSession
from studio.engine.process.client import EngineClient
from studio.images.gallery import History
from studio.loras.library import LoraLibrary
from studio.training.session import TrainingSession
from studio.ui.batches.tab import BatchPage
from studio.ui.datasets.captioning import caption_jobs
from studio.ui.inference.history import PastImages
from studio.ui.shell.app import AREAS, Sessions
from studio.ui.shell.commands import BATCH, CommandRunner, PreflightRunner
from studio.ui.shell.device_busy_box import BlockingJobs
from studio.ui.shell.selection import Selection
from studio.ui.training.queue import TrainingPage

NUM_LOOKS = 20
TABS = AREAS[1:]


class PageLooks(Record):
    """Seconds that the page as it opens and the newest images took at first; the CPU's of each look after that."""

    open_seconds: float
    look_cpu_seconds: tuple[float, ...]


def measure(user_data: UserData) -> PageLooks:
    """What a page shows as it is opened, at Generate, and then each tab in turn, as its script asks again."""
    engine = EngineClient(user_data, model=ModelSettings(), cpu_only=True)
    datasets, library = DatasetSession(user_data, count_tokens=len), LoraLibrary(user_data.loras)
    start = time.perf_counter()
    sessions = Sessions(
        engine=engine,
        datasets=datasets,
        training=TrainingPage(
            TrainingSession(user_data), datasets, PreflightRunner(user_data), CommandRunner(user_data)
        ),
        batches=BatchPage(BatchSession(user_data), datasets, library, PreflightRunner(user_data, BATCH), True),
        library=library,
        blocking_jobs=BlockingJobs(user_data),
        past=PastImages(History(user_data.outputs), user_data.cache / "run-thumbnails"),
        captions=caption_jobs(user_data),
    )
    selection = sessions.now(Selection(), ("status", "inference")).selection
    History(user_data.outputs).page(1)
    open_seconds = time.perf_counter() - start
    looks = []
    for number in range(NUM_LOOKS):
        start = time.process_time()
        sessions.now(selection, ("status", TABS[number % len(TABS)]))
        looks.append(time.process_time() - start)
    datasets.close()
    return PageLooks(open_seconds=open_seconds, look_cpu_seconds=tuple(looks))


if __name__ == "__main__":
    print(measure(UserData(Path(sys.argv[1]))).model_dump_json())
