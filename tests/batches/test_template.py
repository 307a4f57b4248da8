"""Prompts with columns and variants.

The variants and their order are those that dynamicprompts 0.31 makes with its combinatorial generator, written down.
"""

import random
from collections import Counter
from pathlib import Path

import pytest

from studio.batches.grammar import Chain, Choice, Text
from studio.batches.template import TemplateReader, Wildcards, fill
from studio.core.errors import BatchError
from tests.batches.plans import wildcard_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return wildcard_folder(
        tmp_path / "wild", c="red\nblue\n{light|dark} green\n", s__d="__c__ x\ny\n", many="\n".join("abcdefg")
    )


def variants_of(prompt: str, folder: Path = Path("none"), columns: tuple[str, ...] = ()) -> list[str]:
    variants = TemplateReader(columns, Wildcards(folder)).read(prompt)
    return [variants.at(index) for index in range(variants.count)]


GREENS = ["blue", "red", "light green", "dark green"]  # __c__
FROM_D = [f"{colour} x" for colour in GREENS] + ["y"]  # __s/d__


@pytest.mark.parametrize(
    ("prompt", "variants"),
    [
        ("a {red|blue} shoe", ["a red shoe", "a blue shoe"]),
        ("{a|a|b} {c|{d|e}}", ["a c", "a d", "a e", "b c", "b d", "b e"]),
        ("{{a|b} {c|d}|e}", ["a c", "a d", "b c", "b d", "e"]),
        ("{2$$ and $$a|b|c}", ["a and b", "a and c", "b and a", "b and c", "c and a", "c and b"]),
        ("{2$$a|b|c}", ["a,b", "a,c", "b,a", "b,c", "c,a", "c,b"]),
        (
            "{1-2$$a|b|{c|d}}",
            ["a", "b", "c", "d", "a,b", "a,c", "a,d", "b,a", "b,c", "b,d", "c,a", "d,a", "c,b", "d,b"],
        ),
        ("{0-1$$a|b} x", [" x", "a x", "b x"]),
        ("{-2$$a|b|c}", ["a", "b", "c", "a,b", "a,c", "b,a", "b,c", "c,a", "c,b"]),
        (
            "{2-$$a|b|c}",
            ["a,b", "a,c", "b,a", "b,c", "c,a", "c,b", "a,b,c", "a,c,b", "b,a,c", "b,c,a", "c,a,b", "c,b,a"],
        ),
        ("{3-1$$a|b}", ["a", "b", "a,b", "b,a"]),
        ("{5$$a|b}", ["a,b", "b,a"]),
        ("{1-2$$ | $$a|b}", ["a", "b", "a | b", "b | a"]),
        ("{2$$a|{a|b}|c}", ["a,b", "a,c", "b,a", "b,c", "c,a", "c,b"]),
        ("__c__ {x|y}", [f"{colour} {end}" for colour in GREENS for end in "xy"]),
        (
            "{2$$__c__}",
            [
                *("blue,red", "blue,light green", "blue,dark green"),
                *("red,blue", "red,light green", "red,dark green"),
                *("light green,blue", "dark green,blue", "light green,red", "dark green,red"),
            ],
        ),
        (
            "{2$$ & $$a|b|__c__}",
            ["a & b", *(f"a & {colour}" for colour in GREENS), "b & a", *(f"b & {colour}" for colour in GREENS)]
            + [f"{colour} & a" for colour in GREENS]
            + [f"{colour} & b" for colour in GREENS],
        ),
        ("__s/d__", FROM_D),
        ("__d__", FROM_D),
        ("__s/*__ {a|}", [f"{text} {end}" for text in FROM_D for end in ("a", "")]),
        (
            "__**__",
            [*FROM_D[:4], "a", "b", "blue", "c", "d", "e", "f", "g", "red", "y", "light green", "dark green"],
        ),
        ("{ a | b } c", ["a  c", "b  c"]),
        ("{\n a\n |b\n}", ["a\n ", "b\n"]),
        ("{ 2$$ and $$ a|b}", ["a and b", "b and a"]),
        (r"\{a|b\} }", [r"\a }", r"\b\ }"]),
        ("{}", [""]),
        ("{abc}", ["abc"]),
        ("{2::a|b}", ["a", "b"]),
        ("{ 0.5:: a | .5::b|3.::c}", [" a ", "b", "c"]),
        ("(a:1.2) [b] {<lora:x:0.5>|<lora:y:1>}", ["(a:1.2) [b] <lora:x:0.5>", "(a:1.2) [b] <lora:y:1>"]),
    ],
)
def test_every_variant_comes_in_its_order(prompt: str, variants: list[str], folder: Path) -> None:
    assert variants_of(prompt, folder) == variants


