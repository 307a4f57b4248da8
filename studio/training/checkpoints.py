"""Checkpoints on the disk: whole or not there. Files first, their sha256 in a manifest last, then one rename.

A file of the right size with flipped bits loads without complaint, so every file is compared with the manifest before
it is believed; a damaged checkpoint is set aside under another name, and the one before it is taken.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from studio.errors import TrainingError
from studio.files import sync_folder

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """One that is whole: its step, and its files as they were saved."""

    step: int
    folder: Path
    files: Mapping[str, bytes]


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def steps(self) -> list[int]:
        """Steps of all that are there, oldest first; whether they are whole is not known before they are read."""
        if not self._folder.is_dir():
            return []
        return sorted(int(m.group(1)) for entry in self._folder.iterdir() if (m := _NAME.fullmatch(entry.name)))

    def place(self, step: int) -> Path:
        """The folder of a step, there or not."""
        return self._folder / f"step-{step:06}"

    def save(self, step: int, files: Mapping[str, bytes]) -> Path:
        """Write a checkpoint; the same step saved again is replaced.

        Raises:
            OSError: where it cannot be written; nothing that was there is touched.
        """
        part = self._folder / f".step-{step:06}.part"
        if part.exists():
            shutil.rmtree(part)  # of a kill, or of a full disk
        part.mkdir(parents=True)
        try:
            for name, content in files.items():
                _write_synced(part / name, content)
            sums = {name: {"sha256": _sha256(c), "num_bytes": len(c)} for name, c in files.items()}
            _write_synced(part / MANIFEST, json.dumps({"step": step, "files": sums}, indent=1).encode())
            sync_folder(part)
            final = self.place(step)
            if final.exists():
                shutil.rmtree(final)
            part.rename(final)
            sync_folder(self._folder)
        except OSError:
            shutil.rmtree(part, ignore_errors=True)  # room for what can be saved later
            raise
        return final

    def newest(self, *, tell: Callable[[str], None]) -> Checkpoint | None:
        """The newest that is whole; None where there is none.

        Args:
            tell: told of every damaged one, which is set aside.

        Raises:
            TrainingError: where checkpoints are there, but none is whole: starting over in silence would hide it.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._read(step)
            except (OSError, ValueError, KeyError, TypeError) as error:
                aside = self._set_aside(step)
                tell(
                    f"The checkpoint of step {step:,} is damaged ({error}); it was set aside as {aside.name}, and the "
                    "one before it is used."
                )
        if steps:
            raise TrainingError(
                f"None of the {len(steps)} checkpoints in {self._folder} is whole. Duplicate the run to begin again, "
                "or copy a good checkpoint back."
            )
        return None

    def prune(self, *, keep_last: int, keep_every: int | None) -> None:
        """Delete all but the last few and those at multiples of `keep_every`."""
        steps = self.steps()
        for step in steps[:-keep_last]:
            if keep_every is None or step % keep_every:
                shutil.rmtree(self.place(step))

    def _read(self, step: int) -> Checkpoint:
        folder = self.place(step)
        if not (folder / MANIFEST).is_file():
            raise ValueError("it has no manifest")
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files = {name: (folder / name).read_bytes() for name in manifest["files"]}
        for name, expected in manifest["files"].items():
            if _sha256(files[name]) != expected["sha256"]:
                raise ValueError(f"{name} is not as it was saved")
        return Checkpoint(int(manifest["step"]), folder, files)

    def _set_aside(self, step: int) -> Path:
        number, aside = 1, self._folder / f"damaged-step-{step:06}"
        while aside.exists():
            number += 1
            aside = self._folder / f"damaged-step-{step:06}-{number}"
        return self.place(step).rename(aside)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
