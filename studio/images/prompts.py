"""Prompts without torch.

The grammar of prompts, as AUTOMATIC1111's web UI has it: weights in brackets, and LoRA tags.
"""

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from studio.core.errors import SettingsError
from studio.core.language import _
from studio.core.settings import LoraChoice, bounds

ROUND_FACTOR = 1.1
SQUARE_FACTOR = 1 / 1.1
# 97 nested brackets reach this; further ones would end in infinity, and infinity in an image of NaN.
WEIGHT_LIMIT = 10_000.0

# A longer number than these is text: so that every weight is finite.
_TOKEN = re.compile(
    r"\\[()\[\]\\]|\\|[(\[\])]|:\s*[+-]?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30})\s*\)|:|[^\\()\[\]:]+", re.ASCII
)
# A1111's extension for LyCORIS read <lyco:…> before its own LoRA tags could hold those files.
_LORA_TAG = re.compile(r"<(?:lora|lyco):([^<>]*)>")
# Brackets and backslashes; A1111's tags, ours among them; its words in capitals; the line at which the prompt ends in
# A1111's text; a number at the end, which a bracket behind the text would make a weight.
_COMMAND = re.compile(
    r"[\\()\[\]]|(?<=<)(?=\w+:)|(?<=\bB)(?=REAK\b)|(?<=\bA)(?=ND\b)|^(?=[^\S\n]*Negative prompt:)"
    r"|(?<=:)(?=\s*[+-]?[\d.]+\s*\Z)",
    re.MULTILINE,
)
_BREAK = re.compile(r"\bBREAK\b")
_AND = re.compile(r"\bAND\b")
_NUMBER = re.compile(r"\s*[+-]?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30})\s*", re.ASCII)
_WEIGHT_OF_AND = re.compile(rf":{_NUMBER.pattern}(?=\bAND\b|\Z)", re.ASCII)
_OTHER_TAG = re.compile(r"<(?:hypernet|ti|embedding):[^<>]*>")


@dataclass(frozen=True)
class WeightedText:
    """A part of a prompt, and how strongly it counts; 1 is as written.

    Attributes:
        after_break: whether a BREAK stands before it, so that it begins a chunk of tokens.
    """

    text: str
    weight: float
    after_break: bool = False


def parse_weights(prompt: str) -> tuple[WeightedText, ...]:
    r"""Split a prompt at its weights: `(x)` is 1.1, `[x]` 1/1.1, `(x:1.3)` 1.3, and brackets inside brackets multiply.

    `\(` and the like are the bracket itself; a lone backslash is dropped, as in A1111. A bracket that is never
    closed counts to the end, one that was never opened is text. Round and square brackets may cross. Adjacent
    parts of the same weight are one. Weights lie within ±`WEIGHT_LIMIT`. An empty prompt is one empty part.
    BREAK ends a part, in brackets too, and takes the space around it along. A1111's other commands are text
    (`unlike_a1111`).
    """
    return _weighted_parts(_TOKEN.findall(prompt))


def _weighted_parts(tokens: list[str]) -> tuple[WeightedText, ...]:
    parts: list[WeightedText] = []
    for token, weight in _weighted_tokens(tokens, _opening_factors(tokens)):
        text, *after_breaks = _BREAK.split(token) if "BREAK" in token else (token,)
        if parts and (parts[-1].weight == weight or (parts[-1].after_break and not parts[-1].text.strip())):
            parts[-1] = WeightedText(parts[-1].text + text, weight, parts[-1].after_break)
        elif text:
            parts.append(WeightedText(text, weight))
        parts += [WeightedText(after, weight, after_break=True) for after in after_breaks]
    return tuple(_trimmed_at_breaks(parts)) or (WeightedText("", 1.0),)


def _trimmed_at_breaks(parts: list[WeightedText]) -> Iterator[WeightedText]:
    for part, following in itertools.pairwise([*parts, WeightedText("", 1.0)]):
        text = part.text.lstrip() if part.after_break else part.text
        text = text.rstrip() if following.after_break else text
        if text or part.after_break:
            yield replace(part, text=text)


