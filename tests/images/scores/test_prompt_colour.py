"""A prompt's colour is the subject's; ground and parts have theirs."""

import pytest

from studio.images.scores.colour import rgb_of
from studio.images.scores.image import asked_colours


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("black casual shoes, white background", ("black",)),
        ("white sneakers, white background", ("white",)),
        ("White Leather Loafers", ("white",)),
        ("Navy Blue Casual Shoes", ("navy",)),
        ("light-blue sandals", ("light blue",)),
        ("dark green boots in front of white", ("dark green",)),
        ("a pair of grey or gray boots", ("grey",)),
        ("red and white sneakers with black laces, white ground", ("red", "white")),
        ("on a white background, red shoes", ("red",)),
        ("white and grey background, red shoes", ("red",)),
        ("red boots against a grey wall", ("red",)),
        ("green shoes on green grass", ("green",)),
        ("tan canvas shoes, white background", ("tan",)),
        ("white canvas sneakers, on a white canvas", ("white",)),
        ("black shoes in studio", ("black",)),
        ("black high heel shoes", ("black",)),
        ("red shoes on white soles", ("red",)),
        ("sneakers, white rubber sole, blue", ("blue",)),
        ("shoes in white", ("white",)),
        ("casual shoes, off-white", ("off white",)),
    ],
)
def test_the_subjects_colour_is_found(prompt: str, asked: tuple[str, ...]) -> None:
    assert asked_colours(prompt) == asked


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "casual shoes",
        "shoes, white background",
        "shoes on white",
        "shoes on a plain white",
        "boots against a grey wall",
        "boots, white ground",
        "shoes, grey textured background",
        "shoes, (white studio background:1.3)",
        "<lora:red-shoes:0.8> leather shoes, white seamless paper",
        "shoes in a white studio",
        "shoes isolated on pure white",
        "shoes with gold buckle",
        "bored shoes, tangerine, golden hour",
    ],
)
def test_grounds_parts_and_other_words_are_no_colour(prompt: str) -> None:
    assert asked_colours(prompt) == ()


def test_the_words_that_were_promised_are_known() -> None:
    words = [
        "black",
        "white",
        "grey",
        "gray",
        "brown",
        "tan",
        "beige",
        "navy",
        "blue",
        "green",
        "olive",
        "red",
        "burgundy",
        "maroon",
        "pink",
        "purple",
        "orange",
        "yellow",
        "gold",
        "silver",
        "cream",
        "khaki",
        "teal",
    ]
    table = "Navy Blue|Off White|Grey Melange|Turquoise Blue|Coffee Brown|Mushroom Brown|Sea Green|Lime Green|Skin"
    table += "|Charcoal|Steel|Lavender|Magenta|Peach|Mustard|Bronze|Copper|Rust|Mauve|Rose|Nude|Taupe|Fluorescent Green"
    for word in [*words, "light blue", *table.lower().split("|")]:
        assert rgb_of(word) is not None, word
