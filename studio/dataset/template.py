"""Captions from the columns of a table: `{baseColour} {articleType}`.

The substitution is our own: `str.format` would let a template reach into objects.
"""

import re
from collections.abc import Mapping, Sequence

from studio.errors import DatasetError

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "-"})
_OPEN, _CLOSE = "\ue000", "\ue001"  # stand for braces meant literally, and for those in values


def columns_of(template: str) -> tuple[str, ...]:
    """The columns that a template names, in its order.

    Raises:
        DatasetError: where a brace is not closed, or stands for nothing.
    """
    names = []
    for match in _PIECE.finditer(template):
        if match.group() in ("{", "}"):
            raise DatasetError(
                f"template has a single {match.group()} at character {match.start() + 1}. Write {{column}} for a "
                f"column, or {match.group() * 2} for the brace itself."
            )
        if match.group(1) is not None:
            names.append(match.group(1).strip())
    return tuple(dict.fromkeys(names))


def check_template(template: str, columns: Sequence[str]) -> None:
    """See that every column of the template is there.

    Raises:
        DatasetError: naming the first that is not, and those that are.
    """
    for name in columns_of(template):
        if name not in columns:
            there = ", ".join(columns)
            raise DatasetError(f"template names the column {name!r}, which is not there. There are: {there}.")


def fill_template(template: str, attributes: Mapping[str, str]) -> str:
    """The caption of one row. What is missing leaves no gap: no double space, no stray comma, no empty brackets.

    Raises:
        DatasetError: where the template is wrong, or names a column that the row does not have.
    """
    check_template(template, tuple(attributes))

    def fill(match: re.Match[str]) -> str:
        if match.group() == "{{":
            return _OPEN
        if match.group() == "}}":
            return _CLOSE
        value = attributes[match.group(1).strip()].strip()
        value = "" if value.lower() in _MISSING else value
        return value.replace("{", _OPEN).replace("}", _CLOSE)

    return tidy(_PIECE.sub(fill, template)).replace(_OPEN, "{").replace(_CLOSE, "}")


def tidy(caption: str) -> str:
    """Close the gaps that missing values leave."""
    text = re.sub(r"\(\s*[,;\s]*\)|\[\s*[,;\s]*\]", " ", caption)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+([,;:.!?)\]])", r"\1", text)
    text = re.sub(r"([(\[])\s+", r"\1", text)
    text = re.sub(r"([(\[])[,;]+\s*", r"\1", text)
    text = re.sub(r"([,;])(?:\s*[,;])+", r"\1", text)
    text = re.sub(r"[,;]([)\]])", r"\1", text)
    return text.strip(" ,;")
