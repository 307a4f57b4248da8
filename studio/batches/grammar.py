"""The grammar of a group in braces, as the extension "Dynamic Prompts" defines it (docs/SYNTAX.md of dynamicprompts).

    group    = "{" space [bound] option { "|" option } "}"
    bound    = ( n | n "-" | "-" n | n "-" n ) "$$" [ separator "$$" ]
    option   = space [ weight "::" ] { text | "__" name "__" | group }

Space is dropped only where it is named here. A `$` that has no other beside it, `#`, `%` and `//` are text.

What a part of a prompt can become: how many variants there are, the one of a number, and one drawn by chance.

A plan of a million images asks for the variant of a number, so variants are counted, not walked through. Their order
and number are those of dynamicprompts' combinatorial generator.
"""

import itertools
import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Protocol

from studio.core.language import N_, _

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
    "$": N_(
        "$$ follows the number of parts to take, at the start of the braces, as in "
        "{2$$red|blue} or {1-2$$ and $$red|blue|green}."
    ),
    "_": N_("a wildcard has two underscores before and after its name, and none of { } | $ # in it: __colour__."),
}
_SIGNS = N_(
    "signs that say how to draw (~ ! @) are not understood. Leave them out: the plan's "
    "own setting combine says how to draw."
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
            raise GrammarError(self._position, _(_MISTAKES[self._text[self._position]]))
        least, most = _limits(bound, len(options))
        return Group(tuple(options), least, most, separator[1] if separator else ",")

    def _option(self) -> Option:
        self._take(_SPACE)
        start = self._position
        written = self._take(_WEIGHT)
        weight = float(written[1]) if written else 1.0
        if not 0 <= weight < math.inf:
            raise GrammarError(start, _("a weight is a number from 0 on, such as 2:: or 0.5::."))
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
            raise GrammarError(position, _(_SIGNS))

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


MAX_LISTED = 4096
"""Choices with no more variants than these are listed, and each text counts once, as in dynamicprompts."""


class Variants(Protocol):
    """A part of a prompt, with what it can become."""

    @property
    def count(self) -> int:
        """How many variants there are; at least 1."""

    def at(self, index: int) -> str:
        """The variant of this number, from 0."""

    def draw(self, random: Random) -> str:
        """One of them by chance."""


@dataclass(frozen=True)
class Text:
    """Always the same."""

    text: str
    count: int = 1

    def at(self, index: int) -> str:
        return self.text

    def draw(self, random: Random) -> str:
        return self.text


@dataclass(frozen=True)
class Chain:
    """Parts one behind the other; the last one changes first."""

    parts: tuple[Variants, ...]

    @property
    def count(self) -> int:
        return math.prod(part.count for part in self.parts)

    def at(self, index: int) -> str:
        texts = []
        for part in reversed(self.parts):
            index, place = divmod(index, part.count)
            texts.append(part.at(place))
        return "".join(reversed(texts))

    def draw(self, random: Random) -> str:
        return "".join(part.draw(random) for part in self.parts)


@dataclass(frozen=True)
class Choice:
    """Some of several options, in every order: `least` to `most` of them, joined by a separator.

    Attributes:
        options: all different.
        weights: one for each option, at least one above 0; they count where chance draws.
        least, most: between 0 and the number of options.
        joins_empty: whether empty texts are joined too, as in plans of format 1.
    """

    options: tuple[Variants, ...]
    weights: tuple[float, ...]
    least: int = 1
    most: int = 1
    separator: str = ","
    joins_empty: bool = False

    @cached_property
    def count(self) -> int:
        if self._listed is not None:
            return len(self._listed)
        return sum(self._sizes)

    def at(self, index: int) -> str:
        if self._listed is not None:
            return self._listed[index]
        for size, number in zip(self._sizes, range(self.least, self.most + 1), strict=True):
            if index < size:
                return self._ordered(index, number)
            index -= size
        raise IndexError(index)

    def draw(self, random: Random) -> str:
        number = random.randint(self.least, self.most) if self.least < self.most else self.least
        if number == 1:
            return random.choices(self.options, cum_weights=self._cumulative)[0].draw(random)
        places, weights = list(range(len(self.options))), list(self.weights)
        texts = []
        for __ in range(number):
            if not any(weights):
                break  # what is left must not be drawn
            place = random.choices(range(len(places)), weights=weights)[0]
            texts.append(self.options[places.pop(place)].draw(random))
            del weights[place]
        return self._joined(texts)

    def _joined(self, texts: Iterable[str]) -> str:
        """Without empty texts, so that no separator stands alone: `{2$$ and $$a||b}` is `a`, not `a and `."""
        return self.separator.join(texts if self.joins_empty else filter(None, texts))

    @cached_property
    def _cumulative(self) -> list[float]:
        return list(itertools.accumulate(self.weights))

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        """How many variants there are with `least` options, with one more, and so on."""
        counts = [option.count for option in self.options]
        return tuple(_num_ordered(counts, number) for number in range(self.least, self.most + 1))

    @cached_property
    def _listed(self) -> tuple[str, ...] | None:
        if sum(self._sizes) > MAX_LISTED:
            return None
        return tuple(dict.fromkeys(map(self._joined, self._walk())))

    def _walk(self) -> Iterator[tuple[str, ...]]:
        """Every choice of different texts, in order."""
        for number in range(self.least, self.most + 1):
            for chosen in itertools.permutations(self.options, number):
                for texts in itertools.product(*([option.at(i) for i in range(option.count)] for option in chosen)):
                    if len(set(texts)) == number:
                        yield texts

    @cached_property
    def _starts(self) -> list[int]:
        """Before how many variants each option begins, where one is chosen."""
        return list(itertools.accumulate((option.count for option in self.options), initial=0))

    def _ordered(self, index: int, number: int) -> str:
        if number == 1:
            place = bisect_right(self._starts, index) - 1
            return self.options[place].at(index - self._starts[place])
        chosen, left, before = list[Variants](), list(self.options), 1
        for rest in range(number - 1, -1, -1):
            for place, option in enumerate(left):
                others = [other.count for other in left[:place] + left[place + 1 :]]
                size = before * option.count * _num_ordered(others, rest)
                if index < size:
                    before *= option.count
                    chosen.append(left.pop(place))
                    break
                index -= size
        texts = []
        for option in reversed(chosen):
            index, own = divmod(index, option.count)
            texts.append(option.at(own))
        return self._joined(reversed(texts))


def _num_ordered(counts: Sequence[int], number: int) -> int:
    """How many ordered choices of `number` different options there are, each in all of its variants."""
    if number == 0:
        return 1
    if len(set(counts)) <= 1:
        return math.perm(len(counts), number) * (counts[0] ** number if counts else 1)
    sums = [1] + [0] * number  # elementary symmetric polynomials
    for count in counts:
        for degree in range(number, 0, -1):
            sums[degree] += sums[degree - 1] * count
    return math.factorial(number) * sums[number]
