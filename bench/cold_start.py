"""From starting the engine to the smoke test's first image, and each image after it, as the page sees them."""

import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from bench.figures import Figure, plain_figure
from bench.settings import BenchSettings
from studio.core.errors import EngineError
from studio.core.paths import UserData
from studio.core.settings import ModelSettings, SmokeSettings
from studio.engine.process.client import EngineClient
from studio.engine.process.view import EngineView

FIRST_LIMIT_SECONDS = 4.0
LATER_LIMIT_SECONDS = 2.0
POLL_SECONDS = 0.005
PATIENCE_SECONDS = 300.0


def bench_cold_start(settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    """Each run starts a new engine process; the files it reads are in the system's memory from the second run on.

    Raises:
        EngineError: where an image does not come.
    """
    first: list[float] = []
    later: list[float] = []
    with tempfile.TemporaryDirectory(dir=user_data.cache, prefix="bench-") as folder:
        for _ in range(settings.runs):
            seconds = picture_seconds(UserData(Path(folder)), cpu=settings.cpu, smoke=SmokeSettings())
            first.append(seconds[0])
            later += seconds[1:]
    return (
        plain_figure("first image after a cold start, 25 steps", first, unit="s", limit=FIRST_LIMIT_SECONDS),
        plain_figure("later images, 25 steps", later, unit="s", limit=LATER_LIMIT_SECONDS),
    )


def picture_seconds(user_data: UserData, *, cpu: bool, smoke: SmokeSettings) -> tuple[float, ...]:
    """Seconds until each image of a smoke test was known: from the start of the engine, then from the one before.

    Previews, writing the files and telling the page are in it.
    """
    client = EngineClient(user_data, model=ModelSettings(), cpu_only=cpu)
    known_at = [time.perf_counter()]
    client.start()
    try:
        _wait(client, lambda view: view.phase == "ready")
        client.run_smoke_test(smoke)
        while len(known_at) <= len(smoke.prompts):
            _wait(client, lambda view: len(view.pictures) >= len(known_at))
            known_at.append(time.perf_counter())
    finally:
        client.stop()
    if not all(picture.record.valid for picture in client.view.pictures):
        raise EngineError("An image of the smoke test is not valid. Run `python -m studio smoke` to see why.")
    return tuple(after - before for before, after in pairwise(known_at))


def _wait(client: EngineClient, until: Callable[[EngineView], bool]) -> None:
    """Look at the engine's view until it is as wanted."""
    give_up_at = time.perf_counter() + PATIENCE_SECONDS
    while not until(client.view):
        if client.view.problem:
            raise EngineError(client.view.problem)
        if time.perf_counter() > give_up_at:
            raise EngineError(f"The engine did nothing for {PATIENCE_SECONDS:g} s; its phase is {client.view.phase}.")
        time.sleep(POLL_SECONDS)
