"""Pictures on a Mac: the unmodified code, every scheduler, LoRAs, long prompts; they are the CPU's."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from studio.core.settings import SCHEDULER_NAMES, GenerationSettings, LoraChoice, ModelSettings
from studio.engine.device import pick_device
from studio.engine.device_check import compare_device
from studio.engine.pipeline import GeneratedImage, PipelineManager
from studio.engine.progress import StepProgress, Watcher
from tests.mac.rules import BrokenRulesError, Rule
from tests.mac.simulated_mac import NAME, simulated_mac

SMALL = GenerationSettings(prompt="black casual shoes", num_inference_steps=3, width=64, height=64, seed=7)
LONG = "a (photo:1.3) of black casual shoes with white soles, " * 12


@pytest.fixture(scope="module")
def mac_manager(tmp_path_factory: pytest.TempPathFactory) -> PipelineManager:
    """The shipped model, loaded on a Mac that each test then brings back."""
    with simulated_mac():
        manager = PipelineManager(pick_device(), rejected_folder=tmp_path_factory.mktemp("mac-rejected"))
        facts = manager.load(ModelSettings())
    assert (facts.device, facts.device_name, facts.precision.precision) == ("mps", NAME, "float32")
    return manager


@pytest.fixture
def sums_or_hooks(
    request: pytest.FixtureRequest, manager: PipelineManager, mac_manager: PipelineManager
) -> Iterator[None]:
    """LoRAs as on small models, or as on large ones."""
    limit = None if request.param == "sums" else 0
    for one in (manager, mac_manager):
        one.loras.sum_limit_bytes = limit
    yield
    for one in (manager, mac_manager):
        one.loras.use(())
        one.loras.sum_limit_bytes = None


def assert_same(made: GeneratedImage, expected: GeneratedImage) -> None:
    """Rounding may move a pixel by one level."""
    assert int(np.abs(made.picture.astype(int) - expected.picture.astype(int)).max()) <= 1
    assert torch.allclose(made.latents_CHW, expected.latents_CHW, atol=1e-3)


def generate_on(
    mac_manager: PipelineManager, settings: Sequence[GenerationSettings], watcher: Watcher | None = None
) -> list[GeneratedImage]:
    with simulated_mac():
        return [mac_manager.generate(one, watcher=watcher) for one in settings]


@pytest.mark.parametrize("scheduler", SCHEDULER_NAMES)
def test_every_scheduler_makes_the_cpus_picture(
    scheduler: str, manager: PipelineManager, mac_manager: PipelineManager
) -> None:
    settings = GenerationSettings.model_validate({**SMALL.model_dump(), "scheduler": scheduler})
    (made,) = generate_on(mac_manager, [settings])
    assert made.record.device == NAME
    assert_same(made, manager.generate(settings))


def test_a_long_prompt_makes_the_cpus_picture(manager: PipelineManager, mac_manager: PipelineManager) -> None:
    settings = SMALL.model_copy(update={"prompt": LONG, "negative_prompt": "blurred", "long_prompt": True})
    (made,) = generate_on(mac_manager, [settings])
    assert_same(made, manager.generate(settings))
    short = manager.generate(settings.model_copy(update={"long_prompt": False}))
    assert not np.array_equal(made.picture, short.picture), "all of it was read"


def test_guidance_in_a_part_of_the_steps_and_another_shape(
    manager: PipelineManager, mac_manager: PipelineManager
) -> None:
    changes = ({"guidance_scale": 1.0}, {"guidance_start": 0.2, "guidance_end": 0.7}, {"width": 96, "height": 64})
    settings = [SMALL.model_copy(update=change) for change in changes]
    for made, one in zip(generate_on(mac_manager, settings), settings, strict=True):
        assert_same(made, manager.generate(one))


def test_previews_on_the_way(mac_manager: PipelineManager) -> None:
    steps: list[StepProgress] = []
    generate_on(mac_manager, [SMALL.model_copy(update={"num_inference_steps": 4})], Watcher(steps.append))
    assert [step.step for step in steps if step.preview is not None] == [3]


@pytest.mark.parametrize("sums_or_hooks", ["sums", "hooks"], indirect=True)
def test_loras_make_the_cpus_picture_and_are_taken_off_again(
    sums_or_hooks: None, manager: PipelineManager, mac_manager: PipelineManager
) -> None:
    lora = SMALL.model_copy(update={"loras": (LoraChoice(name="white-ground", strength=0.8),)})
    made, bare = generate_on(mac_manager, [lora, SMALL])
    assert_same(made, manager.generate(lora))
    assert_same(bare, manager.generate(SMALL))
    assert not np.array_equal(made.picture, bare.picture)


def test_memory_goes_back_when_the_model_is_unloaded(tmp_path: Path) -> None:
    with simulated_mac() as mac:
        manager = PipelineManager(pick_device(), rejected_folder=tmp_path)
        facts = manager.load(ModelSettings())
        assert mac.memory.in_use >= 4 * facts.parameters
        manager.unload()
        assert mac.memory.held < facts.parameters


def test_attention_slicing_as_diffusers_does_it_is_seen(tmp_path: Path) -> None:
    """diffusers' own code breaks the rule (diffusers #14438); the studio warns of it."""
    with pytest.raises(BrokenRulesError) as caught, simulated_mac():
        manager = PipelineManager(pick_device(), rejected_folder=tmp_path)
        manager.load(ModelSettings())
        manager.components.pipeline.enable_attention_slicing()
        manager.generate(SMALL.model_copy(update={"num_inference_steps": 1}))
    assert {problem.rule for problem in caught.value.problems} == {Rule.UNINITIALISED}
    assert all("diffusers/models/attention_processor.py" in problem.place for problem in caught.value.problems)


def test_the_device_check_finds_no_difference() -> None:
    with simulated_mac():
        check = compare_device(pick_device(), side=8)
    assert check.device_name == NAME
    assert check.differences
    assert all(found.difference < found.limit for found in check.differences)
