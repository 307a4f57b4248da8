"""Columns and options that are settings."""

import pytest

from studio.batches.columns import apply_overrides, own_seed, setting_of, settings_in
from studio.core.errors import SettingsError
from studio.core.settings import SEED_MAX, GenerationSettings, LoraChoice

SHARED = GenerationSettings(prompt="", loras=(LoraChoice(name="ink", strength=0.5),))


def loras_of(**overrides: str) -> dict[str, float]:
    return {choice.name: choice.strength for choice in apply_overrides(SHARED, overrides).loras}


def test_names_are_diffusers_or_the_usual_short_ones_in_any_letters() -> None:
    assert setting_of("Steps") == "num_inference_steps"
    assert setting_of("cfg") == setting_of("guidance") == "guidance_scale"
    assert setting_of("colour") is None


def test_an_empty_cell_leaves_the_shared_setting() -> None:
    assert settings_in({"width": "", "steps": "5", "colour": "red"}) == {"num_inference_steps": "5"}


def test_values_are_read_as_text() -> None:
    settings = apply_overrides(SHARED, {"width": "64", "guidance_scale": "3.5", "scheduler": "Euler a"})
    assert (settings.width, settings.guidance_scale, settings.scheduler) == (64, 3.5, "Euler a")


def test_a_lora_column_adds_to_the_shared_loras() -> None:
    assert loras_of(lora="white-ground:0.8; other") == {"ink": 0.5, "white-ground": 0.8, "other": 1.0}


def test_a_lora_that_is_shared_too_has_the_rows_strength() -> None:
    assert loras_of(lora="ink:0.9") == {"ink": 0.9}


def test_strength_acts_on_the_rows_loras_where_it_has_some() -> None:
    assert loras_of(lora="a;b", strength="0.3") == {"ink": 0.5, "a": 0.3, "b": 0.3}


def test_strength_acts_on_the_shared_loras_where_there_is_no_lora_column() -> None:
    assert loras_of(strength="-0.3") == {"ink": -0.3}


def test_strength_has_no_effect_where_the_lora_column_is_empty() -> None:
    assert settings_in({"lora": "", "strength": "0.5"}) == {}


def test_a_path_with_a_colon_is_a_name() -> None:
    assert loras_of(lora=r"C:\loras\a.safetensors") == {"ink": 0.5, r"C:\loras\a.safetensors": 1.0}


def test_the_greatest_seed_is_one_and_the_next_is_none() -> None:
    assert own_seed(str(SEED_MAX)) == SEED_MAX
    with pytest.raises(SettingsError, match="Seed must be at most 9223372036854775807, got '9223372036854775808'"):
        own_seed(str(SEED_MAX + 1))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"width": "65"}, "Width must be a multiple of 8 between 64 and 2048, got '65'"),
        ({"num_inference_steps": "0"}, "Steps [(]num_inference_steps[)] must be between 1 and 150, got '0'"),
        ({"guidance_scale": "many"}, "Guidance [(]guidance_scale[)] .* number.*got 'many'"),
        ({"scheduler": "Eule"}, "Scheduler must be .*got 'Eule'"),
        ({"lora": "a:5"}, "lora must have a strength between -4 and 4, got '5'"),
        ({"lora": "a:0.5", "strength": "0.6"}, "lora sets a strength, and there is a column strength too"),
        ({"lora": "a", "strength": "x"}, "strength must have a strength between -4 and 4, got 'x'"),
        ({"lora": "a;b;c;d;e;f;g;h"}, "LoRAs .*at most 8"),
    ],
)
def test_a_value_that_breaks_a_rule_is_told(overrides: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        apply_overrides(SHARED, overrides)


def test_strength_without_any_lora_is_told() -> None:
    with pytest.raises(SettingsError, match=r"strength has no LoRA to act on, got '0.5'"):
        apply_overrides(GenerationSettings(prompt=""), {"strength": "0.5"})
