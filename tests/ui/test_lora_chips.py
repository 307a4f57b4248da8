"""The LoRAs in use as chips: those of the rows and of the prompt's tags, changed and removed where they are written."""

from typing import Any

import pytest

from studio.core.errors import SettingsError
from studio.ui.inference.lora_chips import Chip, changed_values, chips_html, chips_of

NAMES = ("ink", "white-ground")
FORM: dict[str, Any] = {
    "prompt": "boots <lora:ink:0.5>, snow <lora:nosuch> <lora:ink:much>",
    "lora_0": "none",
    "strength_0": 1.0,
    "lora_1": "white-ground",
    "strength_1": 0.8,
    "lora_2": "gone",
    "strength_2": -1,
}


def test_each_lora_is_a_chip_and_what_cannot_be_used_says_why() -> None:
    chips = chips_of(FORM, NAMES)
    assert chips[:4] == [
        Chip("row", 1, "white-ground", 0.8),
        Chip("row", 2, "gone", -1, "not in the library"),
        Chip("tag", 0, "ink", 0.5),
        Chip("tag", 1, "nosuch", 1, "not in the library"),
    ]
    assert (chips[4].index, chips[4].name) == (2, "<lora:ink:much>")
    assert "must be a number between -4 and 4" in chips[4].problem
    assert chips_of({"prompt": "boots", "lora_0": None}, NAMES) == []
    assert chips_of(FORM, NAMES, broken=("gone", *NAMES))[:3] == [
        chips[0],
        Chip("row", 2, "gone", -1, "cannot be used: the LoRA library says why"),
        chips[2],
    ]
    html = chips_html(chips)
    assert html.count('class="chip bad"') == 3
    assert html.count('type="number"') == 2, "a strength is set of what can be used"
    assert "<lora" not in html
    assert chips_html([]) == ""


def test_a_chip_is_removed_and_changed_where_it_is_written() -> None:
    row, _, tag, *_ = chips_of(FORM, NAMES)
    assert changed_values(FORM, row, None) == {"lora_1": "none"}
    assert changed_values(FORM, row, 0.25) == {"strength_1": 0.25}
    rest = "snow <lora:nosuch> <lora:ink:much>"
    assert changed_values(FORM, tag, None) == {"prompt": f"boots, {rest}"}
    assert changed_values(FORM, tag, -1.5) == {"prompt": f"boots <lora:ink:-1.5>, {rest}"}
    with pytest.raises(SettingsError, match=r"Strength must be .*between -4 and 4, got 5"):
        changed_values(FORM, tag, 5)
