"""The LoRA that ships, and the script that makes such a LoRA."""

import numpy as np
import pytest

from studio.core.settings import GenerationSettings, LoraChoice
from studio.engine.pipeline import PipelineManager
from studio.loras.library import read_card, shipped_loras
from studio.loras.weights_file import read_header
from studio.training.presets import PRESETS


def border_whiteness(picture: np.ndarray) -> float:
    """The share of a 6-pixel border whose every channel is 245 or more."""
    border = [part.reshape(-1, 3) for part in (picture[:6], picture[-6:], picture[:, :6], picture[:, -6:])]
    return float((np.concatenate(border).min(axis=1) >= 245).mean())


@pytest.mark.parametrize("prompt", ["red canvas sneakers, white background", "brown leather boots, white background"])
def test_it_takes_the_ground_from_grey_to_white(prompt: str, manager: PipelineManager) -> None:
    base = GenerationSettings(prompt=prompt, guidance_scale=4, seed=500)
    white = base.model_copy(update={"loras": (LoraChoice(name="white-ground"),)})
    assert border_whiteness(manager.generate(base).picture) < 0.05
    assert border_whiteness(manager.generate(white).picture) > 0.9


def test_the_studio_s_own_trainer_made_it_with_the_preset_that_the_readme_names(manager: PipelineManager) -> None:
    file = shipped_loras() / "white-ground.safetensors"
    reported, preset = read_header(file).metadata, PRESETS["quick-try"].changes
    assert reported["lora_studio.version"]
    assert reported["ss_steps"] == str(preset["max_train_steps"])
    assert float(reported["ss_noise_offset"]) == preset["noise_offset"]
    card = read_card("white-ground", file)
    assert (card.problem, card.rank, card.trigger) == ("", 8, "")
    assert card.thumbnail.startswith("data:image/jpeg")
    lora = manager.loras.read(str(file))
    assert len(lora.unet) == 108
    assert {layer.alpha for layer in lora.unet.values()} == {16.0}
