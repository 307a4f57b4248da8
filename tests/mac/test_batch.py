"""A batch on a Mac: run, checked, scored and saved as on the CPU."""

from pathlib import Path

import numpy as np
from PIL import Image

from studio.batches.folder import BatchFolder
from tests.batches.torch.made import lines, made, rows
from tests.mac.simulated_mac import simulated_mac

CHANGES = {"attributes": "colour: red, brown\ntype: boots", "reject_copies": True}


def pictures(folder: BatchFolder) -> list[np.ndarray]:
    found = []
    for row in rows(folder):
        with Image.open(folder.picture(row.item, "png")) as picture:
            found.append(np.asarray(picture.convert("RGB")).astype(int))
    return found


def test_a_batch_makes_the_cpus_pictures(tmp_path: Path) -> None:
    with simulated_mac() as gpu:
        mac = made(tmp_path, name="mac", cpu=False, **CHANGES)
    assert gpu.memory.held > 40e6, "the model was there"
    cpu = made(tmp_path, name="cpu", **CHANGES)
    assert [row.state for row in rows(mac)] == ["done", "done"]
    assert [line["text"] for line in lines(mac)] == [line["text"] for line in lines(cpu)]
    for picture, expected in zip(pictures(mac), pictures(cpu), strict=True):
        assert int(np.abs(picture - expected).max()) <= 1
