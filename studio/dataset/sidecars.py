"""Captions written beside the pictures: only when the user says so, and never without keeping what was there."""

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from studio.dataset.opened import OpenedDataset
from studio.dataset.problems import Problem
from studio.dataset.source import Leftover
from studio.errors import DatasetError
from studio.files import write_atomically

REPLACED = "replaced-captions"


@dataclass(frozen=True)
class SidecarsWritten:
    """What was written; `kept` is the folder with what was there before, below the dataset's own."""

    num_written: int
    kept: Path
    leftovers: tuple[Leftover, ...]


def write_sidecars(dataset: OpenedDataset) -> SidecarsWritten:
    """Write each caption that the user edited to a .txt file beside its picture.

    Raises:
        DatasetError: where the dataset's captions come from a table, or none was edited.
    """
    if dataset.reading.layout not in ("sidecar", "kohya"):
        raise DatasetError(
            "This dataset's captions come from a table, which is not changed. Export it as an imagefolder or "
            "as kohya's folders to take the captions along."
        )
    edited = [row for row in dataset.rows if row.caption_from == "your edit"]
    if not edited:
        raise DatasetError("No caption was edited, so there is nothing to write.")
    kept = dataset.folder / REPLACED / f"{datetime.now():%Y%m%d-%H%M%S-%f}"
    leftovers = []
    for row in edited:
        target = (Path(dataset.recipe.source) / row.key).with_suffix(".txt")
        try:
            if target.is_file():
                copy = (kept / row.key).with_suffix(".txt")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(target, copy)
            write_atomically(target, f"{row.caption}\n".encode())
        except OSError as error:
            sentence = f"Its caption could not be written ({error.strerror}). It stays in the dataset's recipe."
            problem = Problem(code="not written", severity="note", sentence=sentence)
            leftovers.append(Leftover(name=row.key, problem=problem))
    return SidecarsWritten(len(edited) - len(leftovers), kept, tuple(leftovers))
