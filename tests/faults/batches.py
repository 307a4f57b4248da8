"""Batches of a tiny model, in processes that may be killed."""

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from studio.batches.folder import BatchFolder, begin_batch
from studio.batches.ledger import ledger_files, read_items
from studio.batches.settings import BatchSettings
from studio.core.settings import parse_settings
from tests.faults.conftest import Place

PLAN: dict[str, object] = {
    "prompts": "a {colour} {type}",
    "attributes": "colour: red, brown, black\ntype: boot, sneaker",
    "images_per_prompt": 2,
    "cpu": True,
    "text_sidecars": True,
}
GENERATION: dict[str, object] = {"prompt": "", "num_inference_steps": 2, "width": 64, "height": 64, "seed": 7}
NUM_ITEMS = 12


def begin(place: Place, *, generation: dict[str, object] | None = None, **changes: object) -> BatchFolder:
    """A new batch of twelve images, not started."""
    shared = {**GENERATION, **(generation or {})}
    values = {**PLAN, "model": str(place.model), "generation": shared, **changes}
    return begin_batch(parse_settings(BatchSettings, values), place.user_data)


def pictures(folder: BatchFolder) -> dict[str, str]:
    """The sha256 of every file of the dataset, but for its card, which names the batch."""
    files = sorted(path for path in folder.dataset.rglob("*") if path.is_file() and path.name != "README.md")
    return {f.relative_to(folder.dataset).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def assert_exactly_as_planned(folder: BatchFolder, num_items: int = NUM_ITEMS) -> None:
    """Every item is done once, its image as its row says, with a line in the table; nothing is left over."""
    rows = list(read_items(folder.ledgers))
    assert [row.item for row in rows] == [*range(num_items)]
    assert {row.state for row in rows} == {"done"}
    for row in rows:
        assert hashlib.sha256((folder.root / row.file).read_bytes()).hexdigest() == row.sha256
    lines = [json.loads(line) for line in folder.metadata.read_text(encoding="utf-8").splitlines()]
    assert [f"dataset/{line['file_name']}" for line in lines] == [row.file for row in rows]
    kept = set(folder.dataset.rglob("*.png"))
    assert kept == {folder.root / row.file for row in rows}
    assert not list(folder.root.rglob("*.part"))


def num_made(folder: BatchFolder) -> int:
    return sum(1 for _ in read_items(folder.ledgers)) if ledger_files(folder.ledgers) else 0


def wait_until(holds: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def launch(folder: BatchFolder, place: Place, *, num_processes: int) -> "subprocess.Popen[bytes]":
    """`accelerate launch … -m studio batch FOLDER`, as the documents say it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(num_processes)]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(port), "-m", "studio", "batch", str(folder.root)]
    command += ["--user-data", str(place.user_data.root)]
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def fill_up(disk: Path) -> Path:
    """A file that takes all the room that is left."""
    filling = disk / "filling"
    with contextlib.suppress(OSError), filling.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filling
