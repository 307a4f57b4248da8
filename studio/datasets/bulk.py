"""Captions changed many at once: find and replace, words before and after, repeated words taken out, tags."""

import re
from collections.abc import Callable, Iterable

from pydantic import Field

from studio.core.errors import DatasetError
from studio.core.language import N_, _
from studio.core.settings import Settings
from studio.core.text import counted
from studio.datasets.captions import change_each, tidy
from studio.datasets.source import DatasetRow


class BulkChange(Settings):
    """What to do to each caption, in this order."""

    find: str = Field("", title=N_("Find"), max_length=500, description=N_("Text to look for in each caption."))
    replace: str = Field(
        "", title=N_("Replace with"), max_length=500, description=N_("Leave empty to delete what is found.")
    )
    match_case: bool = Field(False, title=N_("Match case"), description=N_("Distinguish upper and lower case."))
    whole_words: bool = Field(True, title=N_("Whole words"), description=N_("“shoe” then does not match “shoes”."))
    remove_repeats: bool = Field(
        False,
        title=N_("Remove repeated words"),
        description=N_("Keeps the first of identical comma-separated parts, and removes doubled words."),
    )
    prefix: str = Field(
        "", title=N_("Prefix"), max_length=500, description=N_("Such as a trigger word. Not added twice.")
    )
    suffix: str = Field("", title=N_("Suffix"), max_length=500, description=N_("Not added twice."))


def changed_captions(rows: Iterable[DatasetRow], change: Callable[[str], str]) -> dict[str, str]:
    """The captions that the change would make other than they are, by key.

    Raises:
        DatasetError: where one is not whole yet: what is missing of it would be lost.
    """
    rows = tuple(rows)
    if num_awaiting := sum(row.awaits_check for row in rows):
        raise DatasetError(
            _(
                "The captions of {images} are not complete yet: the template takes words from the check, which is "
                "still running. Change them when it is done.",
                images=counted(num_awaiting, "image", "images"),
            )
        )
    changed = {row.key: change(row.caption) for row in rows}
    return {row.key: changed[row.key] for row in rows if changed[row.key] != row.caption}


def change_caption(caption: str, change: BulkChange) -> str:
    """One caption, changed: each of its alternatives."""
    return change_each(caption, lambda one: _changed(one, change))


def _changed(caption: str, change: BulkChange) -> str:
    text = caption
    if change.find:
        pattern = re.escape(change.find)
        if change.whole_words:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        text = re.sub(pattern, lambda found: change.replace, text, flags=0 if change.match_case else re.IGNORECASE)
        text = text if text == caption else tidy(text)
    if change.remove_repeats:
        text = _without_repeats(text)
    # As they would stand in a caption, so that a second time finds what the first one added.
    text, prefix, suffix = (" ".join(part.split()) for part in (text, change.prefix, change.suffix))
    if prefix and not _starts_with(text, prefix):
        text = _glued(prefix, text)
    if suffix and not _starts_with(text[::-1], suffix[::-1]):
        text = _glued(text, suffix)
    return " ".join(text.split())


def without_words(caption: str, words: str) -> str:
    """The caption without comma-separated words or phrases, in whichever case they stand there."""
    for phrase in tags_of(words):
        caption = change_caption(caption, BulkChange(find=phrase))
    return caption


def tags_of(caption: str) -> list[str]:
    """The comma-separated parts of a caption."""
    return [tag for part in caption.split(",") if (tag := " ".join(part.split()))]


def with_tag(caption: str, tag: str) -> str:
    """The caption with a tag at its end, and at that of each alternative, where it has none like it."""
    return change_each(caption, lambda one: _with_tag(one, tag))


def _with_tag(caption: str, tag: str) -> str:
    tags = tags_of(caption)
    known = {part.casefold() for part in tags}
    new = [part for part in tags_of(tag) if part.casefold() not in known]
    return ", ".join([*tags, *new]) if new else caption


def without_tag(caption: str, tag: str) -> str:
    """The caption without a tag, in whichever case it stands there."""
    return change_each(caption, lambda one: _without_tag(one, tag))


def _without_tag(caption: str, tag: str) -> str:
    tags, gone = tags_of(caption), {part.casefold() for part in tags_of(tag)}
    kept = [part for part in tags if part.casefold() not in gone]
    return ", ".join(kept) if len(kept) < len(tags) else caption


def describe(change: BulkChange, num_captions: int) -> str:
    """What was done, for the undo button."""
    parts = [f"“{change.find}” → “{change.replace}”"] if change.find else []
    parts += [_("repeats removed")] if change.remove_repeats else []
    parts += [_("“{text}” before", text=change.prefix.strip())] if change.prefix.strip() else []
    parts += [_("“{text}” after", text=change.suffix.strip())] if change.suffix.strip() else []
    return _("{changes} in {captions}", changes=", ".join(parts), captions=counted(num_captions, "caption", "captions"))


def _starts_with(text: str, words: str) -> bool:
    """Whether the words stand there as words, and not as the beginning of longer ones."""
    rest = text.strip()[len(words) : len(words) + 1]
    return text.strip().casefold().startswith(words.casefold()) and not (rest.isalnum() and words[-1:].isalnum())


def _glued(first: str, second: str) -> str:
    gap = "" if second.startswith((",", ";")) else " "
    return f"{first.rstrip()}{gap}{second.lstrip()}".strip()


def _without_repeats(caption: str) -> str:
    text = re.sub(r"\b(\w+)(\s+\1\b)+", r"\1", caption, flags=re.IGNORECASE)
    parts = [part.strip() for part in text.split(",")]
    first: dict[str, str] = {}
    for part in parts:
        first.setdefault(part.casefold(), part)
    return ", ".join(part for part in first.values() if part) if len(parts) > 1 else text
