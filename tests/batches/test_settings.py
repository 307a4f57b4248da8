"""The settings of a batch."""

import pytest

from studio.batches.settings import BatchSettings
from studio.core.errors import SettingsError
from studio.core.settings import parse_settings


def test_every_setting_has_a_title_and_a_description() -> None:
    for name, field in BatchSettings.model_fields.items():
        assert field.title, name
        assert field.description, name


def test_settings_come_back_from_json() -> None:
    settings = BatchSettings(prompts="a", total=5)
    assert BatchSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "Prompts and Prompt file [(]prompt_file[)] are both empty: write a prompt, or choose a prompt file"),
        ({"prompts": "a", "least_distance": 0.5}, "[(]least_distance[)] needs Training images [(]nearest_to"),
        ({"prompts": "a", "grid_y": "x"}, "Grid, down [(]grid_y[)] needs Grid, across"),
        (
            {"prompts": "a", "grid_x": "x", "grid_y": "x"},
            "[(]grid_x and grid_y[)] must be two columns, got 'x' for both",
        ),
        ({"prompts": "a", "total": 0}, "Total images [(]total[)] must be at least 1, got 0"),
        ({"prompts": "a", "images_per_prompt": 0}, "Images per prompt must be between 1 and 10000, got 0"),
        ({"prompts": "a", "name": "a/b"}, "Name .*letters, digits, spaces .*got 'a/b'"),
        ({"prompts": "a", "pictures": 5}, "pictures is not a setting"),
    ],
)
def test_settings_that_break_a_rule_are_told(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_settings(BatchSettings, values)
