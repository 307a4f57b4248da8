"""What speeds cost is measured beside the same images in full, and remembered of each model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.core.paths import UserData, assets_folder
from studio.core.settings import GenerationSettings, LoraChoice, ModelSettings
from studio.engine.pipeline import PipelineManager
from studio.engine.progress import RunWatcher, StepProgress
from studio.engine.speeds import measure_and_keep, num_images_of_speeds
from studio.loras.library import LoraLibrary
from studio.loras.speed import FAST, FULL, SPEED_METADATA, MeasuredSpeeds, SpeedCost, SpeedUse, measured_speeds

SMALL = GenerationSettings(prompt="a photo of red boots", width=64, height=64, guidance_scale=3.0, seed=3)


@pytest.fixture
def place(tmp_path: Path) -> UserData:
    """With a Speed LoRA for the built-in LoRA, and one of another model."""
    user_data = UserData(tmp_path)
    user_data.loras.mkdir()
    use = SpeedUse(
        num_inference_steps=2, scheduler="Euler trailing", teacher_lora="white-ground", teacher_guidance_scale=2.0
    )
    metadata = {SPEED_METADATA: use.model_dump_json()}
    weights = load_file(assets_folder() / "loras" / "white-ground.safetensors")
    save_file(weights, user_data.loras / "few.safetensors", metadata=metadata)
    odd = {key: value if value.dim() == 0 else torch.cat([value, value], dim=-1) for key, value in weights.items()}
    save_file(odd, user_data.loras / "of another model.safetensors", metadata=metadata)
    return user_data


@pytest.fixture
def manager(place: UserData) -> PipelineManager:
    made = PipelineManager(torch.device("cpu"), rejected_folder=place.rejected, library=LoraLibrary(place.loras))
    made.load(ModelSettings())
    return made


def test_speeds_are_measured_beside_the_same_images_in_full_and_remembered(
    manager: PipelineManager, place: UserData
) -> None:
    seen: list[int] = []

    def on_step(index: int, progress: StepProgress) -> None:
        seen.append(index)

    measured = measure_and_keep(manager, place, [SMALL], watcher=RunWatcher(on_step), num_before=3)
    assert measured is not None
    assert set(measured.costs) == {FAST, "lora:few"}, "one that does not fit the model is left out"
    assert measured == measured_speeds(place.speeds, "shoes-demo")
    assert measured_speeds(place.speeds, "another") is None
    assert seen[0] == 3
    assert max(seen) < 3 + num_images_of_speeds(place, 1)

    style = (LoraChoice(name="white-ground"),)
    full = manager.generate(SMALL.model_copy(update={"loras": style, "guidance_scale": 2.0})).picture
    few = {"loras": (*style, LoraChoice(name="few")), "guidance_scale": 1.0, "num_inference_steps": 2}
    ours = manager.generate(SMALL.model_copy(update={**few, "scheduler": "Euler trailing"})).picture
    apart = np.sqrt(np.mean((np.float64(full) - np.float64(ours)) ** 2))
    assert measured.costs["lora:few"].distance == pytest.approx(apart)


def test_a_measurement_that_is_stopped_leaves_what_was_known(manager: PipelineManager, place: UserData) -> None:
    assert measure_and_keep(manager, place, [SMALL], watcher=RunWatcher(cancelled=lambda: True)) is None
    assert not place.speeds.exists()


def test_the_fastest_within_a_distance_is_chosen() -> None:
    def cost(seconds: float, distance: float) -> SpeedCost:
        return SpeedCost(
            seconds=seconds, full_seconds=1.0, distance=distance, whiteness=0.0, sharpness=0.0, named_right=0
        )

    costs = {FAST: cost(0.4, 5.0), "lora:a": cost(0.2, 11.0), "lora:b": cost(0.1, 30.0), "lora:slow": cost(1.2, 0.0)}
    measured = MeasuredSpeeds.model_validate(
        {"model": "m", "measured_at": "2026-11-30T04:00:00Z", "num_images": 3, "costs": costs}
    )
    found = {limit: measured.fastest_within(limit, measured.costs) for limit in (4.0, 10.0, 12.0, 40.0)}
    assert found == {4.0: FULL, 10.0: FAST, 12.0: "lora:a", 40.0: "lora:b"}
    assert measured.fastest_within(40.0, {FULL, FAST, "lora:a"}) == "lora:a", "b was deleted since"
