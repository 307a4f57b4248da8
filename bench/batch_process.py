"""`python -m bench.batch_process million|growth FOLDER`: one figure of batches, in a process of its own."""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.peak_memory import peak_process_bytes
from studio.batches.folder import begin_batch, plan_of
from studio.batches.forecast import PlanFacts
from studio.batches.plan import open_plan
from studio.batches.settings import BatchSettings
from studio.core.paths import UserData
from studio.core.settings import GenerationSettings
from studio.core.system import prepare_threads
from studio.jobs.events import MemoryEvent
from studio.training.events import read_events

MILLION = 1_000_000
QUICK = GenerationSettings(prompt="", num_inference_steps=1, width=64, height=64)


def million(user_data: UserData, *, cpu: bool) -> dict[str, float]:
    """Seconds and bytes of planning a file of a million prompts, showing it, fixing it, and having its first item."""
    _plan(user_data, 1)
    before = peak_process_bytes()
    started = time.perf_counter()
    _plan(user_data, MILLION)
    return {"seconds": time.perf_counter() - started, "num_bytes": peak_process_bytes() - before}


def _plan(user_data: UserData, num_items: int) -> None:
    file = user_data.root / f"{num_items}.txt"
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(f"product photo of shoe {number} in {{red|brown}}\n" for number in range(num_items))
    settings = BatchSettings(prompt_file=str(file), combine="random", total=num_items, attributes="colour: red, brown")
    facts = PlanFacts.of(plan_of(settings, user_data))
    assert facts.num_items == num_items
    folder = begin_batch(settings, user_data)
    item = open_plan(folder.plan).item(num_items - 1)
    assert item.index == num_items - 1


def growth(user_data: UserData, *, cpu: bool) -> dict[str, float]:
    """How many bytes more the process has at the end of 1,000 images than after the first tenth of their time."""
    prepare_threads()
    from studio.batches.torch.run import run_batch

    folder = begin_batch(BatchSettings(prompts="a shoe", total=1000, generation=QUICK, cpu=cpu), user_data)
    run_batch(folder, user_data)
    reported = [event.process_bytes for event in read_events(folder.events) if isinstance(event, MemoryEvent)]
    return {"num_bytes": reported[-1] - reported[len(reported) // 10]}


FIGURES: Mapping[str, Callable[..., dict[str, float]]] = {"million": million, "growth": growth}


def main() -> None:
    """Measure one figure and print it as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("what", choices=sorted(FIGURES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    print(json.dumps(FIGURES[options.what](UserData(options.folder), cpu=options.cpu)))


if __name__ == "__main__":
    main()
