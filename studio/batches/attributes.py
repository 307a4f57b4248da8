"""The box of columns: `colour: black, 2::brown, white` and `type: boot = 200, sandal = 100`."""

import math
import re
from dataclasses import dataclass

from studio.batches.overrides import check_columns
from studio.errors import BatchError

PROMPT_COLUMNS = ("prompt", "text", "caption")
"""What the column of prompts may be called in a file."""
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
        quotas: one for each value: of exactly how many pictures it is; empty where there are none.
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
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            columns.append(_parse_column(line.strip(), f"attributes line {number}"))
    check_columns(column.name for column in columns)
    _check_totals([column for column in columns if column.quotas])
    return tuple(columns)


def _parse_column(line: str, place: str) -> AttributeColumn:
    name, colon, rest = line.partition(":")
    name = name.strip()
    if not colon or not _NAME.fullmatch(name) or not rest.strip():
        raise BatchError(f"{place} must be a column's name, a colon, and values with commas between, got {line!r}.")
    if name.lower() == "prompt":
        raise BatchError(f"{place}: a column cannot be called {name}. Write each prompt in prompts.")
    place = f"{place}, {name}"
    values, weights, quotas = [], [], []
    for piece in _split(rest, place):
        value, weight, quota = _parse_value(piece, place)
        if value in values:
            raise BatchError(f"{place} has the value {value!r} twice. Give it a weight instead: 2::{value}.")
        values.append(value)
        weights.append(weight)
        quotas.append(quota)
    given = [quota for quota in quotas if quota is not None]
    if given and len(given) < len(quotas):
        without = ", ".join(repr(value) for value, quota in zip(values, quotas, strict=True) if quota is None)
        raise BatchError(f"{place} must have a quota for every value or for none; there is none for {without}.")
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
            raise BatchError(f"{place} has a quote that is not closed, got {text[match.end() :]!r}.")
        start = match.end() + 1


def _parse_value(piece: str, place: str) -> tuple[str, float, int | None]:
    match = _VALUE.fullmatch(piece.strip())
    if match is None:
        raise BatchError(
            f"{place}: a value is `black`, `2::black` or `black = 200`, got {piece.strip()!r}. Put the whole value in "
            'quotes where it has : = , or " in it.'
        )
    quoted, plain = match["quoted"], match["plain"]
    value = quoted.replace('""', '"') if quoted is not None else plain.strip()
    if not value and quoted is None:
        raise BatchError(f'{place} has an empty value. Remove the comma, or write "" where it is meant.')
    weight = 1.0 if match["weight"] is None else _weight(match["weight"].strip(), place)
    if match["equals"] is None:
        return value, weight, None
    if match["weight"] is not None:
        raise BatchError(f"{place}: {value!r} has a weight and a quota. Keep one of them.")
    return value, weight, _quota(match["quota"].strip(), value, place)


def _weight(text: str, place: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise BatchError(f"{place}: a weight must be a number above 0, got {text!r}.")
    return weight


def _quota(text: str, value: str, place: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise BatchError(f"{place}: the quota of {value!r} must be a whole number from 1 on, got {text!r}.")
    return int(text)


def _check_totals(columns: list[AttributeColumn]) -> None:
    totals = {column.name: sum(column.quotas) for column in columns}
    if len(set(totals.values())) > 1:
        said = ", ".join(f"{name} {total:,}" for name, total in totals.items())
        raise BatchError(
            f"attributes: the quotas of all columns must have one sum, the number of pictures; got {said}."
        )
