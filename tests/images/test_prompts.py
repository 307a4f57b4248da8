"""Prompts mean here what they mean in A1111; a tag that cannot be followed is said to be so."""

import math
import random
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.errors import SettingsError
from studio.core.settings import LoraChoice
from studio.images.prompts import (
    WEIGHT_LIMIT,
    WeightedText,
    change_lora_tag,
    escape_prompt,
    parse_weights,
    plain_prompt,
    take_lora_tags,
    unlike_a1111,
)
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


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a BREAK b", [("a", 1, False), ("b", 1, True)]),
        ("a,\nBREAK\nb", [("a,", 1, False), ("b", 1, True)]),
        ("BREAK a", [("a", 1, True)]),
        ("a BREAK", [("a", 1, False), ("", 1, True)]),
        ("a BREAK BREAK b", [("a", 1, False), ("", 1, True), ("b", 1, True)]),
        ("(a BREAK b:1.5) c", [("a", 1.5, False), ("b", 1.5, True), (" c", 1, False)]),
        ("(a) BREAK (b:2)", [("a", 1.1, False), ("b", 2, True)]),
        ("a BREAKFAST break", [("a BREAKFAST break", 1, False)]),
    ],
)
def test_break_ends_a_part(prompt: str, parts: list[tuple[str, float, bool]]) -> None:
    assert [(p.text, pytest.approx(p.weight), p.after_break) for p in parse_weights(prompt)] == parts


@pytest.mark.parametrize(
    ("prompt", "caption", "named"),
    [
        ("a BREAK b <lyco:x:0.5>", "a b", ()),
        ("a :1.2 AND b:0.8", "a  and b", ("AND",)),
        ("a [cat:dog:0.5] here", "a cat dog here", ("[a:b:0.5]",)),
        ("a [:dog:10]", "a  dog", ("[a:b:0.5]",)),
        ("a [red|blue (big|small)] [hat]", "a red blue big small hat", ("[a|b]",)),
        ("[[cat:dog:0.5]|bird]", "cat dog bird", ("[a:b:0.5]", "[a|b]")),
        ("a <hypernet:x:1>shoe", "a shoe", ("<hypernet:x:1>",)),
        (r"at 3:15, a\|b [hat], \[a|b\], HAND", "at 3:15, a|b hat, [a|b], HAND", ()),
        ("[hat: red]", "hat: red", ()),
    ],
)
def test_a1111s_commands_are_named_and_no_words_of_a_caption(prompt: str, caption: str, named: tuple[str, ...]) -> None:
    assert plain_prompt(prompt) == caption
    assert tuple(note.split()[0] for note in unlike_a1111(prompt)) == named


def test_a_lyco_tag_is_a_lora_tag() -> None:
    assert take_lora_tags("a <lyco:x:0.5> b") == ("a b", (LoraChoice(name="x", strength=0.5),))


def reference_weights(prompt: str) -> list[tuple[str, float]]:
    """The weight of each character, worked out another way: by a parser that goes down into each bracket's inside.

    It takes prompts whose brackets have partners and do not cross; a weight stands at the end of round ones only.
    """

    def inside(place: int, closing: str, factor: float) -> tuple[int, list[tuple[str, float]]]:
        found: list[tuple[str, float]] = []
        while place < len(prompt) and prompt[place] != closing:
            sign = prompt[place]
            if sign == "\\":
                place += 1
                found += [(prompt[place], factor)]
                place += 1
            elif sign in "([":
                place, inner = inside(place + 1, ")" if sign == "(" else "]", 1.0)
                weight = 1.1 if sign == "(" else 1 / 1.1
                if sign == "(" and prompt[place - 1] == "\t":  # written as (x:N\t) so that no pattern has to find it
                    text = "".join(character for character, _ in inner)
                    weight = float(text[text.rindex(":") + 1 : -1])
                    inner = inner[: text.rindex(":")]
                found += [(character, factor * weight * own) for character, own in inner]
                place += 1
            else:
                found += [(sign, factor)]
                place += 1
        return place, found

    return inside(0, "", 1.0)[1]


WORDS = st.text("ab ,é", min_size=1, max_size=4) | st.sampled_from([r"\(", r"\]", r"\\", r"\)"])
PROMPTS = st.recursive(
    WORDS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        inner.map("({})".format),
        inner.map("[{}]".format),
        st.builds("({}:{}\t)".format, inner, st.sampled_from(["1.3", "0.5", ".25", "-2", "0", "7"])),
    ),
    max_leaves=8,
)


@given(PROMPTS)
def test_weights_are_those_of_another_parser(prompt: str) -> None:
    found = [(character, part.weight) for part in parse_weights(prompt) for character in part.text]
    expected = reference_weights(prompt)
    assert [character for character, _ in found] == [character for character, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])


@given(st.text("ab \n,:|()[]\\<>{}.05", max_size=30) | st.lists(st.sampled_from(
    ["BREAK", "AND", "[a:b:0.5]", "[a|b]", "<lyco:x:1>", "<hypernet:y>", " ", "(", ")", "[", "]", "\\", ":1.2", "word"]
), max_size=12).map("".join))  # fmt: skip
def test_nothing_in_a_prompt_makes_a_caption_or_a_note_fail(text: str) -> None:
    plain_prompt(text)
    unlike_a1111(text)
    assert plain_prompt(escape_prompt(text)) == text.strip()
    assert unlike_a1111(escape_prompt(text)) == ()


@pytest.mark.parametrize(
    ("index", "tag", "changed"),
    [
        (0, "<lora:a:0.5>", "boots <lora:a:0.5>, red <lyco:b:1>"),
        (1, "<lora:b:2>", "boots <lora:a>, red <lora:b:2>"),
        (0, "", "boots, red <lyco:b:1>"),
        (1, "", "boots <lora:a>, red"),
        (2, "", "boots <lora:a>, red <lyco:b:1>"),
        (-1, "", "boots <lora:a>, red <lyco:b:1>"),
    ],
)
def test_one_lora_tag_is_changed_or_taken_out(index: int, tag: str, changed: str) -> None:
    assert change_lora_tag("boots <lora:a>, red <lyco:b:1>", index, tag) == changed
