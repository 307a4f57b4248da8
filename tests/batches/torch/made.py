"""Small batches of the shipped model, made in the test's own process."""

import json
from pathlib import Path

from studio.batches.folder import BatchFolder, begin_batch
from studio.batches.ledger import ItemRow, RejectionRow, read_items, read_rejections
from studio.batches.settings import BatchSettings
from studio.batches.torch.run import run_batch
from studio.core.paths import UserData
from studio.core.settings import parse_settings

GENERATION: dict[str, object] = {"prompt": "", "num_inference_steps": 2, "width": 64, "height": 64, "seed": 7}


def begun(tmp_path: Path, *, generation: dict[str, object] | None = None, **changes: object) -> BatchFolder:
    """A batch of six small images, not started; the columns are colour and type."""
    values = {
        "name": "shoes",
        "prompts": "a (photo:1.2) of {colour} {type} <lora:white-ground:0.5>",
        "attributes": "colour: red, brown, black\ntype: boots, sneakers",
        "cpu": True,
        "generation": {**GENERATION, **(generation or {})},
        **changes,
    }
    return begin_batch(parse_settings(BatchSettings, values), UserData(tmp_path))


def made(tmp_path: Path, *, generation: dict[str, object] | None = None, **changes: object) -> BatchFolder:
    """The same, made."""
    folder = begun(tmp_path, generation=generation, **changes)
    assert run_batch(folder, UserData(tmp_path)) == "finished"
    return folder


def rows(folder: BatchFolder) -> list[ItemRow]:
    return list(read_items(folder.ledgers))


def rejections(folder: BatchFolder) -> list[RejectionRow]:
    return list(read_rejections(folder.ledgers))


def lines(folder: BatchFolder) -> list[dict[str, object]]:
    return [json.loads(line) for line in folder.metadata.read_text(encoding="utf-8").splitlines()]
