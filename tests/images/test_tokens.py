"""Tokens are counted as the model's own tokenizer counts them, and what is cut off is told to the letter."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from studio.core.errors import SettingsError
from studio.core.paths import assets_folder
from studio.core.settings import SHIPPED_MODEL
from studio.images.prompts import parse_weights
from studio.images.tokens import PART_TOKENS, TokenCount, TokenCounter, prompt_notes, tokenizer_of

WORDS = [
    "red,",
    "shoe",
    "white!",
    "sneaker's",
    "42",
    "photography",
    "é",
    "naïve",
    "星",
    "👟",
    "👩\u200d👧",
    "½",
    "<|endoftext|>",
]
WHOLE_WORDS = ["shoes", "red", "photo", "of", "a"]  # one token each


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    loaded: CLIPTokenizer = CLIPTokenizer.from_pretrained(assets_folder() / SHIPPED_MODEL / "tokenizer")
    return loaded


@pytest.fixture(scope="module")
def counter(tokenizer: CLIPTokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenCounter:
    return written_counter(tokenizer, tmp_path_factory.mktemp("tokenizer"))


def written_counter(tokenizer: CLIPTokenizer, folder: Path) -> TokenCounter:
    """As the engine process does it when it loads a model."""
    file = folder / "tokenizer.json"
    file.write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    return TokenCounter(file)


def num_tokens(tokenizer: CLIPTokenizer, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False).input_ids)


PROMPTS = [
    "professional product photo of black casual shoes, white background",
    "a shoe",
    "SHOE Shoe shoe",
    "  a   shoe\n\tred ",
    "l'été à la plage, naïve café",
    "e\u0301 and \u00e9",
    "白い靴 на белом фоне أحذية",
    "👟👩‍👩‍👧 ½ ™ \u200b \u00a0",
    "<|startoftext|> a shoe <|endoftext|>",
    "1234567890 a1b2",
    "!!!...???",
    "\0\x01",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_tokens_are_counted_as_transformers_does(counter: TokenCounter, tokenizer: CLIPTokenizer, prompt: str) -> None:
    assert counter.count(prompt).num_tokens == num_tokens(tokenizer, prompt)


@pytest.fixture(scope="module")
def tokenizer_of_sd15() -> CLIPTokenizer:
    loaded: CLIPTokenizer = CLIPTokenizer.from_pretrained(assets_folder() / "sd15" / "tokenizer")
    return loaded


@given(st.text() | st.lists(st.sampled_from(PROMPTS + WORDS)).map(" ".join))
def test_before_a_model_is_loaded_tokens_are_stable_diffusions(tokenizer_of_sd15: CLIPTokenizer, text: str) -> None:
    assert TokenCounter(tokenizer_of()).count_plain(text) == num_tokens(tokenizer_of_sd15, text)


def test_only_the_built_in_model_has_few_words(tokenizer: CLIPTokenizer) -> None:
    caption = "a shoe, sneakers, photography, studio lighting"
    assert TokenCounter(tokenizer_of()).count_plain(caption) == 9
    assert TokenCounter(tokenizer_of("runwayml/anything")).count_plain(caption) == 9
    assert TokenCounter(tokenizer_of(SHIPPED_MODEL)).count_plain(caption) == num_tokens(tokenizer, caption) > 9


@pytest.mark.parametrize("prompt", PROMPTS)
def test_what_the_tokenizer_was_called_with_before_does_not_matter(tmp_path: Path, prompt: str) -> None:
    used: CLIPTokenizer = CLIPTokenizer.from_pretrained(assets_folder() / SHIPPED_MODEL / "tokenizer")
    expected = num_tokens(used, prompt + " shoe" * 100)
    used("a shoe", padding="max_length", max_length=77, truncation=True)
    assert written_counter(used, tmp_path).count(prompt + " shoe" * 100).num_tokens == expected


def test_another_models_tokenizer_in_the_same_file_is_read_anew(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    other: CLIPTokenizer = CLIPTokenizer.from_pretrained(assets_folder() / "sd15" / "tokenizer")
    counts = []
    for second, loaded in enumerate((tokenizer, other)):
        written_counter(loaded, tmp_path)
        os.utime(tmp_path / "tokenizer.json", (second, second))
        counts.append(TokenCounter(tmp_path / "tokenizer.json").count("sneaker").num_tokens)
    assert counts == [num_tokens(tokenizer, "sneaker"), num_tokens(other, "sneaker")]
    assert counts[0] != counts[1]


@pytest.mark.parametrize("prompt", ["", " ", "\n\t", "()", "<lora:x:1>", "<lora:x:1> <lora:y:0.5>"])
def test_a_prompt_without_words_has_no_tokens_and_one_part(counter: TokenCounter, prompt: str) -> None:
    assert counter.count(prompt) == TokenCount(num_tokens=0, num_parts=1, cut_off="")


@pytest.mark.parametrize("prompt", ["a (red:1.3) shoe", "a ((red)) shoe", "[a] red shoe", "(a (red:1.2) shoe:0.7)"])
def test_weights_are_not_counted(counter: TokenCounter, prompt: str) -> None:
    assert counter.count(prompt) == counter.count("a red shoe")


def test_lora_tags_are_not_counted(counter: TokenCounter) -> None:
    assert counter.count("a red shoe, <lora:white-ground:0.8>") == counter.count("a red shoe")


def test_brackets_that_are_words_are_counted(counter: TokenCounter, tokenizer: CLIPTokenizer) -> None:
    assert counter.count(r"a \(red\) shoe").num_tokens == num_tokens(tokenizer, "a (red) shoe")


def test_a_wrong_tag_is_told(counter: TokenCounter) -> None:
    with pytest.raises(SettingsError, match="must be a number between"):
        counter.count("a <lora:x:much>")


@pytest.mark.parametrize(("num_words", "num_parts"), [(1, 1), (75, 1), (76, 2), (150, 2), (151, 3)])
def test_every_75_tokens_fill_a_part(counter: TokenCounter, num_words: int, num_parts: int) -> None:
    count = counter.count(" ".join(["shoes"] * num_words))
    assert (count.num_tokens, count.num_parts) == (num_words, num_parts)


def test_75_tokens_are_not_cut(counter: TokenCounter) -> None:
    assert counter.count("shoes " * PART_TOKENS).cut_off == ""


def test_what_is_past_75_tokens_is_cut_off(counter: TokenCounter) -> None:
    assert counter.count("shoes " * PART_TOKENS + "Red  shoe!").cut_off == "Red  shoe!"


@pytest.mark.parametrize(
    ("rest", "cut_off"),
    [
        ("(red:1.3) blue", "red blue"),
        ("a (red:1.3)  (blue:1.2)\n[white] shoe", "a red  blue\nwhite shoe"),
        ("(red:1.2) (blue:1.2)", "red blue"),
        ("red <lora:x:1>blue", "red blue"),
        (r"\(red\)", "(red)"),
        ("étoile 星 👟 (naïve:1.2) é", "étoile 星 👟 naïve é"),
    ],
)
def test_what_is_cut_off_keeps_its_spaces_between_weights(counter: TokenCounter, rest: str, cut_off: str) -> None:
    assert counter.count("shoes " * PART_TOKENS + rest).cut_off.strip() == cut_off


def test_a_cut_inside_of_a_weight_is_where_it_belongs(counter: TokenCounter) -> None:
    prompt = "shoes " * (PART_TOKENS - 2) + "(red blue white:1.2) photo"
    assert counter.count(prompt).cut_off == "white photo"


def test_a_character_that_is_cut_in_its_middle_is_told_whole(counter: TokenCounter, tokenizer: CLIPTokenizer) -> None:
    assert num_tokens(tokenizer, "👟") > 1
    assert counter.count("shoes " * (PART_TOKENS - 1) + "👟 blue").cut_off == "👟 blue"


def test_the_switch_for_long_prompts_is_named_where_there_is_one() -> None:
    long = " ".join(["shoe"] * 75) + " sole"
    (note,) = prompt_notes(long, long_prompt=False)
    assert note == "Cut off after 75 tokens: “sole” (or switch on “Long prompts”, long_prompt)."
    assert prompt_notes(long, long_prompt=None) == ("Cut off after 75 tokens: “sole”.",)
    assert prompt_notes(long, long_prompt=True) == ()


def test_what_is_kept_and_what_is_cut_off_are_the_prompt(counter: TokenCounter) -> None:
    chooser = random.Random(11)
    for _ in range(200):
        words = [chooser.choice(WORDS) for _ in range(chooser.randrange(120))]
        prompt = " ".join(f"({word}:1.{chooser.randrange(3)})" if chooser.random() < 0.2 else word for word in words)
        text = "".join(piece.text for piece in parse_weights(prompt))
        count = counter.count(prompt)
        assert text.endswith(count.cut_off)
        assert bool(count.cut_off) == (count.num_tokens > PART_TOKENS)


def test_what_is_kept_fills_the_first_part(counter: TokenCounter, tokenizer: CLIPTokenizer) -> None:
    chooser = random.Random(12)
    for _ in range(200):
        prompt = " ".join(chooser.choice(WHOLE_WORDS) for _ in range(chooser.randrange(76, 150)))
        kept = prompt.removesuffix(counter.count(prompt).cut_off)
        assert num_tokens(tokenizer, kept) == PART_TOKENS