def _opening_factors(tokens: list[str]) -> dict[int, float]:
    """What each opening bracket multiplies by, by its place; known only once its end was read."""
    factors: dict[int, float] = {}
    open_rounds: list[int] = []
    for place, token in enumerate(tokens):
        if token == "(":
            open_rounds.append(place)
            factors[place] = ROUND_FACTOR
        elif token == "[":
            factors[place] = SQUARE_FACTOR
        elif _closes_round(token) and open_rounds:
            factors[open_rounds.pop()] = _written_weight(token)
    return factors


def _closes_round(token: str) -> bool:
    return token.endswith(")") and token != r"\)"


def _written_weight(token: str) -> float:
    return float(token[1:-1]) if len(token) > 1 else ROUND_FACTOR


def _weighted_tokens(tokens: list[str], factors: dict[int, float]) -> Iterator[tuple[str, float]]:
    # A stack for each kind, as A1111 has it: so `([)]` is legal, and every prompt takes linear time.
    rounds, squares = [1.0], [1.0]
    for place, token in enumerate(tokens):
        if token in ("(", "["):
            stack = rounds if token == "(" else squares
            stack.append(_limited(stack[-1] * factors[place]))
        elif _closes_round(token) and len(rounds) > 1:
            rounds.pop()
        elif token == "]" and len(squares) > 1:
            squares.pop()
        else:
            yield token[1:] if token.startswith("\\") else token, _limited(rounds[-1] * squares[-1])


def _limited(weight: float) -> float:
    return min(WEIGHT_LIMIT, max(-WEIGHT_LIMIT, weight))


def take_lora_tags(prompt: str) -> tuple[str, tuple[LoraChoice, ...]]:
    """The prompt without its `<lora:name:0.8>` tags, and what they choose, in order; without a number it is 1.

    Raises:
        SettingsError: a tag without a name, with more than one number, or with a strength out of bounds.
    """
    rest, tags = split_lora_tags(prompt)
    return rest, tuple(lora_choice(tag) for tag in tags)


def has_lora_tag(text: str) -> bool:
    """Whether something in it begins as a LoRA tag does."""
    return "<lora:" in text or "<lyco:" in text


def split_lora_tags(prompt: str) -> tuple[str, tuple[str, ...]]:
    """The prompt without its LoRA tags, and the tags as they were written; nothing is checked.

    The comma or the space that a tag leaves over goes with it.
    """
    tags = tuple(match.group() for match in _LORA_TAG.finditer(prompt))
    rest, *others = _LORA_TAG.split(prompt)[::2]
    for other in others:
        rest = _join(rest, other)
    return rest, tags


def change_lora_tag(prompt: str, index: int, tag: str) -> str:
    """The prompt with another tag in the place of its LoRA tag of that number, from 0; without it where that is "".

    Nothing is changed where there is no such tag.
    """
    found = list(_LORA_TAG.finditer(prompt))
    if not 0 <= index < len(found):
        return prompt
    left, right = prompt[: found[index].start()], prompt[found[index].end() :]
    return left + tag + right if tag else _join(left, right)


def _join(left: str, right: str) -> str:
    """What stood left and right of a tag, with one separator between them."""
    before, after = left.rstrip(), right.lstrip()
    if not before:
        return after.removeprefix(",").lstrip()
    if not after:
        return before.removesuffix(",").rstrip()
    if after[0] == "," and before[-1] == ",":
        return before + after[1:]
    if after[0] in ",)]:" or before[-1] in "([":
        return before + after
    gap = left[len(before) :] + right[: len(right) - len(after)]
    return before + ("\n" if "\n" in gap else " " if gap else "") + after


def lora_choice(tag: str) -> LoraChoice:
    """What one tag chooses.

    Raises:
        SettingsError: as `take_lora_tags`.
    """
    match = _LORA_TAG.fullmatch(tag)
    name, *numbers = match.group(1).split(":") if match else ("",)
    if not name.strip():
        raise SettingsError(_("{tag} names no LoRA. Write <lora:name:0.8>.", tag=tag))
    if len(numbers) > 1:
        raise SettingsError(
            _(
                "{tag} has more than one number, and a LoRA has one strength here, for the U-Net and "
                "the text encoder alike. Write <lora:{name}:{strength}>.",
                tag=tag,
                name=name,
                strength=numbers[0],
            )
        )
    return LoraChoice(name=name.strip(), strength=_strength(tag, numbers[0]) if numbers else 1.0)


