"""The LoRA that ships, and the script that makes such a LoRA."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from studio.engine.pipeline import PipelineManager
from studio.loras.library import read_card
from studio.paths import assets_folder
from studio.settings import GenerationSettings, LoraChoice


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


def test_the_script_makes_a_lora_that_fits_and_has_begun_to_learn(manager: PipelineManager, tmp_path: Path) -> None:
    file = tmp_path / "short.safetensors"
    subprocess.run(
        [
            *(sys.executable, "assets/shoes-demo-making/train_lora.py"),
            *("--model", "assets/shoes-demo", "--output", str(file)),
            *("--max-train-steps", "2", "--num-pictures", "4", "--batch-size", "2"),
        ],
        check=True,
        cwd=assets_folder().parent,
    )
    card = read_card("short", file)
    assert (card.problem, card.rank, card.trigger) == ("", 8, "white background")
    assert card.thumbnail.startswith("data:image/jpeg")
    lora = manager.loras.read(str(file))
    assert len(lora.unet) == 108
    assert "changes nothing" not in " ".join(lora.notes)
