"""Make the tokenizer of Stable Diffusion 1.x, all 49,408 tokens of it, from the merges that OpenAI published for CLIP.

The merges are `bpe_simple_vocab_16e6.txt.gz`, which openai/CLIP (MIT) and the package `open_clip_torch` carry.
Only the standard library is needed.
"""

import argparse
import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

Pair: TypeAlias = tuple[str, str]

MERGES_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
NUM_TOKENS = 49_408
START_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 77
"""The length of CLIP's sequences, start and end counted."""


def read_merges(file: Path) -> list[Pair]:
    """The pairs that CLIP joins, commonest first: as many of the file's as leave room for bytes and special tokens.

    Raises:
        ValueError: where the file is another one.
    """
    packed = file.read_bytes()
    if hashlib.sha256(packed).hexdigest() != MERGES_SHA256:
        raise ValueError(f"{file} is not CLIP's bpe_simple_vocab_16e6.txt.gz: its SHA-256 is another.")
    num_merges = NUM_TOKENS - 2 * 256 - 2
    lines = gzip.decompress(packed).decode("utf-8").split("\n")[1 : num_merges + 1]  # the first line is a heading
    pairs = [line.split() for line in lines]
    return [(first, second) for first, second in pairs]


def byte_symbols() -> list[str]:
    """A visible character for each of the 256 bytes, in the order of CLIP's vocabulary."""
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
        START_TOKEN,
        END_TOKEN,
    ]
    return {token: index for index, token in enumerate(tokens)}


def write_tokenizer(merges: Sequence[Pair], folder: Path) -> None:
    """Write the files that CLIPTokenizer reads. Of two joined pairs that spell the same, the later has the number."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_TOKENS,
        "bos_token": START_TOKEN,
        "eos_token": END_TOKEN,
        "pad_token": END_TOKEN,
        "unk_token": END_TOKEN,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
    }
    contents = {
        "vocab.json": json.dumps(make_vocabulary(merges), ensure_ascii=False, separators=(",", ":")),
        "merges.txt": "\n".join(["#version: 0.2", *map(" ".join, merges)]),
        "tokenizer_config.json": json.dumps(settings, indent=2),
    }
    for name, content in contents.items():
        (folder / name).write_text(content + "\n", encoding="utf-8", newline="\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the merges and write the tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("merges", type=Path, help="bpe_simple_vocab_16e6.txt.gz")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tokenizer")
    options = parser.parse_args(arguments)
    merges = read_merges(options.merges)
    write_tokenizer(merges, options.output)
    print(f"{len(make_vocabulary(merges)):,} tokens are in {options.output}")


if __name__ == "__main__":
    main()
