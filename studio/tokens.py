"""Counting a prompt's tokens as the model will, without torch: the page shows what fits and what is cut off."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from studio.prompts import parse_weights, take_lora_tags

PART_TOKENS = 75  # of CLIP's 77, two mark the beginning and the end


@dataclass(frozen=True)
class TokenCount:
    """How many tokens a prompt has, how many parts of 75 it fills, and its text past the first part."""

    num_tokens: int
    num_parts: int
    cut_off: str


@lru_cache(maxsize=1)
def _read_tokenizer(file: Path, _modified_ns: int) -> Tokenizer:
    """Read it once: Stable Diffusion 1.5's has three megabytes, and every key that is pressed asks for it."""
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()  # the file keeps what the engine set: 77 tokens, whatever the prompt
    tokenizer.no_truncation()
    return tokenizer


class TokenCounter:
    """Counts with one model's tokenizer, from the JSON file that the engine writes when it loads a model."""

    def __init__(self, file: Path) -> None:
        self._tokenizer = _read_tokenizer(file, file.stat().st_mtime_ns)

    def count_plain(self, caption: str) -> int:
        """How many tokens a caption has, every character of it a word's: training knows no tags and no weights."""
        return len(self._tokenizer.encode(caption, add_special_tokens=False))

    def count(self, prompt: str) -> TokenCount:
        """Count a prompt; LoRA tags and weights are not words.

        Raises:
            SettingsError: where a LoRA tag in it is wrong.
        """
        total, cut_off = 0, ""
        for piece in parse_weights(take_lora_tags(prompt)[0]):
            encoding = self._tokenizer.encode(piece.text, add_special_tokens=False)
            room = PART_TOKENS - total
            if cut_off:
                cut_off += piece.text  # with the spaces at its beginning, which are no tokens
            elif len(encoding.ids) > room:
                cut_off = piece.text[encoding.offsets[room][0] :]
            total += len(encoding.ids)
        return TokenCount(total, max(1, -(-total // PART_TOKENS)), cut_off)
