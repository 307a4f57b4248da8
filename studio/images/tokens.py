"""Counting a prompt's tokens as the model will, without torch: the page shows what fits and what is cut off."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE

from studio.core.files import FileStamp, file_stamp, read_text
from studio.core.language import _
from studio.core.paths import assets_folder
from studio.core.settings import SHIPPED_MODEL
from studio.images.prompts import parse_weights, take_lora_tags, unlike_a1111

_MAX_SHOWN = 90
TOKENIZER, VOCABULARY, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
PART_TOKENS = 75  # of CLIP's 77, two mark the beginning and the end


@dataclass(frozen=True)
class TokenCount:
    """How many tokens a prompt has, how many parts of 75 it fills, and its text past the first part."""

    num_tokens: int
    num_parts: int
    cut_off: str


@lru_cache(maxsize=2)
def _read_tokenizer(file: Path, _stamp: FileStamp) -> Tokenizer:
    """Read it once: Stable Diffusion 1.5's has three megabytes, and every key that is pressed asks for it."""
    if file.name == VOCABULARY:
        tokenizer = Tokenizer.from_str(read_text(_folder_of(SHIPPED_MODEL) / TOKENIZER))
        merges = [(left, right) for left, right in map(str.split, read_text(file.with_name(MERGES)).split("\n")[1:-1])]
        model = BPE(json.loads(read_text(file)), merges, unk_token="<|endoftext|>", end_of_word_suffix="</w>")
        tokenizer.model = model  # how text is split is CLIP's, whatever the vocabulary
    else:
        tokenizer = Tokenizer.from_str(read_text(file))
    tokenizer.no_padding()  # the file keeps what the engine set: 77 tokens, whatever the prompt
    tokenizer.no_truncation()
    return tokenizer


class TokenCounter:
    """Counts with one model's tokenizer: the JSON file that the engine writes on loading it, or `tokenizer_of`."""

    def __init__(self, file: Path) -> None:
        self._tokenizer = _read_tokenizer(file, file_stamp(file))

    def count_plain(self, caption: str) -> int:
        """How many tokens a caption has, every character of it a word's: training knows no tags and no weights."""
        return len(self._tokenizer.encode(caption, add_special_tokens=False))

    def count(self, prompt: str) -> TokenCount:
        """Count a prompt; LoRA tags and weights are not words.

        Raises:
            SettingsError: where a LoRA tag in it is wrong.
        """
        sections, cut_off = [0], [""]  # between one BREAK and the next
        for piece in parse_weights(take_lora_tags(prompt)[0]):
            if piece.after_break:
                sections.append(0)
                cut_off.append("")
            encoding = self._tokenizer.encode(piece.text, add_special_tokens=False)
            room = PART_TOKENS - sections[-1]
            if cut_off[-1]:
                cut_off[-1] += piece.text  # with the spaces at its beginning, which are no tokens
            elif len(encoding.ids) > room:
                cut_off[-1] = piece.text[encoding.offsets[room][0] :]
            sections[-1] += len(encoding.ids)
        filled = sections if sections[-1] or len(sections) == 1 else sections[:-1]  # BREAK at the end begins nothing
        num_parts = sum(max(1, -(-total // PART_TOKENS)) for total in filled)
        return TokenCount(sum(sections), num_parts, " … ".join(filter(None, cut_off)))


def tokenizer_of(model: str = "") -> Path:
    """The tokenizer of a model that is not loaded: the built-in model's own, or the one of all others.

    Args:
        model: as in `ModelSettings.model`; "" where it is not known.
    """
    if model == SHIPPED_MODEL:
        return _folder_of(SHIPPED_MODEL) / TOKENIZER
    return _folder_of("sd15") / VOCABULARY


def _folder_of(asset: str) -> Path:
    return assets_folder() / asset / "tokenizer"


def prompt_notes(prompt: str, *, long_prompt: bool | None, tokens: TokenCounter | None = None) -> tuple[str, ...]:
    """What of a prompt acts otherwise here than in A1111, a sentence each: its commands, and what is cut off.

    Args:
        long_prompt: None where there is no such setting, and what is too long is always cut off.
        tokens: of the model; Stable Diffusion 1's without it.

    Raises:
        SettingsError: where a LoRA tag in it is wrong.
    """
    notes = unlike_a1111(prompt)
    # No token is shorter than a byte, so most prompts need no counting.
    if long_prompt or len(prompt.encode("utf-8", "replace")) <= PART_TOKENS:
        return notes
    cut_off = " ".join((tokens or TokenCounter(tokenizer_of())).count(prompt).cut_off.split())
    if not cut_off:
        return notes
    shown = cut_off if len(cut_off) <= _MAX_SHOWN else cut_off[: _MAX_SHOWN - 1] + "…"
    if long_prompt is None:
        note = _("Cut off after {limit} tokens: “{words}”.", limit=PART_TOKENS, words=shown)
    else:
        note = _(
            "Cut off after {limit} tokens: “{words}” (or switch on “Long prompts”, long_prompt).",
            limit=PART_TOKENS,
            words=shown,
        )
    return (*notes, note)
