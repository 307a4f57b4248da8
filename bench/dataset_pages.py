"""Pages of a large dataset, drawn as the page's process draws them; run as a program, so that memory starts afresh."""

import sys
import time
from pathlib import Path

import psutil

from studio.core.paths import UserData
from studio.core.records import Record
from studio.datasets.query import DatasetQuery
from studio.datasets.session import DatasetSession

QUERIES = (
    DatasetQuery(page=1),
    DatasetQuery(page=80),
    DatasetQuery(page=166),
    DatasetQuery(search="number 77"),
    DatasetQuery(sort="longest caption", page=12),
    DatasetQuery(problem="too small", page=50),
)


class PageTurns(Record):
    """Seconds of each page, and the bytes by which the process grew since before the dataset was opened."""

    seconds: tuple[float, ...]
    grown_bytes: int


def measure(source: Path, user_data: UserData) -> PageTurns:
    """Open a folder, check it, and draw some of its pages."""
    from studio.ui.datasets.browser import render_page  # gradio is loaded before memory is looked at

    process = psutil.Process()
    before = process.memory_info().rss
    session = DatasetSession(user_data, count_tokens=lambda caption: len(caption.split()))
    dataset = session.open_folder(str(source))
    while session.view.active or dataset.progress.num_checked < len(dataset.pictures):
        time.sleep(0.2)
    seconds = []
    for query in QUERIES:
        start = time.perf_counter()
        render_page(session, query)
        seconds.append(time.perf_counter() - start)
    grown = process.memory_info().rss - before
    session.close()
    return PageTurns(seconds=tuple(seconds), grown_bytes=grown)


if __name__ == "__main__":
    print(measure(Path(sys.argv[1]), UserData(Path(sys.argv[2]))).model_dump_json())
