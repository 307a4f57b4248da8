"""The speeds of images: what each sets together, and which LoRAs are for few steps."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from studio.core.errors import LoraError
from studio.core.settings import CompareSettings, GenerationSettings, LoraChoice
from studio.loras.library import LoraLibrary
from studio.loras.speed import (
    FAST,
    FULL,
    SPEED_METADATA,
    SpeedUse,
    speed_choices,
    speed_loras,
    speed_of,
    use_of,
    with_speed,
)

USE = SpeedUse(
    num_inference_steps=4, scheduler="Euler trailing", timesteps=(999, 749, 499, 249), teacher_lora="white-ground"
)


def write_lora(file: Path, **metadata: str) -> None:
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {f"{layer}.lora_down.weight": torch.ones(1, 2), f"{layer}.lora_up.weight": torch.ones(2, 1)}
    save_file(state, file, metadata=metadata)


@pytest.fixture
def library(tmp_path: Path) -> LoraLibrary:
    """With a Speed LoRA called fast, a published LCM-LoRA, and others."""
    write_lora(tmp_path / "fast.safetensors", **{SPEED_METADATA: USE.model_dump_json()})
    write_lora(tmp_path / "lcm-lora-sdv1-5.safetensors")
    write_lora(tmp_path / "boots.safetensors", ss_output_name="boots")
    (tmp_path / "broken.safetensors").write_bytes(b"no file of weights")
    return LoraLibrary(tmp_path)


def test_a_speed_lora_is_known_by_its_metadata_and_a_published_lcm_lora_by_its_name(library: LoraLibrary) -> None:
    found = speed_loras(library)
    assert found["fast"] == USE
    assert (found["lcm-lora-sdv1-5"].scheduler, found["lcm-lora-sdv1-5"].num_inference_steps) == ("LCM", 4)
    assert set(found) == {"fast", "lcm-lora-sdv1-5"}
    assert use_of("calcmap", {}) is None
    assert use_of("x", {SPEED_METADATA: json.dumps({"of": "another version"})}) is None


def before(*loras: LoraChoice, **values: object) -> GenerationSettings:
    return GenerationSettings.model_validate({"prompt": "", "loras": loras, **values})


def test_every_speed_is_offered_and_a_lora_called_fast_is_not_the_speed_fast(library: LoraLibrary) -> None:
    assert [key for __, key in speed_choices(library)] == [FULL, FAST, "lora:fast", "lora:lcm-lora-sdv1-5"]
    assert with_speed(FAST, before(), library)[1] == ()
    assert with_speed("lora:fast", before(), library)[1][-1].name == "fast"


def test_a_speed_sets_scheduler_and_steps_together_and_a_speed_lora_guidance_too(library: LoraLibrary) -> None:
    own = {"scheduler", "num_inference_steps", "guidance_start", "guidance_end"}
    wanted = {
        FULL: ("model's own", 25, 0.0, 1.0),
        FAST: ("DPM++ 2M", 8, 0.0, 1.0),
        "lora:fast": ("Euler trailing", 4, 0.0, 1.0),
        "lora:lcm-lora-sdv1-5": ("LCM", 4, 0.0, 1.0),
    }
    for speed, values in wanted.items():
        changes, __ = with_speed(speed, before(guidance_scale=4.0, guidance_end=0.5), library)
        assert (
            tuple(changes[name] for name in ("scheduler", "num_inference_steps", "guidance_start", "guidance_end"))
            == values
        )
        assert set(changes) == own | ({"guidance_scale"} if speed.startswith("lora:") else set())
        assert changes.get("guidance_scale", 1.0) == 1.0


def test_without_its_speed_lora_guidance_is_that_of_its_teacher_again(library: LoraLibrary, tmp_path: Path) -> None:
    use = USE.model_copy(update={"teacher_guidance_scale": 4.0})
    write_lora(tmp_path / "fast.safetensors", **{SPEED_METADATA: use.model_dump_json()})
    with_it = before(LoraChoice(name="fast"), guidance_scale=1.0)
    assert with_speed(FAST, with_it, library)[0]["guidance_scale"] == 4.0
    elsewhere = before(guidance_scale=1.0, scheduler="Euler trailing")  # Compare has its LoRA in no row
    assert with_speed(FULL, elsewhere, library)[0]["guidance_scale"] == 7.5
    of_ones_own = before(guidance_scale=1.0)
    assert "guidance_scale" not in with_speed(FAST, of_ones_own, library)[0]


def test_a_speed_lora_acts_beside_others_in_place_of_another_one(library: LoraLibrary) -> None:
    style = LoraChoice(name="boots", strength=0.5)
    __, loras = with_speed("lora:fast", before(style), library)
    assert loras == (style, LoraChoice(name="fast"))
    assert with_speed("lora:lcm-lora-sdv1-5", before(*loras), library)[1] == (style, LoraChoice(name="lcm-lora-sdv1-5"))
    assert with_speed(FULL, before(*loras), library)[1] == (style,)


def test_a_speed_lora_brings_the_lora_that_it_was_made_for_where_none_acts(library: LoraLibrary) -> None:
    assert with_speed("lora:fast", before(), library)[1] == (LoraChoice(name="white-ground"), LoraChoice(name="fast"))


def test_a_speed_that_is_gone_is_said(library: LoraLibrary) -> None:
    with pytest.raises(LoraError, match="Choose one of full, fast, lora:fast, lora:lcm-lora-sdv1-5"):
        with_speed("lora:gone", before(), library)


@pytest.mark.parametrize("speed", [FULL, FAST, "lora:fast", "lora:lcm-lora-sdv1-5"])
def test_settings_say_their_speed(library: LoraLibrary, speed: str) -> None:
    changes, loras = with_speed(speed, before(), library)
    assert speed_of(GenerationSettings(prompt="", loras=loras).model_copy(update=changes)) == speed


def test_in_compare_a_speed_lora_acts_on_both_sides() -> None:
    generation = GenerationSettings(prompt="", loras=(LoraChoice(name="fast"),))
    settings = CompareSettings(prompts=("boots",), generation=generation, right=(LoraChoice(name="style"),))
    ((left, right),) = settings.pairs()
    assert [choice.name for choice in left.loras] == ["fast"]
    assert [choice.name for choice in right.loras] == ["style", "fast"]


def test_the_strength_strip_keeps_the_speed_lora() -> None:
    generation = GenerationSettings(prompt="", loras=(LoraChoice(name="lcm"),))
    settings = CompareSettings(
        prompts=("a",), generation=generation, right=(LoraChoice(name="shoes"),), strip=(0, 0.5, 1)
    )
    strip = settings.strip_generations()
    ((left, right),) = settings.pairs()
    assert (strip[0], strip[-1]) == (left, right)
    assert [[lora.name for lora in one.loras] for one in strip] == [["lcm"], ["shoes", "lcm"], ["shoes", "lcm"]]


@pytest.mark.parametrize("speed", ["", "lora:"])
def test_an_empty_speed_is_said(speed: str, library: LoraLibrary) -> None:
    with pytest.raises(LoraError, match="There is no speed"):
        with_speed(speed, before(), library)


def test_a_lora_leaves_with_the_speed_lora_that_brought_it(tmp_path: Path) -> None:
    for name in ("white", "dark"):
        write_lora(tmp_path / f"{name}.safetensors")
        use = USE.model_copy(update={"teacher_lora": name, "teacher_lora_strength": 0.8})
        write_lora(tmp_path / f"{name} fast.safetensors", **{SPEED_METADATA: use.model_dump_json()})
    library = LoraLibrary(tmp_path, shipped=tmp_path / "none")
    __, first = with_speed("lora:white fast", before(), library)
    assert [lora.name for lora in first] == ["white", "white fast"]
    __, second = with_speed("lora:dark fast", before(*first), library)
    assert [(lora.name, lora.strength) for lora in second] == [("dark", 0.8), ("dark fast", 1.0)]
