"""The grammar of a group in braces, as the extension "Dynamic Prompts" defines it (docs/SYNTAX.md of dynamicprompts).

    group    = "{" space [bound] option { "|" option } "}"
    bound    = ( n | n "-" | "-" n | n "-" n ) "$$" [ separator "$$" ]
    option   = space [ weight "::" ] { text | "__" name "__" | group }

Space is dropped only where it is named here. A `$` that has no other beside it, `#`, `%` and `//` are text.
"""

import math
import re
from dataclasses import dataclass

WILDCARD = re.compile(r"__((?:(?!__)[^{}|$#])+)__")
_OPEN = re.compile(r"\{[ \r\n]*")
_SIGN = re.compile(r"[~!@]")
_BOUND = re.compile(r"(?=-?[0-9])([0-9]{0,9})(-?)((?<=-)[0-9]{1,9})?\$\$")
_SEPARATOR = re.compile(r"((?:(?!\$\$)[^{}])*)\$\$")
_SPACE = re.compile(r"[ \r\n]*")
_WEIGHT = re.compile(r"([+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)|[0-9]+)::")
_TEXT = re.compile(r"(?:(?!__|\$\$)[^{}|])+")
_BAR = re.compile(r"\|")
_CLOSE = re.compile(r"\}")
_MISTAKES = {
    "$": "$$ follows the number of parts to take, at the start of the braces, as in {2$$red|blue} or "
    "{1-2$$ and $$red|blue|green}.",
    "_": "a wildcard has two underscores before and after its name, and none of { } | $ # in it: __colour__.",
}
_SIGNS = (
    "signs that say how to draw (~ ! @) are not understood. Leave them out: the plan's own setting combine says how "
    "to draw."
)


@dataclass(frozen=True)
class WildcardName:
    """`__name__`."""

    name: str


@dataclass(frozen=True)
class Option:
    """What stands between two bars; `{|a}` has an option without parts."""

    parts: tuple["str | WildcardName | Group", ...]
    weight: float = 1.0


@dataclass(frozen=True)
class Group:
    """Take `least` to `most` of the options. As it is written: these may be more than there are options."""

    options: tuple[Option, ...]
    least: int = 1
    most: int = 1
    separator: str = ","


class GrammarError(Exception):
    """What is wrong in a group.

    Attributes:
        position: the index of the first character that is not understood.
    """

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


def parse_group(text: str) -> Group:
    """Read a group, from its first brace to its last; all braces in it have their partners.

    Raises:
        GrammarError: where something in it is not understood.
    """
    return _Parser(text).group()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0

    def group(self) -> Group:
        self._take(_OPEN)
        self._refuse_sign(self._position)
        bound = self._take(_BOUND)
        separator = self._take(_SEPARATOR) if bound else None
        options = [self._option()]
        while self._take(_BAR):
            options.append(self._option())
        if not self._take(_CLOSE):
            raise GrammarError(self._position, _MISTAKES[self._text[self._position]])
        least, most = _limits(bound, len(options))
        return Group(tuple(options), least, most, separator[1] if separator else ",")

    def _option(self) -> Option:
        self._take(_SPACE)
        start = self._position
        written = self._take(_WEIGHT)
        weight = float(written[1]) if written else 1.0
        if not 0 <= weight < math.inf:
            raise GrammarError(start, "a weight is a number from 0 on, such as 2:: or 0.5::.")
        parts: list[str | WildcardName | Group] = []
        while True:
            if text := self._take(_TEXT):
                parts.append(text[0])
            elif name := self._take(WILDCARD):
                self._refuse_sign(name.start(1))
                parts.append(WildcardName(name[1]))
            elif self._text.startswith("{", self._position):
                parts.append(self.group())
            else:
                return Option(tuple(parts), weight)

    def _refuse_sign(self, position: int) -> None:
        if _SIGN.match(self._text, position):
            raise GrammarError(position, _SIGNS)

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._position)
        if match:
            self._position = match.end()
        return match


def _limits(bound: re.Match[str] | None, num_options: int) -> tuple[int, int]:
    if bound is None:
        return 1, 1
    least, hyphen, most = bound.groups()
    if not hyphen:
        return int(least), int(least)
    low, high = sorted((int(least or 1), int(most or num_options)))
    return low, high
