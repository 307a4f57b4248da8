"""Columns of a batch: the box they are typed in, and those that are settings.

Columns and options that are settings: what they do to the settings that all images share.

The box of columns: `colour: black, 2::brown, white` and `type: boot = 200, sandal = 100`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from studio.core.errors import BatchError, SettingsError
from studio.core.language import _, number
from studio.core.settings import GenerationSettings, LoraChoice, bounds, parse_settings

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
"""A column's name, and the setting that its values are. Every other column only describes the image."""

_LORA_SEPARATOR = ";"
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d{1,2}\s*", re.ASCII)  # three digits may be thousands
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
                _(
                    "The columns {one!r} and {other!r} mean the same setting ({setting}). Keep one of "
                    "them, or rename one.",
                    one=seen[meaning],
                    other=column,
                    setting=meaning,
                )
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
    if "guidance_scale" in overrides:
        values["guidance_scale"] = _with_point(overrides["guidance_scale"])
    lora, strength = values.pop("lora", ""), values.pop("strength", None)
    number = None if strength is None else _strength("strength", str(strength))
    own = _lora_choices(str(lora), number)
    if number is not None and not own:
        if not shared.loras:
            raise SettingsError(
                _(
                    "strength has no LoRA to act on, got {strength!r}. Choose a LoRA for all images, or "
                    "add a column lora.",
                    strength=strength,
                )
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
        if not colon or not _is_number(_with_point(written)):  # a path on Windows has a colon too
            name, written = part, ""
        if written and strength is not None:
            raise SettingsError(
                _(
                    "lora sets a strength, and there is a column strength too: keep one, got {part!r}.",
                    part=part,
                )
            )
        own = _strength("lora", written) if written else 1.0
        choices.append(LoraChoice(name=name.strip(), strength=own if strength is None else strength))
    return tuple(choices)


def _with_point(number: str) -> str:
    """A number with its decimal comma, as spreadsheets of many countries write it, as Python reads it."""
    return number.replace(",", ".") if _DECIMAL_COMMA.fullmatch(number) else number


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
    number = _with_point(text)
    if not _is_number(number) or not low <= float(number) <= high:
        raise SettingsError(
            _(
                "{setting} must have a strength between {low:g} and {high:g}, got {given!r}.",
                setting=setting,
                low=low,
                high=high,
                given=text,
            )
        )
    return float(number)


PROMPT_COLUMNS = ("prompt", "text", "caption")
"""What the column of prompts may be called in a file."""
IMAGE_FILE_COLUMNS = ("file_name", "filename", "file", "image", "image_path", "image_file", "path", "img", "picture")
"""A table with one of these describes images that are there: its captions are text, and were not written as prompts."""
_NAME = re.compile(r"[^\W\d][\w -]*")
_PIECE = re.compile(r'(?:"(?:[^"]|"")*"|[^",])*')
_VALUE = re.compile(
    r'(?:(?P<weight>[^":=]*)::)?\s*(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>[^"=]*?))\s*(?P<equals>=(?P<quota>[^"=]*))?'
)


@dataclass(frozen=True)
class AttributeColumn:
    """A column of the box.

    Attributes:
        values: each once, in their order.
        weights: one for each value: how often it is drawn in a random plan, relative to the others.
        quotas: one for each value: of exactly how many images it is; empty where there are none.
    """

    name: str
    values: tuple[str, ...]
    weights: tuple[float, ...]
    quotas: tuple[int, ...]


def parse_attributes(text: str) -> tuple[AttributeColumn, ...]:
    """The columns of the box, in its order; empty lines, and those with # at their start, are none.

    Raises:
        BatchError: naming the line, the rule and what stands there.
    """
    columns = []
    for place, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            columns.append(_parse_column(line.strip(), _("attributes line {number}", number=place)))
    check_columns(column.name for column in columns)
    _check_totals([column for column in columns if column.quotas])
    return tuple(columns)


def _parse_column(line: str, place: str) -> AttributeColumn:
    name, colon, rest = line.partition(":")
    name = name.strip()
    if not colon or not _NAME.fullmatch(name) or not rest.strip():
        raise BatchError(
            _(
                "{place} must be a column's name, a colon, and values with commas between, got {given!r}.",
                place=place,
                given=line,
            )
        )
    if name.lower() == "prompt":
        raise BatchError(
            _("{place}: a column cannot be called {name}. Write each prompt in prompts.", place=place, name=name)
        )
    place = f"{place}, {name}"
    values, weights, quotas = [], [], []
    for piece in _split(rest, place):
        value, weight, quota = _parse_value(piece, place)
        if value in values:
            raise BatchError(
                _(
                    "{place} has the value {value!r} twice. Give it a weight instead: 2::{value}.",
                    place=place,
                    value=value,
                )
            )
        values.append(value)
        weights.append(weight)
        quotas.append(quota)
    given = [quota for quota in quotas if quota is not None]
    if given and len(given) < len(quotas):
        without = ", ".join(repr(value) for value, quota in zip(values, quotas, strict=True) if quota is None)
        raise BatchError(
            _(
                "{place} must have a quota for every value or for none; missing: {without}.",
                place=place,
                without=without,
            )
        )
    return AttributeColumn(name, tuple(values), tuple(weights), tuple(given))


def _split(text: str, place: str) -> list[str]:
    """At commas outside of quotes."""
    pieces, start = [], 0
    while True:
        match = _PIECE.match(text, start)
        assert match is not None
        pieces.append(match.group())
        if match.end() == len(text):
            return pieces
        if text[match.end()] == '"':
            raise BatchError(
                _("{place} has a quote that is not closed, got {given!r}.", place=place, given=text[match.end() :])
            )
        start = match.end() + 1


def _parse_value(piece: str, place: str) -> tuple[str, float, int | None]:
    match = _VALUE.fullmatch(piece.strip())
    if match is None:
        raise BatchError(
            _(
                "{place}: a value is `black`, `2::black` or `black = 200`, got {given!r}. Put the "
                'whole value in quotes where it has : = , or " in it.',
                place=place,
                given=piece.strip(),
            )
        )
    quoted, plain = match["quoted"], match["plain"]
    value = quoted.replace('""', '"') if quoted is not None else plain.strip()
    if not value and quoted is None:
        raise BatchError(_('{place} has an empty value. Remove the comma, or write "" where it is meant.', place=place))
    weight = 1.0 if match["weight"] is None else _weight(match["weight"].strip(), place)
    if match["equals"] is None:
        return value, weight, None
    if match["weight"] is not None:
        raise BatchError(_("{place}: {value!r} has a weight and a quota. Keep one of them.", place=place, value=value))
    return value, weight, _quota(match["quota"].strip(), value, place)


def _weight(text: str, place: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise BatchError(_("{place}: a weight must be a number above 0, got {given!r}.", place=place, given=text))
    return weight


def _quota(text: str, value: str, place: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise BatchError(
            _(
                "{place}: the quota of {value!r} must be a whole number from 1 on, got {given!r}.",
                place=place,
                value=value,
                given=text,
            )
        )
    return int(text)


def _check_totals(columns: list[AttributeColumn]) -> None:
    totals = {column.name: sum(column.quotas) for column in columns}
    if len(set(totals.values())) > 1:
        said = ", ".join(f"{name} {number(total)}" for name, total in totals.items())
        raise BatchError(
            _("attributes: the quotas of all columns must have one sum, the number of images; got {sums}.", sums=said)
        )