def _strength(tag: str, written: str) -> float:
    low, high = bounds(LoraChoice, "strength")
    assert low is not None
    assert high is not None
    try:
        strength = float(written)
    except ValueError:
        strength = math.nan
    if not low <= strength <= high:
        raise SettingsError(
            _(
                "The strength in {tag} must be a number between {low:g} and {high:g}, got {written!r}. "
                "Change it, or remove the tag.",
                tag=tag,
                low=low,
                high=high,
                written=written,
            )
        )
    return strength


def plain_prompt(prompt: str) -> str:
    """The words alone, for captions: without LoRA tags, weights, brackets and A1111's commands. Never raises.

    Of `[a:b:0.5]` and `[a|b]` both words stay, as both act here; of `a AND b`, a and b.
    """
    rest = split_lora_tags(prompt)[0]
    if _AND.search(rest):
        rest = _AND.sub("and", _WEIGHT_OF_AND.sub(" ", rest))
    tokens = _take_commands(_TOKEN.findall(_OTHER_TAG.sub("", rest)))[0]
    sections: list[list[str]] = [[]]
    for part in _weighted_parts(tokens):
        if part.after_break:
            sections.append([])
        sections[-1].append(part.text)
    return " ".join(filter(None, map("".join, sections))).strip()


def unlike_a1111(prompt: str) -> tuple[str, ...]:
    """What is a command in A1111 and not here, a sentence each; `BREAK` and `<lyco:…>` act here as there."""
    rest = split_lora_tags(prompt)[0]
    commands = _take_commands(_TOKEN.findall(rest))[1] if "[" in rest else ()
    notes = []
    if tag := _OTHER_TAG.search(rest):
        notes.append(_("{tag} loads a file in A1111; here it is text. Remove it.", tag=tag.group()[:60]))
    if _AND.search(rest):
        notes.append(_("AND combines several prompts in A1111; here it is a word."))
    if "editing" in commands:
        notes.append(_("[a:b:0.5] changes the prompt between steps in A1111; here all of it is text of lower weight."))
    if "alternation" in commands:
        notes.append(_("[a|b] alternates between steps in A1111; here all of it is text of lower weight."))
    return tuple(notes)


def _take_commands(tokens: list[str]) -> tuple[list[str], frozenset[str]]:
    """Tokens without the signs of A1111's `[a:b:0.5]` ("editing") and `[a|b]` ("alternation"), and which there were."""
    kept, found = list(tokens), set[str]()
    open_squares: list[tuple[list[int], list[int]]] = []  # the places of colons and of bars in each
    for place, token in enumerate(tokens):
        if token == "[":
            open_squares.append(([], []))
        elif token == "]" and open_squares:
            colons, bars = open_squares.pop()
            if bars:
                found.add("alternation")
                for bar in bars:
                    kept[bar] = tokens[bar].replace("|", " ")
            elif colons and colons[-1] == place - 2 and _NUMBER.fullmatch(tokens[place - 1]):
                found.add("editing")
                for colon in colons:
                    kept[colon] = " "
                kept[place - 2] = kept[place - 1] = ""
        elif open_squares and token == ":":
            open_squares[-1][0].append(place)
        elif open_squares and "|" in token:
            open_squares[-1][1].append(place)
    return [token for token in kept if token], frozenset(found)


def escape_prompt(text: str) -> str:
    r"""The prompt that means exactly this text and no LoRA, in a bracket too: for what was not written as a prompt.

    `plain_prompt` gives the text back, without space around it. A backslash before a bracket is the bracket itself;
    elsewhere it is dropped (`parse_weights`), so that one inside `<\lora:` and `\Negative prompt:` hides them from
    their readers and leaves no trace in the words.
    """
    return _COMMAND.sub(r"\\\g<0>", text)
