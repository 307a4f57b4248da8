"""Make a CLIP tokenizer that knows the captions' words: byte-pair encoding, each frequent word one token."""

import argparse
import collections
import itertools
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from attributes import ShoeAttributes
from captions import make_caption
from picture_set import load_picture_attributes
from transformers import CLIPTokenizer

Pair: TypeAlias = tuple[str, str]

START_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 77
"""The length of CLIP's sequences, start and end counted."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The command line of this script."""

    pictures: Path
    output: Path
    max_merges: int
    captions_per_picture: int
    seed: int


def parse_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line, or the given arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True, help="folder that make_pictures.py filled")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tokenizer")
    parser.add_argument("--max-merges", type=int, default=480, help="most pairs to join (default: 480)")
    parser.add_argument("--captions-per-picture", type=int, default=3, help="captions to read (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="for the captions' wording (default: 0)")
    return Settings(**vars(parser.parse_args(arguments)))


def write_captions(attributes: Sequence[ShoeAttributes], *, rounds: int, seed: int) -> list[str]:
    """Caption every picture, then every picture again, for so many rounds."""
    rng = random.Random(seed)
    return [make_caption(shoe, rng) for _ in range(rounds) for shoe in attributes]


def count_words(captions: Iterable[str]) -> collections.Counter[str]:
    """Count words and single signs, in the order they are first met."""
    return collections.Counter(word for text in captions for word in re.findall(r"[a-z]+|[^\sa-z]", text.lower()))


def learn_merges(word_counts: collections.Counter[str], *, max_merges: int) -> list[Pair]:
    """Learn byte-pair encoding (https://arxiv.org/abs/1508.07909): join the commonest neighbours, again and again.

    Ends early when every word is one token. Of equally common pairs the one met first is joined.
    """
    spellings = {word: [*word[:-1], word[-1] + "</w>"] for word in word_counts}
    merges: list[Pair] = []
    while len(merges) < max_merges:
        pair_counts: collections.Counter[Pair] = collections.Counter()
        for word, symbols in spellings.items():
            for pair in itertools.pairwise(symbols):
                pair_counts[pair] += word_counts[word]
        if not pair_counts:
            break
        commonest = pair_counts.most_common(1)[0][0]
        merges.append(commonest)
        spellings = {word: join_pair(symbols, commonest) for word, symbols in spellings.items()}
    return merges


def join_pair(symbols: Sequence[str], pair: Pair) -> list[str]:
    """Return the symbols with every occurrence of the pair, from the left, made one symbol."""
    joined: list[str] = []
    index = 0
    while index < len(symbols):
        if tuple(symbols[index : index + 2]) == pair:
            joined.append(pair[0] + pair[1])
            index += 2
        else:
            joined.append(symbols[index])
            index += 1
    return joined


def byte_symbols() -> list[str]:
    """Return a visible character for each of the 256 bytes, in the order of CLIP's and GPT-2's vocabularies."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    num_hidden = 256 - len(visible)
    return [chr(code) for code in visible] + [chr(256 + index) for index in range(num_hidden)]


def make_vocabulary(merges: Sequence[Pair]) -> dict[str, int]:
    """Number the bytes, the bytes that end a word, the joined pairs, then the start and end tokens."""
    symbols = byte_symbols()
    tokens = [
        *symbols,
        *(symbol + "</w>" for symbol in symbols),
        *(first + second for first, second in merges),
    ]
    return {token: index for index, token in enumerate([*tokens, START_TOKEN, END_TOKEN])}


def make_tokenizer(captions: Iterable[str], *, folder: Path, max_merges: int) -> CLIPTokenizer:
    """Learn a tokenizer from captions and save it in the folder, which is made if need be."""
    merges = learn_merges(count_words(captions), max_merges=max_merges)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocabulary_file.write_text(json.dumps(make_vocabulary(merges), ensure_ascii=False), encoding="utf-8")
    merges_file.write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(str(vocabulary_file), str(merges_file), pad_token=END_TOKEN, model_max_length=MAX_TOKENS)
    tokenizer.save_pretrained(folder)
    return tokenizer


def main(arguments: Sequence[str] | None = None) -> None:
    """Caption the pictures, learn their words and save the tokenizer."""
    settings = parse_settings(arguments)
    attributes = load_picture_attributes(settings.pictures)
    captions = write_captions(attributes, rounds=settings.captions_per_picture, seed=settings.seed)
    tokenizer = make_tokenizer(captions, folder=settings.output, max_merges=settings.max_merges)
    print(f"{len(tokenizer)} tokens from {len(captions)} captions are in {settings.output}")


if __name__ == "__main__":
    main()
