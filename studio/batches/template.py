"""Prompts with columns, variants and wildcards.

Wildcards: `__colour__` is a line of colour.txt in the folder of wildcards.

A prompt with columns and variants in it.

`{colour}` is the column colour, where there is one of that name; every other pair of braces is a group (`grammar`).
A value of a column is never looked into.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from studio.batches.grammar import (
    WILDCARD,
    Chain,
    Choice,
    GrammarError,
    Group,
    Text,
    Variants,
    WildcardName,
    parse_group,
)
from studio.core.errors import BatchError, DatasetError, StudioError
from studio.core.files import guess_text, read_file, without_marks
from studio.core.language import N_, _
from studio.core.paths import leads_out
from studio.images.prompts import escape_prompt, has_lora_tag, lora_choice, split_lora_tags

MAX_FILE_BYTES = 64 * 1024 * 1024
_NAMES_SHOWN = 20


class Wildcards:
    """The wildcard files of a folder, or those that were kept of one. Each file is read once, when it is required."""

    def __init__(self, folder: Path, kept: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._folder = folder
        files = (path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.txt"))
        self._names = sorted(kept if kept is not None else files)
        self._values: dict[str, tuple[str, ...]] = dict(kept or {})

    @property
    def used(self) -> dict[str, tuple[str, ...]]:
        """The values of every file that was read, by name."""
        return dict(sorted(self._values.items()))

    def values(self, pattern: str) -> tuple[str, ...]:
        """The lines of all files that `pattern` means (`shoes/*` is several), sorted, each once.

        As in dynamicprompts, a name that is not there is looked for in the folders below.

        Raises:
            BatchError: where there is no such file, or it holds nothing; it names those there are.
        """
        names = self._names_of(pattern)
        if not names:
            pattern = re.sub(r"[\\/]+", "/", pattern).strip("/ ")
            there = ", ".join(self._names[:_NAMES_SHOWN]) + (", …" if len(self._names) > _NAMES_SHOWN else "")
            words = N_(
                "there is no wildcard {name!r} in {folder}, which has: {names}. Put a file {name}.txt there, with one "
                "value per line."
            )
            raise BatchError(_(words, name=pattern, folder=self._folder, names=there or _("none")))
        values = sorted({value for name in names for value in self._read(name)})
        if not values:
            words = N_("the wildcard {name!r} in {folder} holds no value. Write one on each line.")
            raise BatchError(_(words, name=pattern, folder=self._folder))
        return tuple(values)

    def place(self, pattern: str, line: str) -> str:
        """Which file and line of those that `pattern` means reads so, for messages."""
        for name in self._names_of(pattern):
            if line in self._read(name):
                path = self._folder / f"{name}.txt"
                lines = _decode(read_file(path), path).splitlines() if path.is_file() else []
                numbers = [number for number, text in enumerate(lines, start=1) if text.strip() == line]
                if numbers:
                    return _("the wildcard file {name} line {number}", name=path.name, number=numbers[0])
                return _("the wildcard file {name}", name=path.name)
        return _("the wildcard {name}", name=pattern)

    def _names_of(self, pattern: str) -> list[str]:
        pattern = re.sub(r"[\\/]+", "/", pattern).strip("/ ")
        return self._matching(pattern) or self._matching(f"**/{pattern}")

    def _matching(self, pattern: str) -> list[str]:
        return [name for name in self._names if fnmatchcase(name, pattern)]

    def _read(self, name: str) -> tuple[str, ...]:
        if name not in self._values:
            path = self._folder / f"{name}.txt"
            try:
                if leads_out(path, self._folder):
                    words = N_("the wildcard file {path} is a link out of its folder. Put the file itself there.")
                    raise BatchError(_(words, path=path))
                if path.stat().st_size > MAX_FILE_BYTES:
                    raise BatchError(_("the wildcard file {path} has over 64 MB. Make it smaller.", path=path))
                text = _decode(read_file(path, max_bytes=MAX_FILE_BYTES), path)
            except OSError as error:
                words = N_("the wildcard file {path} cannot be read ({reason}).")
                raise BatchError(_(words, path=path, reason=error.strerror)) from error
            lines = (line.strip() for line in text.splitlines())
            self._values[name] = tuple(line for line in lines if line and not line.startswith("#"))
        return self._values[name]


def _decode(content: bytes, path: Path) -> str:
    try:
        return without_marks(content.decode())
    except UnicodeDecodeError:
        pass
    try:
        return guess_text(content)[0]
    except DatasetError as error:
        raise BatchError(_("the wildcard file {path} cannot be read: {error}", path=path, error=error)) from error


MAX_DEPTH = 12
_COLUMN = "\ue000"  # stands before a column's number, which is one character too
_MAX_EXCERPT = 40
_FIRST_NUMBER = 0xE100
_NAME = re.compile(r"\{\s*([^{}|]+?)\s*\}")
_PLACED = re.compile(f"{_COLUMN}(.)", re.DOTALL)
_OPEN_TAG = re.compile(r"<(?:lora|lyco):[^<>]*\Z")
_VARIABLE = re.compile(r"[$%]\{")
_FLAT_GROUP = re.compile(r"(\{[^{}]*\})")


def is_plain(prompt: str) -> bool:
    """Whether a prompt has neither columns nor variants."""
    return "{" not in prompt and "__" not in prompt


class _PlacedError(BatchError):
    """Its message begins with a wildcard's file and line."""


