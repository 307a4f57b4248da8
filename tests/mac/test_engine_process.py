"""The engine process's main loop on a Mac, in this process: the page's requests, one after the other."""

import io
import os
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from studio.core.paths import UserData
from studio.core.results import MadeImage
from studio.core.settings import (
    CompareSettings,
    GenerationSettings,
    ImagesSettings,
    LoraChoice,
    ModelSettings,
    SmokeSettings,
)
from studio.engine.pipeline import PipelineManager
from studio.engine.process.messages import (
    EVENTS,
    CheckDevice,
    CheckLora,
    Compare,
    ComparisonChanged,
    DeviceChecked,
    Event,
    Failed,
    Generate,
    ImagesChanged,
    Load,
    Loaded,
    LoraChecked,
    MakingRoom,
    Request,
    Smoke,
    SmokeDone,
    Step,
    to_line,
)
from studio.engine.process.worker import EngineProcess, Mailbox
from studio.jobs.device_lock import DeviceLock
from tests.mac.simulated_mac import MEMORY_LIMIT, NAME, simulated_mac

SMALL = GenerationSettings(prompt="black casual shoes", num_inference_steps=4, width=64, height=64, seed=7)
Kind = TypeVar("Kind", bound=Event)
LORA = LoraChoice(name="white-ground", strength=0.8)


def answers(user_data: UserData, *requests: Request) -> list[Event]:
    """What the engine tells, until it makes room for another process that waits for the device."""
    there, here = os.pipe()  # never closed: at the end of its requests the engine ends its process
    lines = b"".join(map(to_line, requests))
    assert os.write(here, lines) == len(lines)
    lock = DeviceLock(user_data.device_lock)
    waiting = user_data.device_lock.with_suffix(".waiting")
    waiting.mkdir(parents=True)
    (waiting / str(os.getppid())).write_text('{"pid": 1, "purpose": "a training"}', encoding="utf-8")
    output = io.BytesIO()
    mailbox = Mailbox(io.FileIO(there))
    EngineProcess(user_data, cpu_only=False, mailbox=mailbox, output=output, lock=lock).run()
    return [EVENTS.validate_json(line) for line in output.getvalue().splitlines()]


def test_what_the_page_asks_for_is_done_on_a_mac(manager: PipelineManager, tmp_path: Path) -> None:
    user_data = UserData(tmp_path)
    with simulated_mac():
        events = answers(
            user_data,
            Load(settings=ModelSettings()),
            Generate(settings=ImagesSettings(generation=SMALL, num_images=2)),
            Compare(settings=CompareSettings(prompts=("a boot",), generation=SMALL, right=(LORA,), strip=(0.5,))),
            CheckLora(name="white-ground"),
            Smoke(settings=SmokeSettings(num_inference_steps=3)),
            CheckDevice(),
        )

    def reported(kind: type[Kind]) -> list[Kind]:
        return [event for event in events if isinstance(event, kind)]

    assert not reported(Failed)
    assert isinstance(events[-1], MakingRoom)
    (loaded,) = reported(Loaded)
    assert (loaded.facts.device, loaded.facts.device_name) == ("mps", NAME)
    memory = reported(Step)[-1].memory
    assert memory.accelerator_allocated_bytes is not None
    assert 4 * loaded.facts.parameters < memory.accelerator_allocated_bytes < MEMORY_LIMIT
    assert memory.accelerator_limit_bytes == MEMORY_LIMIT
    assert any(step.preview_png for step in reported(Step))
    images = reported(ImagesChanged)[-1].report
    assert images.finished
    for image, settings in zip(images.images, images.settings.generations(), strict=True):
        assert isinstance(image, MadeImage)
        with Image.open(image.path) as picture:
            difference = np.asarray(picture).astype(int) - manager.generate(settings).picture
        assert int(np.abs(difference).max()) <= 1
    assert reported(ComparisonChanged)[-1].saved.report.finished
    assert not reported(LoraChecked)[-1].problem
    assert len(reported(SmokeDone)[-1].saved.report.valid_pictures) == 3
    assert reported(DeviceChecked)[-1].check.device_name == NAME
