"""Datasets: images checked and thumbnailed beside plain Pillow; a second visit; pages of ten thousand rows."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import ValidationError

from bench.dataset_pages import PageTurns
from bench.figures import Figure, measure_pairs, paired_figure, plain_figure
from bench.plain_thumbnails import save_plain_thumbnails
from bench.processes import started_python
from bench.settings import BenchSettings
from studio.core.errors import StudioError
from studio.core.paths import UserData
from studio.datasets.checker import PictureChecker
from studio.images.records import PictureFacts

NUM_PICTURES = 2000
SIDE = 768
NUM_ROWS = 10_000
NUM_PROCESSES = 2
CHECK_LIMIT = 1.3
SECOND_VISIT_LIMIT = 1.0
PAGE_TURN_LIMIT = 0.3
MEMORY_LIMIT_MIB = 200.0
MIB = 2**20


def bench_dataset(settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    """All figures, on images that are made for it and removed afterwards."""
    with _folder(user_data) as folder:
        return (
            *compare_checks(folder, num_pictures=NUM_PICTURES, side=SIDE, pairs=settings.runs),
            *measure_pages(folder, num_rows=NUM_ROWS),
        )


def compare_checks(folder: Path, *, num_pictures: int, side: int, pairs: int) -> tuple[Figure, ...]:
    """Everything that the check does beside what plain Pillow does; then the same images visited again."""
    paths = make_pictures(folder / "pictures", num_pictures, side=side)
    second_visits = []

    def ours() -> float:
        shutil.rmtree(folder / "ours", ignore_errors=True)
        checker = PictureChecker(
            folder / "ours" / "checks.db", folder / "ours" / "thumbnails", num_workers=NUM_PROCESSES
        )
        try:
            first = _seconds(checker, paths)
            second_visits.append(_seconds(checker, paths))
        finally:
            checker.close()
        return first

    def theirs() -> float:
        shutil.rmtree(folder / "theirs", ignore_errors=True)
        (folder / "theirs").mkdir()
        start = time.perf_counter()
        with ProcessPoolExecutor(NUM_PROCESSES, mp_context=get_context("spawn")) as pool:
            parts = [(tuple(map(str, paths[i : i + 8])), str(folder / "theirs")) for i in range(0, len(paths), 8)]
            saved = sum(pool.map(save_plain_thumbnails, parts))
        assert saved == len(paths)
        return time.perf_counter() - start

    values = measure_pairs(ours, theirs, pairs=pairs)
    what = f"{num_pictures:,} JPEGs of {side} × {side}"
    return (
        paired_figure(f"{what} checked", *values, peer="plain Pillow", unit="s", limit=CHECK_LIMIT),
        plain_figure(f"{what}, a second visit", second_visits, unit="s", limit=SECOND_VISIT_LIMIT),
    )


def measure_pages(folder: Path, *, num_rows: int) -> tuple[Figure, ...]:
    """Pages of a large dataset, in a fresh process as the page's is.

    Raises:
        StudioError: where it fails; what it said is above, on the error stream.
    """
    make_pictures(folder / "rows", num_rows, side=64)
    arguments = ["-m", "bench.dataset_pages", str(folder / "rows"), str(folder / "pages")]
    with started_python(arguments) as process:
        said, _ = process.communicate()
    try:
        turns = PageTurns.model_validate_json(said)
    except ValidationError as error:
        raise StudioError(f"The pages of the dataset were not measured (code {process.returncode}).") from error
    grown = [turns.grown_bytes / MIB]
    return (
        plain_figure(f"{num_rows:,} rows, a page turn", turns.seconds, unit="s", limit=PAGE_TURN_LIMIT),
        plain_figure(f"{num_rows:,} rows, memory grown", grown, unit="MiB", limit=MEMORY_LIMIT_MIB),
    )


def make_pictures(folder: Path, number: int, *, side: int) -> list[Path]:
    """Different JPEGs with captions, like photographs in what they cost to decode: noise over soft forms."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(np.int16)
    noisy = np.clip(soft + rng.integers(-8, 9, soft.shape), 0, 255).astype(np.uint8)
    paths = []
    for index in range(number):
        path = folder / f"{index:05}.jpg"
        Image.fromarray(np.roll(noisy, index * 37, axis=1)).save(path, quality=90)
        path.with_suffix(".txt").write_text(f"picture number {index} of many, with some words", encoding="utf-8")
        paths.append(path)
    return paths


def _seconds(checker: PictureChecker, paths: list[Path]) -> float:
    found: dict[Path, PictureFacts] = {}
    start = time.perf_counter()
    checker.check(paths, background="#ffffff", on_checked=found.__setitem__)
    elapsed_seconds = time.perf_counter() - start
    assert len(found) == len(paths)
    assert all(facts.is_usable for facts in found.values())
    return elapsed_seconds


@contextmanager
def _folder(user_data: UserData) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=user_data.cache, prefix="bench-dataset-") as folder:
        yield Path(folder)
