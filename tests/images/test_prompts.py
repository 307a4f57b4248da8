"""Prompts mean here what they mean in A1111; a tag that cannot be followed is said to be so."""

import math
import random
import time
from itertools import pairwise

import pytest

from studio.core.errors import SettingsError
from studio.core.settings import LoraChoice
from studio.images.prompts import WEIGHT_LIMIT, WeightedText, escape_prompt, parse_weights, plain_prompt, take_lora_tags
from tests.captions import hostile_captions


def weights(prompt: str) -> list[tuple[str, float]]:
    return [(part.text, pytest.approx(part.weight)) for part in parse_weights(prompt)]


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a shoe", [("a shoe", 1)]),
        ("a (red) shoe", [("a ", 1), ("red", 1.1), (" shoe", 1)]),
        ("a [red] shoe", [("a ", 1), ("red", 1 / 1.1), (" shoe", 1)]),
        ("(red:1.3)", [("red", 1.3)]),
        ("(red: 1.3 )", [("red", 1.3)]),
        ("(red:.5)", [("red", 0.5)]),
        ("(red:-1)", [("red", -1)]),
        ("((red))", [("red", 1.21)]),
        ("(a (b:2) c:1.5)", [("a ", 1.5), ("b", 3), (" c", 1.5)]),
        ("[(red)]", [("red", 1)]),
        (r"a \(red\) \[shoe\]", [("a (red) [shoe]", 1)]),
        (r"(a \(b\):1.2)", [("a (b)", 1.2)]),
        ("a (red shoe", [("a ", 1), ("red shoe", 1.1)]),
        ("a [red shoe", [("a ", 1), ("red shoe", 1 / 1.1)]),
        ("a) red] shoe", [("a) red] shoe", 1)]),
        ("a:1.3) shoe", [("a:1.3) shoe", 1)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1), (" c", 1 / 1.1)]),
        ("(x:abc)", [("x:abc", 1.1)]),
        ("(x:inf)", [("x:inf", 1.1)]),
        ("(a)(b)", [("ab", 1.1)]),
        ("()", [("", 1)]),
        ("time: 3:15", [("time: 3:15", 1)]),
        ("[x:1.3]", [("x:1.3", 1 / 1.1)]),
    ],
)
def test_weights_are_read_as_in_a1111(prompt: str, parts: list[tuple[str, float]]) -> None:
    assert weights(prompt) == parts


def test_an_empty_prompt_is_one_empty_part() -> None:
    assert parse_weights("") == (WeightedText("", 1.0),)


def test_a_number_too_large_for_a_float_is_text() -> None:
    assert weights("(x:" + "9" * 400 + ")") == [("x:" + "9" * 400, 1.1)]


@pytest.mark.parametrize("prompt", ["(" * 20_000 + "x", "[" * 20_000 + "(" * 20_000 + "x", "(x:99999)"])
def test_weights_stay_finite_however_deep_the_brackets(prompt: str) -> None:
    assert all(math.isfinite(part.weight) and part.weight <= WEIGHT_LIMIT for part in parse_weights(prompt))


@pytest.mark.parametrize("soup", ["([" * 20_000 + ")" * 20_000 + "]" * 20_000, "(a" * 20_000 + ")" * 20_000])
def test_a_hostile_prompt_does_not_take_long(soup: str) -> None:
    started = time.monotonic()
    parse_weights(soup)
    assert time.monotonic() - started < 5


def test_no_soup_of_brackets_raises_or_loses_a_word() -> None:
    chooser = random.Random(20)
    grammar = "()[]\\:."
    for _ in range(5000):
        soup = "".join(chooser.choice("()[]\\:.12ab é\n,<>") for _ in range(chooser.randrange(40)))
        parts = parse_weights(soup)
        kept = "".join(part.text for part in parts)
        letters = [c for c in soup if c not in grammar and not c.isdigit() and not c.isspace()]
        assert [c for c in kept if c not in grammar and not c.isdigit() and not c.isspace()] == letters
        assert all(math.isfinite(part.weight) for part in parts)
        assert all(a.weight != b.weight for a, b in pairwise(parts))
        plain_prompt(soup)


@pytest.mark.parametrize(
    ("prompt", "rest"),
    [
        ("a, <lora:x:1>, b", "a, b"),
        ("a <lora:x:1> b", "a b"),
        ("a, <lora:x:1>", "a"),
        ("<lora:x:1>, a", "a"),
        ("<lora:x:1>", ""),
        ("a <lora:x:1>, b", "a, b"),
        ("a,<lora:x:1>,b", "a,b"),
        ("a, <lora:x:1> <lora:x:1>, b", "a, b"),
        ("(a <lora:x:1>)", "(a)"),
        ("(<lora:x:1> a)", "(a)"),
        ("a\n<lora:x:1>\nb", "a\nb"),
        ("a, b , c", "a, b , c"),
        ("a <lora:x", "a <lora:x"),
    ],
)
def test_a_tag_leaves_no_trace_in_the_prompt(prompt: str, rest: str) -> None:
    assert take_lora_tags(prompt)[0] == rest


def test_tags_choose_loras_in_order_and_a_tag_without_a_number_is_at_strength_1() -> None:
    _, choices = take_lora_tags("<lora:my shoes:0.8> a <lora:style.v2> <lora:c:-1.5>")
    assert choices == (
        LoraChoice(name="my shoes", strength=0.8),
        LoraChoice(name="style.v2", strength=1),
        LoraChoice(name="c", strength=-1.5),
    )


@pytest.mark.parametrize("number", ["5", "-4.1", "much", "", "nan", "inf"])
def test_a_strength_that_breaks_its_rule_is_told_with_its_tag(number: str) -> None:
    with pytest.raises(SettingsError, match=rf"<lora:x:{number}> must be a number between -4 and 4"):
        take_lora_tags(f"a <lora:x:{number}>")


def test_a_second_strength_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"one strength.*Write <lora:x:0\.8>\."):
        take_lora_tags("a <lora:x:0.8:0.5>")


@pytest.mark.parametrize("tag", ["<lora::1>", "<lora:>", "<lora: :1>"])
def test_a_tag_without_a_name_is_refused(tag: str) -> None:
    with pytest.raises(SettingsError, match="names no LoRA"):
        take_lora_tags(tag)


def test_the_plain_prompt_has_neither_tags_nor_weights_nor_brackets() -> None:
    assert plain_prompt(r"a (red:1.3) [shoe], <lora:x:0.5:2> white \(v2\)") == "a red shoe, white (v2)"


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("a red shoe: 3:15, <3", "a red shoe: 3:15, <3"),
        ("a shoe <lora:someStyle:0.8>", r"a shoe <\lora:someStyle:0.8>"),
        ("a (red:1.3) [shoe]", r"a \(red:1.3\) \[shoe\]"),
        (r"C:\shoes\(1)", r"C:\\shoes\\\(1\)"),
        ("a\nNegative prompt: b", "a\n\\Negative prompt: b"),
    ],
)
def test_a_text_is_escaped_where_it_would_be_read_as_a_command(text: str, prompt: str) -> None:
    assert escape_prompt(text) == prompt


def test_an_escaped_text_is_read_as_that_text_with_weight_1_and_without_loras() -> None:
    for caption in hostile_captions(5000):
        prompt = escape_prompt(caption)
        assert take_lora_tags(prompt) == (prompt, ())
        assert parse_weights(prompt) == (WeightedText(caption, 1.0),)
        assert plain_prompt(prompt) == caption.strip()
