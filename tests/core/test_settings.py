"""A setting that breaks its rule is refused in a sentence; nothing is repaired in silence."""

import re

import pytest
from pydantic import ValidationError

from studio.batches.settings import BatchSettings
from studio.core.errors import SettingsError
from studio.core.settings import (
    CompareSettings,
    GenerationSettings,
    ImagesSettings,
    ModelSettings,
    ServerSettings,
    Settings,
    SmokeSettings,
    bounds,
    parse_settings,
)

ALL_SETTINGS = [ModelSettings, GenerationSettings, SmokeSettings, ServerSettings]


def test_the_sentence_names_the_setting_the_rule_and_the_value() -> None:
    with pytest.raises(SettingsError, match=r"^Steps [(]num_inference_steps[)] must be between 1 and 150, got 0\.$"):
        parse_settings(GenerationSettings, {"prompt": "x", "num_inference_steps": 0})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"width": 100}, "Width must be a multiple of 8 between 64 and 2048, got 100."),
        ({"width": 4096}, "Width must be a multiple of 8 between 64 and 2048, got 4096."),
        ({"seed": None}, "Seed must be a whole number, got nothing."),
        ({"seed": -1}, "Seed must be at least 0, got -1."),
        ({"steps": 3}, "steps is not a setting, got 3."),
        ({"guidance_scale": "much"}, "Guidance (guidance_scale) must be a number"),
        ({"num_inference_steps": 2.5}, "Steps (num_inference_steps) must be a whole number"),
    ],
)
def test_each_broken_rule_is_told_in_words(values: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(GenerationSettings, {"prompt": "x", **values})
    assert words in str(caught.value)


def test_every_broken_rule_is_told_not_only_the_first() -> None:
    with pytest.raises(SettingsError, match=r"Steps [(]num_inference_steps[)] .* Guidance [(]guidance_scale[)] "):
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


def test_the_defaults_are_the_seed_reports_and_the_prompts_say_what_the_shipped_model_was_taught() -> None:
    settings = SmokeSettings()
    assert (settings.num_inference_steps, settings.guidance_scale) == (25, 7.5)
    shoes = r"a photo of (black|brown|red) (leather|canvas|suede) (boots|sneakers)"
    taught = shoes + ", (on a grey background|on grass|in a studio)"
    assert all(re.fullmatch(taught, prompt) for prompt in settings.prompts)
    assert len(set(settings.prompts)) == 3


def test_each_prompt_of_the_smoke_test_has_a_fixed_seed_of_its_own() -> None:
    assert [g.seed for g in SmokeSettings(seed=10).generations()] == [10, 11, 12]


def test_the_smoke_test_takes_long_prompts_where_it_is_said() -> None:
    assert {g.long_prompt for g in SmokeSettings(long_prompt=True).generations()} == {True}
    assert {g.long_prompt for g in SmokeSettings().generations()} == {False}


def test_bounds_are_read_from_the_settings() -> None:
    assert bounds(SmokeSettings, "num_inference_steps") == (1, 150)
    assert bounds(GenerationSettings, "width") == (64, 2048)


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_half_a_character_is_no_text(name: str) -> None:
    label = name.capitalize().replace("_", " ")
    with pytest.raises(SettingsError, match=rf"^{label} must hold whole characters .*, got 'a \\ud800'\.$"):
        parse_settings(GenerationSettings, {"prompt": "a", name: "a \ud800"})


TOO_MANY_STEPS = (
    "Steps (num_inference_steps) must be at most 50 with the scheduler LCM, got 51: lower the steps (4 to 8 are usual "
    "for LCM), or choose another scheduler."
)
LCM = {"prompt": "a", "scheduler": "LCM", "num_inference_steps": 51}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (GenerationSettings, LCM),
        (BatchSettings, {"prompts": "a", "generation": LCM}),
        (ImagesSettings, {"generation": LCM}),
        (CompareSettings, {"prompts": ["a"], "generation": LCM}),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused_in_the_rules_own_words_wherever_they_stand(
    kind: type[Settings], values: dict[str, object]
) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(kind, values)
    assert str(caught.value) == TOO_MANY_STEPS


def test_as_many_steps_as_the_scheduler_takes_are_no_fault() -> None:
    assert parse_settings(GenerationSettings, {**LCM, "num_inference_steps": 50}).num_inference_steps == 50
