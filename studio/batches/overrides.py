"""Columns and options that are settings: what they do to the settings that all pictures share."""

from collections.abc import Iterable, Mapping

from studio.errors import BatchError, SettingsError
from studio.settings import GenerationSettings, LoraChoice, bounds, parse_settings

SETTING_COLUMNS: Mapping[str, str] = {
    "negative_prompt": "negative_prompt",
    "width": "width",
    "height": "height",
    "num_inference_steps": "num_inference_steps",
    "steps": "num_inference_steps",
    "guidance_scale": "guidance_scale",
    "guidance": "guidance_scale",
    "cfg": "guidance_scale",
    "scheduler": "scheduler",
    "seed": "seed",
    "lora": "lora",
    "strength": "strength",
}
"""A column's name, and the setting that its values are. Every other column only describes the picture."""

_LORA_SEPARATOR = ";"
_SURELY_A_SEED = 18
"""Every number of so many digits is one."""


def setting_of(column: str) -> str | None:
    """The setting that a column of this name is, in small letters or large; None where it only describes."""
    return SETTING_COLUMNS.get(column.lower())


def check_columns(columns: Iterable[str]) -> None:
    """See that no two columns are the same, or the same setting.

    Raises:
        BatchError: naming both.
    """
    seen: dict[str, str] = {}
    for column in columns:
        meaning = setting_of(column) or column
        if meaning in seen:
            raise BatchError(
                f"The columns {seen[meaning]!r} and {column!r} are one and the same ({meaning}). Keep one of them, or "
                "rename one."
            )
        seen[meaning] = column


def settings_in(values: Mapping[str, str]) -> dict[str, str]:
    """The settings among the values of columns. An empty cell leaves the shared setting as it is."""
    found = {setting: value for column, value in values.items() if value and (setting := setting_of(column))}
    if "strength" in found and "lora" not in found and any(setting_of(column) == "lora" for column in values):
        del found["strength"]  # the LoRA column is empty here: nothing for it to act on, and that is meant
    return found


def own_seed(text: str) -> int:
    """A seed that a row or a column gives.

    Raises:
        SettingsError: where it is none.
    """
    if text.isascii() and text.isdigit() and len(text) <= _SURELY_A_SEED:
        return int(text)
    return parse_settings(GenerationSettings, {"prompt": "", "seed": text}).seed


def check_overrides(shared: GenerationSettings, overrides: Mapping[str, str]) -> None:
    """See that values keep their settings' rules.

    Raises:
        SettingsError: where one does not.
    """
    apply_overrides(shared, {setting: value for setting, value in overrides.items() if setting != "seed"})
    if "seed" in overrides:
        own_seed(overrides["seed"])


def apply_overrides(shared: GenerationSettings, overrides: Mapping[str, str]) -> GenerationSettings:
    """The shared settings with some of their own, by setting, as text; a seed is not one of them.

    Raises:
        SettingsError: where a value breaks its setting's rule.
    """
    if not overrides:
        return shared
    values: dict[str, object] = {**shared.model_dump(), **overrides}
    lora, strength = values.pop("lora", ""), values.pop("strength", None)
    number = None if strength is None else _strength("strength", str(strength))
    own = _lora_choices(str(lora), number)
    if number is not None and not own:
        if not shared.loras:
            raise SettingsError(
                f"strength has no LoRA to act on, got {strength!r}. Choose a LoRA for all pictures, or add a column "
                "lora."
            )
        values["loras"] = tuple(choice.model_copy(update={"strength": number}) for choice in shared.loras)
    if own:
        names = {choice.name for choice in own}
        values["loras"] = (*(choice for choice in shared.loras if choice.name not in names), *own)
    return parse_settings(GenerationSettings, values)


def _lora_choices(text: str, strength: float | None) -> tuple[LoraChoice, ...]:
    """`name:0.8; other` as choices."""
    choices = []
    for part in filter(None, (piece.strip() for piece in text.split(_LORA_SEPARATOR))):
        name, colon, written = part.rpartition(":")
        if not colon or not _is_number(written):  # a path on Windows has a colon too
            name, written = part, ""
        if written and strength is not None:
            raise SettingsError(f"lora has a strength of its own, and there is a column strength too, got {part!r}.")
        own = _strength("lora", written) if written else 1.0
        choices.append(LoraChoice(name=name.strip(), strength=own if strength is None else strength))
    return tuple(choices)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _strength(setting: str, text: str) -> float:
    low, high = bounds(LoraChoice, "strength")
    assert low is not None
    assert high is not None
    if not _is_number(text) or not low <= float(text) <= high:
        raise SettingsError(f"{setting} must have a strength between {low:g} and {high:g}, got {text!r}.")
    return float(text)
