"""Captions changed many at once: find and replace, words before and after, repeated words taken out."""

import re
from collections.abc import Sequence

from pydantic import Field

from studio.dataset.row import DatasetRow
from studio.dataset.template import tidy
from studio.settings import Settings


class BulkChange(Settings):
    """What to do to each caption, in this order."""

    find: str = Field("", title="Find", max_length=500, description="Text to look for in each caption.")
    replace: str = Field("", title="Replace with", max_length=500, description="Empty: the text found is taken out.")
    match_case: bool = Field(False, title="Match case", description="Tell capitals from small letters.")
    whole_words: bool = Field(True, title="Whole words", description="“shoe” is then not found in “shoes”.")
    remove_repeats: bool = Field(
        False,
        title="Remove repeated words",
        description="Of equal parts between commas the first stays; a word doubled by mistake is said once.",
    )
    prefix: str = Field(
        "", title="Words before", max_length=500, description="Such as a trigger word. Not added where it is already."
    )
    suffix: str = Field("", title="Words after", max_length=500, description="Not added where they are already.")


def changed_captions(rows: Sequence[DatasetRow], change: BulkChange) -> dict[str, str]:
    """The captions that the change would make other than they are, by key."""
    changed = {row.key: change_caption(row.caption, change) for row in rows}
    return {row.key: changed[row.key] for row in rows if changed[row.key] != row.caption}


def change_caption(caption: str, change: BulkChange) -> str:
    """One caption, changed."""
    text = caption
    if change.find:
        pattern = re.escape(change.find)
        if change.whole_words:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        text = re.sub(pattern, lambda _: change.replace, text, flags=0 if change.match_case else re.IGNORECASE)
        text = text if text == caption else tidy(text)
    if change.remove_repeats:
        text = _without_repeats(text)
    prefix, suffix = change.prefix.strip(), change.suffix.strip()
    if prefix and not _starts_with(text, prefix):
        text = _joined(prefix, text)
    if suffix and not _starts_with(text[::-1], suffix[::-1]):
        text = _joined(text, suffix)
    return " ".join(text.split())


def describe(change: BulkChange, num_captions: int) -> str:
    """What was done, for the undo button."""
    parts = [f"“{change.find}” → “{change.replace}”"] if change.find else []
    parts += ["repeats removed"] if change.remove_repeats else []
    parts += [f"“{change.prefix.strip()}” before"] if change.prefix.strip() else []
    parts += [f"“{change.suffix.strip()}” after"] if change.suffix.strip() else []
    return f"{', '.join(parts)} in {num_captions:,} captions"


def _starts_with(text: str, words: str) -> bool:
    """Whether the words stand there as words, and not as the beginning of longer ones."""
    rest = text.strip()[len(words) : len(words) + 1]
    return text.strip().casefold().startswith(words.casefold()) and not (rest.isalnum() and words[-1:].isalnum())


def _joined(first: str, second: str) -> str:
    gap = "" if second.startswith((",", ";")) else " "
    return f"{first.rstrip()}{gap}{second.lstrip()}".strip()


def _without_repeats(caption: str) -> str:
    text = re.sub(r"\b(\w+)(\s+\1\b)+", r"\1", caption, flags=re.IGNORECASE)
    parts = [part.strip() for part in text.split(",")]
    first: dict[str, str] = {}
    for part in parts:
        first.setdefault(part.casefold(), part)
    return ", ".join(part for part in first.values() if part) if len(parts) > 1 else text
