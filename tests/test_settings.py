"""A setting that breaks its rule is refused in a sentence; nothing is repaired in silence."""

import pytest
from pydantic import ValidationError

from studio.errors import SettingsError
from studio.settings import (
    GenerationSettings,
    ModelSettings,
    ServerSettings,
    Settings,
    SmokeSettings,
    bounds,
    parse_settings,
)

ALL_SETTINGS = [ModelSettings, GenerationSettings, SmokeSettings, ServerSettings]


def test_the_sentence_names_the_setting_the_rule_and_the_value() -> None:
    with pytest.raises(SettingsError, match=r"^num_inference_steps must be between 1 and 150, got 0\.$"):
        parse_settings(GenerationSettings, {"prompt": "x", "num_inference_steps": 0})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"width": 100}, "width should be a multiple of 8, got 100."),
        ({"width": 4096}, "width must be between 64 and 2048, got 4096."),
        ({"seed": None}, "seed should be a valid integer, got None."),
        ({"seed": -1}, "seed must be at least 0, got -1."),
        ({"steps": 3}, "steps is not a setting, got 3."),
        ({"guidance_scale": "much"}, "guidance_scale should be a valid number"),
        ({"num_inference_steps": 2.5}, "num_inference_steps should be a valid integer"),
    ],
)
def test_each_broken_rule_is_told_in_words(values: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(GenerationSettings, {"prompt": "x", **values})
    assert words in str(caught.value)


def test_every_broken_rule_is_told_not_only_the_first() -> None:
    with pytest.raises(SettingsError, match=r"num_inference_steps .* guidance_scale "):
        parse_settings(SmokeSettings, {"num_inference_steps": 0, "guidance_scale": 99})


@pytest.mark.parametrize("kind", ALL_SETTINGS)
def test_every_setting_has_a_label_and_a_help_text(kind: type[Settings]) -> None:
    for name, field in kind.model_fields.items():
        assert field.title, name
        assert field.description, name


def test_settings_cannot_be_changed_afterwards() -> None:
    settings = SmokeSettings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 3  # type: ignore[misc]


def test_the_defaults_are_the_seed_reports() -> None:
    settings = SmokeSettings()
    assert (settings.num_inference_steps, settings.guidance_scale) == (25, 7.5)
    words = " ".join(settings.prompts)
    assert all(shoe in words for shoe in ("black casual shoes", "brown leather shoes", "white sneakers"))


def test_each_prompt_of_the_smoke_test_has_a_fixed_seed_of_its_own() -> None:
    assert [g.seed for g in SmokeSettings(seed=10).generations()] == [10, 11, 12]


def test_bounds_are_read_from_the_settings() -> None:
    assert bounds(SmokeSettings, "num_inference_steps") == (1, 150)
    assert bounds(GenerationSettings, "width") == (64, 2048)
