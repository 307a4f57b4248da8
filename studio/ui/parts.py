"""Sending the page only what changed: each part of it carries a digest, and the page says which ones it has."""

import hashlib
from collections.abc import Mapping
from typing import Any

import gradio as gr

# A part's new value or properties, as a gradio event listener returns them: never a component, whose `repr`
# does not show its properties.
Update = str | dict[str, Any]
Seen = dict[str, str]


def changed_parts(parts: Mapping[str, Update], seen: Seen | None) -> tuple[list[Update], Seen]:
    """Replace every part that the page already shows by `gr.skip()`; also return what it will have seen then."""
    now = digests_of(parts)
    before = seen or {}
    updates = [gr.skip() if before.get(name) == now[name] else update for name, update in parts.items()]
    return updates, now


def digests_of(parts: Mapping[str, Update]) -> Seen:
    """A digest of each part, by its name."""
    return {name: digest_of(update if isinstance(update, str) else repr(update)) for name, update in parts.items()}


def digest_of(words: str) -> str:
    """Sixteen hexadecimal digits."""
    return hashlib.blake2b(words.encode(errors="surrogatepass"), digest_size=8).hexdigest()