@pytest.mark.parametrize(
    ("prompt", "variants"),
    [
        ("{x|__s/*__}", ["x", *FROM_D]),
        ("{2$$ – $$a|b}", ["a – b", "b – a"]),
        ("{2$$ # $$a|b}", ["a # b", "b # a"]),
        ("{2$$\n$$a|b}", ["a\nb", "b\na"]),
        ("{2$$$$a|b}", ["ab", "ba"]),
    ],
)
def test_what_dynamicprompts_stumbles_over(prompt: str, variants: list[str], folder: Path) -> None:
    assert variants_of(prompt, folder) == variants


def test_choices_too_many_to_be_listed_have_the_same_order(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    prompts = ["{2$$1|2|__c__|__many__}", "{1-3$$__many__}", "{2$$a|{b|c}|{d|e|f}}", "x {1|{2|3}|__many__}"]
    listed = [variants_of(prompt, folder) for prompt in prompts]
    monkeypatch.setattr("studio.batches.grammar.MAX_LISTED", 0)
    assert [variants_of(prompt, folder) for prompt in prompts] == listed


def test_signs_of_comments_and_variables_are_text() -> None:
    prompt = "100% #1 $5 https://x /* {a 50% #2 $3 //|b} a__b"
    assert variants_of(prompt) == ["100% #1 $5 https://x /* a 50% #2 $3 // a__b", "100% #1 $5 https://x /* b a__b"]


def test_a_column_is_a_place_for_its_value() -> None:
    (text,) = variants_of("a {colour} { type }", columns=("colour", "type"))
    assert fill(text, ("red", "boot"), 0) == "a red boot"


def test_a_column_may_stand_inside_a_variant() -> None:
    texts = variants_of("{a {colour} shoe|boots}", columns=("colour",))
    assert [fill(text, ("red",), 0) for text in texts] == ["a red shoe", "boots"]


def test_a_value_is_never_looked_into() -> None:
    (text,) = variants_of("a {colour}", columns=("colour", "type"))
    assert fill(text, ("{x|y} {type} __c__", "boot"), 0) == "a {x|y} {type} __c__"


def test_a_word_in_braces_that_is_no_column_is_remembered() -> None:
    reader = TemplateReader(("colour",), Wildcards(Path("none")))
    reader.read("a {color} {colour} {a|b}")
    assert list(reader.words) == ["color"]


def test_weights_count_where_chance_draws() -> None:
    variants = TemplateReader((), Wildcards(Path("none"))).read("{3::a|b}")
    counts = Counter(variants.draw(random.Random(seed)) for seed in range(4000))
    assert abs(counts["a"] - 3000) < 4 * (4000 * 0.75 * 0.25) ** 0.5


def test_a_wildcard_line_may_have_a_weight(tmp_path: Path) -> None:
    variants = TemplateReader((), Wildcards(wildcard_folder(tmp_path, c="9::red\nblue"))).read("__c__")
    counts = Counter(variants.draw(random.Random(seed)) for seed in range(2000))
    assert set(counts) == {"red", "blue"}
    assert abs(counts["red"] - 1800) < 4 * (2000 * 0.9 * 0.1) ** 0.5


def test_several_are_drawn_without_one_twice() -> None:
    choice = Choice((Text("a"), Text("b"), Text("c")), (1, 1, 1), 2, 3, "+")
    drawn = [choice.draw(random.Random(seed)).split("+") for seed in range(200)]
    assert {len(texts) for texts in drawn} == {2, 3}
    assert all(len(set(texts)) == len(texts) for texts in drawn)


def test_what_weighs_nothing_is_never_drawn() -> None:
    choice = Choice((Text("a"), Text("b")), (0, 1), 1, 2, "+")
    assert {choice.draw(random.Random(seed)) for seed in range(50)} == {"b"}


def test_the_last_part_of_a_chain_changes_first() -> None:
    chain = Chain((Choice((Text("a"), Text("b")), (1, 1)), Choice((Text("x"), Text("y")), (1, 1))))
    assert [chain.at(index) for index in range(4)] == ["ax", "ay", "bx", "by"]


def test_wildcards_that_call_each_other_in_a_circle_are_told(tmp_path: Path) -> None:
    folder = wildcard_folder(tmp_path, a="x __b__", b="{y|__a__}")
    with pytest.raises(BatchError, match="call each other in a circle: a → b → a"):
        variants_of("__a__", folder)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a {b|{c}", r"a \{ has no \} behind it: \{b\|\{c\}\. Close it"),
        ("{colour} {b {colour}", r"behind it: \{b \{colour\}\. Close it"),
        ("__colr__", r"there is no wildcard 'colr' in .*wild, which has: c, many, s/d\. Put a file colr\.txt there"),
        ("__../x__", r"there is no wildcard '\.\./x'"),
        ("${x={a|b}} ${x}", r"variables and wrappers \(\$\{…\}\) are not understood"),
        ("%{a ... $${b|c}}", r"variables and wrappers \(%\{…\}\)"),
        ("{~a|b}", r"signs that say how to draw"),
        (
            "{a$$b|c}",
            r"\{a\$\$b\|c\} is not understood from character 3 on, at \$\$b\|c\}: \$\$ follows the number of parts",
        ),
        ("x {{colour}$$b}", r"^\{\{colour\}\$\$b\} is not understood from character 10 on, at \$\$b\}"),
        ("{a|__c_}", r"from character 4 on, at __c_\}: a wildcard"),
        ("{0::a|0::b}", r"has no weight above 0"),
        ("__{colour}__", r"the name of a wildcard cannot hold a column, got __\{colour\}__"),
        ("{a|__{colour}__}", r"the name of a wildcard cannot hold a column, got __\{colour\}__"),
        ("{" * 13 + "a" + "}" * 13, r"up to 12 deep"),
        ("{a|\ue000}", r"the sign U\+E000 stands for something else"),
    ],
)
def test_what_is_not_understood_is_said(prompt: str, message: str, folder: Path) -> None:
    with pytest.raises(BatchError, match=message):
        variants_of(prompt, folder, ("colour",))


def test_a_wildcard_without_lines_is_told(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match=r"the wildcard 'c' in .* holds no value"):
        variants_of("__c__", wildcard_folder(tmp_path, c="# only this\n"))


def test_a_wildcard_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("root:x:0:0", encoding="utf-8")
    (tmp_path / "wildcards").mkdir()
    (tmp_path / "wildcards/c.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(BatchError, match=r"c\.txt is a link out of its folder\. Put the file itself there"):
        variants_of("__c__", tmp_path / "wildcards")


def test_wildcards_in_other_encodings_are_read(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_bytes("grün\nweiß".encode("latin-1"))
    (tmp_path / "d.txt").write_bytes("\ufeffgrün".encode("utf-16-le"))
    assert variants_of("__c__", tmp_path) == ["grün", "weiß"]
    assert variants_of("__d__", tmp_path) == ["grün"]
