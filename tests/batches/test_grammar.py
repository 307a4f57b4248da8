"""The grammar of groups: what is written is read back, and a mistake is found where it is."""

from random import Random

import pytest

from studio.batches.grammar import GrammarError, Group, Option, WildcardName, parse_group

TEXTS = ("a", "b c", "50%", "#1", "$5", "https://x", "/* y", "(a:1.2)", "a_b", "é–", "\ta", "2", "1-2", ":", "\\")
NAMES = ("c", "s/d", "s/*", "**", "a_b", " c ")
SEPARATORS = (" and ", "|", " ", ";", " – ", "\n", "#", " $ ", "")
WEIGHTS = {"": 1.0, "2::": 2.0, "0.5::": 0.5, ".25::": 0.25, "3.::": 3.0, "0::": 0.0}


def random_group(random: Random, depth: int = 0) -> tuple[str, Group]:
    """A group as it may be written, and what it means."""
    texts, options = [], []
    for _ in range(random.randint(1, 4)):
        text, option = random_option(random, depth)
        texts.append(text)
        options.append(option)
    bound, least, most = random_bound(random, len(options))
    separator = random.choice(SEPARATORS) if bound and random.random() < 0.5 else None
    head = bound + (f"{separator}$$" if separator is not None else "")
    written = "{" + random.choice(["", " ", "\n "]) + head + "|".join(texts) + "}"
    return written, Group(tuple(options), least, most, "," if separator is None else separator)


def random_bound(random: Random, num_options: int) -> tuple[str, int, int]:
    low, high = random.randint(0, 3), random.randint(3, 12)
    return random.choice(
        [
            ("", 1, 1),
            (f"{low}$$", low, low),
            (f"{low}-{high}$$", low, high),
            (f"{high}-{low}$$", low, high),
            (f"-{high}$$", 1, high),
            (f"{low}-$$", min(low, num_options), max(low, num_options)),
        ]
    )


def random_option(random: Random, depth: int) -> tuple[str, Option]:
    start, weight = random.choice(list(WEIGHTS.items()))
    texts, parts = [], list[str | WildcardName | Group]()
    for _ in range(random.randint(0, 3)):
        kind = random.choice(["text", "wildcard", "group"] if depth < 3 else ["text", "wildcard"])
        if kind == "text" and not (parts and isinstance(parts[-1], str)):
            texts.append(random.choice(TEXTS))
            parts.append(texts[-1])
        elif kind == "wildcard":
            name = random.choice(NAMES)
            texts.append(f"__{name}__")
            parts.append(WildcardName(name))
        elif kind == "group":
            text, group = random_group(random, depth + 1)
            texts.append(text)
            parts.append(group)
    return random.choice(["", " ", "\r\n"]) + start + "".join(texts), Option(tuple(parts), weight)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_written_is_read_back(seed: int) -> None:
    random = Random(seed)
    for _ in range(100):
        written, group = random_group(random)
        assert parse_group(written) == group, written


def test_space_is_dropped_only_before_an_option_and_its_weight() -> None:
    assert parse_group("{ 2$$ 3:: a | b }") == Group((Option((" a ",), 3.0), Option(("b ",))), 2, 2)


def test_a_number_that_is_not_in_its_place_is_text() -> None:
    assert parse_group("{a 2::b|3 ::c|-1::d}") == Group((Option(("a 2::b",)), Option(("3 ::c",)), Option(("-1::d",))))
    assert parse_group("{1-2|~a}") == Group((Option(("1-2",)), Option(("~a",))))


def test_a_dollar_alone_is_text_beside_the_signs_of_a_bound() -> None:
    assert parse_group("{2$$$5|$6}") == Group((Option(("$5",)), Option(("$6",))), 2, 2)


@pytest.mark.parametrize(
    ("text", "rest", "message"),
    [
        ("{a$$b}", "$$b}", "follows the number of parts"),
        ("{2 $$a|b}", "$$a|b}", "follows the number of parts"),
        ("{-$$a|b}", "$$a|b}", "follows the number of parts"),
        ("{1234567890$$a|b}", "$$a|b}", "follows the number of parts"),
        ("{2$$ $$a$$|b}", "$$|b}", "follows the number of parts"),
        ("{2$$ | {a|b$$c}}", "$$c}}", "follows the number of parts"),
        ("{a|__c}", "__c}", "a wildcard has two underscores"),
        ("{a__|b__}", "__|b__}", "a wildcard has two underscores"),
        ("{____}", "____}", "a wildcard has two underscores"),
        ("{a|__c{x|y}__}", "__c{x|y}__}", "a wildcard has two underscores"),
        ("{~a|b}", "~a|b}", "signs that say how to draw"),
        ("{a|{ !b}}", "!b}}", "signs that say how to draw"),
        ("{a|__@c__}", "@c__}", "signs that say how to draw"),
        ("{a| -0.5::b}", "-0.5::b}", "a weight is a number from 0 on"),
        ("{a|" + "9" * 400 + "::b}", "9" * 400 + "::b}", "a weight is a number from 0 on"),
    ],
)
def test_a_mistake_is_found_where_it_is(text: str, rest: str, message: str) -> None:
    with pytest.raises(GrammarError, match=message) as caught:
        parse_group(text)
    assert text[caught.value.position :] == rest
