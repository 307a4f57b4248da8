"""Folders of runs as a training leaves them, for tests of what reads them."""

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image

from studio.core.files import write_atomically
from studio.datasets.snapshot import make_snapshot, write_snapshot
from studio.datasets.source import DatasetRecipe
from studio.jobs.events import EventWriter, MemoryEvent, NoteEvent, ProblemEvent, StateEvent
from studio.jobs.folder import RunStatus, write_status
from studio.training.events import (
    AnyEvent,
    CheckpointEvent,
    EffectEvent,
    FinishedEvent,
    HeldOutEvent,
    SampleEvent,
    StepEvent,
)
from studio.training.folder import RunFolder, TrainingPlan, write_plan
from studio.training.settings import TrainingSettings
from tests.datasets.rows import make_facts, make_row

BEGAN = datetime(2026, 3, 1, 22, 0, 0, tzinfo=UTC)
SETTINGS = TrainingSettings(dataset="casual shoes", name="white-shoes", max_train_steps=400, noise_offset=0.1)
PROMPTS = ("a white shoe", "a red boot, side view")
GIB = 2**30


def at(seconds: float) -> datetime:
    """A moment so long after the run began."""
    return BEGAN + timedelta(seconds=seconds)


def step_event(step: int, *, loss: float = 0.15, seconds: float = 8.0, reported_at: float | None = None) -> StepEvent:
    """A step of 8 s, told when it was done."""
    moment = at(8.0 * step if reported_at is None else reported_at)
    return StepEvent(at=moment, step=step, loss=loss, learning_rate=1e-4, grad_norm=0.5, seconds=seconds)


def held_out_event(step: int, held_out: float | None, trained: float) -> HeldOutEvent:
    return HeldOutEvent(at=at(8.0 * step), step=step, held_out_loss=held_out, trained_loss=trained)


def memory_event(seconds: float, process_bytes: int, *, accelerator_bytes: int | None = None) -> MemoryEvent:
    return MemoryEvent(
        at=at(seconds),
        process_bytes=process_bytes,
        peak_process_bytes=process_bytes + GIB // 4,
        system_available_bytes=20 * GIB,
        system_total_bytes=32 * GIB,
        accelerator_bytes=accelerator_bytes,
        peak_accelerator_bytes=accelerator_bytes,
        accelerator_limit_bytes=None if accelerator_bytes is None else 24 * GIB,
    )


def make_run(
    folder: Path,
    events: Sequence[AnyEvent],
    *,
    settings: TrainingSettings = SETTINGS,
    status: RunStatus | None = None,
    captions: tuple[str, ...] = ("a white shoe", "a black shoe"),
) -> RunFolder:
    """A folder with everything that a training writes before it tells `events`."""
    run = RunFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(run.settings, settings.model_dump_json().encode())
    rows = [
        make_row(f"{i}.png", caption, facts=make_facts(sha256=f"{i:064x}", width=600, height=800))
        for i, caption in enumerate(captions)
    ]
    write_snapshot(run.dataset, make_snapshot("casual shoes", DatasetRecipe(source="/pictures/casual"), rows))
    write_plan(run, make_plan(num_pictures=len(rows)))
    write_status(run, status or RunStatus(state="finished", step=400, num_steps=settings.max_train_steps))
    writer = EventWriter(run.events)
    for event in events:
        writer.report(event)
    return run


def make_plan(*, num_pictures: int) -> TrainingPlan:
    return TrainingPlan(
        resolution=512,
        gradient_checkpointing=True,
        checkpointing_reason="12.4 GB would be needed without, 9.0 GB are free.",
        precision="float32",
        mixed_precision="no",
        prompts=PROMPTS,
        num_parameters=1_594_368,
        num_layers=128,
        num_pictures=num_pictures,
        num_held_out=1,
        dataset_digest="d" * 64,
        model="shoes-demo",
        model_digests={"unet": "u" * 64, "vae": "v" * 64},
        device="mps",
        device_name="Apple M3 Max",
        versions={"lora-studio": "0.1", "torch": "2.10.0"},
        notes=("1 image is trained on, 1 is held out.",),
    )


def sample_event(run_root: Path, step: int, *, prompts: tuple[str, ...] = PROMPTS, lost: int = -1) -> SampleEvent:
    """Validation images of a step, made as real PNGs; image number `lost` was not made."""
    base = tuple(f"samples/base/{i}-seed{42 + i}.png" for i in range(len(prompts)))
    mine = tuple(f"samples/step-{step:06}/{i}-seed{42 + i}.png" for i in range(len(prompts)))
    for number, file in enumerate((*base, *mine)):
        path = run_root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = min(255, 90 + step // 4) if file in mine else 60
        Image.new("RGB", (64, 64), (shade, shade, 60 + 40 * (number % 4))).save(path)
    return SampleEvent(
        at=at(8.0 * step),
        step=step,
        prompts=prompts,
        base=base,
        pictures=tuple(None if i == lost else file for i, file in enumerate(mine)),
        lora=f"samples/step-{step:06}/lora.safetensors",
        seconds=12.5,
    )


def long_run_events(folder: Path, num_steps: int, *, accelerator: bool = False) -> list[AnyEvent]:
    """A whole run with all kinds of events, in the order of their steps."""
    rng = random.Random(7)
    events: list[AnyEvent] = [StateEvent(at=at(-30), state="preparing"), StateEvent(at=at(0), state="running")]
    every = max(1, num_steps // 20)
    for step in range(num_steps + 1):
        share = step / num_steps
        if step:
            loss = rng.lognormvariate(math.log(0.13 - 0.03 * share), 0.5)
            rate = 1e-4 * min(1.0, step / (num_steps / 20)) * (1 + math.cos(math.pi * share)) / 2
            norm = rng.lognormvariate(math.log(0.4), 0.4)
            moment = at(8.0 * step)
            events.append(StepEvent(at=moment, step=step, loss=loss, learning_rate=rate, grad_norm=norm, seconds=8.0))
        if step % every == 0:
            events.append(held_out_event(step, 0.150 - 0.02 * share + 0.012 * share**3, 0.149 - 0.03 * share))
            used = round((6 + 3 * min(1.0, 8 * share) + rng.random() / 3) * GIB)
            events.append(memory_event(8.0 * step, used, accelerator_bytes=used - GIB if accelerator else None))
        if step and step % (2 * every) == 0:
            events.append(sample_event(folder, step))
            path = f"checkpoints/step-{step:06}"
            events.append(
                CheckpointEvent(at=at(8.0 * step), step=step, folder=path, num_bytes=19_300_000, seconds=0.21)
            )
            groups = {"self-attention, up": 0.021 * share, "cross-attention, up": 0.034 * share, "ends": 0.004 * share}
            events.append(EffectEvent(at=at(8.0 * step), step=step, groups=groups))
    events.append(NoteEvent(at=at(8.0 * num_steps), message="The finished LoRA was read back and gives the same."))
    events.append(ProblemEvent(at=at(8.0 * num_steps), step=num_steps, message="TensorBoard could not be written."))
    events.append(FinishedEvent(at=at(8.0 * num_steps), files=("white-shoes.safetensors",), library_name="white-shoes"))
    events.append(StateEvent(at=at(8.0 * num_steps), state="finished"))
    return events
