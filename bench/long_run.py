"""A run of many steps that nobody trained, for measuring what the page takes to show one: files alone, no torch."""

import math
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import numpy as np
import psutil
from PIL import Image

from studio.core.paths import UserData
from studio.jobs.events import EventWriter, MemoryEvent, StateEvent
from studio.jobs.folder import RunStatus, write_status
from studio.training.events import AnyEvent, CheckpointEvent, EffectEvent, HeldOutEvent, SampleEvent, StepEvent
from studio.training.folder import RunFolder
from studio.training.settings import TrainingSettings

NUM_STEPS = 40_000
STEP_SECONDS = 0.5  # what a step of the shipped model takes on two cores
HELD_OUT_STEPS, EFFECT_STEPS, CHECKPOINT_STEPS, SAMPLE_STEPS = 100, 50, 500, 500
PICTURE_PIXELS = 128
PROMPTS = ("black casual shoes", "brown leather shoes", "white sneakers", "a red boot, side view")
MIB = 2**20


class LongRun:
    """Tells of steps as a training does."""

    def __init__(self, user_data: UserData, *, told_steps: int) -> None:
        self.folder = RunFolder.new(user_data.runs, "long", now=datetime.now())
        settings = TrainingSettings(dataset="casual shoes", name="long")
        self.folder.settings.write_text(settings.model_dump_json(), encoding="utf-8")
        self.step = 0
        self._random = random.Random(0)
        self._base = tuple(self._picture(f"base-{i}") for i in range(len(PROMPTS)))
        lines: list[AnyEvent] = [StateEvent(state="running")]
        for _ in range(told_steps):
            lines += self._next_step()
        with self.folder.events.open("w", encoding="utf-8") as file:
            file.writelines(f"{event.model_dump_json()}\n" for event in lines)
        self._writer = EventWriter(self.folder.events)
        self._report_status()

    def report_step(self) -> None:
        """One more step, as a training tells it."""
        for event in self._next_step():
            self._writer.report(event)
        self._report_status()

    def end(self) -> None:
        """Say that it is stopped, so that no page follows it any more."""
        write_status(self.folder, RunStatus(state="stopped", step=self.step, num_steps=NUM_STEPS))

    def _report_status(self) -> None:
        left = (NUM_STEPS - self.step) * STEP_SECONDS
        status = RunStatus(
            state="running",
            step=self.step,
            num_steps=NUM_STEPS,
            seconds_per_step=STEP_SECONDS,
            remaining_seconds=left,
            message="All is well.",
        )
        write_status(self.folder, status)

    def _next_step(self) -> list[AnyEvent]:
        self.step += 1
        step, noise = self.step, self._random.gauss(0, 0.03)
        loss = 0.1 + 0.2 * math.exp(-step / 4000) + noise
        events: list[AnyEvent] = [
            StepEvent(step=step, loss=loss, learning_rate=1e-4, grad_norm=abs(1 + noise), seconds=STEP_SECONDS)
        ]
        if step % round(1 / STEP_SECONDS) == 0:
            events.append(_memory_event(step))
        if step % HELD_OUT_STEPS == 0:
            events.append(HeldOutEvent(step=step, held_out_loss=loss + 0.01, trained_loss=loss))
        if step % EFFECT_STEPS == 0:
            events.append(EffectEvent(step=step, groups={f"group {i}": 0.001 * (i + 1) for i in range(8)}))
        if step % CHECKPOINT_STEPS == 0:
            folder = f"checkpoints/step-{step}"
            events.append(CheckpointEvent(step=step, folder=folder, num_bytes=3 * MIB, seconds=0.2))
        if step % SAMPLE_STEPS == 0:
            pictures = tuple(self._picture(f"{step}-{i}") for i in range(len(PROMPTS)))
            sample = SampleEvent(
                step=step, prompts=PROMPTS, base=self._base, pictures=pictures, lora=f"step-{step}", seconds=2
            )
            events.append(sample)
        return events

    def _picture(self, name: str) -> str:
        """An image file below the run's folder: noise, which is the most that one of its size can hold."""
        file = self.folder.samples / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        values = np.frombuffer(self._random.randbytes(3 * PICTURE_PIXELS**2), dtype=np.uint8)
        Image.fromarray(values.reshape(PICTURE_PIXELS, PICTURE_PIXELS, 3)).save(file)
        return file.relative_to(self.folder.root).as_posix()


def _memory_event(step: int) -> MemoryEvent:
    total = psutil.virtual_memory().total
    used = 900 * MIB + step % 50 * MIB
    return MemoryEvent(
        process_bytes=used,
        peak_process_bytes=1000 * MIB,
        system_available_bytes=total - 3 * used,
        system_total_bytes=total,
    )


@contextmanager
def telling(run: LongRun) -> Iterator[RunFolder]:
    """Tell a step every half a second during the `with` block."""
    over = threading.Event()

    def report() -> None:
        while not over.wait(STEP_SECONDS):
            run.report_step()

    reporter = threading.Thread(target=report, name="long-run", daemon=True)
    reporter.start()
    try:
        yield run.folder
    finally:
        over.set()
        reporter.join()
        run.end()
