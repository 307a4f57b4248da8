"""Checkpoints on the disk: whole or not there. Files first, their sha256 in a manifest last, then one rename.

A file of the right size with flipped bits loads without complaint, so every file is compared with the manifest before
it is believed; a damaged checkpoint is set aside under another name, and the one before it is taken.

All that a resumed run needs to go on to the bit: weights, optimizer, schedule, random state, position.

What batches hold and what is drawn for them are functions of the seed and of the position (see `batches`);
the random state is that of the CPU's generator, which LoRA dropout draws from on every device, one for each process.
"""

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from studio.core.errors import TrainingError
from studio.core.files import read_file, sync_folder
from studio.core.language import _
from studio.core.records import Record
from studio.engine.lora_export import kohya_state
from studio.engine.lora_file import LayerWeights, LoraWeights
from studio.loras.keys import layer_name
from studio.training.folder import KEPT
from studio.training.settings import TrainingSettings
from studio.training.torch.adapters import Adapters
from studio.training.torch.optimizers import RunningMean, load_optimizer_state

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

    def newest(self, *, report: Callable[[str], None]) -> Checkpoint | None:
        """The newest that is whole; None where there is none.

        Args:
            report: told of every damaged one, which is set aside.

        Raises:
            TrainingError: where checkpoints are there, but none is whole: starting over in silence would hide it.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._read(step)
            except (OSError, ValueError, KeyError, TypeError) as error:
                aside = self._set_aside(step)
                report(
                    _(
                        "The checkpoint of step {step:,} is damaged ({error}); it was set aside as {name}, and the one "
                        "before it is used.",
                        step=step,
                        error=error,
                        name=aside.name,
                    )
                )
        if steps:
            raise TrainingError(
                _(
                    "None of the {num} checkpoints in {folder} is whole. Duplicate the run to start again, or copy a "
                    "good checkpoint back.",
                    num=len(steps),
                    folder=self._folder,
                )
            )
        return None

    def prune(self, *, keep_last: int, keep_every: int | None) -> None:
        """Delete all but the last few, those at multiples of `keep_every`, and those that someone asked for."""
        for step in self.steps()[:-keep_last]:
            if (keep_every is None or step % keep_every) and not (self.place(step) / KEPT).exists():
                shutil.rmtree(self.place(step))

    def keep(self, step: int) -> None:
        """Never prune the checkpoint of this step.

        Raises:
            OSError: where that cannot be noted.
        """
        (self.place(step) / KEPT).touch()

    def _read(self, step: int) -> Checkpoint:
        folder = self.place(step)
        if not (folder / MANIFEST).is_file():
            raise ValueError(_("it has no manifest"))
        manifest = json.loads(read_file(folder / MANIFEST))
        files = {name: read_file(folder / name, max_bytes=None) for name in manifest["files"]}
        for name, expected in manifest["files"].items():
            if _sha256(files[name]) != expected["sha256"]:
                raise ValueError(_("{name} is not as it was saved", name=name))
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


WEIGHTS, MEANS = "lora.safetensors", "ema.safetensors"
OPTIMIZER, SCHEDULE, RANDOM, POSITION = "optimizer.pt", "schedule.pt", "random.pt", "position.json"
SCALER = "scaler.pt"  # with fp16 alone


class Position(Record):
    """Where a checkpoint stands, and what it belongs to."""

    step: int
    batches_done: int
    dataset_digest: str
    prior_digest: str = ""
    num_processes: int
    settings: TrainingSettings


@dataclass(eq=False)
class TrainingState:
    """All that a resumed run needs to go on to the bit, in the objects that go on with it."""

    position: Position
    adapters: Adapters
    optimizer: Optimizer
    schedule: LRScheduler
    means: RunningMean | None

    def weights(self) -> LoraWeights:
        """What is trained so far: with EMA the means, else the weights of the last step."""
        return self.adapters.weights(() if self.means is None else self.means.means)

    def advance(self, *, batches: int) -> None:
        """Make an optimizer step of the gradients of so many batches."""
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        step, done = self.position.step + 1, self.position.batches_done + batches
        if self.means is not None:
            self.means.update(step)
        self.position = self.position.model_copy(update={"step": step, "batches_done": done})

    def pack(
        self,
        *,
        random_states: torch.Tensor,
        metadata: Mapping[str, str],
        scaler: Mapping[str, object] | None = None,
    ) -> dict[str, bytes]:
        """The files of a checkpoint. Its weights are a LoRA in kohya's form, in float32: any program can try it.

        Args:
            random_states: (processes, bytes) uint8.
            scaler: by how much fp16 scales the loss; None without fp16.
        """
        files = {
            WEIGHTS: save(kohya_state(self.adapters.weights(), torch.float32), metadata=dict(metadata)),
            OPTIMIZER: _torch_bytes(self.optimizer.state_dict()),
            SCHEDULE: _torch_bytes(self.schedule.state_dict()),
            RANDOM: _torch_bytes({"states": random_states}),
            POSITION: self.position.model_dump_json(indent=1).encode(),
        }
        if scaler is not None:
            files[SCALER] = _torch_bytes(scaler)
        if self.means is not None:
            names = [name for name, __ in self.adapters.named_parameters()]
            files[MEANS] = save(dict(zip(names, (m.cpu() for m in self.means.means), strict=True)))
        return files

    def restore(self, checkpoint: Checkpoint, *, process: int) -> None:
        """Go on from a checkpoint of this run, torch's random state with it.

        Raises:
            TrainingError: where the checkpoint has other layers.
        """
        found = read_position(checkpoint)
        self.adapters.put(_weights_like(self.adapters.weights(), load(checkpoint.files[WEIGHTS])))
        if self.means is not None and MEANS in checkpoint.files:
            stored = load(checkpoint.files[MEANS])
            self.means.put([stored[name] for name, __ in self.adapters.named_parameters()])
        states = _from_torch_bytes(checkpoint.files[RANDOM])["states"]
        assert isinstance(states, torch.Tensor)
        set_random_state(states[process % len(states)])
        load_optimizer_state(self.optimizer, _from_torch_bytes(checkpoint.files[OPTIMIZER]))
        self.schedule.load_state_dict(_from_torch_bytes(checkpoint.files[SCHEDULE]))
        self.position = self.position.model_copy(update={"step": found.step, "batches_done": found.batches_done})


def read_position(checkpoint: Checkpoint) -> Position:
    """Where it stands."""
    return Position.model_validate_json(checkpoint.files[POSITION])


def scaler_state(checkpoint: Checkpoint) -> dict[str, object] | None:
    """By how much fp16 scaled the loss; None where it did not, or the checkpoint is of before this was kept.

    Begun anew, the scale would overflow again, and the run would skip steps that one without a stop does not.
    """
    return _from_torch_bytes(checkpoint.files[SCALER]) if SCALER in checkpoint.files else None


def random_state() -> torch.Tensor:
    """The state of torch's own generator as bytes: the CPU's, from which all is drawn whatever the device."""
    return torch.get_rng_state()


def set_random_state(state: torch.Tensor) -> None:
    """Set what `random_state` gave; behind it older checkpoints have a device's, which nothing draws from."""
    torch.set_rng_state(state[: len(torch.get_rng_state())])


def _weights_like(like: LoraWeights, stored: Mapping[str, torch.Tensor]) -> LoraWeights:
    """What kohya's names hold, for the layers of `like`."""
    unet = {path: _layer(f"lora_unet_{layer_name(path)}", layer, stored) for path, layer in like.unet.items()}
    text = {
        path: _layer(f"lora_te_text_model_{layer_name(path)}", layer, stored)
        for path, layer in like.text_encoder.items()
    }
    return LoraWeights(unet, text)


def _layer(name: str, like: LayerWeights, stored: Mapping[str, torch.Tensor]) -> LayerWeights:
    try:
        magnitude = None if like.magnitude is None else stored[f"{name}.dora_scale"]
        return LayerWeights(
            down=stored[f"{name}.lora_down.weight"],
            up=stored[f"{name}.lora_up.weight"],
            alpha=like.alpha,
            magnitude=magnitude,
        )
    except KeyError as error:
        words = _("The checkpoint has no {weights}: it is of a run with other settings.", weights=error.args[0])
        raise TrainingError(words) from error


def _torch_bytes(state: Mapping[str, object]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _from_torch_bytes(content: bytes) -> dict[str, object]:
    state: dict[str, object] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return state