class TemplateReader:
    """Reads the prompts of one plan, whose columns and wildcards are known."""

    def __init__(self, columns: Sequence[str], wildcards: Wildcards, *, joins_empty: bool = False) -> None:
        """`joins_empty` is that of each `Choice`."""
        self._joins_empty = joins_empty
        self._columns = {column: index for index, column in enumerate(columns)}
        self._wildcards = wildcards
        self._read_group = lru_cache(maxsize=4096)(self._group)
        self._read_wildcard = lru_cache(maxsize=None)(self._wildcard_values)
        self._open_wildcards: list[str] = []
        self._lock = threading.RLock()
        self.words: dict[str, None] = {}
        """What stood alone in braces and is no column, such as a name that was mistyped."""
        self.tags_in_wildcards = False
        """Whether a wildcard that was read holds a LoRA tag."""

    def read(self, prompt: str) -> Variants:
        """What a prompt can become; its columns are still to be filled, by `fill`.

        Raises:
            BatchError: where braces do not match, or a wildcard is not there. It does not name the prompt.
        """
        if _COLUMN in prompt:
            words = N_("the sign U+{code} stands for something else in templates. Remove it.")
            raise BatchError(_(words, code=format(ord(_COLUMN), "04X")))
        if is_plain(prompt):
            return Text(prompt)
        if variable := _VARIABLE.search(prompt):
            words = N_(
                "variables and wrappers ({sign}…}}) are not understood. Write a column of attributes for what is "
                "chosen once and stands in several places."
            )
            raise BatchError(_(words, sign=variable.group()))
        with self._lock:
            return self._read_pieces(prompt)

    def _read_pieces(self, prompt: str) -> Variants:
        parts: list[Variants] = []
        for piece in self._pieces(_NAME.sub(self._place_column, prompt)):
            if piece.startswith("{"):
                parts.append(self._read_group(piece))
            else:
                parts += self._literal(piece)
        return parts[0] if len(parts) == 1 else Chain(tuple(parts))

    def _pieces(self, text: str) -> list[str]:
        """Groups in braces, and what stands between them; a closing brace without its opening one is text."""
        flat = _FLAT_GROUP.split(text)
        between = "".join(flat[::2])
        if "{" not in between and "}" not in between:  # as a rule no group stands in another
            return [piece for piece in flat if piece] or [""]
        pieces, start, depth = [], 0, 0
        for match in re.finditer("[{}]", text):
            if match.group() == "{":
                if depth == 0:
                    pieces.append(text[start : match.start()])
                    start = match.start()
                depth += 1
                if depth > MAX_DEPTH:
                    words = N_("braces may stand in each other up to {most} deep, not {excerpt}. Make it simpler.")
                    raise BatchError(_(words, most=MAX_DEPTH, excerpt=self._excerpt(text[match.start() :])))
            elif depth:
                depth -= 1
                if depth == 0:
                    pieces.append(text[start : match.end()])
                    start = match.end()
        if depth:
            words = N_("a {{ has no }} behind it: {excerpt}. Close it, or remove it.")
            raise BatchError(_(words, excerpt=self._excerpt(text[start:])))
        pieces.append(text[start:])
        return [piece for piece in pieces if piece] or [""]

    def _place_column(self, match: re.Match[str]) -> str:
        index = self._columns.get(match.group(1))
        if index is not None:
            return f"{_COLUMN}{chr(_FIRST_NUMBER + index)}"
        if not any(sign in match.group(1) for sign in ("$$", "__", "::")):  # no group and no wildcard
            self.words[match.group(1)] = None
        return match.group()

    def _literal(self, text: str) -> list[Variants]:
        """Text outside of braces; a wildcard in it is not text, a lone `__` is."""
        if "__" not in text:
            return [Text(text)] if text else []
        parts: list[Variants] = []
        for place, piece in enumerate(WILDCARD.split(text)):
            if place % 2:
                parts.append(self._read_wildcard(piece))
            elif piece:
                parts.append(Text(piece))
        return parts

    def _group(self, text: str) -> Variants:
        try:
            return self._understand(parse_group(text))
        except GrammarError as error:
            words = N_("{group} is not understood from character {number} on, at {rest}: {problem}")
            number, rest = len(self.written(text[: error.position])) + 1, self._excerpt(text[error.position :])
            raise BatchError(_(words, group=self.written(text), number=number, rest=rest, problem=error)) from error

    def _understand(self, part: str | WildcardName | Group) -> Variants:
        if isinstance(part, str):
            return Text(part)
        if isinstance(part, WildcardName):
            return self._read_wildcard(part.name)
        options = [(self._sequence(option.parts), option.weight) for option in part.options]
        first = part.options[0].parts
        if len(options) == len(first) == 1 and isinstance(first[0], WildcardName) and isinstance(options[0][0], Choice):
            # {2$$__colour__}: two of the wildcard's lines
            options = list(zip(options[0][0].options, options[0][0].weights, strict=True))
        return self._choice(options, part.least, part.most, part.separator)

    def _sequence(self, parts: Sequence[str | WildcardName | Group]) -> Variants:
        variants = tuple(self._understand(part) for part in parts)
        return variants[0] if len(variants) == 1 else Chain(variants)

    def _wildcard_values(self, name: str) -> Variants:
        if _COLUMN in name:
            words = N_("the name of a wildcard cannot hold a column, got __{name}__.")
            raise BatchError(_(words, name=self.written(name)))
        if name in self._open_wildcards:
            circle = " → ".join([*self._open_wildcards[self._open_wildcards.index(name) :], name])
            words = N_("wildcards call each other in a circle: {circle}. Remove one of these lines.")
            raise BatchError(_(words, circle=circle))
        if len(self._open_wildcards) == MAX_DEPTH:
            words = N_("wildcards may name each other up to {most} deep, got {name}. Make it simpler.")
            raise BatchError(_(words, most=MAX_DEPTH, name=name))
        self._open_wildcards.append(name)
        try:
            options = []
            for value in self._wildcards.values(name):
                weight = re.match(r"(\d+(?:\.\d+)?)::", value)
                text = value[weight.end() :].strip() if weight else value
                options.append((self._wildcard_line(name, value, text), float(weight.group(1)) if weight else 1.0))
            return self._choice(options, 1, 1, ",")
        finally:
            self._open_wildcards.pop()

    def _wildcard_line(self, name: str, line: str, text: str) -> Variants:
        self.tags_in_wildcards |= has_lora_tag(text)
        try:
            for tag in split_lora_tags(text)[1]:
                if is_plain(tag):
                    lora_choice(tag)
            return self.read(text)
        except _PlacedError:  # by the innermost wildcard: the others are on the way to it
            raise
        except StudioError as error:
            raise _PlacedError(f"{self._wildcards.place(name, line)}: {error}") from error

    def _choice(self, options: Sequence[tuple[Variants, float]], least: int, most: int, separator: str) -> Variants:
        """Equal options are one, with their weights added."""
        weights: dict[Variants, float] = {}
        for option, weight in options:
            weights[option] = weights.get(option, 0.0) + weight
        if not any(weights.values()):
            words = N_("a choice in braces has no weight above 0. Give one of its parts a weight, or none of them.")
            raise BatchError(_(words))
        least, most = min(least, len(weights)), min(most, len(weights))
        if len(weights) == 1 and least == most == 1:
            return next(iter(weights))
        return Choice(tuple(weights), tuple(weights.values()), least, most, separator, self._joins_empty)

    def written(self, text: str) -> str:
        """The text as it was written, with the columns' names, for messages."""
        names = list(self._columns)
        return _PLACED.sub(lambda match: f"{{{names[ord(match.group(1)) - _FIRST_NUMBER]}}}", text)

    def _excerpt(self, text: str) -> str:
        written = self.written(text)
        return written if len(written) <= _MAX_EXCERPT else written[: _MAX_EXCERPT - 1] + "…"


def fill(text: str, values: Sequence[str], num_cells: int) -> str:
    """A variant with the columns' values in their places.

    Args:
        num_cells: so many of the values, the first ones, are cells of a table. They are text, whatever brackets they
            hold; the others were typed as parts of prompts. Within a LoRA tag all are as they are.

    Raises:
        BatchError: where a value would end the LoRA tag that it stands in.
    """
    if _COLUMN not in text:
        return text

    def value_at(place: re.Match[str]) -> str:
        number = ord(place.group(1)) - _FIRST_NUMBER
        value = values[number]
        if _OPEN_TAG.search(text, 0, place.start()):
            if "<" in value or ">" in value:
                words = N_("a value inside a LoRA tag must have no < and no >, got {value!r}.")
                raise BatchError(_(words, value=value[:_MAX_EXCERPT]))
            return value
        return escape_prompt(value) if number < num_cells else value

    return _PLACED.sub(value_at, text)


def columns_in(text: str) -> set[int]:
    """The numbers of the columns that a variant names."""
    return {ord(sign) - _FIRST_NUMBER for sign in _PLACED.findall(text)}
