"""Where a run's LoRA goes: the values that a form gets."""

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from safetensors.numpy import save_file

from studio.loras.library import LoraLibrary
from studio.loras.speed import SPEED_METADATA, SpeedUse
from studio.ui.training.destinations import in_rows

CONTROLS = ("speed", "scheduler", "num_inference_steps", "guidance_scale", "guidance_start", "guidance_end")
ROWS = tuple(f"{part}_{i}" for i in range(3) for part in ("lora", "strength"))


@pytest.fixture
def library(tmp_path: Path) -> LoraLibrary:
    """A LoRA, and the Speed LoRA that was made for it."""
    use = SpeedUse(
        num_inference_steps=4,
        scheduler="Euler trailing",
        teacher_lora="white",
        teacher_lora_strength=0.8,
        teacher_guidance_scale=4.0,
    )
    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_{}.weight"
    tensors = {
        key.format("down"): np.zeros((2, 8), np.float16),
        key.format("up"): np.zeros((8, 2), np.float16),
    }
    save_file(tensors, tmp_path / "white.safetensors")
    save_file(tensors, tmp_path / "white fast.safetensors", metadata={SPEED_METADATA: use.model_dump_json()})
    return LoraLibrary(tmp_path, shipped=tmp_path / "none")


def filled(library: LoraLibrary, name: str, *, speed: str = "full") -> dict[str, Any]:
    with gr.Blocks():
        form = {name: gr.Textbox() for name in (*CONTROLS, *ROWS)}
    names = {component: name for name, component in form.items()}
    values = in_rows(form, name, library, speed)
    return {
        names[component]: value["value"] if isinstance(value, dict) else value for component, value in values.items()
    }


def test_a_lora_is_alone_in_the_rows_and_the_rest_stays(library: LoraLibrary) -> None:
    values = filled(library, "white")
    assert [values[f"lora_{i}"] for i in range(3)] == ["white", "none", "none"]
    assert values["strength_0"] == 1.0
    assert not {*values} & {*CONTROLS}


def test_a_speed_lora_sets_the_speed_and_brings_the_lora_that_it_was_made_for(library: LoraLibrary) -> None:
    values = filled(library, "white fast")
    assert [values[f"lora_{i}"] for i in range(3)] == ["white", "white fast", "none"]
    assert [values[f"strength_{i}"] for i in range(2)] == [0.8, 1.0]
    assert values["speed"] == "lora:white fast"
    assert (values["scheduler"], values["num_inference_steps"], values["guidance_scale"]) == ("Euler trailing", 4, 1.0)


def test_without_its_speed_lora_a_form_is_not_left_with_few_steps(library: LoraLibrary) -> None:
    values = filled(library, "white", speed="lora:white fast")
    assert [values[f"lora_{i}"] for i in range(3)] == ["white", "none", "none"]
    assert (values["speed"], values["num_inference_steps"]) == ("full", 25)
    assert values["guidance_scale"] == 4.0, "that of its teacher"
