"""A million items: time and memory, each in a process of its own. Limits are wide: the machine may be busy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.batches.plans import plan_of

MILLION = 1_000_000
MEASURE = """
import json, sys, time
import psutil
from studio.batches import checking, prompt_files  # loaded before the memory is measured
from studio.batches.settings import BatchSettings
from studio.batches.plan import make_plan
from pathlib import Path
process, settings = psutil.Process(), BatchSettings(**json.loads(sys.argv[1]))
before, start = process.memory_info().rss, time.process_time()
plan = make_plan(settings, wildcards=Path("none"))
planned = time.process_time()
plan.examples(10)
counts = plan.value_counts()
counted = time.process_time()
status = Path("/proc/self/status")  # getrusage would tell of the process that started this one, too
peaks = [line.split()[1] for line in status.read_text().splitlines() if "VmHWM" in line] if status.exists() else []
peak = int(peaks[0]) * 1024 if peaks else process.memory_info().rss
for index in range(0, plan.num_items, plan.num_items // 1000):
    plan.item(index)
print(json.dumps({
    "items": plan.num_items, "plan": planned - start, "counts": counted - planned, "bytes": peak - before,
    "item": (time.process_time() - counted) / 1000, "values": {k: v if isinstance(v, int) else len(v)
    for k, v in counts.items()},
}))
"""


def measure(**settings: object) -> dict[str, float]:
    command = [sys.executable, "-c", MEASURE, json.dumps(settings)]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(found)
    assert found["items"] == MILLION
    assert found["item"] < 0.001
    assert found["plan"] < 30
    assert found["counts"] < 10
    assert found["bytes"] < 150 * 2**20
    return found


@pytest.mark.process
def test_a_grid_of_a_million_is_planned_at_once() -> None:
    values = {name: ", ".join(f"{name}{i}" for i in range(100)) for name in "abc"}
    found = measure(prompts="{a} {b} {c}", attributes="\n".join(f"{n}: {v}" for n, v in values.items()))
    assert found["plan"] < 5


def test_a_million_with_quotas_is_exact() -> None:
    boxes = "a: x = 700001, y = 299999\nb: p = 500000, q = 300000, r = 200000"
    counts = plan_of(prompts="{a} {b} {u|v}", attributes=boxes).value_counts()
    assert counts == {"a": {"x": 700001, "y": 299999}, "b": {"p": 500000, "q": 300000, "r": 200000}}


@pytest.mark.slow
def test_a_text_file_of_a_million_prompts_stays_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"a photo of shoe number {i}, white background, studio light\n" for i in range(MILLION))
    measure(prompt_file=str(path))


@pytest.mark.slow
def test_a_table_of_a_million_rows_stays_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("prompt,colour,seed\n")
        file.writelines(f"a shoe number {i},{'red' if i % 3 else 'blue'},{i}\n" for i in range(MILLION))
    assert measure(prompt_file=str(path))["values"] == {"colour": 2, "seed": MILLION}
